"""Subjective pairs from servers that fail, and runs that are killed, interrupted, or out of money."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.llm import LanguageModelError, Limits, Request
from data_tools.preferences.outcome import Candidate, Made, NoPair
from data_tools.preferences.subjective import SubjectiveConfig, subjective_pairs
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare
from tests.data_tools.preferences.asking import CONFIG, answers, bodies, candidate, candidates, models, reasons, summed

REPOSITORY = Path(__file__).parents[3]


def test_faults_of_every_kind_lose_nothing_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    script = ["429", "500", "cut", "bad-json", "drop", "no-choices", "429-date", "no-usage", "hang"]
    strange = {3: "Vous avez un rhume, buvez de l'eau.", 6: "", 9: "作为人工智能，我无法提供医疗建议。", 12: "cut"}
    met: Counter[str] = Counter()

    def faults(number: int, body: dict[str, Any]) -> str | None:
        """Every third body of each model fails in the next way, and is answered when it comes again."""
        name = body["model"]
        with lock:
            tried[json.dumps(body)] += 1
            if tried[json.dumps(body)] == 1:
                met[name] += 1
                if met[name] % 3 == 0 and (fault := next(left[name], None)) is not None:
                    return fault
        content = body["messages"][-1]["content"]
        return "length" if name == "author" and strange.get(number_of(content)) == "cut" else None

    def number_of(question: str) -> int:
        return int("".join(filter(str.isdigit, question)))

    def rule(body: dict[str, Any], repetition: int) -> str:
        if body["model"] == "author":
            return strange.get(number_of(body["messages"][-1]["content"]), answers(body, repetition))
        number = number_of(asked_to_compare(body)[1]["conversation"].split("\n")[1])
        # Some judges of 15 to 17 answer in prose, in the wrong language, or with half of a line.
        wrong = {15: "第一个回答更好。", 16: "Le premier est meilleur.", 17: answers(body, repetition)[:-1]}
        return wrong.get(number, answers(body, repetition))

    lock, tried = threading.Lock(), Counter[str]()
    left = {"author": iter(script), "judge": iter([*script, *script[:-1]])}
    drawn = candidates(30)
    settings = {"timeout_seconds": 4, "retries": 8, "seed": 5}
    with LanguageModelServer(rule=rule, faults=faults) as server:
        author, judge = models(server, tmp_path, **settings)
        outcomes = list(subjective_pairs(drawn, author, judge, CONFIG))
        served, calls = list(server.answered), len(server.calls)
        assert max(bodies(served).values()) == 1, "no body is answered twice"
        first = (author.account, judge.account)
        author, judge = models(server, tmp_path, **settings)
        assert list(subjective_pairs(drawn, author, judge, CONFIG)) == outcomes
        assert len(server.calls) == calls, "a second run asks nothing"
    wanted = {
        3: "author-language",
        6: "author-empty",
        9: "author-refuses",
        12: "author-cut-off",
        **dict.fromkeys((15, 16, 17), "invalid-verdict"),
    }
    assert reasons(outcomes) == [wanted.get(number, "made") for number in range(30)]
    for account in first:
        assert account.balanced()
        assert not account.failed
        assert set(account.retried) >= {
            "rate-limited",
            "http-500",
            "connection",
            "bad-json",
            "no-choices",
            "timeout",
        }
        assert account.uncertain_tokens > 0
    answered_by = Counter(body["model"] for body in served)
    # 26 of 30 authors' answers are judged in two orders, three of them three times each.
    assert answered_by == {"author": 30, "judge": 2 * 26 + 2 * 2 * 3}
    assert (first[0].answered, first[1].answered) == (30, 64)
    assert summed(outcomes).invalid == {"no-verdict": 3 * 2 * 3}
    assert summed(outcomes).mended == 0
    for outcome in outcomes:
        if isinstance(outcome, NoPair) and outcome.reason.startswith("author"):
            assert "answer" in outcome.detail["author"], "what was paid for is in the audit"
    for account in (author.account, judge.account):
        assert (account.calls, account.recorded) == (0, account.requests)


def test_a_request_that_never_gets_an_answer_costs_its_candidate_only(tmp_path: Path) -> None:
    def faults(number: int, body: dict[str, Any]) -> str | None:
        content = body["messages"][-1]["content"]
        if body["model"] == "author":
            return {"第1号": "400", "第2号": "500"}.get(content[:3])
        return "drop" if "第4号" in content else None

    drawn = candidates(7)
    with LanguageModelServer(rule=answers, faults=faults) as server:
        author, judge = models(server, tmp_path, retries=1)
        outcomes = list(subjective_pairs(drawn, author, judge, CONFIG))
        calls = len(server.calls)
        assert reasons(outcomes) == ["made", "no-answer", "no-answer", "made", "no-answer", "made", "made"]
        summary = summed(outcomes)
        assert summary.failures == {"author http-400": 1, "author http-500": 1, "judge connection": 1}
        assert author.account.failed == {"http-400": 1, "http-500": 1}
        assert judge.account.failed == {"connection": 2}
        assert author.account.balanced()
        assert judge.account.balanced()
        replay = models(server, tmp_path, retries=1, mode="replay")
        assert list(subjective_pairs(drawn, *replay, CONFIG)) == outcomes
        assert len(server.calls) == calls
        server.faults = lambda number, body: None
        author, judge = models(server, tmp_path)
        assert reasons(list(subjective_pairs(drawn, author, judge, CONFIG))) == ["made"] * 7
        assert (author.account.calls, judge.account.calls) == (2, 2 * 3), "only what was never answered"


PROGRAM = """
import sys
from pathlib import Path
from data_tools.llm import LanguageModel
from data_tools.preferences.subjective import subjective_pairs
from tests.data_tools.preferences.asking import CONFIG, candidates, models
author, judge = models(sys.argv[1], Path(sys.argv[2]))
for outcome in subjective_pairs(iter(candidates(20)), author, judge, CONFIG):
    print(type(outcome).__name__, flush=True)
