"""What a run's time went into, by hand; a log that was cut off is read, and a killed run is accounted for."""

from __future__ import annotations

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila import events, metrics
from megatron_aquila.events import EventLog, Goodput, goodput
from tests.command import aquila_in_ranks
from tests.megatron_aquila.corpora import recipe, write_recipe
from tests.megatron_aquila.test_resume import wait_until
from tests.world import WorldError, kill


def event(at: float, name: str, step: int, seconds: float = 0.0, trained: float = 0.0, **facts: Any) -> dict[str, Any]:
    return {"time": at, "event": name, "step": step, "seconds": seconds, "training_seconds": trained, **facts}


def kinds(**seconds: float) -> dict[str, Any]:
    names = ("training", "repeated", "startup", "validation", "questions", "saving", "down", "other")
    return {name: pytest.approx(seconds.get(name, 0.0)) for name in names}


# Made ready from 100 to 110; 4 s of questions; 10 steps of 2 s; 3 s of validation; 5 s of saving; 1 s of nothing known.
WHOLE = [
    event(110, "start", 0, 10, reached=0),
    event(114, "questions", 0, 4),
    event(137, "evaluated", 10, 3, trained=20),
    event(142, "saved", 10, 5, trained=20),
    event(143, "end", 10, trained=20),
]


def test_a_run_without_interruption_by_hand() -> None:
    expected = kinds(training=20, startup=10, validation=3, questions=4, saving=5, other=1)
    assert goodput(WHOLE, []) == Goodput(43, 20, pytest.approx(20 / 43), expected, 0, 0)


def test_steps_after_a_kill_count_once_by_hand() -> None:
    """Saved at 4 and at 8, killed after step 13 was logged; ready again 50 s after the last sign, from step 8."""
    killed = [
        event(110, "start", 0, 10, reached=0),
        event(119, "saved", 4, 1, trained=8),
        event(128, "saved", 8, 1, trained=16),
        event(140, "evaluated", 12, 4, trained=24),
        event(190, "resume", 8, 5, reached=13),
        event(199, "saved", 12, 1, trained=8),
        event(208, "saved", 16, 1, trained=16),
        event(208, "end", 16, trained=16),
    ]
    expected = kinds(training=32, repeated=8, startup=15, validation=4, saving=4, down=45)
    assert goodput(killed, []) == Goodput(108, 32, pytest.approx(32 / 108), expected, 1, 5)


def test_a_damaged_checkpoint_makes_older_steps_repeated_by_hand() -> None:
    """The second process goes on from 8, the third from 4: of the first only its first 4 steps are left, of the second
    nothing. Where nothing was written at step 4, its time follows from the steps around it."""
    fallen_back = [
        event(100, "start", 0, 0, reached=0),
        event(116, "saved", 8, 0, trained=16),
        event(120, "resume", 8, 0, reached=8),
        event(124, "evaluated", 10, 0, trained=4),
        event(130, "resume", 4, 0, reached=10),
        event(142, "end", 10, trained=12),
    ]
    expected = kinds(training=8 + 12, repeated=8 + 4, down=4 + 6)
    assert goodput(fallen_back, []) == Goodput(42, 20, pytest.approx(20 / 42), expected, 2, 6)


def test_killed_before_the_first_checkpoint_nothing_is_left_of_the_first_process() -> None:
    twice = [event(100, "start", 0, 0), event(110, "evaluated", 5, 2, trained=8)]
    twice += [event(120, "start", 0, 4, reached=7), event(130, "end", 5, trained=10)]
    expected = kinds(training=10, repeated=8, startup=4, validation=2, down=6)
    assert goodput(twice, []) == Goodput(30, 10, pytest.approx(1 / 3), expected, 1, 7)


def test_a_save_of_an_earlier_step_may_end_after_a_later_event() -> None:
    back = [event(100, "start", 0, 0), event(108, "anomaly", 4, trained=8), event(109, "saved", 3, 1, trained=8)]
    back += [event(110, "resume", 2, 1, reached=3), event(120, "end", 4, trained=4)]
    expected = kinds(training=4 + 4, repeated=4, startup=1, saving=1, other=6)
    assert goodput(back, []) == Goodput(20, 8, pytest.approx(0.4), expected, 1, 2)


def test_a_run_under_way_is_followed_by_its_metrics() -> None:
    """Two reports of two and three steps since the last event."""
    records = [{"step": 4, "throughput/step_seconds": 9.0}, {"step": 10, "questions/general/accuracy": 0.5}]
    records += [{"step": 12, "throughput/step_seconds": 2.0}, {"step": 15, "throughput/step_seconds": 3.0}]
    expected = kinds(training=20 + 13, startup=10, validation=3, questions=4, saving=5)
    assert goodput(WHOLE[:-1], records) == Goodput(55, 33, pytest.approx(33 / 55), expected, 0, 0)


