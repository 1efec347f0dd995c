"""The door to a language model, against a real server on loopback that fails as servers do."""

import asyncio
import hashlib
import json
import multiprocessing
import resource
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_tools.llm import (
    Answer,
    AnswerCache,
    Failure,
    LanguageModel,
    LanguageModelError,
    Limits,
    ModelConfig,
    NotRecordedError,
    Request,
)
from data_tools.llm.attempts import read_retry_after
from data_tools.llm.budget import Pace
from data_tools.llm.exchange import payload, request_key
from data_tools.publish import StorageError
from tests.data_tools.llm_server import LanguageModelServer, tokens

SECRET = "sk-test-0123456789abcdef"


def config(server: LanguageModelServer, cache: Path | None, **changes: Any) -> ModelConfig:
    values = {
        "model": "m",
        "base_url": server.url,
        "cache": cache,
        "mode": "off" if cache is None else "record",
        "concurrency": 4,
        "timeout_seconds": 20,
        "backoff_seconds": 0.005,
        "max_tokens": 50,
    }
    return ModelConfig(**{**values, **changes})


def questions(count: int, word: str = "question") -> list[Request]:
    return [Request([{"role": "user", "content": f"{word} {number} 问题"}], id=f"q{number}") for number in range(count)]


def expected(requests: list[Request]) -> list[str]:
    return ["echo: " + request.messages[-1]["content"] for request in requests]


def texts(results: list[Answer | Failure]) -> list[str]:
    return [result.text if isinstance(result, Answer) else f"FAILED {result.reason}" for result in results]


def bodies(calls: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in calls)


def test_faults_of_every_kind_lose_nothing_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    script = ["429", "500", "cut", "drop", "bad-json", "no-choices", "429-date", "no-usage", "null"]
    requests = questions(20)
    with LanguageModelServer(faults=lambda number, body: script[number] if number < len(script) else None) as server:
        model = LanguageModel(config(server, tmp_path))
        results = list(model.ask(requests))
        assert bodies(server.answered) == bodies([payload(model.config, request) for request in requests])
        assert len(server.calls) == 20 + 7
        again = LanguageModel(config(server, tmp_path))
        assert list(again.ask(requests)) == results
        assert len(server.calls) == 20 + 7, "what was answered is not asked again"
    wanted = expected(requests)
    assert texts(results).count("") == 1, "the answer without content is an answer, and paid for once"
    assert [text or wanted[place] for place, text in enumerate(texts(results))] == wanted
    account = model.account
    assert account.balanced()
    assert (account.requests, account.answered, account.recorded, account.calls) == (20, 20, 0, 27)
    assert account.retried == {"rate-limited": 2, "http-500": 1, "connection": 2, "bad-json": 1, "no-choices": 1}
    assert not account.failed
    assert account.estimated == 1
    # Of 4 attempts the fate is unknown: at most 50 tokens of answer each, and 18 or 19 bytes and a template of prompt.
    assert 4 * (50 + 18) <= account.uncertain_tokens <= 4 * (50 + 100)
    assert again.account.recorded == again.account.requests == 20


def test_an_answer_is_what_the_openai_client_itself_reads(tmp_path: Path) -> None:
    import openai

    changes = {"temperature": 0.7, "top_p": 0.9, "seed": 4, "max_tokens_field": "max_completion_tokens"}
    extra = {"top_k": 3, "chat_template_kwargs": {"enable_thinking": False}}
    (request,) = questions(1)
    with LanguageModelServer() as server:
        (answer,) = LanguageModel(config(server, tmp_path, extra=extra, **changes)).ask([request])
        theirs = openai.OpenAI(api_key="none", base_url=server.url).chat.completions.create(
            model="m",
            messages=request.messages,  # type: ignore[arg-type]
            temperature=0.7,
            top_p=0.9,
            seed=4,
            max_completion_tokens=50,
            extra_body=extra,
        )
        assert server.calls[0] == server.calls[1]
    assert theirs.usage is not None
    assert answer == Answer(
        text=theirs.choices[0].message.content or "",
        finish_reason=theirs.choices[0].finish_reason,
        model=theirs.model,
        prompt_tokens=theirs.usage.prompt_tokens,
        completion_tokens=theirs.usage.completion_tokens,
    )


