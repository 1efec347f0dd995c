"""The whole road in small: the clinic's raw dialogues and exam questions → `build_dialogues` → `build_pairs` → indexes,
with the clinic's rule-based server as author and judge.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from megatron.core.datasets.indexed_dataset import IndexedDataset

from data_tools.clinic import make_world
from data_tools.clinic.raw_dialogues import LAYOUTS, PLANTS, write_raw_dialogues
from data_tools.clinic.server import MODEL, ClinicServer
from data_tools.dialogues.recipe import DialogueRecipe
from data_tools.dialogues.run import build_dialogues
from data_tools.preferences.recipe import PairsRecipe
from data_tools.preferences.run import build_pairs

from ..chat_samples import chat_tokenizer, rendered

FORMATS = {"meddialog": "meddialog-zh"}
Pairs = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files, dialogues and pairs; `pairs/` and `sft/` in it are what the two commands made."""
    directory = tmp_path_factory.mktemp("road")
    world = make_world(0)
    write_raw_dialogues(directory, world, count=400, seed_count=40)
    tokenizer = chat_tokenizer(directory / "tokenizer")
    sources = [
        {"name": name, "format": FORMATS.get(name, name), "files": [directory / "raw_dialogues" / layout.file]}
        for name, layout in LAYOUTS.items()
    ]
    for source in sources:
        source["files"] = [str(file) for file in source["files"]]
    tree = {
        "output": directory / "sft",
        "tokenizer": tokenizer,
        "max_length": 1024,
        "max_bad_fraction": 0.5,
        "sources": sources,
        "steps": [
            {"step": "normalise"},
            {"step": "language"},
            {"step": "shape", "lengths": {"least_question": {"zh": 2, "en": 5}}},
            {"step": "privacy"},
            {"step": "deduplicate"},
        ],
    }
    build_dialogues(DialogueRecipe.model_validate(tree))
    with ClinicServer(world) as server:
        model = {"model": MODEL, "base_url": server.url, "cache": directory / "answers", "backoff_seconds": 0.01}
        recipe = {
            "output": directory / "pairs",
            "tokenizer": tokenizer,
            "max_length": 1024,
            "subjective": {
                "candidates": {"dialogues": [str(directory / "sft" / "dialogues")], "draw": {"count": 40}},
                "author": model,
                "judge": model,
            },
            "objective": {
                "questions": [str(directory / "raw_dialogues" / LAYOUTS["cmb"].file)],
                "format": "cmb",
                "draw": {"count": 20},
            },
            "split": {"valid_share": 0.2},
            "max_bad_fraction": 0.5,
        }
        build_pairs(PairsRecipe.model_validate(recipe))
    return directory


@pytest.fixture(scope="module")
def sides(directory: Path) -> Pairs:
    return {
        side: [json.loads(line) for line in (directory / "pairs" / f"pairs_{side}.jsonl").read_bytes().splitlines()]
        for side in ("train", "valid")
    }


@pytest.fixture(scope="module")
def selected(directory: Path) -> dict[str, dict[str, Any]]:
    """What `build_dialogues` made, by id."""
    found = {}
    for path in (directory / "sft" / "dialogues").rglob("*.jsonl.zst"):
        with zstandard.open(path, "rb") as file:
            found |= {record["id"]: record for record in map(json.loads, file.read().splitlines())}
    return found


def test_the_index_holds_each_pair_as_chatml(directory: Path, sides: Pairs) -> None:
    for side, pairs in sides.items():
        index = IndexedDataset(str(directory / "pairs" / f"pairs_{side}"))
        masks = IndexedDataset(str(directory / "pairs" / f"pairs_{side}.loss_mask"))
        assert len(index) == len(masks) == 2 * len(pairs) > 0
        assert index.document_indices.tolist() == list(range(0, len(index) + 1, 2))
        for number, pair in enumerate(pairs):
            for place, answer in ((2 * number, pair["chosen"]), (2 * number + 1, pair["rejected"])):
                messages = [*pair["prompt"], *answer]
                ids, mask = rendered(directory / "tokenizer", messages, context=len(pair["prompt"]))
                assert index[place].tolist() == ids
                assert masks[place].tolist() == mask


def test_pairs_come_out_of_the_selected_dialogues(directory: Path, sides: Pairs, selected: Any) -> None:
    pairs = [pair for side in sides.values() for pair in side]
    kinds = Counter(pair["kind"] for pair in pairs)
    assert kinds["objective"] == 20 and kinds["subjective"] >= 20, kinds
    for pair in pairs:
        if pair["kind"] != "subjective":
            continue
        origin = selected[pair["meta"]["of"]]
        assert origin["meta"]["kind"] == "qa", "exam questions have a right answer, no better one"
        assert (pair["lang"], pair["source"]) == (origin["lang"], origin["source"])
        assert pair["prompt"] == origin["messages"][:-1]
        answers = {pair[side][0]["content"] for side in ("chosen", "rejected")}
        assert origin["messages"][-1]["content"] in answers and len(answers) == 2
    exam = [record for record in selected.values() if record["meta"]["kind"] == "options"]
    funnel = json.loads((directory / "pairs" / "funnel.json").read_bytes())
    steps = {step["name"]: step for step in funnel["kinds"][0]["steps"]}
    left_out = sum(row["count"] for row in steps["candidates"]["dropped"] if row["reason"] == "other-kind")
    assert left_out == len(exam) > 0
    assert steps["candidates"]["in"] == len(selected)


def test_answers_that_were_planted_as_poor_lose(directory: Path, sides: Pairs) -> None:
    """Rude, evasive and boastful ones; the author has a planted fault at times too, so not each of them."""
    poor = set()
    for line in (directory / PLANTS).read_bytes().splitlines():
        record = json.loads(line)
        if "poor-answer" in {plant["kind"] for plant in record["plants"]}:
            poor.add(record["id"])
    subjective = [pair for side in sides.values() for pair in side if pair["kind"] == "subjective"]
    winners: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for pair in subjective:
        winners[pair["meta"]["of"] in poor][pair["meta"]["winner"]] += 1
    assert winners[True]["new"] >= 0.8 * winners[True].total() > 0
    assert winners[False]["original"] > 0


def test_no_prompt_is_on_both_sides_and_every_file_is_as_its_manifest_says(directory: Path, sides: Pairs) -> None:
    def prompts(side: str) -> set[str]:
        return {json.dumps(pair["prompt"], ensure_ascii=False) for pair in sides[side]}

    assert not prompts("train") & prompts("valid")
    manifest = json.loads((directory / "pairs" / "manifest.json").read_bytes())
    for name, facts in manifest["files"].items():
        content = (directory / "pairs" / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, name
    assert manifest["prompts"].keys() == {"compare.v1.en", "compare.v1.zh", "doctor.v1.en", "doctor.v1.zh"}
