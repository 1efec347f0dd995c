"""CMB-Exam, and the dialogue sets: CMB-Clin, CMtMedQA, Huatuo."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.dialogues.importers import cmb
from data_tools.records import RecordError
from megatron_aquila.evaluation.tasks.data import EvaluationDataError, Record
from megatron_aquila.evaluation.tasks.sources.base import Folder, Options, Part, Read, Source, checked, rows_of

HUATUO_DRAWN = 500


def read_cmb_exam(folder: Folder, options: Options) -> Read:
    """FreedomIntelligence/CMB: data/CMB.zip (or what is in it), and data/CMB-test-choice-answer.json, which holds the
    test answers. Options of one character are kept (CMB's own worker and OpenCompass lose them).
    """
    asked = folder.need("CMB-test-choice-question-merge.json")
    answered = folder.need("CMB-test-choice-answer.json")
    answers = {str(row.get("id")): row for _, row in rows_of(answered)}
    test = []
    for line, row in rows_of(asked):
        key = answers.pop(str(row.get("id")), None)
        if key is None:
            raise EvaluationDataError(
                f"{asked}, line {line}: {answered.name} has no answer to the id {row.get('id')!r}"
            )
        for field in ("exam_type", "exam_class", "question_type"):
            if row.get(field) != key.get(field):
                raise EvaluationDataError(
                    f"{asked}, line {line}: {field} is {row.get(field)!r} and {answered.name} says {key.get(field)!r}: "
                    "the two files are of different versions"
                )
        test.append(_exam_question(asked, line, {**row, "answer": key.get("answer")}, "test", str(row["id"])))
    if answers:
        raise EvaluationDataError(f"{asked} lacks {len(answers):,} of the questions that {answered.name} answers")
    found = {"test": [Part(asked, None, test)]}
    if solved := folder.find("CMB-val-merge.json"):
        val = [_exam_question(solved, line, row, "val", f"val-{n}") for n, (line, row) in enumerate(rows_of(solved))]
        found["val"] = [Part(solved, None, val)]
    return Read(found)


def _exam_question(path: Path, line: int, row: Record, split: str, identity: str) -> Record:
    try:
        found = cmb.question_of(row)
    except RecordError as error:
        raise EvaluationDataError(f"{path}, line {line}: {error.detail}") from error
    labels = {key: row.get(key) or "" for key in ("exam_type", "exam_class", "exam_subject", "question_type")}
    return checked(
        path,
        line,
        {
            "id": identity,
            # As published: the importer's own text has no spaces at its ends, and the official prompt has them.
            "question": row["question"],
            "options": found.options,
            "answer": list(found.answer),
            "explanation": found.explanation,
            "source": "cmb_exam",
            "split": split,
            "meta": {"cluster": identity, "subject": f"{labels['exam_type']}/{labels['exam_class']}", **labels},
        },
    )


def read_cmb_clin(folder: Folder, options: Options) -> Read:
    """FreedomIntelligence/CMB: CMB-Clin/CMB-Clin-qa.json."""
    path = folder.need("CMB-Clin-qa.json")
    dialogues = []
    for line, row in rows_of(path):
        pairs = row.get("QA_pairs")
        if not isinstance(pairs, list) or not isinstance(row.get("description"), str):
            raise EvaluationDataError(f"{path}, line {line}: a case has a 'description' and 'QA_pairs'")
        rounds = [_round(path, line, pair, "question", "solution") for pair in pairs]
        meta = {"title": row.get("title")}
        dialogues.append(_dialogue(path, line, f"cmb-clin-{row.get('id')}", rounds, meta, case=row["description"]))
    return Read({"test": [Part(path, None, dialogues)]}, (_rounds_note(dialogues),))


def read_cmtmedqa(folder: Folder, options: Options) -> Read:
    """SupritYoung/Zhongjing: data/CMtMedQA_test.json. Its rows {instruct, output} are the split `safety`."""
    path = folder.need("CMtMedQA_test.json")
    test: list[Record] = []
    safety: list[Record] = []
    for line, row in rows_of(path):
        if "instruct" in row and "instruction" not in row:
            one = _round(path, line, row, "instruct", "output")
            safety.append(_dialogue(path, line, f"safety-{len(safety)}", [one], {"kind": "safety"}))
            continue
        history = row.get("history") or []
        if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
            raise EvaluationDataError(f"{path}, line {line}: 'history' must list [question, answer]")
        asked = "\n".join(filter(None, (row.get("instruction"), row.get("input"))))
        rounds = [{"user": question, "reference": answer} for question, answer in history]
        rounds.append({"user": asked, "reference": row.get("output")})
        # The ids of the file repeat, so that its place is the name.
        meta = {"record": row.get("id"), "department": row.get("cate1"), "subject": row.get("cate2")}
        test.append(_dialogue(path, line, f"cmtmedqa-{len(test)}", rounds, meta))
    return Read({"test": [Part(path, None, test)], "safety": [Part(path, None, safety)]}, (_rounds_note(test),))


def read_huatuo(folder: Folder, options: Options) -> Read:
    """The 6,000 test questions of Huatuo-26M: SupritYoung/Zhongjing, data/huatuo26M_test.json, or rows with
    `questions` and `answers` as FreedomIntelligence publishes them. test: 500 of them.
    """
    path = folder.need("huatuo26M_test.json", "test_datasets.jsonl", "huatuo26M-testdatasets.jsonl")
    rounds = []
    for line, row in rows_of(path):
        asked = row.get("instruction", row.get("questions"))
        answered = row.get("output", row.get("answers"))
        rounds.append((line, _round(path, line, {"user": _first(asked), "reference": _first(answered)})))
    pool = [_dialogue(path, line, content_hash(one)[:16], [one], {}) for line, one in rounds]
    unique = {dialogue["id"]: dialogue for dialogue in pool}
    drawn = draw(list(unique.values()), HUATUO_DRAWN, options.seed)
    notes = (
        f"test: {len(drawn)} of {len(pool):,} rows ({len(unique):,} different), the lowest SHA-256 of seed "
        f"{options.seed} and content",
    )
    return Read({"pool": [Part(path, None, pool)], "test": [Part(path, None, drawn)]}, notes)


def draw(dialogues: Sequence[Record], count: int, seed: int) -> list[Record]:
    """So many dialogues, whatever the order of the file: those whose hash with the seed is lowest."""
    return sorted(dialogues, key=lambda one: hashlib.sha256(f"{seed} {one['id']}".encode()).digest())[:count]


def content_hash(one: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{one['user']}\0{one['reference']}".encode()).hexdigest()


def _first(value: Any) -> Any:
    """Of a list (or list of lists) of equal questions, the first."""
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _round(path: Path, line: int, row: Any, user: str = "user", reference: str = "reference") -> Record:
    if not isinstance(row, dict) or not isinstance(row.get(user), str) or not row[user].strip():
        raise EvaluationDataError(f"{path}, line {line}: {user!r} must be a text")
    answer = _first(row.get(reference))
    if not isinstance(answer, str | None):
        raise EvaluationDataError(f"{path}, line {line}: {reference!r} must be a text")
    return {"user": row[user].strip(), "reference": answer.strip() if answer else None}


def _dialogue(
    path: Path, line: int, identity: str, rounds: Sequence[Record], meta: Record, case: str | None = None
) -> Record:
    record = {"id": identity, "lang": "zh", "rounds": list(rounds), "case": case, "meta": meta}
    return checked(path, line, record)


def _rounds_note(dialogues: Sequence[Record]) -> str:
    return f"{sum(len(dialogue['rounds']) for dialogue in dialogues):,} rounds in {len(dialogues):,} dialogues"


_CMB = "CMB-test-choice-question-merge.json"

CMB_EXAM = Source(
    "cmb_exam",
    "CMB-Exam, test",
    "Apache-2.0",
    "github.com/FreedomIntelligence/CMB",
    {"val": {None: 280}, "test": {None: 11200}},
    read_cmb_exam,
    [
        [f"CMB-Exam/CMB-test/{_CMB}", "CMB-test-choice-answer.json", "CMB-Exam/CMB-val/CMB-val-merge.json"],
        ["data/CMB.zip", "data/CMB-test-choice-answer.json"],
        ["CMB.zip", "CMB-test-choice-answer.json"],
    ],
    optional=frozenset({"val"}),
    known={
        "CMB-test-choice-answer.json": "42130b20f7660a83dd92f3c005eb6a8ef1221c98d9b27d3351204143944b532f",
    },
)
CMB_CLIN = Source(
    "cmb_clin",
    "CMB-Clin",
    "Apache-2.0",
    "github.com/FreedomIntelligence/CMB",
    {"test": {None: 74}},
    read_cmb_clin,
    [["CMB-Clin/CMB-Clin-qa.json"], ["CMB-Clin-qa.json"], ["data/CMB.zip"]],
)
CMTMEDQA = Source(
    "cmtmedqa",
    "CMtMedQA, test",
    "Apache-2.0 (code; the data's own licence is not stated)",
    "github.com/SupritYoung/Zhongjing",
    {"test": {None: 1000}, "safety": {None: 144}},
    read_cmtmedqa,
    [["data/CMtMedQA_test.json"], ["CMtMedQA_test.json"]],
    known={"CMtMedQA_test.json": "089924f89c5e533e5fecd47124762945f4e602255da2a99212f1d0a4a21b22c3"},
)
HUATUO = Source(
    "huatuo",
    "Huatuo-26M, test questions",
    "Apache-2.0",
    "github.com/SupritYoung/Zhongjing; huggingface.co/datasets/FreedomIntelligence/huatuo26M-testdatasets",
    {"pool": {None: 6000}, "test": {None: HUATUO_DRAWN}},
    read_huatuo,
    [["data/huatuo26M_test.json"], ["huatuo26M_test.json"], ["test_datasets.jsonl"]],
    known={"huatuo26M_test.json": "b023079b97ab6f87e3fed018150ec8728dde12ea80117c91139356f15b47835a"},
)