def test_an_answer_that_does_not_come_is_asked_for_again(tmp_path: Path) -> None:
    requests = questions(3)
    with LanguageModelServer(faults=lambda number, body: "hang" if number == 0 else None) as server:
        model = LanguageModel(config(server, tmp_path, timeout_seconds=0.8, retries=20))
        assert texts(list(model.ask(requests))) == expected(requests)
    assert model.account.retried["timeout"] >= 1
    assert model.account.uncertain_tokens >= 50
    assert model.account.balanced()


@pytest.mark.parametrize("fault", ["500", "drop", "bad-json", "no-choices"])
def test_a_request_that_fails_for_good_is_a_failure_and_the_others_are_answered(tmp_path: Path, fault: str) -> None:
    def faults(number: int, body: dict[str, Any]) -> str | None:
        return fault if "question 3" in body["messages"][0]["content"] else None

    requests = questions(8)
    with LanguageModelServer(faults=faults) as server:
        model = LanguageModel(config(server, tmp_path, retries=2))
        results = list(model.ask(requests))
        assert isinstance(results[3], Failure)
        assert [text for place, text in enumerate(texts(results)) if place != 3] == [
            text for place, text in enumerate(expected(requests)) if place != 3
        ]
        assert model.account.balanced()
        assert model.account.failed == {results[3].reason: 1}
        assert model.account.retried == {results[3].reason: 2}
        assert len(server.calls) == 7 + 3
        # A replay ends as the run did; a recording run asks again.
        replay = LanguageModel(config(server, tmp_path, mode="replay"))
        assert list(replay.ask(requests)) == results
        assert len(server.calls) == 7 + 3
        server.faults = lambda number, body: None
        assert texts(list(LanguageModel(config(server, tmp_path)).ask(requests))) == expected(requests)
        assert len(server.calls) == 7 + 3 + 1
    assert list(LanguageModel(config(server, tmp_path, mode="replay")).ask(requests)) != results


def test_retry_after_holds_up_all_requests(tmp_path: Path) -> None:
    with LanguageModelServer(faults=lambda number, body: "429" if number == 0 else None) as server:
        assert texts(list(LanguageModel(config(server, tmp_path, concurrency=1)).ask(questions(3)))) == expected(
            questions(3)
        )
    first, *others = server.times
    assert len(others) == 3
    assert min(others) - first >= 0.29


def test_a_bad_request_is_not_repeated_and_a_refused_key_ends_the_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_MODEL_KEY", SECRET)
    caplog.set_level("DEBUG")
    with LanguageModelServer(faults=lambda number, body: "400") as server:
        model = LanguageModel(config(server, tmp_path, key_variable="TEST_MODEL_KEY"))
        results = list(model.ask(questions(3)))
        assert [result.reason for result in results if isinstance(result, Failure)] == ["http-400"] * 3
        assert len(server.calls) == 3
        assert set(server.keys) == {f"Bearer {SECRET}"}
        assert "[key]" in str(results[0]), "the server's words held the key"
        server.faults = lambda number, body: "307"
        (moved,) = LanguageModel(config(server, tmp_path, key_variable="TEST_MODEL_KEY")).ask(questions(1, "moved"))
        assert isinstance(moved, Failure)
        assert moved.reason == "http-307"
        assert not server.strays, "neither key nor text goes elsewhere"
        for fault, reason in (("401", "http-401"), ("quota", "quota")):
            server.calls.clear()
            server.faults = lambda number, body, fault=fault: fault
            model = LanguageModel(config(server, tmp_path, key_variable="TEST_MODEL_KEY", concurrency=1))
            refused = list(model.ask(questions(20, fault)))
            assert model.account.failed == {reason: 20}
            assert len(server.calls) == 1
            results += refused
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) > 100
    for place in (written.decode(), repr(results), repr(model.account.to_json()), caplog.text, repr(model.config)):
        assert SECRET not in place


