"""SIGTERM and SIGUSR1 ask a run to end: the step is finished, the run saved, the exit code says "run me again".

Slurm sends SIGUSR1 before a job's time limit where it is asked to (`--signal`), and SIGTERM when it preempts one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from megatron_aquila.errors import TRY_AGAIN, AquilaError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Slurm signals every process of a step, and the launcher in it passes on what it gets: one request, two signals.
SAME_REQUEST = 2.0  # seconds


class Stopped(AquilaError):
    """The run was asked to end, and is saved; the same command goes on with it."""

    exit_code = TRY_AGAIN


class StopSignals:
    """A context in which the first of `SIGNALS` is remembered, and a second ends the process at once.

    What follows within `SAME_REQUEST` seconds of the first is no second one.
    It changes nothing outside the main thread, where Python takes no signals.
    """

    def __init__(self) -> None:
        self.received: str | None = None  # the name of the first
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = signal.Signals(number).name, now
        elif now - self._since > SAME_REQUEST:
            os._exit(128 + number)  # asked twice: what is not saved is lost
