"""Answers to be judged, and judges that are rules, for tests of the judge."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.judge.config import PairConfig, RubricConfig
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare, read_fences

CRITERIA = ("fluency", "relevance", "completeness", "proficiency")
Rule = Callable[[dict[str, Any], int], str]

_FENCES = {
    "conversation": ("conversation", "对话"),
    "question": ("question", "问题"),
    "solution": ("solution", "参考解答"),
    "answer": ("answer", "回答"),
}


def asked_to_rate(body: dict[str, Any]) -> tuple[str, dict[str, str], str]:
    """As `read_fences`, of the prompt that asks for a rating."""
    return read_fences(body, _FENCES)


def better(code: str, place: str, **more: Any) -> str:
    """A verdict on two answers."""
    return json.dumps({"comparison": code, "better": place, **more})


def rated(code: str, scores: Mapping[str, Any] | int, **more: Any) -> str:
    """A rating, all four criteria alike for an int."""
    values = dict.fromkeys(CRITERIA, scores) if isinstance(scores, int) else scores
    return json.dumps({"rating": code, **values, **more})


def quality(text: str) -> int:
    """What the text says of itself: the truth that an oracle knows."""
    found = re.search(r"\(q(\d)\)", text)
    return int(found[1]) if found else 0


def oracle(body: dict[str, Any], repetition: int) -> str:
    code, texts, _ = asked_to_compare(body)
    one, two = quality(texts["first"]), quality(texts["second"])
    return f"I compared them.\n{better(code, 'first' if one > two else 'second' if one < two else 'tie')}"


def always_first(body: dict[str, Any], repetition: int) -> str:
    return better(asked_to_compare(body)[0], "first")


def longest(body: dict[str, Any], repetition: int) -> str:
    code, texts, _ = asked_to_compare(body)
    one, two = len(texts["first"]), len(texts["second"])
    return better(code, "first" if one > two else "second" if one < two else "tie")


def row(number: int, round: int = 1, **changes: Any) -> dict[str, Any]:
    """An answer of quality 0 to 4 against a reference of quality 2, of lengths that have nothing to do with it."""
    lang = "zh" if number % 3 else "en"
    question = (
        f"第{number}号患者第{round}问：我发烧两天了，怎么办？"
        if lang == "zh"
        else f"Patient {number}.{round}: a fever?"
    )
    filler = "多喝水。" if lang == "zh" else "Drink water. "
    mark = number * 7 % 5
    return {
        "id": f"d{number}",
        "round": round,
        "lang": lang,
        "messages": [{"role": "user", "content": question}],
        "answer": f"{filler * (1 + number * 11 % 9)}(q{mark})",
        "reference": f"{filler * 5}{number:02d} (q2)",
        "finished": True,
        **changes,
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return path


def model(server: LanguageModelServer | str, cache: Path, **changes: Any) -> dict[str, Any]:
    url = server if isinstance(server, str) else server.url
    return {
        "model": "judge", "base_url": url, "cache": cache, "concurrency": 8, "timeout_seconds": 20,
        "backoff_seconds": 0.005, **changes,
    }  # fmt: skip


def pair_config(folder: Path, server: LanguageModelServer | str, answers: Path, **changes: Any) -> PairConfig:
    asked = model(server, folder / "cache", **changes.pop("model", {}))
    return PairConfig(**{"output": folder / "judged", "answers": answers, "model": asked, **changes})


def rubric_config(folder: Path, server: LanguageModelServer | str, answers: Path, **changes: Any) -> RubricConfig:
    asked = model(server, folder / "cache", **changes.pop("model", {}))
    return RubricConfig(**{"output": folder / "judged", "answers": answers, "model": asked, **changes})


def verdict_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "judged" / "verdicts.jsonl").read_bytes().splitlines()]
