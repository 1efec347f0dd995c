"""MedQA, MedMCQA and PubMedQA."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.tasks.data import EvaluationDataError, Record
from megatron_aquila.evaluation.tasks.sources.base import (
    Folder,
    Options,
    Part,
    Read,
    Source,
    letters_of,
    question,
    rows_of,
)

LABELS = ("yes", "no", "maybe")


def read_medqa(folder: Folder, options: Options) -> Read:
    """jind11/MedQA (questions/US/4_options) or the four-option builds of GBaker on Hugging Face."""
    found = {}
    for split, words in {"train": ("train",), "test": ("test",)}.items():
        names = [
            pattern.format(word)
            for word in words
            for pattern in (
                "US/4_options/phrases_no_exclude_{}.jsonl",
                "phrases_no_exclude_{}.jsonl",
                "US/{}.jsonl",
                "{}.jsonl",
                "{}.json",
                "data/{}-*.parquet",
                "{}-*.parquet",
            )
        ]
        path = folder.need(*names) if split == "test" else folder.find(*names)
        if path is None:
            continue
        records = [_medqa(path, line, row, split, n) for n, (line, row) in enumerate(rows_of(path))]
        found[split] = [Part(path, None, records)]
    return Read(found)


def _medqa(path: Path, line: int, row: Record, split: str, number: int) -> Record:
    if "ending0" in row:
        options = letters_of(row, path, line, [f"ending{n}" for n in range(4)])
        label = row.get("label")
        answer: Any = "ABCD"[label] if isinstance(label, int) and 0 <= label < 4 else str(label)
        text = row.get("sent1")
    else:
        options = row.get("options") or {}
        if isinstance(options, list):  # the question bank as [{"key": …, "value": …}]
            options = {option["key"]: option["value"] for option in options}
        answer, text = str(row.get("answer_idx")), row.get("question")
    if len(options) != 4:
        raise EvaluationDataError(
            f"{path}, line {line}: {len(options)} options where this task has 4: lay out the folder 4_options of MedQA"
        )
    return question(path, line, f"medqa-{split}-{number}", text, options, [answer], source="medqa", split=split)


def read_medmcqa(folder: Folder, options: Options) -> Read:
    """openlifescienceai/medmcqa (parquet: `cop` counts from 0) or the authors' data.zip (JSON lines: from 1)."""
    found, notes = {}, []
    for split, words in {"train": ("train",), "validation": ("validation", "dev", "valid")}.items():
        names = [p.format(w) for w in words for p in ("data/{}-*.parquet", "{}-*.parquet", "{}.json", "{}.jsonl")]
        path = folder.need(*names) if split == "validation" else folder.find(*names)
        if path is None:
            continue
        rows = list(rows_of(path))
        first = _cop_base(path, rows, options.cop_base)
        notes.append(f"{path.name}: cop counts from {first}")
        found[split] = [Part(path, None, [_medmcqa(path, line, row, split, first) for line, row in rows])]
    return Read(found, tuple(notes))


def _cop_base(path: Path, rows: list[tuple[int, Record]], asked: int | None) -> int:
    """Whether 0 or 1 is the first option: told by the numbers that occur, never by the name of the file.

    Raises:
        EvaluationDataError: both fit, or neither, or not what the user says.
    """
    seen = set()
    for line, row in rows:
        if not isinstance(row.get("cop"), int) or isinstance(row["cop"], bool):
            raise EvaluationDataError(f"{path}, line {line}: 'cop' must be a number, it is {row.get('cop')!r:.40}")
        seen.add(row["cop"])
    fits = {0: seen <= {0, 1, 2, 3}, 1: seen <= {1, 2, 3, 4}}
    if asked is not None and not fits[asked]:
        raise EvaluationDataError(f"{path}: 'cop' does not count from {asked}: its values are {sorted(seen)}")
    possible = [asked] if asked is not None else [first for first in fits if fits[first]]
    if not possible:
        raise EvaluationDataError(
            f"{path}: 'cop' must be 0–3 or 1–4, its values are {sorted(seen)} are the labels hidden?"
        )
    if len(possible) > 1:
        raise EvaluationDataError(
            f"{path}: 'cop' takes the values {sorted(seen)}, which fit options counted from 0 (Hugging Face) and "
            "from 1 (the authors' JSON): say which with --cop-base"
        )
    return possible[0]


def _medmcqa(path: Path, line: int, row: Record, split: str, first: int) -> Record:
    return question(
        path,
        line,
        str(row.get("id")),
        row.get("question"),
        letters_of(row, path, line, ("opa", "opb", "opc", "opd")),
        ["ABCD"[row["cop"] - first]],
        source="medmcqa",
        split=split,
        explanation=row.get("exp") or "",
        subject=row.get("subject_name"),
    )


