"""The ranks of a run as processes of their own: each ends as it would under a launcher, by an exit code or a signal.

`tests/world.py` keeps its ranks for the next call, and tears down all when one dies. What is tested here is how ranks
end: they are forked from the same warm process, run `aquila` once, and are gone.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.faults.injection import Fault, install
from tests.world import forked, next_port

PREEMPTED = 75  # EX_TEMPFAIL: stopped by a signal and saved
HUNG = 76  # ended by the watchdog
KILLED = -signal.SIGKILL
STOPPED_WITH_THE_REST = None  # the launcher ended it because another rank had failed

_LIMIT_SECONDS = 300.0
_LOOKS_EVERY = 2.0  # seconds until a launcher notices that a rank has failed
_forking = threading.Lock()  # it changes the environment for a moment


@dataclass(frozen=True)
class End:
    """How a rank ended: its exit code, minus the signal that killed it, or None where the launcher ended it; and what
    it printed.
    """

    code: int | None
    output: str


class RanksRunning:
    """`size` ranks of `aquila ARGUMENTS`, under way."""

    def __init__(self, size: int, arguments: Sequence[object], log: Path, faults: Sequence[Fault] = ()) -> None:
        log.mkdir(parents=True, exist_ok=True)
        port = next_port()
        self._logs = [log / f"rank-{rank}.log" for rank in range(size)]
        self.processes: list[BaseProcess] = []
        for rank, path in enumerate(self._logs):
            path.unlink(missing_ok=True)
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            own = [fault for fault in faults if fault.rank in (None, rank)]
            words = [str(argument) for argument in arguments]
            with _forking:
                self.processes.append(forked(_rank, environment, sys.path, words, str(path), own))

    def send(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        for rank in range(len(self.processes)) if ranks is None else ranks:
            pid = self.processes[rank].pid
            assert pid is not None
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def output(self) -> str:
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in self._logs if path.exists())

    def ends(self, *, patience: float = 20.0) -> list[End]:
        """Wait for all. When one has failed the rest has `patience` seconds to end by itself, with a SIGTERM on the way
        as launchers send it, and is then killed.
        """
        killed: set[int] = set()
        deadline = time.monotonic() + _LIMIT_SECONDS
        self._wait(deadline, lambda codes: any(code not in (None, 0, PREEMPTED) for code in codes))
        if any(process.exitcode not in (None, 0, PREEMPTED) for process in self.processes):
            deadline = time.monotonic() + patience
            self._wait(time.monotonic() + min(patience, _LOOKS_EVERY), lambda codes: False)
            if patience:
                self.send(signal.SIGTERM)
            self._wait(deadline, lambda codes: False)
        elif self._alive():
            self.send(signal.SIGKILL)
            raise AssertionError(f"the ranks did not end in {_LIMIT_SECONDS:g} s:\n{self.output()}")
        killed = {rank for rank, process in enumerate(self.processes) if process.is_alive()}
        self.send(signal.SIGKILL, sorted(killed))
        ends = []
        for rank, (process, path) in enumerate(zip(self.processes, self._logs)):
            process.join()
            code = STOPPED_WITH_THE_REST if rank in killed else process.exitcode
            ends.append(End(code, path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""))
            process.close()
        return ends

    def _wait(self, deadline: float, holds: Callable[[list[int | None]], bool]) -> None:
        """Until all have ended, `holds` is true of their exit codes, or the time is over."""
        while alive := self._alive():
            left = deadline - time.monotonic()
            if left <= 0 or holds([process.exitcode for process in self.processes]):
                return
            wait([process.sentinel for process in alive], timeout=left)

    def _alive(self) -> list[BaseProcess]:
        return [process for process in self.processes if process.is_alive()]


def ended_with(ends: Sequence[End], code: int) -> bool:
    """Whether one rank ended so, and every other too, or by the launcher that saw it."""
    others = (code, -signal.SIGTERM, STOPPED_WITH_THE_REST)
    codes = [end.code for end in ends]
    return code in codes and all(one in others for one in codes)


def run_ranks(
    size: int, arguments: Sequence[object], log: Path, faults: Sequence[Fault] = (), *, patience: float = 20.0
) -> list[End]:
    """Run them to their ends."""
    return RanksRunning(size, arguments, log, faults).ends(patience=patience)


def _rank(environment: dict[str, str], path: list[str], arguments: list[str], log: str, faults: list[Fault]) -> None:
    sys.path[:] = path
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    faulthandler.enable()  # a crash in native code says where it was
    from megatron_aquila.cli import main

    for fault in faults:
        install(fault)
    sys.argv = ["aquila", *arguments]
    main()
