"""Signals to a process: the first is remembered, its echo is none, the second ends it; outside all is as it was."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from megatron_aquila.resilience import signals
from megatron_aquila.resilience.signals import SAME_REQUEST, SIGNALS, StopSignals
from tests.world import forked


def test_the_first_is_remembered_and_the_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # of the same request
        assert stop.received == "SIGUSR1"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert StopSignals().received is None


def test_another_thread_leaves_the_handlers_alone() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    found = []

    def look() -> None:
        with StopSignals():
            found.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == before


def be_asked(apart: float) -> None:
    """Get SIGUSR1, and SIGTERM `apart` seconds later as far as the process's clock is concerned; then end with 7."""
    now = time.monotonic
    with StopSignals():
        os.kill(os.getpid(), signal.SIGUSR1)
        signals.time.monotonic = lambda: now() + apart  # type: ignore[assignment]
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(7)


@pytest.mark.parametrize(("apart", "code"), [(SAME_REQUEST / 2, 7), (2 * SAME_REQUEST, 128 + signal.SIGTERM)])
def test_the_second_ends_the_process(apart: float, code: int) -> None:
    process = forked(be_asked, apart)
    process.join(30)
    assert process.exitcode == code
