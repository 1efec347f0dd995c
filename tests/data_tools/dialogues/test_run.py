"""A whole run on the clinic's raw files: every record accounted for, the same bytes however it was run or killed,
limits tuned without scoring again, and an index that holds what was selected.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
import zstandard
from megatron.core.datasets.indexed_dataset import IndexedDataset
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.clinic import make_world
from data_tools.clinic.raw_dialogues import HELD_OUT, LAYOUTS, PLANTS, write_raw_dialogues
from data_tools.corpus.batch import dialogue_text
from data_tools.corpus.run import CorpusSummary
from data_tools.corpus.why import fates
from data_tools.dialogues.deita_prompts import complexity_text, quality_text
from data_tools.dialogues.recipe import DialogueRecipe, load_recipe
from data_tools.dialogues.run import build_dialogues
from data_tools.inputs import InputError, RunError
from data_tools.scorers.training import train_scorer

from ..chat_samples import chat_tokenizer, rendered
from ..corpus.raw_corpus import published_bytes

REPOSITORY = Path(__file__).parents[3]
COUNT = 500
_SELECT = 7  # its place among the steps


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files, tokenizer, two scorers, and the recipe."""
    directory = tmp_path_factory.mktemp("raw")
    write_raw_dialogues(directory, make_world(0), count=COUNT, seed_count=60)
    tokenizer = chat_tokenizer(directory / "tokenizer")
    seeds = [json.loads(line) for line in (directory / "dialogue_seeds.jsonl").read_bytes().splitlines()]
    for name in ("complexity", "quality"):
        rows = []
        for number, seed in enumerate(seeds * 4):
            question, answer = (message["content"] for message in seed["messages"][:2])
            text = complexity_text(question) if name == "complexity" else quality_text(question, answer)
            # Longer ones score higher: a rule that a linear scorer can follow.
            score = 1 + 5 * min(1.0, len(question if name == "complexity" else answer) / 120)
            rows.append({"id": f"{number}", "text": text, "score": score, "lang": seed["lang"]})
        path = directory / f"{name}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        train_scorer([path], directory / name, kind="linear", task="regression", tokenizer=tokenizer)
    recipe = {
        "output": str(directory / "out"),
        "tokenizer": str(tokenizer),
        "max_length": 1024,
        "sources": [
            {"name": name, "format": _format(name), "files": [str(directory / "raw_dialogues" / layout.file)]}
            for name, layout in LAYOUTS.items()
        ],
        "steps": [
            {"step": "normalise"},
            {"step": "language"},
            {"step": "shape"},
            {"step": "unsafe"},
            {"step": "privacy"},
            {"step": "deduplicate"},
            {
                "step": "deita",
                "complexity": {"trained": str(directory / "complexity")},
                "quality": {"trained": str(directory / "quality")},
            },
            {"step": "select", "count": 150, "diversity": {"threshold": 0.95}},
        ],
        "max_bad_fraction": 0.5,
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return directory


def _format(source: str) -> str:
    return {"meddialog": "meddialog-zh"}.get(source, source)


@pytest.fixture(scope="module")
def made(raw: Path) -> CorpusSummary:
    return build_dialogues(recipe(raw))


def recipe(raw: Path, *overrides: str) -> DialogueRecipe:
    return load_recipe(raw / "recipe.yaml", overrides)


def everything(output: Path) -> dict[str, bytes]:
    """What was published, but for what says where it was made."""
    files = published_bytes(output)
    return {name: files[name] for name in files if not name.startswith(("work/", "imported/", "selected.manifest"))}


def kept(output: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((output / "dialogues" / "selected").glob("*.jsonl.zst")):
        with zstandard.open(path, "rb") as file:
            found += [json.loads(line) for line in file.read().splitlines()]
    return found


def test_every_record_of_every_file_is_accounted_for(raw: Path, made: CorpusSummary) -> None:
    read = made.funnel["read"]
    refused = [json.loads(line) for line in (made.output / "quarantine.jsonl").read_bytes().splitlines()]
    assert read["documents"] == COUNT
    assert read["units"] == COUNT + read["blank"] + sum(read["quarantined"].values())
    assert Counter(fault["reason"] for fault in refused) == read["quarantined"]
    for file in read["files"]:
        assert file["quarantined"] == sum(fault["file"] == file["path"] for fault in refused) > 0
    ids = {record["id"] for record in kept(made.output)}
    for path in (made.output / "decisions").glob("*.jsonl.zst"):
        with zstandard.open(path, "rb") as decisions:
            ids |= {json.loads(line)["id"] for line in decisions.read().splitlines()}
    truth = {json.loads(line)["id"] for line in (raw / PLANTS).read_bytes().splitlines()}
    assert ids == truth and len(ids) == COUNT


def test_every_step_took_what_was_planted_for_it(raw: Path, made: CorpusSummary) -> None:
    found: Counter[tuple[str, bool]] = Counter()
    taken = {"duplicate": "deduplicate", "unsafe": "unsafe", "bad-shape": "shape"}
    for line in (raw / PLANTS).read_bytes().splitlines():
        record = json.loads(line)
        kinds = {plant["kind"] for plant in record["plants"]}
        # Of equal ones the first in the input stays: a copy in an earlier file is kept, and its original goes.
        names = [record["id"], *(plant["of"] for plant in record["plants"] if plant["kind"] == "duplicate")]
        steps = {fate.decision["step"] for name in names for fate in fates(made.output, name) if fate.decision}
        for kind in kinds & set(taken):
            found[kind, taken[kind] in steps] += 1
    for kind in taken:
        assert found[kind, True] >= 0.9 * (found[kind, True] + found[kind, False]) > 0, (kind, found)


def test_the_index_holds_what_was_selected(raw: Path, made: CorpusSummary) -> None:
    records = kept(made.output)
    assert len(records) == 150 == made.funnel["stages"][0]["documents"]
    index, masks = (IndexedDataset(str(made.output / name)) for name in ("selected", "selected.loss_mask"))
    assert len(index) == len(masks) == len(records)
    for place in range(0, len(records), 17):
        ids, mask = rendered(raw / "tokenizer", records[place]["messages"])
        assert index[place].tolist() == ids and masks[place].tolist() == mask


def test_scores_and_masks_are_in_the_records(made: CorpusSummary) -> None:
    records = kept(made.output)
    for record in records:
        scores = record["scores"]
        products = [c * q for c, q in zip(scores["complexity"], scores["quality"], strict=True)]
        assert scores["deita"] == pytest.approx(sum(products) / len(products), abs=1e-5)
    assert "scores" not in records[0]["meta"]
    step = next(step for step in made.funnel["steps"] if step["name"] == "privacy")
    assert sum(step["counts"].values()) > 0
    assert any(record["meta"].get("privacy") for record in records)


def test_other_limits_score_nothing_again(raw: Path, made: CorpusSummary, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = build_dialogues(recipe(raw, f"output={output}"))
    again = build_dialogues(recipe(raw, f"output={output}"))
    assert (again.pieces_done, again.pieces_reused) == (0, first.pieces_done)
    scored = {path.name: path.stat().st_mtime_ns for path in (output / "work").glob("*.signatures")}
    fewer = build_dialogues(recipe(raw, f"output={output}", f"steps.{_SELECT}.count=80"))
    assert len(kept(output)) == 80 == fewer.funnel["stages"][0]["documents"]
    assert {path.name: path.stat().st_mtime_ns for path in (output / "work").glob("*.signatures")} == scored
    shards = len(list((output / "imported").glob("*.zst")))
    assert fewer.pieces_done == 2 * shards  # the last phase, and writing what stays
    best = sorted(kept(made.output), key=lambda record: -record["scores"]["deita"])[:80]
    assert {record["scores"]["deita"] for record in best} == {r["scores"]["deita"] for r in kept(output)}


def test_workers_change_no_byte(raw: Path, made: CorpusSummary, tmp_path: Path) -> None:
    build_dialogues(recipe(raw, f"output={tmp_path / 'out'}", "keep_work=false"), workers=2)
    assert everything(tmp_path / "out") == everything(made.output)
    assert not (tmp_path / "out" / "work").exists()


COMMAND = "import sys; from data_tools.cli import app; app(sys.argv[1:])"


def test_killed_while_importing_and_later_it_goes_on_to_the_same_bytes(
    raw: Path, made: CorpusSummary, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    kills = 0
    for directory, pieces in (("imported", 2), ("work", 4), ("work", 20)):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "dialogues", str(raw / "recipe.yaml"), f"output={output}", "--workers=1"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while process.poll() is None and len(list((output / directory).glob("*.json"))) < pieces:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    build_dialogues(recipe(raw, f"output={output}"))
    assert kept(output) == kept(made.output)
    assert everything(output) == everything(made.output)


def test_on_the_command_line(raw: Path, made: CorpusSummary, tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(app, ["dialogues", str(raw / "recipe.yaml")])
    assert result.exit_code == 0 and "selected: 150 dialogues" in result.stderr
    name = kept(made.output)[0]["id"]
    result = run(app, ["why", name, "--corpus", str(made.output)])
    assert f"{name}: kept" in result.stderr and "deita" in result.stderr
    source = raw / "raw_dialogues" / LAYOUTS["toyhom"].file
    output = tmp_path / "toyhom.jsonl"
    result = run(app, ["import", str(source), "--format", "toyhom", "--output", str(output)])
    assert result.exit_code == 0
    imported = [json.loads(line) for line in output.read_bytes().splitlines()]
    file = next(file for file in made.funnel["read"]["files"] if file["source"] == "toyhom")
    assert len(imported) == file["documents"] and imported[0]["lang"] == "zh"
    assert dialogue_text(tuple(imported[0]["messages"])).count("\n") >= 1
    assert "toyhom" in run(app, ["import", "--list"]).stdout


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sources.0.format=toyhon", "there is no importer 'toyhon'. Did you mean 'toyhom'?"),
        ("template=aquila", "which the chat template aquila needs"),
        ("steps.0.step=normalize", "needs a 'step' out of normalise"),
        ("sources.0.files=[nowhere.csv]", "source toyhom: there is no input nowhere.csv"),
        (f"sources.0.files=[{HELD_OUT}.txt]", "there is no input"),
    ],
)
def test_what_cannot_be_begun_is_said_first(raw: Path, tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises((InputError, RunError)) as caught:
        build_dialogues(recipe(raw, f"output={tmp_path / 'out'}", override))
    assert sentence in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
