"""Run a function as the ranks of a gloo world, in processes that stay warm between tests.

    losses = world(4, train_twenty_steps, tensor_parallel=2, pipeline_parallel=2)

calls `train_twenty_steps(tensor_parallel=2, pipeline_parallel=2)` in four processes with the environment of torchrun
and returns the four results in rank order. Importing Megatron takes seconds, so one process does it, the ranks are
forked from it, and they are kept for the other tests of a file: what tests leave behind in a process slows it down.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any
from unittest import mock

from megatron_aquila.launch import visible_gpus

_TIMEOUT_SECONDS = 240
_OURS = ("watchdog", "save-")  # threads of the product; torch and transformers keep some for good


class WorldError(AssertionError):
    """A rank failed; the message is its traceback."""


def forked(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process, started, that has imported what a rank needs and runs a function that can be pickled."""
    context = multiprocessing.get_context("forkserver")
    # An import that so much as counts the GPUs makes them unusable after a fork: there every rank imports for itself.
    context.set_forkserver_preload([] if visible_gpus() else ["tests.warm"])
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # a process that has threads cannot be forked
        forkserver.ensure_running()
    process = context.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


class _Worker:
    def __init__(self) -> None:
        self.connection, child = multiprocessing.Pipe()
        self.process = forked(_serve, child, sys.path)
        child.close()


_workers: list[_Worker] = []
_file = ""  # of the tests that they are kept for


def world(size: int, function: Callable[..., Any], /, **arguments: Any) -> list[Any]:
    """The results of `function(**arguments)` on every rank; both must be importable and picklable.

    Raises:
        WorldError: a rank raised, died or took too long. The processes are started anew for the next call.
    """
    global _file
    file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    if file != _file or not all(worker.process.is_alive() for worker in _workers):  # one was killed after its last call
        _stop()
        _file = file
    while len(_workers) < size:
        _workers.append(_Worker())
    port = next_port()
    ranks = _workers[:size]
    for rank, worker in enumerate(ranks):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        worker.connection.send((environment, function.__module__, function.__qualname__, arguments))
    results: dict[int, Any] = {}
    while len(results) < size:
        pending = {worker.connection: rank for rank, worker in enumerate(ranks) if rank not in results}
        ready = wait(list(pending), timeout=_TIMEOUT_SECONDS)
        if not ready:
            _stop()
            raise WorldError(f"ranks {sorted(pending.values())} did not finish in {_TIMEOUT_SECONDS} s")
        for connection in ready:
            assert isinstance(connection, Connection)
            rank = pending[connection]
            try:
                failed, value = connection.recv()
            except EOFError:
                _stop()
                raise WorldError(f"rank {rank} died") from None
            if failed:
                _stop()
                raise WorldError(f"rank {rank}:\n{value}")
            results[rank] = value
    return [results[rank] for rank in range(size)]


def kill(when: Callable[[], bool] = lambda: True) -> bool:
    """SIGKILL for every rank, if `when()` holds of what they are doing; the call of `world` under way then fails.

    They are stopped before it is asked for good: what it saw is what they were killed in, however busy the machine is.
    """
    if not when():
        return False
    _signal(signal.SIGSTOP)
    if not when():
        _signal(signal.SIGCONT)
        return False
    _signal(signal.SIGKILL)
    return True


def _signal(number: signal.Signals) -> None:
    for worker in _workers:
        assert worker.process.pid is not None
        with suppress(ProcessLookupError):  # it has died already
            os.kill(worker.process.pid, number)


def _stop() -> None:
    while _workers:
        worker = _workers.pop()
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


atexit.register(_stop)


# Nobody but rank 0 takes one of these: they lie below those that the kernel gives to whoever asks for any (32768 on),
# gloo's among them, and processes of the suite that run side by side begin at places of their own.
_PORTS = range(16_384, 32_768)
_ports = itertools.count(os.getpid() * 64)


def next_port() -> int:
    for number in itertools.islice(_ports, len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise WorldError(f"every port from {_PORTS.start} to {_PORTS.stop - 1} is taken")


def _serve(connection: Connection, path: list[str]) -> None:
    sys.path[:] = path
    while True:
        try:
            environment, module, name, arguments = connection.recv()
        except EOFError:
            return
        os.environ.update(environment)
        before = set(threading.enumerate())
        try:
            function = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            value = function(**arguments)  # type: ignore[operator]
            left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith(_OURS)]
            assert not left, f"it has ended, and left threads that go on: {left}"
            connection.send((False, value))
        except BaseException:  # noqa: BLE001 - whatever it was, the test must see it
            connection.send((True, traceback.format_exc()))
