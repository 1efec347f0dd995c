"""Workers that are killed, whatever they were doing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

import pytest

from data_tools.pool import Pool, WorkerDiedError


class Pids:
    def start(self) -> None:
        pass

    def do(self, task: int, report: Callable[[int], None]) -> int:
        return os.getpid()


def test_a_worker_that_died_while_all_were_idle() -> None:
    with Pool(Pids(), workers=2) as pool:
        pids, _ = pool.run([0, 1, 2], lambda done: None)
        (worker,) = (child for child in multiprocessing.active_children() if child.pid == pids[0])
        os.kill(pids[0], signal.SIGKILL)
        worker.join(60)
        for _ in range(2):  # whether the pool has seen it by now or not
            with pytest.raises(WorkerDiedError, match="a worker process died"):
                pool.run([3, 4, 5, 6], lambda done: None)
