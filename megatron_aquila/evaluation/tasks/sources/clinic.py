"""The demo's synthetic clinic: cloze questions, and questions answered in words."""

from __future__ import annotations

from typing import Any

from megatron_aquila.evaluation.tasks.sources.base import Folder, Options, Part, Read, Source, checked, rows_of


def read_clinic(folder: Folder, options: Options) -> Read:
    """questions.jsonl and exact_match.jsonl, as the demo writes them."""
    found = {}
    for split, name in {"cloze": "questions.jsonl", "words": "exact_match.jsonl"}.items():
        path = folder.need(name) if split == "cloze" else folder.find(name)
        if path is not None:
            found[split] = [Part(path, None, [_record(checked(path, line, row)) for line, row in rows_of(path)])]
    return Read(found)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """A question in words says what is new in it, its wording or its fact: that is its subject."""
    return {**row, "meta": {"subject": row["split"], **row["meta"]}} if "messages" in row else row


CLINIC = Source(
    "clinic",
    "Synthetic clinic",
    "Apache-2.0",
    "aquila demo",
    {"cloze": {}, "words": {}},
    read_clinic,
    [["questions.jsonl", "exact_match.jsonl"]],
    optional=frozenset({"words"}),
)