def test_time_after_the_end_is_nobodys() -> None:
    again = [*WHOLE, event(1000, "resume", 10, 7, reached=10), event(1000, "end", 10)]
    expected = kinds(training=20, startup=17, validation=3, questions=4, saving=5, other=1)
    assert goodput(again, []) == Goodput(50, 20, pytest.approx(0.4), expected, 0, 0)


def test_no_events_no_goodput(tmp_path: Path) -> None:
    assert events.read(tmp_path / events.FILE) == []
    assert goodput([], [{"step": 1, "throughput/step_seconds": 1.0}]) is None


def test_a_half_line_is_dropped_and_what_stood_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / events.FILE
    log = EventLog(path, 0)
    log.write("start", 0, 1.5)
    log.close()
    with path.open("a") as file:
        file.write('{"time": 1.0, "eve')
    assert [found["event"] for found in events.read(path)] == ["start"]
    before = time.time()
    log = EventLog(path, 3)
    with log.training():
        time.sleep(0.02)
    with log.timed("saved", 4):
        time.sleep(0.01)
    log.write("end", 4)
    log.close()
    start, saved, _ = found = events.read(path)
    assert [found["event"] for found in found] == ["start", "saved", "end"]
    assert start["seconds"] == 1.5 and start["training_seconds"] == 0
    assert saved["training_seconds"] >= 0.02 and saved["seconds"] >= 0.01 and before < saved["time"] < time.time()
    EventLog(path, 0).close()
    assert events.read(path) == [], "a run that ended is begun anew"


def test_nothing_is_written_of_what_failed_nor_by_other_ranks(tmp_path: Path) -> None:
    log = EventLog(tmp_path / events.FILE, 0)
    with pytest.raises(OSError, match="disk"), log.timed("saved", 4):
        raise OSError("disk")
    assert events.read(tmp_path / events.FILE) == []
    silent = EventLog(None, 0)
    silent.write("start", 0)
    assert not silent.is_displaced
    silent.close()


def test_the_process_that_begins_last_has_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / events.FILE
    first = EventLog(path, 0)
    first.write("start", 0)
    assert not first.is_displaced
    second = EventLog(path, 0)
    assert first.is_displaced and not second.is_displaced
    first.write("saved", 1)
    second.write("resume", 1)
    assert [event["event"] for event in events.read(path)] == ["start", "resume"]

    def stale(descriptor: int) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", stale)
        assert second.is_displaced, "NFS: another machine has replaced it"
    path.unlink()
    assert not second.is_displaced, "nobody has begun"
    first.close()
    second.close()


def test_a_killed_run_is_accounted_for(corpus: Path, tmp_path: Path) -> None:
    """The seconds of its kinds add up to those from its first event to its last, and to what a clock beside it says."""
    output = tmp_path / "killed"
    run_file = write_recipe(recipe(corpus, output, checkpoint__every=3, training__steps=12), tmp_path / "run.yaml")

    def reached(step: int) -> bool:
        return any(record["step"] >= step for record in metrics.read(output / metrics.FILE))

    began = time.time()
    with ThreadPoolExecutor() as pool:
        ranks = pool.submit(aquila_in_ranks, 1, "train", run_file)
        wait_until(lambda: reached(5), lambda: str(ranks.exception()) if ranks.done() else None, pause=0.002)
        kill()
        with pytest.raises(WorldError, match="died"):
            ranks.result()
    logged = max(record["step"] for record in metrics.read(output / metrics.FILE))
    aquila_in_ranks(1, "train", run_file)
    lasted = time.time() - began

    happened = events.read(output / events.FILE)
    assert [found["event"] for found in happened if found["event"] in ("start", "resume", "end")] == [
        *("start", "resume", "end")
    ]
    resumed = next(found for found in happened if found["event"] == "resume")
    assert resumed["step"] in (3, 6, 9) and resumed["reached"] == logged
    assert {found["step"] for found in happened if found["event"] == "saved"} == {3, 6, 9, 12}
    found = goodput(happened, metrics.read(output / metrics.FILE))
    assert found is not None
    assert found.restarts == 1 and found.steps_repeated == logged - resumed["step"]
    assert sum(found.by_kind.values()) == pytest.approx(found.total_seconds, abs=0.01)
    assert found.total_seconds < lasted
    assert all(seconds >= 0 for seconds in found.by_kind.values())
    assert found.by_kind["down"] > 0 and found.by_kind["saving"] > 0 and found.by_kind["validation"] > 0
    assert 0 < found.productive_seconds < found.total_seconds
    assert json.dumps(found.by_kind)
