"""Small sets in the form in which others publish them, for tests: what is asked is made up."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.tasks.sources.subjects import CEVAL_VAL, CMMLU_TEST, MMLU_TEST

Rows = Sequence[Mapping[str, Any]]


def choice(name: str, number: int) -> dict[str, Any]:
    """A question with spaces at its ends, a quote and a comma, and its right letter."""
    rng = random.Random(f"{name} {number}")
    options = {letter: f'{name} "{letter}", {rng.randint(0, 999)} ' for letter in "ABCD"}
    return {"question": f" {name}: what is {number}? ", **options, "answer": rng.choice("ABCD")}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_parquet(path: Path, rows: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def mmlu(folder: Path, rows: Callable[[str], int]) -> None:
    for subject in MMLU_TEST:
        for split, count in (("dev", 5), ("test", rows(subject))):
            found = (choice(f"{subject} {split}", n) for n in range(count))
            write_csv(folder / "data" / split / f"{subject}_{split}.csv", ([*row.values()] for row in found))


def ceval(folder: Path, rows: Callable[[str], int]) -> None:
    for subject in CEVAL_VAL:
        for split, count in (("dev", 5), ("val", rows(subject))):
            header = ["id", "question", *"ABCD", "answer", "explanation"]
            found = [[n, *choice(f"{subject} {split}", n).values(), "因为"] for n in range(count)]
            write_csv(folder / split / f"{subject}_{split}.csv", [header, *found])


def cmmlu(folder: Path, rows: Callable[[str], int]) -> None:
    for subject in CMMLU_TEST:
        for split, count in (("dev", 5), ("test", rows(subject))):
            header = ["", "Question", *"ABCD", "Answer"]
            found = [[n, *choice(f"{subject} {split}", n).values()] for n in range(count)]
            write_csv(folder / "data" / split / f"{subject}.csv", [header, *found])


def medqa(folder: Path, test: int, train: int) -> None:
    for split, count in (("test", test), ("train", train)):
        found = []
        for n in range(count):
            row = choice(f"medqa {split}", n)
            options = {letter: row[letter] for letter in "ABCD"}
            answer = {"answer": options[row["answer"]], "answer_idx": row["answer"]}
            found.append({"question": row["question"], "options": options, "meta_info": "step1", **answer})
        write_jsonl(folder / "questions" / "US" / "4_options" / f"phrases_no_exclude_{split}.jsonl", found)


def medmcqa_rows(split: str, count: int, first: int) -> list[dict[str, Any]]:
    found = []
    for n in range(count):
        row = choice(f"medmcqa {split}", n)
        options = {f"op{letter.lower()}": row[letter] for letter in "ABCD"}
        labels = {"cop": "ABCD".index(row["answer"]) + first, "subject_name": "Anatomy", "exp": None}
        found.append({"id": f"{split}-{n}", "question": row["question"], **options, **labels})
    return found


def medmcqa(folder: Path, validation: int, train: int) -> None:
    """As on Hugging Face: parquet, `cop` from 0."""
    for split, count in (("validation", validation), ("train", train)):
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", medmcqa_rows(split, count, 0))


def pubmedqa(folder: Path, rows: int, test: int) -> dict[str, Any]:
    rng = random.Random(0)
    found = {
        str(10_000 + n): {
            "QUESTION": f"Does {n} help?",
            "CONTEXTS": [f"Background {n}.", f"Methods {n}."],
            "LABELS": ["BACKGROUND", "METHODS"],
            "MESHES": [],
            "final_decision": rng.choices(["yes", "no", "maybe"], [55, 34, 11])[0],
            "LONG_ANSWER": f"It may, {n} times.",
        }
        for n in range(rows)
    }
    write_json(folder / "ori_pqal.json", found)
    asked = rng.sample(list(found), test)
    write_json(folder / "test_ground_truth.json", {pmid: found[pmid]["final_decision"] for pmid in asked})
    return found


def cmb_exam(folder: Path, rows: int, solved: int) -> None:
    """Two examinations, a third of the questions with several answers, an option of one character."""
    asked, answers, val = [], [], []
    for n in range(rows + solved):
        several = n % 3 == 0
        labels = {
            "exam_type": "医师考试",
            "exam_class": ("规培结业", "执业医师")[n % 2],
            "exam_subject": "眼科",
            "question_type": "多项选择题" if several else "单项选择题",
        }
        row = {**labels, "question": f"第{n}题", "option": {"A": "钙", "B": f"甲{n}", "C": f"乙{n}", "D": f"丙{n}"}}
        answer = "ACD" if several else "ABCD"[n % 4]
        if n < rows:
            asked.append({"id": n + 1, **row})
            answers.append({"id": n + 1, **labels, "answer": answer})
        else:
            val.append({**row, "answer": answer, "explanation": "略"})
    write_json(folder / "CMB-Exam" / "CMB-test" / "CMB-test-choice-question-merge.json", asked)
    write_json(folder / "CMB-test-choice-answer.json", answers)
    write_json(folder / "CMB-Exam" / "CMB-val" / "CMB-val-merge.json", val)


def clinic(folder: Path) -> None:
    from data_tools.clinic.questions import questions
    from data_tools.clinic.world import make_world

    write_jsonl(folder / "questions.jsonl", list(questions(make_world(3, 12), limit=6)))
    asked = {"messages": [{"role": "user", "content": "What helps?"}], "answer": "tea", "values": ["tea", "rest"]}
    write_jsonl(folder / "exact_match.jsonl", [{"id": f"w{n}", **asked, "lang": "en", "split": "x"} for n in range(3)])
