"""The processes of one node."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from megatron_aquila.nodes.verdict import End


class Ranks:
    """Ranks of this node, each the leader of a session of its own, so that a terminal's Ctrl-C reaches the launcher
    only and a rank's helpers can be ended with it.
    """

    def __init__(self, command: Sequence[str], first: int, environments: Sequence[Mapping[str, str]]) -> None:
        """Start `command` once for each environment, as ranks `first`, `first` + 1, ..."""
        self.ends: list[End] = []  # of those that ended by themselves, in that order
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for rank, environment in enumerate(environments, first):
                self._processes[rank] = subprocess.Popen(
                    command, env={**os.environ, **environment}, start_new_session=True
                )
        except BaseException:
            self.end(0.0)
            raise

    def running(self) -> bool:
        """Whether any rank still runs; notes in `ends` those that do not."""
        ended = {end.rank for end in self.ends}
        for rank, process in self._processes.items():
            if rank not in ended and process.poll() is not None:
                self.ends.append(End(rank, process.returncode))
        return len(self.ends) < len(self._processes)

    def signal(self, number: int) -> None:
        """Send a signal to every rank that runs, but not to the processes that a rank has started."""
        for process in self._processes.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def end(self, seconds: float) -> None:
        """SIGTERM, and after `seconds` SIGKILL; then SIGKILL for what the ranks have left behind."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(process.poll() is None for process in self._processes.values()):
            time.sleep(0.05)
        for process in self._processes.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):  # a process in the kernel's hands (a dead disk) cannot be ended
                process.wait(10.0)