def test_a_server_that_is_down_is_given_up(tmp_path: Path) -> None:
    with LanguageModelServer() as server:
        address = server.url
    model = LanguageModel(
        ModelConfig(
            model="m", base_url=address, mode="off", retries=1, backoff_seconds=0.001, give_up_after=5, concurrency=2
        )
    )
    results = list(model.ask(questions(200)))
    assert len(results) == 200
    assert model.account.balanced()
    assert model.account.failed["server-down"] == 200 - model.account.failed["connection"] >= 190
    assert model.account.uncertain_tokens == 0, "nobody can charge for a connection that was refused"


def test_results_come_in_order_and_no_more_are_under_way_than_asked(tmp_path: Path) -> None:
    with LanguageModelServer(delay=0.02) as server:
        model = LanguageModel(config(server, None, concurrency=6))
        requests = questions(40)
        assert texts(list(model.ask(requests))) == expected(requests)
        assert 2 <= server.most_at_once <= 6


def test_closing_the_results_early_ends_the_asking(tmp_path: Path) -> None:
    with LanguageModelServer(delay=0.01) as server:
        results = LanguageModel(config(server, tmp_path, concurrency=2)).ask(questions(500))
        assert isinstance(next(results), Answer)
        results.close()
        calls = len(server.calls)
        assert calls < 50
        time.sleep(0.1)
        assert len(server.calls) <= calls + 2


def test_no_request_starts_before_its_time() -> None:
    async def starts(pace: Pace, count: int) -> list[float]:
        begin = time.monotonic()

        async def start(number: int) -> float:
            await pace.wait(55)
            return time.monotonic() - begin

        return sorted(await asyncio.gather(*(start(number) for number in range(count))))

    async def all_starts() -> None:
        values = {"model": "m", "base_url": "http://localhost/v1", "mode": "off"}
        for limit, seconds in (({"requests_per_minute": 1200}, 0.05), ({"tokens_per_minute": 60_000}, 0.055)):
            pace = Pace(ModelConfig(**values, **limit))
            found = await starts(pace, 5)
            assert all(time >= number * seconds - 1e-3 for number, time in enumerate(found))
            pace.pause(0.15)
            assert min(await starts(pace, 2)) >= 0.15 - 1e-3

    asyncio.run(all_starts())


def test_equal_requests_are_asked_once_and_samples_each(tmp_path: Path) -> None:
    one = questions(1)[0]
    requests = [one, one, Request(one.messages, sample=1), one]
    with LanguageModelServer(rule=lambda body, repetition: f"answer {repetition}") as server:
        model = LanguageModel(config(server, tmp_path, concurrency=1))
        assert texts(list(model.ask(requests))) == ["answer 0", "answer 0", "answer 1", "answer 0"]
        assert (model.account.answered, model.account.recorded, len(server.calls)) == (2, 2, 2)
        off = LanguageModel(config(server, None, concurrency=1, seed=7))
        list(off.ask(requests))
        assert len(server.calls) == 6, "without a cache every request is a call"
        assert [body["seed"] for body in server.calls[2:]] == [7, 7, 8, 7]


def test_a_replay_needs_neither_server_nor_key_and_says_what_it_lacks(tmp_path: Path) -> None:
    with LanguageModelServer() as server:
        results = list(LanguageModel(config(server, tmp_path)).ask(questions(5)))
    offline = config(server, tmp_path, mode="replay", key_variable="NOT_SET_ANYWHERE")
    model = LanguageModel(offline)
    assert list(model.ask(questions(5))) == results
    assert (model.account.calls, model.account.recorded) == (0, 5)
    with pytest.raises(NotRecordedError, match=r"request q5 \(sample 0\) is not recorded in .*mode: record"):
        list(model.ask(questions(6)))
    with pytest.raises(LanguageModelError, match="NOT_SET_ANYWHERE"):
        list(LanguageModel(config(server, tmp_path, key_variable="NOT_SET_ANYWHERE")).ask(questions(1)))


def test_the_key_of_a_request_is_the_digest_of_what_is_sent_and_the_sample() -> None:
    model = ModelConfig(model="名", base_url="http://a/v1", mode="off", temperature=0.5, seed=3, extra={"top_k": 5})
    request = Request([{"content": "好 é", "role": "user"}], sample=2)
    body = {
        "model": "名",
        "messages": [{"role": "user", "content": "好 é"}],
        "max_tokens": 256,
        "temperature": 0.5,
        "seed": 5,
        "top_k": 5,
    }
    content = {"version": 1, "body": body, "sample": 2}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    assert request_key(model, request) == hashlib.sha256(canonical).digest()
    elsewhere = model.model_copy(update={"base_url": "http://b/v1", "concurrency": 3, "key_variable": "OTHER"})
    assert request_key(elsewhere, request) == request_key(model, request)


