"""The demo's parts; as a whole it takes minutes, and is run by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from data_tools.dialogues.recipe import load_recipe as load_dialogues
from data_tools.manifest import manifest_path, read_manifest
from data_tools.preferences.recipe import load_pairs_recipe
from megatron_aquila.config_loader import load_config
from megatron_aquila.demo import STAGES, overrides, untrained
from megatron_aquila.demo_chat import prepare_dialogues, prepare_pairs
from megatron_aquila.demo_data import TEMPLATE, corpus_recipe, moves, prepare_data, tiny_recipe
from megatron_aquila.demo_evaluation import Answers
from megatron_aquila.demo_table import Row, evaluation_table, training_table
from megatron_aquila.evaluation.results import Item

SMALL: dict[str, Any] = {"raw_documents": 500, "seeds": 600, "workers": 1}


@pytest.mark.parametrize("stage", [stage.recipe for stage in STAGES])
def test_a_recipe_is_moved_with_every_path_it_has(stage: str, tmp_path: Path) -> None:
    assert "demo/" in load_config(tiny_recipe(stage)).model_dump_json()
    moved = load_config(tiny_recipe(stage), overrides(tmp_path / "elsewhere", stage))
    assert moved.output == tmp_path / "elsewhere" / "runs" / moved.output.name
    assert '"demo/' not in moved.model_dump_json()
    text = {"sft": "sft", "dpo": "pairs"}.get(stage, "corpus")
    assert {corpus.path.parent for corpus in (*moved.data.train, *(moved.data.valid or ()))} == {
        tmp_path / "elsewhere" / text
    }


def test_the_recipe_of_the_corpus_is_moved_and_makes_what_training_reads(tmp_path: Path) -> None:
    moved = corpus_recipe(tmp_path / "elsewhere")
    assert '"demo/' in corpus_recipe(Path("demo")).model_dump_json()
    assert '"demo/' not in moved.model_dump_json()
    trained = [
        load_config(tiny_recipe(name), overrides(tmp_path / "elsewhere", name)) for name in ("cpt_stage1", "cpt_stage2")
    ]
    assert [run.data.train[0].path for run in trained] == [moved.output / stage.name for stage in moved.stages]
    assert {run.data.tokenizer for run in trained} == {moved.tokenizer}
    # Every sample of stage 1 is of text that stage 1 has; a lower share is held out.
    training, asked = trained[0].training, moved.stages[0].tokens
    assert asked is not None
    assert training.steps * training.global_batch_size * trained[0].data.sequence_length <= 0.95 * asked


def test_each_stage_starts_from_the_one_before() -> None:
    runs = [load_config(tiny_recipe(stage.recipe)) for stage in STAGES]
    assert runs[0].model.weights is None
    assert [run.model.weights for run in runs[1:]] == [run.output for run in runs[:-1]]
    assert [run.output.name for run in runs] == [stage.run for stage in STAGES]
    assert [run.stage for run in runs] == ["cpt", "cpt", "sft", "dpo"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A small demo's directory, and the funnel of its corpus."""
    directory = tmp_path_factory.mktemp("demo")
    return directory, prepare_data(directory, Console(quiet=True), **SMALL)


def test_what_was_planted_in_the_raw_corpus_is_caught(prepared: tuple[Path, dict[str, Any]]) -> None:
    directory, funnel = prepared
    rows = {(row["step"], row["kind"]): row for row in funnel["plants"]}
    steps = {step for step, _ in rows}
    assert steps == {step["step"] for step in funnel["recipe"]["steps"]}
    planted = [orjson.loads(line) for line in (directory / "data" / "plants.jsonl").read_bytes().splitlines()]
    kinds = {plant["kind"] for truth in planted for plant in truth["plants"]} - {"look-alike"}
    assert kinds <= {kind for _, kind in rows}, "a kind that nobody was asked for"
    for (step, kind), row in rows.items():
        if step == "privacy":
            # "Doctor" before a name is no title that the step knows.
            lowest = 0.8 if kind in ("all", "name") else 1.0
        else:
            lowest = 0.9 if kind in ("low-quality", "near-duplicate") else 1.0
        assert row["recall"] is None or row["recall"] >= lowest, row
        assert row["precision"] is None or row["precision"] >= 0.9, row
    assert rows["decontaminate", "question"]["caught"] >= 5
    page = (directory / "corpus" / "funnel.html").read_text(encoding="utf-8")
    planted_part = page[page.index('<section id="plants"') :].partition("</section>")[0]
    for kind in kinds:
        assert kind in planted_part


def test_the_stages_are_what_training_reads(prepared: tuple[Path, dict[str, Any]]) -> None:
    directory, funnel = prepared
    for stage in funnel["stages"]:
        assert _manifest(directory / "corpus" / stage["name"])["kind"] == "documents"
        tokens = _manifest(directory / "corpus" / stage["name"])["counts"]["tokens"]
        documents = sum(part["documents"] for part in stage["parts"])
        assert tokens == stage["tokens"] + documents, "each document has an end"


