"""Disks that are full, read-only, slow or broken; half-written lines; clocks that jump."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron_aquila import events, metrics
from megatron_aquila.resilience import ledger
from tests.faults.harness import Result, Scenario
from tests.faults.injection import Call, Fault, broken_disk, full_disk, kill, slowly
from tests.faults.ranks import KILLED, ended_with
from tests.faults.workplace import (
    DP2,
    ONE,
    TP2,
    TP2_DP2,
    Layout,
    Workplace,
    difference,
    repeated,
    saved_steps,
    tail,
)

MiB = 1 << 20


class CannotMount(Exception):
    """This machine lets nobody mount a small file system."""


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[str], None]]:
    """A file system of `size` bytes at `folder`; what is given mounts it anew with other options."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        raise CannotMount
    try:
        yield lambda options: _remount(folder, options)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full(place: Workplace, case: object, draw: random.Random) -> Result:
    """The disk has room for so many bytes; then there is more, and the same command goes on."""
    assert isinstance(case, tuple)
    layout, size, changes = case
    reference = place.reference(layout)
    folder = place.folder("full")
    try:
        with small_disk(folder, size) as again:
            output = folder / "run"
            run = place.recipe(output, layout, **changes)
            ends = place.train_at(run, folder.with_suffix(".json"), layout)
            assert all(end.code not in (0, None) for end in ends), tail(ends)
            assert any("No space left on device" in end.output for end in ends), tail(ends)
            kept = saved_steps(output)
            again(f"size={64 * MiB}")
            done = place.train_at(run, folder.with_suffix(".json"), layout)
            assert [end.code for end in done] == [0] * layout.size, tail(done)
            begun = f"resumed at step {kept[-1]}" if kept else "from step 0"
            assert begun in done[0].output, tail(done)
            return Result((layout.size,), repeated(output), difference(output, reference, exact=True))
    except CannotMount:
        fault = Fault("megatron_aquila.checkpoint:flush_and_digest", full_disk, 2, layout.size - 1)
        return _failing_save(place, layout, fault, "No space left on device")


def read_only_file_system(call: Call, *arguments: Any) -> Any:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def read_only(place: Workplace, case: object, draw: random.Random) -> Result:
    """From the start, or from the middle of the run on."""
    assert isinstance(case, tuple)
    layout, at_start = case
    if not at_start:
        fault = Fault("megatron_aquila.checkpoint:flush_and_digest", read_only_file_system, 2, layout.size - 1)
        return _failing_save(place, layout, fault, "Read-only file system")
    folder = place.folder("read-only")
    try:
        with small_disk(folder, 64 * MiB) as again:
            output = folder / "run"
            again("ro")
            run = place.recipe(output, layout)
            ends = place.train_at(run, folder.with_suffix(".json"), layout)
            assert all(end.code not in (0, None) for end in ends), tail(ends)
            assert any("Read-only file system" in end.output for end in ends), tail(ends)
            again("rw")
            done = place.train_at(run, folder.with_suffix(".json"), layout)
            assert [end.code for end in done] == [0] * layout.size, tail(done)
            return Result((layout.size,), 0, difference(output, place.reference(layout), exact=True))
    except CannotMount:
        fault = Fault("megatron_aquila.checkpoint:flush_and_digest", read_only_file_system, 1, layout.size - 1)
        return _failing_save(place, layout, fault, "Read-only file system")


def broken(place: Workplace, case: object, draw: random.Random) -> Result:
    assert isinstance(case, tuple)
    layout, asynchronous = case
    fault = Fault("os:fsync", broken_disk, draw.randint(3, 12), draw.randrange(layout.size))
    return _failing_save(place, layout, fault, "Input/output error", checkpoint__asynchronous=asynchronous)


def _failing_save(place: Workplace, layout: Layout, fault: Fault, reason: str, **changes: Any) -> Result:
    """Every rank ends with a sentence; what was saved before is there."""
    output = place.folder("failing")
    ends = place.train(output, layout, faults=[fault], **changes)
    assert ended_with(ends, 2), tail(ends)
    said = "".join(end.output for end in ends)
    assert reason in said and "Traceback" not in said, tail(ends)
    place.finish(output, layout, **changes)
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


