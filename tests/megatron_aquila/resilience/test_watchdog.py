"""Ranks that hang are ended, each with its stack; ranks that are slow, stopped or asleep are not.

Every case is a process of its own, and all of them run at the same time: most of what they do is to wait.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.resilience.watchdog import Watchdog
from tests.world import forked

GRACE = 3.0
SIZE = 3


# -- what the processes do ------------------------------------------------------------------------------------


def stuck_in_gloo(watchdog: Watchdog, output: Path) -> None:
    import torch
    import torch.distributed as dist

    with watchdog.phase("step", 7, 1.5):
        dist.all_reduce(torch.ones(1))  # nobody else comes


def stuck_in_a_write(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("save", 7, 600):
        (output / "fifo").open("w")  # nobody reads it


def stuck_with_the_lock(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("step", 7, 600):
        re.match(r"(a+)+$", "a" * 64 + "b")  # keeps Python's lock for ages


def stuck_alone_with_the_lock(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("step", 3, 0.5):
        ctypes.PyDLL(None).sleep(600)  # unlike CDLL, keeps it


def stuck_on_a_full_disk(watchdog: Watchdog, output: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with watchdog.phase("step", 2, 0.5):
        threading.Event().wait()


def stuck_while_heartbeats_hang(watchdog: Watchdog, output: Path) -> None:
    """The pulse hangs in a file that is never read, as on a disk that does not answer."""
    heartbeat = output / "ranks" / "rank-00000.tmp"
    while True:
        with suppress(FileExistsError):
            os.mkfifo(heartbeat)
            break
    time.sleep(1.5)
    with watchdog.phase("save", 4, 0.5):
        threading.Event().wait()


def moves_slowly(watchdog: Watchdog, output: Path) -> None:
    for step in range(8):
        with watchdog.phase("step", step, 3.0):
            time.sleep(0.6)


def saves_within_a_step(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("step", 1, 2.0):
        with watchdog.phase("questions", 1, 0):
            time.sleep(2.5)
        time.sleep(0.2)
    with watchdog.phase("step", 2, 2.0), suppress(ValueError):
        raise ValueError
    time.sleep(2.5)  # no phase, no limit


def lives_through_a_clock_jump(watchdog: Watchdog, output: Path) -> None:
    real = time.time
    with watchdog.phase("step", 1, 3.0):
        time.time = lambda: real() + 86_400  # the machine's clock is set
        time.sleep(1.0)
    time.time = real


def is_stopped_for_a_while(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("step", 1, 2.0):
        (output / "stop me").touch()
        time.sleep(1.0)


def writes_its_stack_when_asked(watchdog: Watchdog, output: Path) -> None:
    with watchdog.phase("step", 1, 60):
        os.kill(os.getpid(), signal.SIGUSR2)


def enter(case: Callable[[Watchdog, Path], None], output: Path, rank: int, port: int | None) -> None:
    """Run `case` as a rank; what it says on stderr goes to a file, and its exit code says how it ended."""
    errors = os.open(output / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT)
    if case is stuck_on_a_full_disk:  # no limit on what goes to a pipe
        read, errors = os.pipe()
        os.set_inheritable(read, True)
        if os.fork() == 0:
            os.close(errors)
            said = b"".join(iter(lambda: os.read(read, 65_536), b""))
            (output / f"stderr-{rank}").write_bytes(said)
            os._exit(0)
    os.dup2(errors, 2)
    os.close(errors)
    if port is not None:
        import torch.distributed as dist

        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=SIZE)
    watchdog = Watchdog(output, rank, grace=1.0 if case is stuck_alone_with_the_lock else GRACE)
    case(watchdog, output)
    watchdog.close()
    sys.stderr.flush()
    os._exit(0)


# -- how they ended -------------------------------------------------------------------------------------------

TOGETHER = [stuck_in_gloo, stuck_in_a_write, stuck_with_the_lock]
ALONE = [
    stuck_alone_with_the_lock,
    stuck_on_a_full_disk,
    stuck_while_heartbeats_hang,
    moves_slowly,
    saves_within_a_step,
    lives_through_a_clock_jump,
    is_stopped_for_a_while,
    writes_its_stack_when_asked,
]


class Ended:
    def __init__(self, process: BaseProcess, output: Path, rank: int) -> None:
        self.code = process.exitcode
        self.ranks = output / "ranks"
        self.said = (output / f"stderr-{rank}").read_text()
        stack = self.ranks / f"rank-{rank:05d}.stack"
        self.stack = stack.read_text() if stack.exists() else None
        self.heartbeat = json.loads((self.ranks / f"rank-{rank:05d}.json").read_text())


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    from tests.world import next_port

    started: dict[str, tuple[BaseProcess, Path, int]] = {}

    def start(case: Callable[..., None], output: Path, *arguments: Any) -> None:
        started[case.__name__] = (forked(enter, case, output, *arguments), output, arguments[0])

    world = tmp_path_factory.mktemp("world")
    os.mkfifo(world / "fifo")
    port = next_port()
    for rank, case in enumerate(TOGETHER):
        start(case, world, rank, port)
    for case in ALONE:
        start(case, tmp_path_factory.mktemp(case.__name__), 0, None)

    stopped, output, _ = started[is_stopped_for_a_while.__name__]
    assert stopped.pid is not None
    while not (output / "stop me").exists():
        time.sleep(0.05)
    os.kill(stopped.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(stopped.pid, signal.SIGCONT)

    # In the dictionary's order: the rank that has to be killed, as torchrun does once another has ended, comes third.
    for name, (process, *_) in started.items():
        process.join(0 if name == stuck_with_the_lock.__name__ else 60)
        process.kill()
        process.join()
    yield {name: Ended(*arguments) for name, arguments in started.items()}


def test_every_rank_leaves_its_stack_and_one_speaks(ended: dict[str, Ended]) -> None:
    gloo, write, lock = (ended[case.__name__] for case in TOGETHER)
    assert gloo.code == write.code == 76
    assert lock.code == -signal.SIGKILL
    for rank, case in ((gloo, "stuck_in_gloo"), (write, "stuck_in_a_write"), (lock, "stuck_with_the_lock")):
        assert rank.stack is not None and case in rank.stack
    assert "'MainThread' (most recent call first)" in (gloo.stack or "")
    assert "all_reduce" in (gloo.stack or "")
    assert "in 'save' of step 7" in (write.stack or "")
    assert "in match" in (lock.stack or ""), "written in C, by a signal that another rank has sent"
    sentence = gloo.said.splitlines()[-1]
    assert re.match(r"rank 0 was stuck in 'step' of step 7 for [1-9]\d* s and is ended with exit code 76: ", sentence)
    assert f"{gloo.ranks}/rank-*.stack" in sentence and "resilience.step_timeout" in sentence
    assert "was stuck" not in write.said + lock.said
    hang = json.loads((gloo.ranks / "HANG").read_text())
    assert (hang["rank"], hang["phase"], hang["step"]) == (0, "step", 7)
    assert gloo.heartbeat["phase"] == "step" and write.heartbeat["phase"] == "save"


def test_a_rank_alone_that_holds_pythons_lock_is_ended_by_faulthandler(ended: dict[str, Ended]) -> None:
    rank = ended["stuck_alone_with_the_lock"]
    assert rank.code == 1
    assert rank.stack is not None and "in stuck_alone_with_the_lock" in rank.stack and "Timeout" in rank.stack


def test_a_full_disk_does_not_hinder_and_the_stack_goes_to_the_terminal(ended: dict[str, Ended]) -> None:
    rank = ended["stuck_on_a_full_disk"]
    assert rank.code == 76 and rank.stack == ""
    assert "in stuck_on_a_full_disk" in rank.said
    assert "rank 0 was stuck in 'step' of step 2" in rank.said and "and of this rank above" in rank.said


def test_a_disk_that_hangs_does_not_hinder(ended: dict[str, Ended]) -> None:
    rank = ended["stuck_while_heartbeats_hang"]
    assert rank.code == 76 and "rank 0 was stuck in 'save' of step 4" in rank.said
    assert "stuck_while_heartbeats_hang" in (rank.stack or "")


@pytest.mark.parametrize(
    "case", [moves_slowly, saves_within_a_step, lives_through_a_clock_jump, is_stopped_for_a_while]
)
def test_what_is_not_stuck_lives(case: Callable[..., None], ended: dict[str, Ended]) -> None:
    rank = ended[case.__name__]
    assert (rank.code, rank.stack, rank.said) == (0, None, "")
    assert rank.heartbeat["phase"] == "closed" and not (rank.ranks / "HANG").exists()


def test_sigusr2_has_a_rank_write_its_stack_and_go_on(ended: dict[str, Ended]) -> None:
    rank = ended["writes_its_stack_when_asked"]
    assert rank.code == 0 and "in writes_its_stack_when_asked" in (rank.stack or "")


# -- in this process ------------------------------------------------------------------------------------------


def test_old_files_end_nobody_and_are_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "ranks"
    folder.mkdir()
    (folder / "HANG").write_text("old")
    for rank in (0, 1, 7):
        (folder / f"rank-{rank:05d}.stack").write_text(f"stack {rank}")
        (folder / f"rank-{rank:05d}.json").write_text("{}")
    watchdog = Watchdog(tmp_path, 0, world_size=2)
    left = {path.name for path in folder.iterdir()}
    assert "HANG" not in left and "rank-00007.stack" not in left and "rank-00007.json" not in left
    assert (folder / "HANG.before").read_text() == "old"
    assert (folder / "rank-00000.stack.before").read_text() == "stack 0"
    assert (folder / "rank-00001.stack").read_text() == "stack 1", "rank 1 puts its own away"
    watchdog.close()


def test_nothing_is_left_running_or_open_after_close(tmp_path: Path) -> None:
    def open_files() -> list[str]:
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    threads, files = set(threading.enumerate()), open_files()
    for step in range(3):
        watchdog = Watchdog(tmp_path, 0)
        with watchdog.phase("step", step, 100):
            assert len(set(threading.enumerate()) - threads) == 2
        watchdog.close()
        assert set(threading.enumerate()) == threads
        assert open_files() == files
    assert sorted(path.name for path in (tmp_path / "ranks").iterdir()) == ["rank-00000.json"]
    heartbeat = json.loads((tmp_path / "ranks" / "rank-00000.json").read_text())
    assert heartbeat["pid"] == os.getpid() and heartbeat["phase"] == "closed"
