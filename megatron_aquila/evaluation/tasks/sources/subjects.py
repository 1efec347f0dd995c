"""MMLU, C-Eval and CMMLU: sets of subjects, with a file for each subject and split."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.tasks.data import EvaluationDataError, Record
from megatron_aquila.evaluation.tasks.sources.base import (
    LETTERS,
    Folder,
    Options,
    Part,
    Read,
    Source,
    letters_of,
    question,
    rows_of,
)

MMLU_TEST = {
    "anatomy": 135,
    "clinical_knowledge": 265,
    "college_biology": 144,
    "college_medicine": 173,
    "medical_genetics": 100,
    "professional_medicine": 272,
}
CEVAL_VAL = {"basic_medicine": 19, "clinical_medicine": 22, "physician": 49, "veterinary_medicine": 23}
CMMLU_TEST = {
    "anatomy": 148,
    "clinical_knowledge": 237,
    "college_medicine": 273,
    "genetics": 176,
    "nutrition": 145,
    "professional_medicine": 376,
    "traditional_chinese_medicine": 185,
    "virology": 169,
}
"""Subjects about medicine of haonan-li/CMMLU, which has no such category; rows counted in its repository."""


def read_mmlu(folder: Folder, options: Options) -> Read:
    """hendrycks/test (data.tar: data/test/anatomy_test.csv, without a header) or cais/mmlu (a parquet file a split)."""
    return read_subjects(
        folder, "mmlu", ("dev", "test"), MMLU_TEST, "{split}/{subject}_{split}.csv", "{subject}_{split}.csv"
    )


def read_ceval(folder: Folder, options: Options) -> Read:
    """ceval-exam.zip (val/physician_val.csv) or ceval/ceval-exam (parquet)."""
    return read_subjects(
        folder, "ceval", ("dev", "val"), CEVAL_VAL, "{split}/{subject}_{split}.csv", "{subject}_{split}.csv"
    )


def read_cmmlu(folder: Folder, options: Options) -> Read:
    """haonan-li/CMMLU (data/test/virology.csv), or the zip of its data set page, which holds test/virology.csv."""
    return read_subjects(folder, "cmmlu", ("dev", "test"), CMMLU_TEST, "{split}/{subject}.csv")


def read_subjects(folder: Folder, name: str, splits: tuple[str, ...], subjects: dict[str, int], *files: str) -> Read:
    """A part a subject and split.

    Args:
        name: mmlu, ceval or cmmlu: whose columns.
        files: what a file may be called, with {subject} and {split}; a parquet file is looked for last.
    """
    found: dict[str, list[Part]] = {}
    for split in splits:
        for subject in subjects:
            names = [pattern.format(split=split, subject=subject) for pattern in files]
            path = folder.need(*names, f"{subject}/{split}-*.parquet")
            rows = _headless(path) if name == "mmlu" and path.suffix == ".csv" else rows_of(path)
            records = [_question(path, line, row, name, split, subject, n) for n, (line, row) in enumerate(rows)]
            found.setdefault(split, []).append(Part(path, subject, records))
    return Read(found)


def _headless(path: Path) -> list[tuple[int, Record]]:
    """MMLU's rows: question, four options, letter."""
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if len(row) != 6:
                    raise EvaluationDataError(f"{path}, line {reader.line_num}: {len(row)} fields where MMLU has 6")
                rows.append((reader.line_num, dict(zip(("question", *"ABCD", "answer"), row))))
        except (csv.Error, UnicodeDecodeError) as error:
            raise EvaluationDataError(f"{path}, line {reader.line_num + 1}: {error}") from error
    return rows


def _question(path: Path, line: int, row: Record, name: str, split: str, subject: str, number: int) -> Record:
    row = {key.lower() if key in ("Question", "Answer") else key: cell for key, cell in row.items()}
    answer: Any = row.get("answer")
    if "choices" in row:
        choices = row["choices"] or []
        options = dict(zip(LETTERS, choices))
        answer = LETTERS[answer] if isinstance(answer, int) and 0 <= answer < len(choices) else answer
    else:
        options = letters_of(row, path, line)
    said = str(answer).strip()
    identity = f"{subject}-{split}-{row['id'] if name == 'ceval' and 'id' in row else number}"
    explanation = row.get("explanation") or ""
    return question(
        path,
        line,
        identity,
        row.get("question"),
        options,
        [said],
        source=name,
        split=split,
        explanation=explanation,
        subject=subject,
    )


def mirror_of(splits: tuple[str, ...], subjects: dict[str, int], *patterns: str) -> list[list[str]]:
    return [[p.format(split=split, subject=subject) for split in splits for subject in subjects] for p in patterns]


def rows_of_subjects(split: str, subjects: dict[str, int]) -> dict[str, dict[str | None, int]]:
    """Rows to expect of each subject; five of each are examples."""
    rows: dict[str, dict[str | None, int]] = {"dev": {}, split: {}}
    for subject, count in subjects.items():
        rows["dev"][subject] = 5
        rows[split][subject] = count
    return rows


_PARQUET = "{subject}/{split}-00000-of-00001.parquet"
_CSV = "{split}/{subject}_{split}.csv"

MMLU = Source(
    "mmlu",
    "MMLU, medical subjects",
    "MIT",
    "github.com/hendrycks/test; huggingface.co/datasets/cais/mmlu",
    rows_of_subjects("test", MMLU_TEST),
    read_mmlu,
    mirror_of(("dev", "test"), MMLU_TEST, _PARQUET, f"data/{_CSV}", _CSV),
)
CEVAL = Source(
    "ceval",
    "C-Eval, medical subjects, validation",
    "CC BY-NC-SA 4.0",
    "github.com/hkust-nlp/ceval; huggingface.co/datasets/ceval/ceval-exam",
    rows_of_subjects("val", CEVAL_VAL),
    read_ceval,
    mirror_of(("dev", "val"), CEVAL_VAL, _PARQUET, _CSV),
)
CMMLU = Source(
    "cmmlu",
    "CMMLU, medical subjects",
    "CC BY-NC-SA 4.0",
    "github.com/haonan-li/CMMLU",
    rows_of_subjects("test", CMMLU_TEST),
    read_cmmlu,
    mirror_of(("dev", "test"), CMMLU_TEST, "data/{split}/{subject}.csv", "{split}/{subject}.csv"),
)
