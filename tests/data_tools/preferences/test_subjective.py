"""Subjective pairs: which answer is chosen, what is kept and counted, what is asked."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.preferences.outcome import Candidate, Made, NoPair
from data_tools.preferences.subjective import SubjectiveConfig, estimate, prompt_digests, subjective_pairs
from data_tools.records import PreferencePair
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare, tokens, verdict
from tests.data_tools.preferences.asking import (
    CONFIG,
    answers,
    bodies,
    candidate,
    candidates,
    models,
    reasons,
    summed,
    written,
)

REPOSITORY = Path(__file__).parents[3]


def test_the_better_answer_is_chosen_and_everything_said_is_kept(tmp_path: Path) -> None:
    drawn = candidates(24)
    with LanguageModelServer(rule=answers) as server:
        author, judge = models(server, tmp_path)
        outcomes = list(subjective_pairs(iter(drawn), author, judge, CONFIG))
        calls = list(server.calls)
    longer = 0
    for each, outcome in zip(drawn, outcomes, strict=True):
        assert isinstance(outcome, Made)
        new = written(each.prompt[-1]["content"])
        winner = "original" if len(each.answer) > len(new) else "new"
        longer += winner == "original"
        good, bad = (each.answer, new) if winner == "original" else (new, each.answer)
        pair = outcome.pair
        assert pair.to_json() == {
            "id": each.id,
            "prompt": list(each.prompt),
            "chosen": [{"role": "assistant", "content": good}],
            "rejected": [{"role": "assistant", "content": bad}],
            "kind": "subjective",
        }
        assert PreferencePair.from_json(pair.to_json(), source_file="f", offset=0) == pair
        assert (outcome.lang, outcome.source, outcome.meta["winner"]) == (each.lang, each.source, winner)
        assert outcome.meta["prompts"] == [f"doctor.v1.{each.lang}", f"compare.v1.{each.lang}"]
        assert outcome.meta["author"]["model"] == "author-of-the-fixture"
        assert outcome.meta["author"]["answer"] == new
        for judgement, order in zip(outcome.meta["judge"], ("original-first", "new-first"), strict=True):
            assert judgement["order"] == order
            assert judgement["sides"]["overall"] == winner
            assert judgement["sides"]["fluency"] == "tie"
            (said,) = judgement["said"]
            assert json.loads(said["answer"])["overall"] == judgement["verdict"]["overall"]
            assert (said["model"], said["invalid"], said["sample"]) == ("judge-of-the-fixture", None, 0)
        assert json.loads(json.dumps(outcome.meta)) == outcome.meta
    assert 3 < longer < 21
    found = summed(outcomes).to_json()
    assert found["winners"] == {"original": longer, "new": 24 - longer}
    assert (found["verdicts"], found["first_share"]) == ({"first": 24, "second": 24}, 0.5)
    assert (found["orders"], found["agreement"], found["longer"]) == ({"agreed": 24}, 1.0, {"longer": 24})
    assert found["aspects"]["proficiency"] == {"original": 2 * longer, "new": 2 * (24 - longer)}
    assert found["aspects"]["fluency"] == {"tie": 48}
    assert found["mean_characters"]["original"] == round(sum(len(each.answer) for each in drawn) / 24, 3)
    assert found["models"] == {"author": ["author-of-the-fixture"], "judge": ["judge-of-the-fixture"]}
    assert (author.account.calls, judge.account.calls) == (24, 48)
    for body in calls:
        system, user = body["messages"]
        if body["model"] == "author":
            assert user["content"] in {each.prompt[-1]["content"] for each in drawn}
        assert ("你" in system["content"]) == ("号患者" in user["content"]), "each is asked in the patient's language"


def test_equal_questions_are_paid_for_once(tmp_path: Path) -> None:
    one = candidate(1)
    other = Candidate("other", one.prompt, "只要休息。", one.lang, one.source)
    with LanguageModelServer(rule=answers, delay=0.05) as server:
        author, judge = models(server, tmp_path)
        outcomes = list(subjective_pairs([one, other, one], author, judge, CONFIG))
        assert max(bodies(server.calls).values()) == 1
    assert reasons(outcomes) == ["made"] * 3
    assert outcomes[0] == outcomes[2]
    assert (author.account.calls, author.account.recorded) == (1, 2)
    assert (judge.account.calls, judge.account.recorded) == (4, 2)


def test_a_judge_that_prefers_a_place_makes_no_pair(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], repetition: int) -> str:
        if body["model"] == "author":
            return answers(body, repetition)
        code, texts, _ = asked_to_compare(body)
        number = int("".join(filter(str.isdigit, texts["conversation"].split("\n")[1])))
        place = ["first", "second", "tie"][number % 3]
        if number >= 9:  # one order a tie, the other for what the author wrote
            place = "tie" if len(texts["first"]) > 30 else "second"
        return verdict(code, place)

    drawn = [candidate(number, "zh") for number in range(12)]
    drawn[9:] = [Candidate(f"half{n}", each.prompt, "休息。", "zh", "s") for n, each in enumerate(drawn[9:])]
    with LanguageModelServer(rule=rule) as server:
        outcomes = list(subjective_pairs(drawn, *models(server, tmp_path), CONFIG))
        loose = list(subjective_pairs(drawn, *models(server, tmp_path), SubjectiveConfig(strict=False)))
        assert len(server.calls) == 36, "another rule needs no call"
    assert reasons(outcomes) == ["judge-disagrees", "judge-disagrees", "judge-ties"] * 3 + ["judge-half-ties"] * 3
    assert reasons(loose) == [*reasons(outcomes)[:9], *["made"] * 3]
    assert [outcome.meta["winner"] for outcome in loose if isinstance(outcome, Made)] == ["new"] * 3
    summary = summed(outcomes)
    assert summary.orders == {"both-first": 3, "both-second": 3, "both-tie": 3, "half-tie": 3}
    assert summary.verdicts == {"first": 6, "second": 6 + 3, "tie": 6 + 3}
    assert summary.first_share() == pytest.approx(6 / 15)
    assert summary.agreement() == 3 / 12


def test_an_invalid_verdict_is_asked_for_again_with_another_sample(tmp_path: Path) -> None:
    def rule(body: dict[str, Any], repetition: int) -> str:
        good = answers(body, repetition)
        if body["model"] == "author":
            return good
        second, third = body["seed"] >= 1, body["seed"] >= 2
        content = body["messages"][-1]["content"]
        if "第1号" in content:
            return good if third else "…"
        if "第2号" in content:
            return "first"
        return good if "第4号" not in content or second else good.replace('"overall": "', '"overall": "not ')

    drawn = [candidate(number) for number in (1, 2, 4, 5)]
    with LanguageModelServer(rule=rule) as server:
        author, judge = models(server, tmp_path, seed=0)
        outcomes = list(subjective_pairs(drawn, author, judge, CONFIG))
        asked = Counter(body["seed"] for body in server.calls if body["model"] == "judge")
        none = list(subjective_pairs(drawn, *models(server, tmp_path, seed=0), SubjectiveConfig(retries=0)))
    assert reasons(outcomes) == ["made", "invalid-verdict", "made", "made"]
    assert asked == {0: 8, 1: 6, 2: 4}
    summary = summed(outcomes)
    assert summary.invalid == {"no-verdict": 4 + 6, "unknown-verdict": 2}
    assert summary.mended == 4
    assert judge.account.answered == 18
    assert reasons(none) == ["invalid-verdict", "invalid-verdict", "invalid-verdict", "made"]


def test_candidates_that_cannot_be_asked_about_are_not(tmp_path: Path) -> None:
    good = candidate(1)
    user = good.prompt[0]

    def changed(**changes: Any) -> Candidate:
        values = {name: getattr(good, name) for name in ("id", "prompt", "answer", "lang", "source")}
        return Candidate(**{**values, **changes})

    drawn = [
        changed(prompt=(user, {"role": "assistant", "content": "好"})),
        changed(prompt=()),
        changed(answer=" \n"),
        changed(prompt=({"role": "user", "content": "病" * 101},)),
        changed(answer="药" * 51),
        changed(lang="ja"),
        good,
    ]
    config = SubjectiveConfig(max_prompt_characters=100, max_answer_characters=50)
    with LanguageModelServer(rule=answers) as server:
        author, judge = models(server, tmp_path)
        outcomes = list(subjective_pairs(drawn, author, judge, config))
        assert len(server.calls) == 3
        assert estimate(drawn, author, judge, config).unasked == 6
    assert reasons(outcomes) == [
        "no-question",
        "no-question",
        "original-empty",
        "prompt-too-long",
        "original-too-long",
        "unsupported-language",
        "made",
    ]
    assert isinstance(outcomes[3], NoPair)
    assert outcomes[3].detail == {"value": 101, "limit": 100}


def test_the_dry_run_bounds_what_the_run_uses(tmp_path: Path) -> None:
    drawn = candidates(12)
    prices = {"input_price": 2.0, "output_price": 8.0, "max_tokens": 60}
    with LanguageModelServer(rule=answers) as server:
        dry = estimate(iter(drawn), *models(server, tmp_path, **prices), CONFIG)
        assert not server.calls
        assert not list(tmp_path.iterdir()), "a dry run writes nothing"
        list(subjective_pairs(drawn[:5], *models(server, tmp_path, **prices), CONFIG))
        half = estimate(drawn, *models(server, tmp_path, **prices), CONFIG)
        author, judge = models(server, tmp_path, **prices)
        list(subjective_pairs(drawn, author, judge, CONFIG))
        done = estimate(drawn, *models(server, tmp_path, **prices), CONFIG)
        used = Counter(body["model"] for body in server.calls)
        words = {
            name: sum(
                tokens(message["content"])
                for body in server.calls
                if body["model"] == name
                for message in body["messages"]
            )
            for name in ("author", "judge")
        }
    assert (dry.author.calls, dry.judge.calls) == (used["author"], used["judge"]) == (12, 24)
    assert (half.author.calls, half.judge.calls) == (author.account.calls, judge.account.calls) == (7, 14)
    assert (half.author.recorded, half.judge.recorded) == (5, 10)
    assert (done.author.calls, done.judge.calls, done.judge.cost) == (0, 0, 0)
    assert dry.author.prompt_tokens == words["author"]
    # Each question to the judge holds an answer of 60 tokens at most, where the real ones have fewer.
    assert words["judge"] < dry.judge.prompt_tokens <= words["judge"] + 24 * 60
    assert half.judge.cost == pytest.approx((half.judge.prompt_tokens * 2 + 14 * 60 * 8) / 1e6)
    assert half.judge.cost > judge.account.cost > 0


def test_a_manifest_names_the_wording_of_the_prompts() -> None:
    directory = REPOSITORY / "data_tools" / "prompts"
    names = ("compare.v1.en", "compare.v1.zh", "doctor.v1.en", "doctor.v1.zh")
    wanted = {name: hashlib.sha256((directory / f"{name}.txt").read_bytes()).hexdigest() for name in names}
    assert prompt_digests(CONFIG) == wanted
