"""PubMedQA: its two metrics, its split, and the published files where a folder of them is named."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path

import pytest

from megatron_aquila.evaluation.results import Item
from megatron_aquila.evaluation.tasks import catalog
from megatron_aquila.evaluation.tasks.data import load_split
from megatron_aquila.evaluation.tasks.fetch import fetch
from megatron_aquila.evaluation.tasks.items import choice_item
from megatron_aquila.evaluation.tasks.metrics import examination_accuracies, macro_f1, task_metrics
from tests.megatron_aquila.evaluation.tasks import published

FOLDER = os.environ.get("AQUILA_PUBMEDQA", "")


def guesses(questions: list[dict[str, object]], seed: int) -> list[Item]:
    rng = random.Random(seed)
    return [choice_item(question, [rng.gauss(0.4, 1), rng.gauss(0, 1), rng.gauss(-1, 1)]) for question in questions]


def official(items: list[Item]) -> tuple[float, float]:
    """What evaluation.py of pubmedqa/pubmedqa prints: scikit-learn's accuracy and macro F1."""
    from sklearn.metrics import accuracy_score, f1_score

    truth = [item.answer[0] for item in items]
    said = [item.said[0] for item in items if item.said]
    return accuracy_score(truth, said), f1_score(truth, said, average="macro")


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_the_official_ones(tmp_path: Path, seed: int) -> None:
    published.pubmedqa(tmp_path, 60, 7 + 5 * seed)
    fetch("pubmedqa", str(tmp_path), tmp_path / "data", any_rows=True)
    items = guesses(load_split(tmp_path / "data", "pubmedqa", "test"), seed)
    accuracy, f1 = official(items)
    assert math.isclose(sum(item.right for item in items) / len(items), accuracy)
    assert math.isclose(task_metrics(catalog.tasks()["aqm_pubmedqa"], items)["macro_f1"], f1)


def test_an_invalid_answer_counts_against_its_label() -> None:
    def item(answer: str, said: str | None) -> Item:
        return Item(id="x", cluster="x", right=answer == said, answer=(answer,), said=None if said is None else (said,))

    # yes: 1 said, 2 true, 1 both: 2/3; no: 1 said, 1 true: 1
    assert math.isclose(macro_f1([item("yes", "yes"), item("yes", None), item("no", "no")]), (2 / 3 + 1) / 2)


def test_examinations_are_averaged_as_cmb_does() -> None:
    """Two examinations of one type (3 of 4, 0 of 2) and one of another (1 of 1), by hand."""

    def items(subject: str, right: int, wrong: int, answer: str) -> list[Item]:
        return [
            Item(id="x", cluster="x", right=n < right, answer=tuple(answer), said=("A",), subject=subject)
            for n in range(right + wrong)
        ]

    found = examination_accuracies(
        [*items("护理/初级", 3, 1, "A"), *items("护理/中级", 0, 2, "AB"), *items("药师/执业", 1, 0, "A")]
    )
    assert found == {
        "mean_of_types": (0.375 + 1) / 2,
        "single_answer": 4 / 5,
        "several_answers": 0.0,
        "type/护理": 0.375,
        "type/药师": 1.0,
    }


@pytest.mark.skipif(not FOLDER, reason="AQUILA_PUBMEDQA names no folder of ori_pqal.json and test_ground_truth.json")
def test_the_published_files(tmp_path: Path) -> None:
    done = fetch("pubmedqa", FOLDER, tmp_path)
    assert done.splits == {"test": 500, "train": 450, "validation": 50}
    assert [file.as_published for file in done.files] == [True, True]
    questions = load_split(tmp_path, "pubmedqa", "test", rows=500)
    labels = [question["answer"][0] for question in questions]
    assert [labels.count(label) for label in ("yes", "no", "maybe")] == [276, 169, 55]
    path = next(Path(FOLDER).rglob("test_ground_truth.json"))
    assert {question["id"]: question["answer"][0] for question in questions} == json.loads(path.read_text())
    ids = [row["id"] for split in done.splits for row in load_split(tmp_path, "pubmedqa", split)]
    assert len(set(ids)) == 1000
    items = guesses(questions, 0)
    accuracy, f1 = official(items)
    assert math.isclose(sum(item.right for item in items) / 500, accuracy)
    assert math.isclose(macro_f1(items), f1)