def test_a_record_cut_anywhere_is_not_there_and_those_before_it_are(tmp_path: Path) -> None:
    answers = [Answer(f'答 {number}\n"', "stop", "m", number, 2 * number) for number in range(3)]
    keys = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    with AnswerCache(tmp_path) as cache:
        for key, answer in zip(keys, answers):
            cache.record(key, answer)
        assert [cache.answer(key) for key in keys] == answers
    (segment,) = tmp_path.glob("*.jsonl")
    whole = segment.read_bytes()
    starts = [0, *(place + 1 for place, byte in enumerate(whole) if byte == 10)]
    for cut in {
        *range(0, len(whole) + 1, 11),
        *starts,
        *(start - 1 for start in starts[1:]),
        *(start + 1 for start in starts[:3]),
    }:
        segment.write_bytes(whole[:cut])
        with AnswerCache(tmp_path, read_only=True) as cache:
            there = sum(start <= cut for start in starts[1:])
            assert [cache.answer(key) for key in keys] == answers[:there] + [None] * (3 - there)
            assert cache.damaged == 0
    for place in range(starts[1], starts[2] - 1, 5):  # one bit of the second record
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with AnswerCache(tmp_path, read_only=True) as cache:
            assert [cache.answer(key) for key in keys] == [answers[0], None, answers[2]]
            assert cache.damaged >= 1