def slow(place: Workplace, case: object, draw: random.Random) -> Result:
    """Every flush takes so long that the save takes many times what a step does; nobody is shot."""
    assert isinstance(case, tuple)
    layout, asynchronous = case
    output = place.folder("slow")
    changes = {
        "resilience__save_timeout": 30.0,
        "resilience__step_timeout": 30.0,
        "checkpoint__asynchronous": asynchronous,
    }
    ends = place.train(output, layout, faults=[Fault("os:fsync", slowly, 0, rank=None)], **changes)
    assert [end.code for end in ends] == [0] * layout.size, tail(ends)
    return Result((layout.size,), 0, difference(output, place.reference(layout), exact=True))


def half_a_line(place: Workplace, layout: object, draw: random.Random) -> Result:
    """Killed in the middle of writing a line, into each of the run's logs."""
    assert isinstance(layout, Layout)
    output = place.folder("line")
    fault = Fault("megatron_aquila.trainer:run_schedule", kill, draw.randint(4, 8))
    ends = place.train(output, layout, faults=[fault], patience=0.0)
    assert ends[0].code == KILLED, tail(ends)
    for name in (metrics.FILE, events.FILE, ledger.FILE):
        with (output / name).open("a", encoding="utf-8") as file:
            file.write('{"step": 7, "train/lo')
    place.finish(output, layout)
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True), 3)


def clock_put_back(call: Call, *arguments: Any) -> float:
    now: float = call()
    return now - 3600.0


def clock_put_forward(call: Call, *arguments: Any) -> float:
    """By a day, and a day more with every look."""
    now: float = call()
    return now + 86_400.0 * (1.0 + time.monotonic() % 1.0)


def clock_jumps(place: Workplace, case: object, draw: random.Random) -> Result:
    """The clock, of which only records depend, is put forward or back: no watchdog fires, no time is below zero."""
    assert isinstance(case, tuple)
    layout, action = case
    output = place.folder("clock")
    changes = {"resilience__step_timeout": 60.0, "resilience__save_timeout": 60.0}
    ends = place.train(output, layout, faults=[Fault("time:time", action, 0, rank=None)], **changes)
    assert [end.code for end in ends] == [0] * layout.size, tail(ends)
    found = events.goodput(events.read(output / events.FILE), metrics.read(output / metrics.FILE))
    assert found is not None and 0.0 <= found.share <= 1.0 and min(found.by_kind.values()) >= 0.0
    return Result((layout.size,), 0, difference(output, place.reference(layout), exact=True))


_SIZES = (64 << 10, 256 << 10, 640 << 10, 1200 << 10, 1700 << 10, 2200 << 10)

SCENARIOS = [
    Scenario(
        f"disk full, with room for {_SIZES[0] >> 10} to {_SIZES[-1] >> 10} KiB",
        full,
        [
            (layout, size, {"checkpoint__asynchronous": asynchronous})
            for layout in (ONE, TP2, TP2_DP2)
            for asynchronous in (False, True)
            for size in _SIZES
        ],
        (3, 7),
        "all ranks end (no exit code 0); with room again, goes on from the last checkpoint",
    ),
    Scenario(
        "read-only folder, from the start or in a save",
        read_only,
        [(layout, at_start) for layout in (TP2, ONE, TP2_DP2) for at_start in (True, False)],
        (0,),
        "all ranks end; writable again, goes on",
    ),
    Scenario(
        "fsync fails with EIO; synchronous and asynchronous saves",
        broken,
        [(layout, asynchronous) for layout in (TP2, ONE, TP2_DP2) for asynchronous in (True, False)],
        (0,),
        "exit code 2 on every rank, a sentence; the checkpoint before it is sound",
    ),
    Scenario(
        "slow disk: 50 ms more for each fsync",
        slow,
        [(layout, asynchronous) for layout in (TP2, DP2) for asynchronous in (True, False)],
        (0,),
        "goes on; no watchdog fires below its limit",
    ),
    Scenario(
        "half a line at the end of metrics.jsonl, events.jsonl and ledger.jsonl, after a kill",
        half_a_line,
        (TP2, ONE, TP2_DP2),
        (1,),
        "dropped",
    ),
    Scenario(
        "the clock put back an hour, or forward by days, again and again",
        clock_jumps,
        [(layout, action) for layout in (TP2, ONE) for action in (clock_put_forward, clock_put_back)],
        (0,),
        "goes on; no watchdog fires",
    ),
]
