"""Runs shards on spawned processes. A worker that dies is noticed at once; workers whose parent dies end
themselves.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_process
from pathlib import Path
from typing import Any

from data_tools.publish import sha256_file
from data_tools.samples import IndexOptions, SampleEncoder, sample_encoder
from data_tools.shards import Shard, ShardCounts, encode_shard
from data_tools.tokenizers import load_tokenizer

_POLL_SECONDS = 0.2


class WorkerDiedError(RuntimeError):
    """A worker process was killed, most often for want of memory."""


@dataclass(frozen=True)
class Job:
    """What every worker needs. A worker loads the tokenizer itself."""

    tokenizer: Path
    eod: str | None
    options: IndexOptions
    directory: Path


def run_shards(
    job: Job,
    encoder: SampleEncoder,
    shards: Sequence[Shard],
    inputs: Sequence[Path],
    workers: int,
    on_progress: Callable[[int], None],
) -> tuple[list[ShardCounts], list[str]]:
    """Encode `shards` and hash `inputs`; results in the given order.

    Args:
        encoder: used where one worker, or one shard, is all there is: the work is then done in this process.
        on_progress: called with the bytes of `shards` that are done.

    Raises:
        WorkerDiedError: shards that were committed stay so.
        StorageError, OSError: from a shard; no further ones are begun.
    """
    # One slot per shard, each written by one process: no lock that a killed worker could hold for ever.
    progress = multiprocessing.get_context("spawn").RawArray("Q", max(1, len(shards)))
    workers = min(workers, len(shards))
    if workers <= 1:  # not worth starting a process for
        counts = []
        for slot, shard in enumerate(shards):
            counts.append(_encode(job, encoder, progress, slot, shard, lambda: on_progress(sum(progress))))
        return counts, [sha256_file(path) for path in inputs]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (job, progress)) as executor:
        encoded = [executor.submit(_encode_here, slot, shard) for slot, shard in enumerate(shards)]
        hashed = [executor.submit(sha256_file, path) for path in inputs]
        pending: set[Future[Any]] = {*encoded, *hashed}
        try:
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                on_progress(sum(progress))
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker process died (killed, or out of memory); the finished shards are kept: run the "
                "same command again to go on from there, with fewer --workers if memory was short"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        return [future.result() for future in encoded], [future.result() for future in hashed]


_here: tuple[Job, SampleEncoder, Any] | None = None  # of a worker process: set once, when it starts


def _start_worker(job: Job, progress: Any) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback; the parent speaks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Each process is one core's worth of work; encoders that start a thread per core would only get in the
    # way.
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _here = job, sample_encoder(job.options, load_tokenizer(job.tokenizer, eod=job.eod)), progress


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_process([parent.sentinel])
    os._exit(1)


def _encode_here(slot: int, shard: Shard) -> ShardCounts:
    assert _here is not None
    job, encoder, progress = _here
    return _encode(job, encoder, progress, slot, shard, lambda: None)


def _encode(
    job: Job, encoder: SampleEncoder, progress: Any, slot: int, shard: Shard, after: Callable[[], None]
) -> ShardCounts:
    def report(done: int) -> None:
        progress[slot] = done
        after()

    return encode_shard(shard, job.options, encoder, job.directory, report)