def read_pubmedqa(folder: Folder, options: Options) -> Read:
    """pubmedqa/pubmedqa: data/ori_pqal.json and data/test_ground_truth.json.

    test is what test_ground_truth.json lists, in its order. Where the authors' own split of the file gives these very
    ids, train (450) and validation (50) are those of its fold 0, in its order, as lm-eval's `pubmedqa` uses them; else
    train is whatever is not test.
    """
    path, truth_path = folder.need("ori_pqal.json"), folder.need("test_ground_truth.json")
    rows, truth = _object(path), _object(truth_path)
    for pmid, label in truth.items():
        if pmid not in rows:
            raise EvaluationDataError(f"{truth_path}: {pmid} is not in {path}")
        if rows[pmid].get("final_decision") != label:
            raise EvaluationDataError(f"{truth_path}: {pmid} is {label!r}, and {path} says otherwise")
    splits, notes = {"test": list(truth), "train": [pmid for pmid in rows if pmid not in truth]}, []
    if len(rows) == 1000:
        test, train, validation = pubmedqa_fold_0(rows)
        if set(test) == set(truth):
            splits |= {"train": train, "validation": validation}
            notes.append("train and validation are the authors' fold 0")
    records = {split: [_pubmedqa(path, pmid, rows[pmid], split) for pmid in ids] for split, ids in splits.items()}
    files = {"test": truth_path}
    return Read({split: [Part(files.get(split, path), None, records[split])] for split in splits}, tuple(notes))


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvaluationDataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise EvaluationDataError(f"{path} must hold an object: PMID → row")
    return content


def _pubmedqa(path: Path, pmid: str, row: Any, split: str) -> Record:
    if not isinstance(row, dict) or row.get("final_decision") not in LABELS:
        raise EvaluationDataError(f"{path}: {pmid} has no final_decision out of {', '.join(LABELS)}")
    contexts = row.get("CONTEXTS")
    if not isinstance(contexts, list) or not all(isinstance(text, str) for text in contexts):
        raise EvaluationDataError(f"{path}: {pmid}: CONTEXTS must be a list of texts")
    return question(
        path,
        f"row {pmid}",
        pmid,
        row.get("QUESTION"),
        {label: label for label in LABELS},
        [row["final_decision"]],
        source="pubmedqa",
        split=split,
        explanation=row.get("LONG_ANSWER") or "",
        contexts=contexts,
    )


def pubmedqa_fold_0(rows: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """Ids of test, train and validation as preprocess/split_dataset.py draws them (seed 0; PubMedQA, MIT)."""
    generator = random.Random(0)

    def folds(ids: list[str], count: int) -> list[list[str]]:
        by_label: dict[str, list[str]] = {label: [] for label in LABELS}
        for pmid in ids:
            by_label[rows[pmid]["final_decision"]].append(pmid)
        parts: list[list[str]] = [[] for _ in range(count)]
        for same in by_label.values():
            generator.shuffle(same)
            size = math.ceil(len(same) / count)
            for n, part in enumerate(parts):
                part += same[n * size : (n + 1) * size] if n < count - 1 else same[n * size :]
        if len(parts[-1]) != len(parts[0]):
            for part in parts[:-1]:
                picked = generator.choice(part)
                parts[-1].append(picked)
                part.remove(picked)
        return parts

    rest, test = folds(list(rows), 2)
    validation, *others = folds(rest, 10)
    return test, [pmid for part in others for pmid in part], validation


_HF = "{}-00000-of-00001.parquet"

MEDQA = Source(
    "medqa",
    "MedQA, US, four options",
    "MIT (code; the data's own licence is not stated)",
    "github.com/jind11/MedQA; huggingface.co/datasets/GBaker/MedQA-USMLE-4-options",
    {"train": {None: 10178}, "test": {None: 1273}},
    read_medqa,
    [
        ["phrases_no_exclude_train.jsonl", "phrases_no_exclude_test.jsonl"],
        [
            "questions/US/4_options/phrases_no_exclude_train.jsonl",
            "questions/US/4_options/phrases_no_exclude_test.jsonl",
        ],
        ["train.json", "test.json"],
    ],
    optional=frozenset({"train"}),
)
MEDMCQA = Source(
    "medmcqa",
    "MedMCQA, validation",
    "Apache-2.0",
    "github.com/medmcqa/medmcqa; huggingface.co/datasets/openlifescienceai/medmcqa",
    {"train": {None: 182822}, "validation": {None: 4183}},
    read_medmcqa,
    [[f"data/{_HF.format(s)}" for s in ("train", "validation")], ["train.json", "dev.json"]],
    optional=frozenset({"train"}),
)
PUBMEDQA = Source(
    "pubmedqa",
    "PubMedQA, labelled, test",
    "MIT",
    "github.com/pubmedqa/pubmedqa",
    {"train": {None: 450}, "validation": {None: 50}, "test": {None: 500}},
    read_pubmedqa,
    [["data/ori_pqal.json", "data/test_ground_truth.json"], ["ori_pqal.json", "test_ground_truth.json"]],
    known={
        "ori_pqal.json": "8b3276be8942ebbd77f3ddcda12c1749bf0e490045a736fd8438ee40cf37a41d",
        "test_ground_truth.json": "939fe566f09017d13b1ca64d2ddfee0bc2374b366048152997669cccedc44d51",
    },
)
