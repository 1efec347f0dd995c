"""Write a synthetic clinic to disk as JSON Lines."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import orjson

from data_tools.clinic.dialogues import dialogues, exact_match_questions
from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents, general_questions
from data_tools.clinic.pairs import preference_pairs
from data_tools.clinic.questions import questions
from data_tools.clinic.wording import DEFAULT_WORDINGS
from data_tools.clinic.world import make_world


def write_clinic(
    directory: Path,
    *,
    seed: int = 0,
    conditions: int = 24,
    wordings: int = DEFAULT_WORDINGS,
    stage1_documents: int = 2000,
    stage2_documents: int = 2400,
    general_count: int = 1000,
    question_limit: int | None = None,
    dialogue_count: int = 2500,
    exact_match_limit: int | None = None,
    train_pairs: int = 1200,
    valid_pairs: int = 240,
    leave_out: Collection[str] = (),
) -> dict[str, int]:
    """Write the clinic's records into `directory`.

    medical_stage1.jsonl, medical_stage2.jsonl and general.jsonl hold documents, questions.jsonl and
    general_questions.jsonl cloze questions on the two kinds of text;
    dialogues.jsonl, pairs_train.jsonl and pairs_valid.jsonl are for fine-tuning and DPO, exact_match.jsonl holds
    questions to the assistant that they leave out. Files named in `leave_out` are not written.

    The same arguments write the same bytes. Each file appears whole or not at all; memory does not grow with the
    counts. Returns the number of records by file name.
    Raises ValueError on a world or a number of wordings that cannot be made, or a file in `leave_out` that there is
    not, OSError when a file cannot be written.
    """
    world = make_world(seed, conditions)
    files = {
        "medical_stage1.jsonl": documents(world, stage=1, count=stage1_documents, wordings=wordings),
        "medical_stage2.jsonl": documents(world, stage=2, count=stage2_documents, wordings=wordings),
        "general.jsonl": general_documents(count=general_count, seed=seed),
        "questions.jsonl": questions(world, limit=question_limit),
        "general_questions.jsonl": general_questions(seed=seed),
        "dialogues.jsonl": dialogues(world, count=dialogue_count),
        "exact_match.jsonl": exact_match_questions(world, limit=exact_match_limit),
        "pairs_train.jsonl": preference_pairs(world, split="train", count=train_pairs),
        "pairs_valid.jsonl": preference_pairs(world, split="valid", count=valid_pairs),
    }
    if unknown := sorted(set(leave_out) - set(files)):
        raise ValueError(f"leave_out names {unknown[0]}, and the files are {', '.join(files)}")
    directory.mkdir(parents=True, exist_ok=True)
    return {name: _write_jsonl(directory / name, rows) for name, rows in files.items() if name not in leave_out}


def _write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> int:
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    count = 0
    try:
        with temporary.open("wb") as file:
            for record in records:
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count
