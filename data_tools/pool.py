"""Runs tasks on spawned processes. A worker that dies is noticed at once; workers whose parent dies end
themselves.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_process
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from data_tools.publish import sha256_file

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)

_POLL_SECONDS = 0.2


class WorkerDiedError(RuntimeError):
    """A worker process was killed, most often for want of memory."""


class Work(Protocol[Task, Result]):
    """What workers do. It is sent to each of them once, by pickle."""

    def start(self) -> None:
        """Load what every task needs. Called once in the process that works, before its first task."""

    def do(self, task: Task, report: Callable[[int], None]) -> Result:
        """Do one task; `report` is called now and then with how much of it is done."""


class Pool(Generic[Task, Result]):
    """A context manager: `workers` processes that keep what they loaded from one `run` to the next.

    With one worker the work is done in this process, by the very object that was given.

    Raises (from `run`):
        WorkerDiedError: tasks that were committed stay so.
        StorageError, OSError: from a task; no further ones are begun.
    """

    def __init__(self, work: Work[Task, Result], workers: int) -> None:
        self._work = work
        self._workers = workers
        self._started = False
        self._executor: ProcessPoolExecutor | None = None
        # One slot per worker: how much it has done of this run. Each is written by one process, so that there is no
        # lock that a killed worker could hold for ever.
        self._progress: Any = None

    def __enter__(self) -> "Pool[Task, Result]":
        if self._workers > 1:
            spawn = multiprocessing.get_context("spawn")
            self._progress = spawn.RawArray("Q", self._workers)
            slots = spawn.SimpleQueue()
            for slot in range(self._workers):
                slots.put(slot)
            arguments = (self._work, self._progress, slots)
            self._executor = ProcessPoolExecutor(self._workers, spawn, _start_worker, arguments)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def run(
        self, tasks: Sequence[Task], on_progress: Callable[[int], None], *, hash_files: Sequence[Path] = ()
    ) -> tuple[list[Result], list[str]]:
        """Do `tasks`, and take the SHA-256 of `hash_files`; results in the given order.

        Args:
            on_progress: called with what the tasks reported, summed up.
        """
        if self._executor is None:
            return self._run_here(tasks, on_progress), [sha256_file(path) for path in hash_files]
        for slot in range(self._workers):
            self._progress[slot] = 0
        pending: set[Future[Any]] = set()
        try:
            done = [self._executor.submit(_do, task) for task in tasks]  # raises if a worker died while all were idle
            hashed = [self._executor.submit(sha256_file, path) for path in hash_files]
            pending = {*done, *hashed}
            while pending:
                finished, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    future.result()
                on_progress(sum(self._progress))
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker process died (killed, or out of memory); the finished shards are kept: run the "
                "same command again to go on from there, with fewer --workers if memory was short"
            ) from error
        finally:
            for future in pending:
                future.cancel()
        return [future.result() for future in done], [future.result() for future in hashed]

    def _run_here(self, tasks: Sequence[Task], on_progress: Callable[[int], None]) -> list[Result]:
        if tasks and not self._started:
            self._work.start()
            self._started = True
        results, before = [], 0
        for task in tasks:
            here = 0

            def report(done: int, before: int = before) -> None:
                nonlocal here
                here = done
                on_progress(before + done)

            results.append(self._work.do(task, report))
            before += here
        return results


# Of a worker process, set once when it starts: the work, where to report, its slot there; or why it could not start.
_here: tuple[Work[Any, Any], Any, int] | Exception | None = None


def _start_worker(work: Work[Any, Any], progress: Any, slots: Any) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback; the parent speaks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Each process is one core's worth of work; encoders that start a thread per core would only get in the
    # way.
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    slot = slots.get()
    try:
        work.start()
    except Exception as error:  # noqa: BLE001 (raised in the parent, by the first task; a dead pool says nothing)
        _here = error
    else:
        _here = work, progress, slot


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_process([parent.sentinel])
    os._exit(1)


def _do(task: Any) -> Any:
    if isinstance(_here, Exception):
        raise _here
    assert _here is not None
    work, progress, slot = _here
    before = progress[slot]

    def report(done: int) -> None:
        progress[slot] = before + done

    return work.do(task, report)
