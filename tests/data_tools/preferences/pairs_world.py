"""Dialogues, questions and a rule for the models of whole runs of pairs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from data_tools.preferences.recipe import PairsRecipe
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare, verdict

PHONE = "13800138000"


def dialogues(number: int = 90) -> list[dict[str, Any]]:
    """Two in three Chinese, of two sources, one in ten an exam question; every third of several turns. The first
    Chinese one tells a telephone number.
    """
    found = []
    for n in range(number):
        zh = n % 3 > 0
        messages = []
        for turn in range(1 + (n % 3 == 1)):
            if zh:
                asked, said = (
                    f"第{n}号：头痛第{turn + 1}天，怎么办？",
                    f"第{n}号您好，建议多休息，多喝水。" * (1 + n % 2),
                )
            else:
                asked = f"Number {n}: my head has ached for {turn + 1} days. What shall I do?"
                said = f"Number {n}, rest and drink enough water. " * (1 + n % 2)
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said.strip()}]
        if n == 1:
            messages[0]["content"] += f"我的电话是{PHONE}。"
        kind = "options" if n % 10 == 9 else "qa"
        lang = "zh" if zh else "en"
        found.append({"id": f"d{n}", "messages": messages, "lang": lang, "source": "ab"[n % 2], "meta": {"kind": kind}})
    return found


def questions(number: int = 40) -> list[dict[str, Any]]:
    """Chinese ones, each fifth with two right answers, each second with an explanation."""
    names = ["青霉素", "阿莫西林", "头孢", "布洛芬", "氨茶碱", "地高辛", "华法林", "肝素", "胰岛素"]
    return [
        {
            "id": f"q{n}",
            "question": f"第{n}号患者发热咳嗽，首选药物是哪种？",
            "options": {letter: f"{names[(n + i) % 9]}{n}毫克" for i, letter in enumerate("ABCD")},
            "answer": ["A", "C"] if n % 5 == 0 else ["ABCD"[n % 4]],
            "explanation": "此药为首选。" if n % 2 else "",
            "source": "exam",
        }
        for n in range(number)
    ]


def write(path: Path, records: list[dict[str, Any]], extra: str = "") -> Path:
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records) + extra.encode())
    return path


def merit(answer: str) -> int:
    """What the judge goes by: nothing that shows in the length."""
    return int(hashlib.sha256(answer.encode()).hexdigest()[:6], 16)


def judged(first: str, second: str) -> str:
    """first, second or tie; of some pairs always the answer that stands first."""
    if (merit(first) + merit(second)) % 9 == 0:
        return "first"
    if (merit(first) + merit(second)) % 11 == 0:
        return "tie"
    return "first" if merit(first) > merit(second) else "second"


def rule(body: dict[str, Any], repetition: int) -> str:
    """Author and judge, by what they are asked."""
    if body["model"] == "judge":
        code, texts, _ = asked_to_compare(body)
        return verdict(code, judged(texts["first"], texts["second"]))
    asked = body["messages"][-1]["content"]
    if "头痛" in asked:
        return f"您好，头痛多与休息不足有关，建议您规律作息；如果加重，请到神经内科就诊。（{asked[:6]}）"
    return f"A headache often comes from a lack of sleep. Please rest, and see a doctor if it lasts. ({asked[:12]})"


def recipe(directory: Path, server: LanguageModelServer, **changes: Any) -> PairsRecipe:
    """Of what lies in `directory`: dialogues.jsonl, questions.jsonl, a tokenizer. Changes by keys, __ for a dot."""
    model = {
        "base_url": server.url,
        "cache": directory / "cache",
        "max_tokens": 300,
        "concurrency": 4,
        "backoff_seconds": 0.005,
        "retries": 1,
        "input_price": 1,
        "output_price": 2,
    }
    tree: dict[str, Any] = {
        "output": directory / "out",
        "tokenizer": directory / "tokenizer",
        "subjective": {
            "candidates": {"dialogues": [str(directory / "dialogues.jsonl")], "draw": {"count": 30, "spare": 2.5}},
            "author": {**model, "model": "author"},
            "judge": {**model, "model": "judge"},
        },
        "objective": {"questions": [str(directory / "questions.jsonl")], "draw": {"count": 15}},
        "split": {"valid_share": 0.2},
    }
    for key, value in changes.items():
        *parts, last = key.split("__")
        here = tree
        for part in parts:
            here = here.setdefault(part, {})
        here[last] = value
    return PairsRecipe.model_validate(tree)


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl or .jsonl.zst file."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return [orjson.loads(line) for line in data.splitlines()]


def texts_sent(bodies: list[dict[str, Any]]) -> str:
    """All that a server was told."""
    return json.dumps([body["messages"] for body in bodies], ensure_ascii=False)


def results(output: Path) -> Mapping[str, bytes]:
    """The files that the models' accounts are not in."""
    names = ["pairs_train.jsonl", "pairs_valid.jsonl", "audit.jsonl.zst"]
    names += [
        f"pairs_{side}{twin}.{kind}"
        for side in ("train", "valid")
        for twin in ("", ".loss_mask")
        for kind in ("bin", "idx")
    ]
    return {name: (output / name).read_bytes() for name in names}