def test_a_full_disk_leaves_whole_records_only(tmp_path: Path) -> None:
    answer = Answer("x" * 300, "stop", "m", 1, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AnswerCache(tmp_path) as cache:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            with pytest.raises(StorageError, match="free some space"):
                for number in range(9):
                    cache.record(hashlib.sha256(bytes([number])).digest(), answer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        held = len(cache)
        assert 1 <= held <= 3
        cache.record(hashlib.sha256(b"after").digest(), answer)  # there is room again
    with AnswerCache(tmp_path) as cache:
        assert (len(cache), cache.damaged) == (held + 1, 0)


def _ask_all(values: dict[str, Any], count: int, results: Any) -> None:
    model = LanguageModel(ModelConfig(**values))
    found = texts(list(model.ask(questions(count))))
    results.put((found, model.account.calls, model.account.recorded))


def test_two_processes_share_a_cache_and_no_request_is_paid_for_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with LanguageModelServer(delay=0.02) as server:
        values = config(server, tmp_path).model_dump()
        results = context.Queue()
        workers = [context.Process(target=_ask_all, args=(values, 60, results)) for _ in range(2)]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join(timeout=60)
        assert bodies(server.calls) == bodies(server.answered)
        assert set(bodies(server.calls).values()) == {1}
        assert len(server.calls) == 60
    assert [texts for texts, _, _ in found] == [expected(questions(60))] * 2
    assert sum(calls for _, calls, _ in found) == 60
    assert sum(recorded for _, _, recorded in found) == 60


def test_the_dry_run_is_what_the_run_uses(tmp_path: Path) -> None:
    long = [Request([{"role": "system", "content": "s" * 9}, {"role": "user", "content": "药" * 1001}])]
    requests = [*questions(20), *questions(5), *long]
    prices = {"input_price": 3.0, "output_price": 15.0}
    with LanguageModelServer() as server:
        first = LanguageModel(config(server, tmp_path, **prices))
        list(first.ask(questions(8)))
        calls = len(server.calls)
        model = LanguageModel(config(server, tmp_path, **prices))
        estimate = model.estimate(requests)
        assert len(server.calls) == calls, "a dry run calls nobody"
        list(model.ask(requests))
    account = model.account
    assert (estimate.requests, estimate.calls, estimate.recorded) == (26, 13, 13)
    assert (account.requests, account.calls, account.recorded) == (26, 13, 13)
    assert estimate.prompt_tokens == account.prompt_tokens
    assert account.prompt_tokens == sum(
        tokens(message["content"]) for request in [*questions(20)[8:], *long] for message in request.messages
    )
    assert estimate.completion_tokens == 13 * 50 >= account.completion_tokens
    assert estimate.cost == pytest.approx((estimate.prompt_tokens * 3 + 650 * 15) / 1e6)
    assert account.cost == pytest.approx((account.prompt_tokens * 3 + account.completion_tokens * 15) / 1e6)
    assert "4 bytes" in estimate.counted_by


@pytest.mark.parametrize("limits", [Limits(calls=10), Limits(tokens=400), Limits(cost=0.0006)])
def test_a_limit_is_not_exceeded_and_a_second_run_goes_on(tmp_path: Path, limits: Limits) -> None:
    requests = questions(40)
    prices = {"input_price": 1.0, "output_price": 2.0}
    with LanguageModelServer() as server:
        model = LanguageModel(config(server, tmp_path, limits=limits, **prices))
        results = list(model.ask(requests))
        account = model.account
        assert account.balanced()
        assert account.failed == {"budget": 40 - account.answered}
        assert 3 <= account.answered == len(server.calls) < 40
        used = account.prompt_tokens + account.completion_tokens
        if limits.calls is not None:
            assert account.calls == limits.calls
        if limits.tokens is not None:  # the next one could take 84 bytes of prompt and 50 of answer, or little less
            assert limits.tokens - 150 < used <= limits.tokens
        if limits.cost is not None:
            assert account.cost <= limits.cost < account.cost + 0.0003
        assert all(result.detail for result in results if isinstance(result, Failure))
        rest = LanguageModel(config(server, tmp_path))
        assert texts(list(rest.ask(requests))) == expected(requests)
        assert len(server.calls) == 40


def test_attempts_of_unknown_fate_count_against_the_limits(tmp_path: Path) -> None:
    with LanguageModelServer(faults=lambda number, body: "cut") as server:
        model = LanguageModel(config(server, tmp_path, limits=Limits(tokens=1000), concurrency=1))
        list(model.ask(questions(40)))
        assert model.account.failed["budget"] > 30
        assert 5 <= len(server.calls) <= 1000 // (64 + 50)
        assert model.account.uncertain_tokens <= 1000


def test_a_text_that_is_not_unicode_is_a_failure_of_its_own(tmp_path: Path) -> None:
    requests = [*questions(1), Request([{"role": "user", "content": "half \ud83d"}], id="bad"), *questions(3)[1:]]
    with LanguageModelServer() as server:
        for cache in (tmp_path, None):
            model = LanguageModel(config(server, cache))
            assert [isinstance(result, Failure) for result in model.ask(requests)] == [False, True, False, False]
            assert model.account.failed == {"bad-text": 1}


def test_retry_after_in_all_its_forms() -> None:
    now = 1_700_000_000.0
    assert read_retry_after({"retry-after": "7"}, now) == 7
    assert read_retry_after({"retry-after": "0.5"}, now) == 0.5
    assert read_retry_after({"retry-after-ms": "1500", "retry-after": "9"}, now) == 1.5
    assert read_retry_after({"retry-after": formatdate(now + 90, usegmt=True)}, now) == 90
    assert read_retry_after({"retry-after": formatdate(now - 90, usegmt=True)}, now) == 0
    for unusable in ("soon", "-3", "nan", ""):
        assert read_retry_after({"retry-after": unusable}, now) is None
    assert read_retry_after({}, now) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key_variable": SECRET}, "NAME of an environment variable"),
        ({"base_url": f"https://user:{SECRET}@host/v1"}, "no user name"),
        ({"base_url": "localhost:8000"}, "http://localhost:8000/v1"),
        ({"extra": {"n": 2}}, "extra must not hold n"),
        ({"limits": {"cost": 1.0}}, "needs input_price"),
        ({"mode": "record"}, "needs cache"),
    ],
)
def test_a_configuration_is_refused_without_repeating_a_secret(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        ModelConfig(**{"model": "m", "base_url": "http://localhost/v1", "mode": "off", **changes})
    assert SECRET not in str(caught.value)
