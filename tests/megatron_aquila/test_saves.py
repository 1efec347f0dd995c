"""The saves of a run, by ranks whose disks are slow or full: of the moment when they began, whole, or not at all."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_aquila import checkpoint, events
from megatron_aquila.config import RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.parallel import parallel_world
from megatron_aquila.errors import ConfigError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience.watchdog import Watchdog
from megatron_aquila.saves import Saves, find_checkpoint
from megatron_aquila.shards import Shard, shard_path, write_shards
from tests.megatron_aquila.corpora import recipe
from tests.world import world


class Weights:
    """A snapshot of a tensor of each rank, for a disk that answers when `disk` is set, or fails."""

    def __init__(self, rank: int) -> None:
        self.rank, self.value = rank, torch.zeros(2)
        self.disk, self.fails = threading.Event(), False

    def write(self, folder: Path) -> None:
        self.copied()(folder)

    def copied(self) -> Callable[[Path], None]:
        value, disk, fails = self.value.clone(), self.disk, self.fails

        def write(folder: Path) -> None:
            assert disk.wait(60)
            if fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            write_shards(shard_path(folder, self.rank), [Shard(f"weight.{self.rank}", (2,), (0,), value)])

        return write


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def save_on_slow_disks(run: RunConfig) -> dict[str, Any]:
    """Save 2 while rank 1's disk is slow; 4 and 4 again; 6, while rank 1's disk is full."""
    with parallel_world(run, choose_device("cpu")) as layout:
        run.output.mkdir(exist_ok=True)
        layout.barrier()
        watchdog = Watchdog(run.output, layout.rank)
        log = EventLog(run.output / events.FILE if layout.is_main else None, 1)
        weights = Weights(layout.rank)
        saves = Saves(run, layout, weights, log, watchdog)  # type: ignore[arg-type]
        folder = run.output / checkpoint.FOLDER
        found: dict[str, Any] = {}
        try:
            state = {"step": 2}
            weights.value.fill_(2.0)
            weights.disk = threading.Event() if layout.rank else set_event()
            saves.begin(2, state, best=True)
            weights.value.fill_(3.0)  # training goes on
            state["step"] = 3
            if layout.rank == 0:
                until(lambda: not saves.unwritten)
            found["unwritten"] = saves.unwritten
            layout.barrier()
            found["before"] = sorted(path.name for path in folder.glob("step-*"))
            weights.disk.set()
            weights.disk = set_event()
            for _ in range(2):  # the first of them waits for the save of 2
                saves.begin(4, {"step": 4}, best=False)
            weights.fails = layout.rank == 1
            saves.begin(6, {"step": 6}, best=False)
            with pytest.raises(checkpoint.CheckpointError) as failed:
                saves.finish(7)
            found["failed"] = str(failed.value)
            saves.finish(7)  # nothing is left to wait for
            found["unwritten after"] = saves.unwritten
        finally:
            watchdog.close()
            log.close()
        return found


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_asynchronous_saves(corpus: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", checkpoint__asynchronous=True, checkpoint__keep=1)
    ranks = world(2, save_on_slow_disks, run=run)
    assert [found["unwritten"] for found in ranks] == [0, 1]
    folder = run.output / checkpoint.FOLDER
    for found in ranks:
        assert found["before"] == [], "not before every rank has written"
        assert "rank 1: " in found["failed"] and "No space left" in found["failed"] and "step 6" in found["failed"]
        assert found["unwritten after"] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["BEST", "LATEST", "step-00000002", "step-00000004"]
    best = checkpoint.open_checkpoint(run.output)
    assert (best.step, best.state) == (2, {"step": 2})
    for rank in range(2):
        read = best.reader().read(f"weight.{rank}", (0,), (2,))
        assert torch.equal(read, torch.full((2,), 2.0)), "as it was when the save began"
        newest = checkpoint.open_checkpoint(folder / "step-00000004").reader()
        assert torch.equal(newest.read(f"weight.{rank}", (0,), (2,)), torch.full((2,), 3.0))
    told = [(event["event"], event["step"], event["checkpoint"]) for event in events.read(run.output / events.FILE)]
    assert told == [("saved", 4, 2), ("saved", 4, 4), ("saved", 6, 4)]


def test_what_resume_says_is_not_said_of_ones_own_checkpoints(tmp_path: Path, corpus: Path) -> None:
    run = recipe(corpus, tmp_path / "run", checkpoint__resume="never")
    single: Any = checkpoint.SingleProcess()
    root = run.output / checkpoint.FOLDER
    assert find_checkpoint(run, single) is None
    assert find_checkpoint(run, single, goes_back=True) is None
    write = lambda folder: write_shards(shard_path(folder, 0), [Shard("w", (1,), (0,), torch.ones(1))])  # noqa: E731
    checkpoint.save(root, 3, write, state={}, keep=None, communicator=single)
    with pytest.raises(ConfigError, match="resume=never"):
        find_checkpoint(run, single)
    found = find_checkpoint(run, single, goes_back=True)
    assert found is not None and found.step == 3
