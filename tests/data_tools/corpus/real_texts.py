"""Real documents of the shared data, where it is there."""

import csv
import gzip
import json
from functools import cache
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not on this machine")


@cache
def medquad() -> tuple[str, ...]:
    with gzip.open(SHARED / "medquad_sample.jsonl.gz") as lines:
        records = [json.loads(line) for line in lines]
    return tuple(f"{record['question']}\n{record['answer']}" for record in records)


@cache
def chatdoctor() -> tuple[str, ...]:
    records = json.loads((SHARED / "chatdoctor5k.json").read_bytes())
    return tuple(f"{record['input']}\n{record['output']}" for record in records)


@cache
def dialogues() -> tuple[str, ...]:
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
        return tuple(f"{row['ask']}\n{row['answer']}" for row in csv.DictReader(rows))


@cache
def passages() -> tuple[str, ...]:
    """Of 2,000 characters, from classical Chinese medical books."""
    with gzip.open(SHARED / "tcm_books.jsonl.gz") as lines:
        books = [json.loads(line)["text"] for line in lines]
    return tuple(book[start : start + 2000] for book in books for start in range(0, len(book), 2000))
