"""General subjects as they are published: none is medical, none is missing, and their files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_aquila.evaluation.tasks.sources.base import Folder, Options, Source
from megatron_aquila.evaluation.tasks.sources.general import (
    CMMLU_GENERAL,
    CMMLU_GENERAL_TEST,
    MMLU_GENERAL,
    MMLU_GENERAL_TEST,
)
from megatron_aquila.evaluation.tasks.sources.subjects import CMMLU_TEST, MMLU_TEST


def test_with_the_medical_and_the_near_ones_they_make_up_the_published_sets() -> None:
    """14,042 questions of 57 subjects (Hendrycks et al. 2021), 11,582 of 67 (Li et al. 2023)."""
    near = {"high_school_biology": 310, "human_aging": 223, "human_sexuality": 131, "nutrition": 306, "virology": 166}
    mmlu = {**MMLU_GENERAL_TEST, **MMLU_TEST, **near}
    assert (len(mmlu), sum(mmlu.values())) == (57, 14_042)
    near = {"college_medical_statistics": 106, "food_science": 143, "high_school_biology": 169}
    near |= {"human_sexuality": 126, "sports_science": 165}
    cmmlu = {**CMMLU_GENERAL_TEST, **CMMLU_TEST, **near}
    assert (len(cmmlu), sum(cmmlu.values())) == (67, 11_582)
    assert not MMLU_GENERAL_TEST.keys() & MMLU_TEST.keys() and not CMMLU_GENERAL_TEST.keys() & CMMLU_TEST.keys()


@pytest.mark.parametrize(
    ("source", "subjects", "name", "head", "row"),
    [
        (MMLU_GENERAL, MMLU_GENERAL_TEST, "{split}/{subject}_{split}.csv", "", "One and one is,1,2,3,4,B\n"),
        (
            CMMLU_GENERAL,
            CMMLU_GENERAL_TEST,
            "{split}/{subject}.csv",
            ",Question,A,B,C,D,Answer\n",
            "0,一加一等于,1,2,3,4,B\n",
        ),
    ],
)
def test_their_files_are_read(
    source: Source, subjects: dict[str, int], name: str, head: str, row: str, tmp_path: Path
) -> None:
    for split in ("dev", "test"):
        for subject in subjects:
            path = tmp_path / name.format(split=split, subject=subject)
            path.parent.mkdir(exist_ok=True)
            path.write_text(head + row * 2, encoding="utf-8")
    found = source.read(Folder(tmp_path), Options())
    assert {split: [part.subject for part in parts] for split, parts in found.splits.items()} == {
        split: list(subjects) for split in ("dev", "test")
    }
    records = [record for part in found.splits["test"] for record in part.records]
    assert len({record["id"] for record in records}) == len(records) == 2 * len(subjects)
    assert {(record["answer"][0], record["options"]["B"]) for record in records} == {("B", "2")}
