"""Batches of dialogues, for the tests of the steps that clean them."""

import csv
import json
from collections.abc import Sequence
from functools import cache

from data_tools.corpus.batch import Batch, dialogue_text
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import SHARED


def dialogue(*contents: str, first: str = "user") -> Messages:
    """Messages of user and assistant in turn."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return tuple({"role": roles[place % 2], "content": content} for place, content in enumerate(contents))


def batch_of_dialogues(dialogues: Sequence[Messages], lang: str = "", kind: str | None = None) -> Batch:
    count = len(dialogues)
    return Batch(
        [f"d{place}" for place in range(count)],
        [dialogue_text(messages) for messages in dialogues],
        [lang] * count,
        ["test"] * count,
        [{} if kind is None else {"kind": kind} for _ in range(count)],
        list(dialogues),
    )


@cache
def real_dialogues(lang: str) -> tuple[Messages, ...]:
    """The sample of Toyhom's dialogues (zh), GenMedGPT-5k (en)."""
    if lang == "zh":
        with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
            return tuple(dialogue(row["ask"], row["answer"]) for row in csv.DictReader(rows))
    records = json.loads((SHARED / "chatdoctor5k.json").read_bytes())
    return tuple(dialogue(record["input"], record["output"]) for record in records)
