"""Write a synthetic clinic to disk as JSON Lines."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents
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
) -> dict[str, int]:
    """Write medical_stage1.jsonl, medical_stage2.jsonl, general.jsonl and questions.jsonl into `directory`.

    The same arguments write the same bytes. Each file appears whole or not at all; memory does not grow with the
    counts. Returns the number of records by file name.
    Raises ValueError on a world or a number of wordings that cannot be made, OSError when a file cannot be written.
    """
    world = make_world(seed, conditions)
    files = {
        "medical_stage1.jsonl": documents(world, stage=1, count=stage1_documents, wordings=wordings),
        "medical_stage2.jsonl": documents(world, stage=2, count=stage2_documents, wordings=wordings),
        "general.jsonl": general_documents(count=general_count, seed=seed),
        "questions.jsonl": questions(world, limit=question_limit),
    }
    directory.mkdir(parents=True, exist_ok=True)
    return {name: _write_jsonl(directory / name, records) for name, records in files.items()}


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
