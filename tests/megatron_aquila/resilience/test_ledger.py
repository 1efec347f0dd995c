"""The ledger finds a sample that was lost or came twice, and any line that is not as it was written."""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.resilience.ledger import Ledger, LedgerError, fingerprint, read, signed, verify

Sample = tuple[int, ...]


def mixed(state: int) -> int:
    """One step of splitmix64 as published (Vigna, prng.di.unimi.it/splitmix64.c), in Python's integers."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def plain_fingerprint(samples: list[Sample]) -> int:
    total = 0
    for sample in samples:
        state = len(sample)
        for number in sample:
            state = mixed(state ^ (number % 2**64))
        total += mixed(state)
    total %= 2**64
    return total - 2**64 if total >= 2**63 else total


def of_step(step: int, count: int = 8) -> list[Sample]:
    return [(step // 3, number) for number in range(step * count, (step + 1) * count)]


def written(path: Path, steps: int, mode: Any = "digest", first: int = 0) -> Path:
    ledger = Ledger(path, first, mode)
    for step in range(first + 1, steps + 1):
        ledger.write(step, of_step(step), fingerprint(of_step(step)), skipped=step == 4)
    ledger.close()
    return path


@pytest.mark.parametrize("seed", range(5))
def test_fingerprint_is_the_published_hash_and_adds_up_over_any_division(seed: int) -> None:
    rng = random.Random(seed)
    samples: list[Sample] = [
        tuple(rng.randrange(-(2**63), 2**63) for _ in range(rng.choice([1, 2, 3]))) for _ in range(rng.randrange(300))
    ]
    expected = plain_fingerprint(samples)
    assert fingerprint(samples) == expected
    ranks: list[list[Sample]] = [[] for _ in range(rng.randrange(1, 9))]
    rng.shuffle(samples)
    for sample in samples:
        rng.choice(ranks).append(sample)
    assert signed(sum(map(fingerprint, ranks))) == expected
    assert all(-(2**63) <= fingerprint(rank) < 2**63 for rank in ranks), "travels as an int64"


def test_fingerprint_tells_neighbours_lengths_and_order_within_a_sample() -> None:
    few: list[list[Sample]] = [[], [(0,)], [(1,)], [(0, 0)], [(0, 1)], [(1, 0)], [(0,), (0,)], [(0,), (1,)], [(0,) * 3]]
    assert len({fingerprint(samples) for samples in few}) == len(few)


@pytest.mark.parametrize("fault", ["lost", "twice", "swapped"])
@pytest.mark.parametrize("main", [True, False])
def test_a_sample_lost_doubled_or_swapped_stops_every_rank(fault: str, main: bool, tmp_path: Path) -> None:
    samples = of_step(7, 768)
    trained = {
        "lost": samples[:-1],
        "twice": [*samples, samples[3]],
        "swapped": [*samples[:-1], samples[0]],
    }[fault]
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path if main else None, 0, "digest")
    with pytest.raises(LedgerError, match="step 7: the ranks did not train on the 768 samples"):
        ledger.write(7, samples, fingerprint(trained))
    ledger.write(7, samples, fingerprint(samples))
    ledger.close()
    assert [line["step"] for line in read(path)] == ([7] if main else [])


def test_lines_say_what_was_trained_on(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", 5, "ids")
    lines = read(path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line.get("skipped", False) for line in lines] == [False, False, False, True, False]
    for line in lines:
        assert [tuple(sample) for sample in line["ids"]] == of_step(line["step"])
        assert int(line["sum"], 16) == plain_fingerprint(of_step(line["step"])) % 2**64
    assert verify(path) == []
    digest = read(written(tmp_path / "digest.jsonl", 5))
    assert all("ids" not in line and line["samples"] == 8 for line in digest)
    assert verify(tmp_path / "none.jsonl") == read(tmp_path / "none.jsonl") == []


def test_switched_off_nothing_is_written_or_compared(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", 0, "off")
    ledger.write(1, of_step(1), 0)
    ledger.close()
    assert list(tmp_path.iterdir()) == []


def test_a_pretraining_run_of_60_billion_tokens_keeps_below_10_mb(tmp_path: Path) -> None:
    """19,074 steps of 768 rows of 4096; the lines of the last steps are the longest."""
    ledger = Ledger(tmp_path / "ledger.jsonl", 0, "digest")
    samples = [(19_073 * 768 + row,) for row in range(768)]
    ledger.write(19_074, samples, fingerprint(samples), skipped=True)
    ledger.close()
    assert (tmp_path / "ledger.jsonl").stat().st_size * 19_074 < 10e6


@pytest.mark.parametrize("seed", range(8))
def test_any_kills_and_resumes_end_in_the_ledger_of_one_that_went_on(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    steps = 20
    whole = written(tmp_path / "whole.jsonl", steps).read_bytes()
    path, step = tmp_path / "ledger.jsonl", 0
    while step < steps:
        reached = rng.randint(step, steps)
        written(path, reached, first=step)
        if rng.random() < 0.7:
            with path.open("ab") as file:
                half = whole.splitlines(keepends=True)[min(reached, steps - 1)]
                file.write(half[: rng.randrange(len(half))])
            assert verify(path) == [], "a line that is being written is no fault"
        step = reached if reached == steps else rng.randint(0, reached)  # the last checkpoint
    Ledger(path, steps, "digest").close()
    assert path.read_bytes() == whole


def test_what_lies_beyond_the_checkpoint_is_dropped_unread(tmp_path: Path) -> None:
    """After a power failure it may be anything."""
    path = written(tmp_path / "ledger.jsonl", 9)
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:6])
    path.write_bytes(kept + b"\0" * 500 + b"\n\xff\xfe{\n")
    written(path, 9, first=6)
    assert path.read_bytes() == written(tmp_path / "whole.jsonl", 9).read_bytes()


def altered(lines: list[str], fault: str) -> tuple[list[str], int, str]:
    """The lines with a fault, the number of the line where it shows, and what is said of it."""
    if fault == "a count":
        return [*lines[:4], lines[4].replace('"samples": 8', '"samples": 9'), *lines[5:]], 5, "was altered"
    if fault == "an id":
        return [*lines[:2], lines[2].replace("[1, 24]", "[1, 25]"), *lines[3:]], 3, "was altered"
    if fault == "blanks":
        return [*lines[:2], lines[2].replace(": ", ":"), *lines[3:]], 3, "was altered"
    if fault == "taken out":
        return [*lines[:3], *lines[4:]], 4, "step 5 follows step 3"
    if fault == "twice":
        return [*lines[:3], lines[2], *lines[3:]], 4, "step 3 follows step 3"
    if fault == "exchanged":
        return [*lines[:1], lines[2], lines[1], *lines[3:]], 2, "step 3 follows step 1"
    return [*lines[:6], lines[6][:-20], *lines[7:]], 7, "is no line of a ledger"


FAULTS = ["a count", "an id", "blanks", "taken out", "twice", "exchanged", "torn"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_that_was_touched_is_named_and_refused(fault: str, tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", 8, "ids")
    lines, number, reason = altered(path.read_text().splitlines(), fault)
    path.write_text("".join(f"{line}\n" for line in lines))
    found = verify(path)
    assert f"{path}: line {number}" in found[0] and reason in found[0]
    if fault in ("a count", "an id", "blanks", "torn"):
        assert all(f"line {number}" in sentence for sentence in found), "the lines after it are sound"
    with pytest.raises(LedgerError, match=re.escape(f"{path}: line {number} was altered, or does not follow")):
        Ledger(path, 8, "ids")
    Ledger(path, number - 1, "ids").close()  # a checkpoint from before the fault goes on
    assert verify(path) == [] and len(read(path)) == number - 1


def test_ids_that_were_forged_with_their_chain_do_not_fit_their_sum(tmp_path: Path) -> None:

    path = written(tmp_path / "ledger.jsonl", 1, "ids")
    (line,) = read(path)
    line["ids"][0] = [5, 5]
    del line["chain"]
    chain = hashlib.sha256(json.dumps(line).encode()).hexdigest()
    path.write_text(json.dumps({**line, "chain": chain}) + "\n")
    assert [sentence.partition(": line ")[2] for sentence in verify(path)] == [
        "1: step 1 has other ids than its sum says"
    ]


def test_a_disk_that_cannot_be_written_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, 0, "digest")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, usual[1]))
    try:
        with pytest.raises(LedgerError, match=re.escape(f"{path} cannot be written: File too large")):
            ledger.write(1, of_step(1), fingerprint(of_step(1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    ledger.close()
