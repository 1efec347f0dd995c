"""A small raw corpus, zh and en, with duplicates, garbage, private values and a planted question; and its recipe."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

QUESTION = "A patient with a high fever and a cough of three days asks which drug brings the fever down the fastest"
_EN = [
    "the",
    "patient",
    "has",
    "fever",
    "cough",
    "pain",
    "of",
    "a",
    "dose",
    "daily",
    "and",
    "was",
    "given",
    "with",
    "that",
    "drug",
    "to",
    "in",
    "for",
    "is",
]
_ZH = ["患者", "发热", "咳嗽", "头痛", "的", "是", "每日", "服用", "在", "药物", "检查", "血压", "治疗", "和", "了"]


def english(draw: random.Random, sentences: int) -> str:
    return " ".join(
        " ".join(draw.choice(_EN) + str(draw.randrange(40)) * (draw.random() < 0.3) for _ in range(12)).capitalize()
        + "."
        for _ in range(sentences)
    )


def chinese(draw: random.Random, sentences: int) -> str:
    # a rare character in every third place, or so few words would look like a list of keywords
    return "".join(
        "".join(draw.choice(_ZH) + chr(draw.randrange(0x4E00, 0x5000)) * (draw.random() < 0.5) for _ in range(10))
        + f"{draw.randrange(90)}天。"
        for _ in range(sentences)
    )


def records(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Mostly good documents; every kind of bad one among them."""
    draw = random.Random(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        kind = draw.random()
        text = english(draw, 8) if draw.random() < 0.5 else chinese(draw, 12)
        if kind < 0.06 and found:
            text = draw.choice(found)["text"]
        elif kind < 0.1:
            text = "!!! ### $$$ " * 20
        elif kind < 0.14:
            text += f" Mail me at person{number}@example.org please."
        elif kind < 0.16:
            text = f"{english(draw, 4)} {QUESTION.upper()}! {english(draw, 4)}"
        found.append({"id": f"d{number}", "text": text})
    return found


def write_corpus(directory: Path, count: int, seed: int = 0, bad_lines: tuple[bytes, ...] = ()) -> None:
    """directory/web.jsonl, with `bad_lines` spread over it, directory/books.jsonl.gz, and directory/questions.jsonl."""
    import gzip

    directory.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records(count, seed)]
    for number, bad in enumerate(bad_lines):
        lines.insert((number + 1) * len(lines) // (len(bad_lines) + 1), bad)
    (directory / "web.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    books = [json.dumps({"text": chinese(random.Random(n), 30)}, ensure_ascii=False) + "\n" for n in range(count // 20)]
    (directory / "books.jsonl.gz").write_bytes(gzip.compress("".join(books).encode()))
    question = {"id": "q1", "question": QUESTION, "options": {"A": "paracetamol", "B": "a cold bath"}, "answer": ["A"]}
    (directory / "questions.jsonl").write_text(json.dumps({**question, "source": "exam", "split": "test"}) + "\n")


def write_recipe(directory: Path, tokenizer: Path, **more: Any) -> Path:
    """directory/recipe.yaml for what `write_corpus` wrote there."""
    recipe = {
        "output": str(directory / "out"),
        "tokenizer": str(tokenizer),
        "index": False,
        "shard_mib": 0.02,
        "sources": [
            {"name": "web", "files": [str(directory / "web.jsonl")]},
            {"name": "books", "files": [str(directory / "books.jsonl.gz")]},
        ],
        "steps": [
            {"step": "normalise"},
            {"step": "language"},
            {"step": "rules"},
            {"step": "privacy"},
            {"step": "deduplicate"},
            {"step": "decontaminate", "questions": [str(directory / "questions.jsonl")]},
        ],
        "stages": [
            {
                "name": "stage1",
                "tokens": 30_000,
                "parts": [{"name": "zh", "langs": ["zh"], "weight": 2}, {"name": "en", "langs": ["en"], "weight": 1}],
            },
            {"name": "stage2", "parts": [{"name": "books", "sources": ["books"], "epochs": 2}]},
        ],
        **more,
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def published_bytes(output: Path) -> dict[str, bytes]:
    """Every file of a published corpus, but for those that say where it was made: manifest and report."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "funnel.json", "funnel.html")
    }
