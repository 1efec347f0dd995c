"""Runs of `aquila data pairs` that are killed, and servers that fail all the time: nothing is lost or asked twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.config_files import dump_config
from data_tools.preferences.run import build_pairs
from tests.data_tools.chat_samples import chat_tokenizer
from tests.data_tools.llm_server import LanguageModelServer
from tests.data_tools.preferences.pairs_world import dialogues, questions, read, recipe, results, rule, write

REPOSITORY = Path(__file__).parents[3]
COMMAND = "import sys; from data_tools.cli import app; app(sys.argv[1:])"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write(tmp_path / "dialogues.jsonl", dialogues())
    write(tmp_path / "questions.jsonl", questions())
    chat_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def answered(server: LanguageModelServer) -> Counter[str]:
    return Counter(json.dumps(body, sort_keys=True) for body in server.answered)


def recorded(cache: Path) -> int:
    """Answers on the disk."""
    return sum(path.read_bytes().count(b"\n") for path in cache.rglob("*") if path.is_file())


def run_until(world: Path, server: LanguageModelServer, free: int) -> None:
    """`aquila data pairs` on recipe.yaml, killed once `free` more answers are on the disk and it waits for the next."""
    before = recorded(world / "cache")
    server.gate, server.free = threading.Event(), free
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "pairs", str(world / "recipe.yaml"), "--workers=1"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while recorded(world / "cache") < before + free:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_at_any_moment_it_goes_on_and_asks_nothing_twice(world: Path, tmp_path: Path) -> None:
    with LanguageModelServer(rule=rule) as server:
        apart = dict.fromkeys(("subjective__author__cache", "subjective__judge__cache"), tmp_path / "other")
        build_pairs(recipe(world, server, output=tmp_path / "whole", **apart))
        expected, calls = results(tmp_path / "whole"), answered(server)
    with LanguageModelServer(rule=rule) as server:
        made = recipe(world, server)
        (world / "recipe.yaml").write_text(dump_config(made))
        for free in (7, 40):
            run_until(world, server, free)
            assert not (world / "out" / "manifest.json").exists()
            assert not list((world / "out").glob("pairs_*"))
            server.gate.set()  # type: ignore[union-attr]  # the killed run's requests are answered to nobody
            while server.under_way:
                time.sleep(0.01)
        server.gate = None
        lost = len(server.answered) - recorded(world / "cache")
        asked_before = len(server.answered)
        funnel = build_pairs(made).funnel
        assert results(world / "out") == expected
        after = Counter(json.dumps(body, sort_keys=True) for body in server.answered[asked_before:])
        assert answered(server).keys() == calls.keys(), "the same is asked as without a kill"
        assert set(after.values()) == {1}
        assert len(after) == len(calls) - 47, "what was on the disk is not asked again"
        assert 0 < lost <= 2 * 8, "of what was under way when it was killed, no more than concurrency"
        assert funnel["accounts"]["judge"]["answered"] <= sum(body["model"] == "judge" for body in server.answered)
        runs = json.loads((world / "out" / "accounts.json").read_text())["runs"]
        assert 2 <= len(runs) <= 3, "a killed run leaves its account, once a candidate was through"
    assert [path for path in (world / "out").rglob("*") if path.suffix == ".tmp"] == []
    assert not (world / "out" / "work").exists()


def test_a_server_that_fails_in_every_way_leaves_a_complete_account(world: Path) -> None:
    """Each call in its turn: 429, 500, cut off, dropped, broken JSON, or an answer in another language."""
    turn = ("429-date", None, "500", None, "cut", None, "drop", None, "bad-json", None, None)
    failed: Counter[str] = Counter()
    lock = threading.Lock()

    def faults(number: int, body: dict[str, Any]) -> str | None:
        fault = turn[number % len(turn)]
        if fault is not None:
            with lock:
                failed[body["model"]] += 1
        return fault

    def babel(body: dict[str, Any], repetition: int) -> str:
        said = rule(body, repetition)
        asked = body["messages"][-1]["content"]
        if body["model"] == "author" and "头痛" in asked and len(asked) % 2:
            return "A headache often comes from a lack of sleep. Please rest, and see a doctor if it lasts long."
        return said

    with LanguageModelServer(rule=babel, faults=faults) as server:
        patient = {"retries": 6, "backoff_seconds": 0.001}
        models = {f"subjective__{role}__{key}": value for role in ("author", "judge") for key, value in patient.items()}
        funnel = build_pairs(recipe(world, server, **models)).funnel
        for model, account in funnel["accounts"].items():
            mine = [body for body in server.calls if body["model"] == model]
            assert account["calls"] == len(mine)
            assert account["answered"] == sum(body["model"] == model for body in server.answered)
            assert account["requests"] == account["answered"] + account["recorded"] + sum(account["failed"].values())
            assert sum(account["retried"].values()) == failed[model] - sum(account["failed"].values()) > 0
        assert set(answered(server).values()) == {1}
    audit = read(world / "out" / "audit.jsonl.zst")
    foreign = [line for line in audit if line["outcome"] == "author-language"]
    assert foreign
    assert all(line["lang"] == "zh" and line["evidence"]["value"] == "en" for line in foreign)
    assert funnel["judge"]["no_pair"]["author-language"] == len(foreign)


def test_the_reports_numbers_are_those_of_the_audit(world: Path) -> None:
    """funnel.json counts while it runs; here everything is counted again out of what was written down."""

    def sloppy(body: dict[str, Any], repetition: int) -> str:
        """A judge that does not keep to the form at times: the more often, the less it is asked again."""
        said = rule(body, repetition)
        careless = body["model"] == "judge" and len(body["messages"][-1]["content"]) % 3 == 0 and "seed" not in body
        return said.replace("overall", "total") if careless else said

    with LanguageModelServer(rule=sloppy) as server:
        made = recipe(world, server, subjective__settings={"retries": 1}, subjective__candidates__draw={"spare": 1})
        funnel = build_pairs(made).funnel
    lines = [line for line in read(world / "out" / "audit.jsonl.zst") if line["kind"] == "subjective"]
    pairs = read(world / "out" / "pairs_train.jsonl") + read(world / "out" / "pairs_valid.jsonl")
    judge = funnel["judge"]
    orders = [order for line in lines for order in line["evidence"].get("judge", [])]
    valid = [order["verdict"]["overall"] for order in orders if order["verdict"]]
    assert judge["verdicts"] == dict(Counter(valid))
    invalid = [said["invalid"] for order in orders for said in order["said"] if said.get("invalid")]
    assert judge["invalid"] == dict(Counter(invalid)) and invalid
    assert judge["first_share"] == pytest.approx(valid.count("first") / (len(valid) - valid.count("tie")), abs=1e-6)
    both = [
        tuple(order["verdict"]["overall"] for order in line["evidence"]["judge"])
        for line in lines
        if len([order for order in line["evidence"].get("judge", []) if order["verdict"]]) == 2
    ]
    # The second order has the answers the other way round: the same answer is another place.
    same = sum(pair in (("first", "second"), ("second", "first"), ("tie", "tie")) for pair in both)
    assert judge["agreement"] == pytest.approx(same / len(both), abs=1e-6)
    assert judge["no_pair"] == dict(Counter(line["outcome"] for line in lines if line["outcome"] != "pair"))
    assert judge["no_pair"]["invalid-verdict"] > 0
    assert judge["candidates"] == len(lines)
    subjective = [pair for pair in pairs if pair["kind"] == "subjective"]
    assert judge["made"] == len(subjective) == sum(line["outcome"] == "pair" for line in lines)
    assert judge["winners"] == dict(Counter(pair["meta"]["winner"] for pair in subjective))
    longer = Counter(len(pair["chosen"][0]["content"]) > len(pair["rejected"][0]["content"]) for pair in subjective)
    [row] = [row for row in funnel["length_bias"]["groups"] if (row["kind"], row["lang"]) == ("subjective", "")]
    assert row["longer_chosen"] == longer[True]
    assert row["pairs"] == len(subjective)
    [steps] = [kind["steps"] for kind in funnel["kinds"] if kind["kind"] == "subjective"]
    assert {step["name"]: (step["in"], step["out"]) for step in steps}["pairs"] == (len(lines), len(subjective))
    page = (world / "out" / "funnel.html").read_text()
    assert f"{len(lines)} candidates went to author and judge, {len(subjective)} became pairs." in page