def test_data_is_prepared_again_over_what_an_earlier_demo_left(prepared: tuple[Path, dict[str, Any]]) -> None:
    """And is the same: whatever was trained on it may go on."""
    directory, funnel = prepared
    datasets = [directory / "corpus" / stage["name"] for stage in funnel["stages"]]
    before = [_manifest(path)["files"] for path in datasets]
    again = prepare_data(directory, Console(quiet=True), **SMALL)
    assert again["plants"] == funnel["plants"]
    assert [_manifest(path)["files"] for path in datasets] == before


def test_the_recipes_of_dialogues_and_pairs_are_moved_and_make_what_training_reads(tmp_path: Path) -> None:
    sft = load_dialogues(tiny_recipe("data_sft"), moves("data_sft", load_dialogues, tmp_path))
    dpo = load_pairs_recipe(tiny_recipe("data_dpo"), moves("data_dpo", load_pairs_recipe, tmp_path))
    assert '"demo/' not in sft.model_dump_json() + dpo.model_dump_json()
    runs = {name: load_config(tiny_recipe(name), overrides(tmp_path, name)) for name in ("sft", "dpo")}
    assert [corpus.path for corpus in runs["sft"].data.train] == [sft.output / sft.name]
    read = [corpus.path for corpus in (*runs["dpo"].data.train, *(runs["dpo"].data.valid or ()))]
    assert read == [dpo.output / "pairs_train", dpo.output / "pairs_valid"]
    assert {run.data.tokenizer for run in runs.values()} == {sft.tokenizer, dpo.tokenizer}
    assert dpo.subjective is not None
    assert dpo.subjective.candidates.dialogues == (str(sft.output / "dialogues"),)


def test_raw_dialogues_become_what_fine_tuning_and_dpo_read(prepared: tuple[Path, dict[str, Any]]) -> None:
    """With a model of random weights in the place of stage 2's."""
    directory, _ = prepared
    untrained(directory).rename(directory / "export" / "stage2")
    console = Console(quiet=True)
    funnel = prepare_dialogues(directory, console, count=350, seeds=200, workers=1)
    rows = {(row["step"], row["kind"]): row for row in funnel["plants"]}
    for step in ("language", "shape", "unsafe", "decontaminate", "deduplicate"):
        (row, *_) = [row for (name, _), row in rows.items() if name == step]
        assert row["caught"] > 0 and row["recall"] >= 0.9 and row["precision"] >= 0.9, row
    assert rows["select", "poor-answer"]["recall"] > 0.5
    chat = _manifest(directory / "sft" / "selected")
    assert chat["kind"] == "dialogues" and chat["template"]["name"] == TEMPLATE
    assert chat["counts"]["documents"] == funnel["stages"][0]["documents"] > 175

    pairs = prepare_pairs(directory, console, workers=1)
    assert pairs["judge"]["agreement"] > 0.5
    sides = {name: _manifest(directory / "pairs" / name) for name in ("pairs_train", "pairs_valid")}
    assert {side["kind"] for side in sides.values()} == {"pairs"}
    made = sum(side["counts"]["documents"] for side in sides.values())
    assert made == sum(side["pairs"] for side in pairs["split"].values()) > 100


def _manifest(prefix: Path) -> dict[str, Any]:
    manifest = read_manifest(manifest_path(prefix))
    assert manifest is not None
    return manifest


def _items(right: int, n: int, subject: str | None = None) -> list[Item]:
    return [
        Item(
            id=f"{subject} {i}", cluster=str(i), right=i < right, answer=("A",), said=("B",), subject=subject, text="no"
        )
        for i in range(n)
    ]


def test_the_closing_tables_fit_a_screen() -> None:
    rows = [
        Row("before", Answers(_items(69, 288), _items(30, 123))),
        Row("stage 1", Answers(_items(125, 288), _items(112, 123)), None, 0.712, 0.744, 13886.2, 138.4),
        Row(
            "DPO",
            Answers(_items(288, 288), _items(0, 123), [*_items(284, 288, "wording"), *_items(220, 288, "fact")]),
            *(0.9375, 0.112, 0.2, 2000.0, 99.0),
        ),
    ]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(training_table(rows, pairs=240))
        console.print(evaluation_table(rows))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    trained, asked = [line for line in lines if line.lstrip().startswith("DPO")]
    assert trained.split() == ["DPO", "0.112", "0.200", "93.8%", "2,000", "99", "s"]
    # Wilson's interval of all right of n begins at n / (n + z²).
    assert asked.split()[1:5] == ["100.0", "(99–100)", "0.0", "(0–3)"]
    assert asked.split()[5:] == ["98.6", "(96–99)", "76.4", "(71–81)"]
    (first,) = [line for line in lines if "before" in line]
    assert first.split()[:3] == ["before", "24.0", "(19–29)"]
    (one, again) = [line for line in lines if "stage 1" in line]
    assert one.index("0.712") + len("0.712") == trained.index("0.112") + len("0.112"), "a number under another heading"
    assert again.split()[:3] == ["stage", "1", "43.4"]
    assert "Cloze: 288 questions" in capture.get() and "240 held-out pairs" in " ".join(capture.get().split())
