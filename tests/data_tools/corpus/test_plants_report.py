"""The account of a published corpus against what was planted in it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.plants_report import corpus_fates, report_plants
from data_tools.corpus.recipe import load_recipe
from data_tools.corpus.run import build_corpus
from data_tools.corpus.why import fates
from data_tools.inputs import InputError

from ..small_tokenizer import make_tokenizer
from .raw_corpus import QUESTION, records, write_corpus, write_recipe

COUNT = 300


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, Any]]]:
    """The directory of a published corpus, its truth, and the documents that went in."""
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory, COUNT)
    web = [{"name": "web", "files": [str(directory / "web.jsonl")]}]
    stages = [
        {"name": "many", "parts": [{"name": "en", "langs": ["en"], "epochs": 2.5}]},
        {"name": "few", "parts": [{"name": "all", "epochs": 0.5}]},
    ]
    tokenizer = make_tokenizer(directory / "tokenizer")
    recipe = load_recipe(write_recipe(directory, tokenizer, sources=web, stages=stages))
    build_corpus(recipe)
    documents = records(COUNT)
    truth = directory / "plants.jsonl"
    truth.write_text("".join(json.dumps(planted(document)) + "\n" for document in documents))
    return recipe.output, truth, documents


def planted(document: dict[str, Any]) -> dict[str, Any]:
    plants: list[dict[str, Any]] = []
    if "@" in document["text"]:
        plants.append({"kind": "e-mail", "values": document["text"].count("@")})
    if QUESTION.upper() in document["text"]:
        plants.append({"kind": "question", "of": "q1"})
    if "!!!" in document["text"]:
        plants.append({"kind": "symbols"})
    return {"id": document["id"], "plants": plants, "medical": False, "lang": "en"}


def test_every_document_has_one_fate(corpus: tuple[Path, Path, list[dict[str, Any]]]) -> None:
    output, _, documents = corpus
    found = list(corpus_fates(output))
    assert Counter(name for name, *_ in found) == Counter(document["id"] for document in documents)
    assert {step for _, step, _, _ in found} >= {None, "deduplicate", "decontaminate", "mix"}
    for name, step, reason, meta in found[::7]:
        (asked,) = fates(output, name)
        if step is None:
            assert asked.decision is None and meta == asked.meta
        else:
            assert asked.decision is not None
            assert (asked.decision["step"], asked.decision["reason"]) == (step, reason)


def test_the_report_shows_what_was_caught(corpus: tuple[Path, Path, list[dict[str, Any]]]) -> None:
    output, truth, documents = corpus
    funnel = report_plants(output, truth)
    rows = {(row["step"], row["kind"]): row for row in funnel["plants"]}
    leaks = sum(QUESTION.upper() in document["text"] for document in documents)
    row = rows["decontaminate", "question"]
    assert row["planted"] == leaks > 0
    assert (row["missed"], row["false_alarms"]) == (0, 0)
    addresses = rows["privacy", "e-mail"]
    drawn = {name for name, step, _, _ in corpus_fates(output) if step is None}
    reached = sum(document["text"].count("@") for document in documents if document["id"] in drawn)
    assert (addresses["caught"], addresses["missed"], addresses["false_alarms"]) == (reached, 0, 0)
    assert addresses["planted"] == sum(document["text"].count("@") for document in documents) > reached
    assert rows["rules", "symbols"]["recall"] == 1
    assert json.loads((output / "funnel.json").read_bytes())["plants"] == funnel["plants"]
    page = (output / "funnel.html").read_text(encoding="utf-8")
    assert 'id="plants"' in page and "question" in page[page.index('id="plants"') :]


def test_a_corpus_whose_report_was_added_to_is_not_made_again(
    corpus: tuple[Path, Path, list[dict[str, Any]]],
) -> None:
    output, truth, _ = corpus
    funnel = report_plants(output, truth)
    again = build_corpus(load_recipe(output.parent / "recipe.yaml"))
    assert (again.pieces_done, again.funnel) == (0, funnel)


def test_there_has_to_be_a_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no corpus"):
        report_plants(tmp_path, tmp_path / "plants.jsonl")
