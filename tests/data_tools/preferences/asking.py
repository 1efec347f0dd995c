"""Candidates, and an author and a judge that are rules, for tests of subjective pairs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from data_tools.llm import LanguageModel, ModelConfig
from data_tools.preferences.outcome import Candidate, Made, Outcome
from data_tools.preferences.subjective import SubjectiveConfig
from data_tools.preferences.subjective_summary import SubjectiveSummary
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare, verdict

CONFIG = SubjectiveConfig()


def candidate(number: int, lang: str = "") -> Candidate:
    """Original answers are of three lengths, so that a judge by length has something to say."""
    lang = lang or ("zh" if number % 3 else "en")
    if lang == "zh":
        question, answer = f"第{number}号患者：我发烧两天了，怎么办？", "多喝水。" * (1 + number % 4 * 4)
    else:
        question = f"Patient {number}: I have had a fever for two days, what should I do?"
        answer = "Drink enough water. " * (1 + number % 4 * 4)
    return Candidate(f"c{number}", ({"role": "user", "content": question},), answer, lang, f"source {number % 2}")


def candidates(count: int) -> list[Candidate]:
    return [candidate(number) for number in range(count)]


def written(question: str) -> str:
    """What the author answers."""
    if "Patient" in question:
        return f"You have a cold; drink enough, and see a doctor if it stays for three days. ({len(question)})"
    return f"您可能是感冒了，请多喝水，注意休息，三天不退请到医院就诊。（{len(question)}）"


def answers(body: dict[str, Any], repetition: int) -> str:
    """Author and judge: the longer answer is better."""
    if body["model"] == "author":
        return written(body["messages"][-1]["content"])
    code, texts, _ = asked_to_compare(body)
    first, second = len(texts["first"]), len(texts["second"])
    return verdict(code, "first" if first > second else "second" if first < second else "tie", fluency="tie")


def models(server: LanguageModelServer | str, cache: Path | None, **changes: Any) -> tuple[LanguageModel, ...]:
    """Author and judge; `changes` for both, or by `author=` and `judge=` for one."""
    own = {name: changes.pop(name, {}) for name in ("author", "judge")}
    values = {
        "base_url": server if isinstance(server, str) else server.url,
        "cache": cache,
        "mode": "off" if cache is None else "record",
        "concurrency": 4,
        "timeout_seconds": 20,
        "backoff_seconds": 0.005,
        **changes,
    }
    return tuple(LanguageModel(ModelConfig(model=name, **{**values, **own[name]})) for name in own)


def summed(outcomes: list[Outcome]) -> SubjectiveSummary:
    summary = SubjectiveSummary()
    for outcome in outcomes:
        summary.add(outcome)
    assert summary.candidates == len(outcomes) == summary.made + summary.no_pair.total()
    return summary


def reasons(outcomes: list[Outcome]) -> list[str]:
    return ["made" if isinstance(outcome, Made) else outcome.reason for outcome in outcomes]


def bodies(calls: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in calls)
