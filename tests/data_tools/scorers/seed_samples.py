"""Seeds of the synthetic clinic, and words with known weights."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents
from data_tools.clinic.world import make_world

GOOD, BAD, PLAIN = ("fever", "dose", "咳嗽"), ("the", "has", "每日"), ("patient", "daily", "服用", "患者")


def write_seeds(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def clinic_seeds(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """`count` medical and `count` general documents, half of each Chinese."""
    world = make_world(seed, 24)
    medical = [{**record, "label": "medical"} for record in documents(world, stage=1, count=count, seed=seed)]
    return medical + [{**record, "label": "other"} for record in general_documents(count=count, seed=seed)]


def scored_seeds(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts whose score is the number of good words less the number of bad ones, plus 3, of six words each."""
    generator = random.Random(seed)
    records = []
    for number in range(count):
        good = generator.randint(0, 3)
        bad = generator.randint(0, 3)
        chosen = generator.choices(GOOD, k=good) + generator.choices(BAD, k=bad) + generator.choices(PLAIN, k=6)
        generator.shuffle(chosen)
        text = " ".join(chosen) + f" {number}"
        records.append({"id": str(number), "text": text, "score": 3 + good - bad, "lang": "en" if number % 3 else "zh"})
    return records
