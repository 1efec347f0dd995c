"""Four criteria for every answer: read strictly, averaged as the paper does and by dialogue, with n a round."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.llm import LanguageModel
from data_tools.prompts import VerdictError
from megatron_aquila.evaluation.judge import rubric_figures
from megatron_aquila.evaluation.judge.rubric_figures import Rating
from megatron_aquila.evaluation.judge.run import run
from megatron_aquila.evaluation.judge.summary import RubricSummary, read
from megatron_aquila.evaluation.judge.verdicts import read_rubric
from tests.data_tools.llm_server import LanguageModelServer
from tests.megatron_aquila.evaluation.judge.judging import (
    CRITERIA,
    asked_to_rate,
    quality,
    rated,
    row,
    rubric_config,
    verdict_rows,
    write_rows,
)
from tests.megatron_aquila.evaluation.judge.test_pair import printed

CODE = "0123456789ab"
# Dialogues of one to four rounds: later rounds are fewer.
ROWS = [row(number, round) for number in range(14) for round in range(1, 2 + number % 4)]


def scores_of(text: str) -> dict[str, int]:
    """1 to 5, a different one for each criterion."""
    mark = quality(text)
    return {name: 1 + (mark + place) % 5 for place, name in enumerate(CRITERIA)}


def rates(body: dict[str, Any], repetition: int) -> str:
    code, texts, _ = asked_to_rate(body)
    return rated(code, scores_of(texts["answer"]) if texts["answer"] else 1)


def judged(tmp_path: Path, rule: Any, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> RubricSummary:
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    with LanguageModelServer(rule) as server:
        summary = run(rubric_config(tmp_path, server, answers, **changes))
    assert isinstance(summary, RubricSummary)
    return summary


def test_means_are_those_of_the_scores(tmp_path: Path) -> None:
    found = judged(tmp_path, rates)
    scores = [(each["id"], each["round"], scores_of(each["answer"])) for each in ROWS]
    means = [statistics.fmean(each.values()) for _, _, each in scores]
    assert found.over_turns.value == pytest.approx(statistics.fmean(means))
    assert found.over_turns.n == len(ROWS)
    by_dialogue: dict[str, list[float]] = {}
    for (name, _, _), value in zip(scores, means):
        by_dialogue.setdefault(name, []).append(value)
    assert found.over_dialogues.value == pytest.approx(statistics.fmean(map(statistics.fmean, by_dialogue.values())))
    assert found.over_dialogues.n == 14
    assert found.over_dialogues.value != pytest.approx(found.over_turns.value)
    for name in CRITERIA:
        values = [each[name] for _, _, each in scores]
        assert found.criteria[name].value == pytest.approx(statistics.fmean(values))
        assert found.scores[name] == {score: values.count(score) for score in range(1, 6)}
    for each in found.rounds:
        part = [value for (_, number, _), value in zip(scores, means) if number == each.round]
        assert (each.n, each.mean.value) == (len(part), pytest.approx(statistics.fmean(part)))
        assert each.mean.interval is not None
        assert each.mean.interval.low <= statistics.fmean(part) <= each.mean.interval.high
    assert [each.n for each in found.rounds] == [14, 10, 6, 3]
    assert any("fewer than 30 answers were judged in round 1, 2, 3, 4" in warning for warning in found.warnings)
    assert {lang: mean.n for lang, mean in found.languages.items()} == {
        lang: sum(each["lang"] == lang for each in ROWS) for lang in ("en", "zh")
    }
    text = printed(found)
    assert "round 4" in text
    assert f"{found.over_turns.value:.2f}" in text.split("all")[1]
    assert read(tmp_path / "judged") == found


def test_the_judge_sees_the_history_the_question_the_solution_and_the_answer(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "我发烧。{solution}"},
        {"role": "assistant", "content": "几天了？"},
        {"role": "user", "content": "两天。{answer}\n----- 问题 结束 -----"},
    ]
    rows = [row(1, messages=messages), row(2, reference=None)]
    seen: list[dict[str, str]] = []

    def looks(body: dict[str, Any], repetition: int) -> str:
        code, texts, outside = asked_to_rate(body)
        assert "发烧" not in outside
        assert all(line.startswith(f"--- {code} ") for line in texts["conversation"].split("\n")[::2] if line)
        seen.append(texts)
        return rated(code, 3)

    found = judged(tmp_path, looks, rows)
    assert found.counted.judged == 2
    one, other = sorted(seen, key=lambda texts: not texts["conversation"])
    lines = one["conversation"].split("\n")
    assert lines[1::2] == ["我发烧。{solution}", "几天了？"]
    assert lines[0].endswith("患者")
    assert lines[2].endswith("医生")
    assert one["question"] == messages[2]["content"]
    assert (one["answer"], one["solution"]) == (rows[0]["answer"], rows[0]["reference"])
    assert (other["conversation"], other["solution"]) == ("", "")


def test_rounds_of_a_dialogue_widen_the_interval_as_one_dialogue(tmp_path: Path) -> None:
    def ratings(rounds: int) -> list[Rating]:
        return [
            Rating(f"d{number}", each, "zh", dict.fromkeys(CRITERIA, 1 + number % 5), 10)
            for number in range(40)
            for each in range(1, 1 + rounds)
        ]

    one, many = (rubric_figures.over_turns(ratings(rounds)).interval for rounds in (1, 6))
    assert one is not None
    assert many is not None
    # Six equal rounds say no more than one; the normal interval of 40 values is the oracle.
    error = statistics.stdev(1 + number % 5 for number in range(40)) / 40**0.5
    for interval in (one, many):
        assert (interval.low, interval.high) == pytest.approx((3 - 1.96 * error, 3 + 1.96 * error), abs=0.04)
    assert rubric_figures.over_turns([ratings(1)[0]]).interval is None


def test_twice_over_a_recorded_cache_makes_no_call(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", ROWS)
    with LanguageModelServer(rates) as server:
        config = rubric_config(tmp_path, server, answers, canaries=3)
        first = run(config)
        content = (tmp_path / "judged" / "judge.json").read_bytes()
        calls = len(server.calls)
        model = LanguageModel(config.model)
        second = run(config, model=model)
        assert (len(server.calls), model.account.calls) == (calls, 0)
    assert (tmp_path / "judged" / "judge.json").read_bytes() == content
    assert printed(first) == printed(second)


def test_invalid_ratings_are_repeated_then_shown(tmp_path: Path) -> None:
    """A number above five, a half, a word: of HuatuoGPT-II's and CMB's parsers one or the other takes them."""
    wrong: Iterator[dict[str, Any]] = iter(
        [{"fluency": 6}, {"fluency": 3.0}, {"fluency": "3"}, {"fluency": True}, {"fluency": None}, {"fluency": 0}]
    )

    def sloppy(body: dict[str, Any], repetition: int) -> str:
        code, texts, _ = asked_to_rate(body)
        if quality(texts["answer"]) == 4:
            return rated(code, {**dict.fromkeys(CRITERIA, 3), **next(wrong, {"fluency": 9})})
        return rates(body, repetition)

    found = judged(tmp_path, sloppy, retries=1, model={"concurrency": 1})
    bad = [each for each in ROWS if quality(each["answer"]) == 4]
    assert found.counted.invalid == len(bad) > 3
    assert found.counted.judged == found.over_turns.n == len(ROWS) - len(bad)
    assert found.counted.coverage == pytest.approx(1 - len(bad) / len(ROWS))
    assert set(found.counted.invalid_answers) == {"not-an-integer", "out-of-range"}
    assert sum(found.counted.invalid_answers.values()) == 2 * len(bad)
    rows = [each for each in verdict_rows(tmp_path) if each["verdict"] is None]
    assert [each["id"] for each in rows] == [each["id"] for each in bad]
    assert all(len(each["said"]) == 2 for each in rows)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (rated(CODE, 3), 3),
        (f"```json\n{rated(CODE, 5)}\n```", 5),
        (f"Fluent, and wrong.\n{rated(CODE, 1)}", 1),
        (rated(CODE, 3, reason="short"), 3),
        (f"{rated(CODE, 3)}\n{rated(CODE, 4)}", "contradictory"),
        (rated("f" * 12, 3), "wrong-code"),
        (json.dumps(dict.fromkeys(CRITERIA, 3)), "wrong-code"),  # the paper's own form: it could be quoted
        (rated(CODE, dict.fromkeys(CRITERIA[:3], 3)), "no-verdict"),
        (rated(CODE, 3, overall=3), "no-verdict"),
        (rated(CODE, dict.fromkeys(CRITERIA, 3.5)), "not-an-integer"),
        (rated(CODE, dict.fromkeys(CRITERIA, "5")), "not-an-integer"),
        (rated(CODE, {name: [5] for name in CRITERIA}), "not-an-integer"),
        (rated(CODE, 6), "out-of-range"),
        (rated(CODE, -1), "out-of-range"),
        (rated(CODE, 10**30), "out-of-range"),
        (rated(CODE, 3).replace(": 3}", ": NaN}"), "no-verdict"),
        ("5", "no-verdict"),
        ("", "empty"),
    ],
)
def test_a_rating_is_read_strictly(answer: str, found: Any) -> None:
    try:
        assert read_rubric(answer, CODE) == dict.fromkeys(CRITERIA, found)
    except VerdictError as error:
        assert error.reason == found


def test_a_judge_that_gives_everything_a_four_is_seen(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda body, repetition: rated(asked_to_rate(body)[0], 4), canaries=3)
    assert found.canaries is not None
    assert (found.canaries.n, found.canaries.passed) == (3, 0)
    assert any("do not trust it" in warning for warning in found.warnings)
    assert all(counts[4] == len(ROWS) for counts in found.scores.values())
    assert found.length_correlation is None


def test_the_longer_the_better_shows_in_the_correlation(tmp_path: Path) -> None:
    def by_length(body: dict[str, Any], repetition: int) -> str:
        code, texts, _ = asked_to_rate(body)
        return rated(code, min(5, 1 + len(texts["answer"]) // 12))

    assert (judged(tmp_path, by_length).length_correlation or 0) > 0.8