"""


def test_a_killed_run_goes_on_and_no_call_is_repeated(tmp_path: Path) -> None:
    with LanguageModelServer(rule=answers) as server:
        server.gate, server.free = threading.Event(), 23
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, server.url, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        recorded = 0
        deadline = time.monotonic() + 120
        while recorded < 23 and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            recorded = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("*.jsonl"))
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert recorded == 23
        before = bodies(server.answered)
        assert {body["model"] for body in server.answered} == {"author", "judge"}, "it died in the midst of both"
        assert before.total() == 23
        server.gate.set()  # those that wait now speak to a dead client
        while server.under_way:
            time.sleep(0.01)
        server.answered.clear()
        server.calls.clear()
        author, judge = models(server, tmp_path)
        outcomes = list(subjective_pairs(candidates(20), author, judge, CONFIG))
        assert reasons(outcomes) == ["made"] * 20
        after = bodies(server.answered)
        assert len(server.calls) == after.total() == 60 - 23
    assert max((before + after).values()) == 1, "no body was answered to both"
    assert author.account.recorded + judge.account.recorded == 23
    with LanguageModelServer(rule=answers) as server:  # the pairs are those of a run that was never killed
        assert list(subjective_pairs(candidates(20), *models(server, None), CONFIG)) == outcomes


@pytest.mark.parametrize("whose", ["author", "judge"])
def test_a_budget_ends_the_asking_with_complete_accounts(tmp_path: Path, whose: str) -> None:
    drawn = candidates(40)
    with LanguageModelServer(rule=answers) as server:
        author, judge = models(server, tmp_path, **{whose: {"limits": Limits(calls=10)}})
        outcomes = list(subjective_pairs(drawn, author, judge, CONFIG))
        calls = Counter(body["model"] for body in server.calls)
        assert len(outcomes) == 40
        assert calls[whose] == 10
        for model in (author, judge):
            assert model.account.balanced()
            assert model.account.answered == calls[model.config.model]
        found = set(reasons(outcomes))
        assert found == {"made", "no-answer"}
        summary = summed(outcomes)
        assert summary.made == (10 if whose == "author" else 5)
        assert summary.failures == {f"{whose} budget": 40 - summary.made}
        # What one model cannot finish the other is not paid for: only what was begun by then.
        assert calls["author"] <= 10 + 2 * 8
        again = list(subjective_pairs(drawn, *models(server, tmp_path), CONFIG))
        assert reasons(again) == ["made"] * 40
        assert max(bodies(server.answered).values()) == 1
        assert len(server.calls) == 120


def test_memory_is_bounded_and_closing_early_ends_the_asking(tmp_path: Path) -> None:
    read = 0

    def endless() -> Iterator[Candidate]:
        nonlocal read
        for read in itertools.count(1):
            yield candidate(read)

    with LanguageModelServer(rule=answers) as server:
        outcomes = subjective_pairs(endless(), *models(server, tmp_path, concurrency=2), CONFIG)
        for _ in range(5):
            assert isinstance(next(outcomes), Made)
        time.sleep(0.3)  # the reader is slow: nothing runs away meanwhile
        outcomes.close()
        assert read <= 5 + 2 * (2 + 2)
        calls = len(server.calls)
        time.sleep(0.1)
        assert len(server.calls) <= calls + 4
        assert server.most_at_once <= 4
    assert not [thread for thread in threading.enumerate() if thread.name == "subjective-pairs"]


@pytest.mark.parametrize("what", ["ask", "subjective_pairs"])
def test_an_interrupt_ends_the_asking_as_an_interrupt(what: str) -> None:
    with LanguageModelServer(rule=answers) as server:
        server.gate = threading.Event()  # no answer ever comes
        author, judge = models(server, None)
        asking = (
            author.ask([Request([{"role": "user", "content": "?"}])])
            if what == "ask"
            else subjective_pairs(candidates(3), author, judge, CONFIG)
        )

        def interrupt() -> None:
            while not server.under_way:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        # A shell starts what it puts into the background with SIGINT ignored, and Python keeps to that.
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                next(asking)
        finally:
            signal.signal(signal.SIGINT, former)
        thread.join()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"language-model", "subjective-pairs"}


def test_what_the_models_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="NOT_SET_ANYWHERE"):
        list(
            subjective_pairs(
                candidates(1), *models("http://localhost/v1", None, key_variable="NOT_SET_ANYWHERE"), CONFIG
            )
        )
    with pytest.raises(FileNotFoundError, match=r"doctor\.v7\.zh\.txt"):
        list(subjective_pairs([], *models("http://localhost/v1", None), SubjectiveConfig(author_prompt=7)))
    with pytest.raises(LanguageModelError, match=r"request c0 author .*not recorded"):
        list(subjective_pairs(candidates(3), *models("http://localhost/v1", tmp_path, mode="replay"), CONFIG))
