"""Faults, made inside a rank: at the n-th call of a function of the product or of the system, something happens.

The product has no hooks for this. A name that is gone is an error, so that no fault silently stops happening.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron_aquila.resilience.signals import SAME_REQUEST

Call = Callable[[], Any]


@dataclass(frozen=True)
class Fault:
    """At the `call`-th call (from 1; 0: every one) of `where` on rank `rank` (None: on all), `action` instead.

    where: "module:function" or "module:Class.method". action: gets the call as a function of nothing, and its
    arguments; may make it or not.
    """

    where: str
    action: Callable[..., Any]
    call: int = 1
    rank: int | None = 0


def install(fault: Fault) -> None:
    """Put it into this process."""
    module, _, name = fault.where.partition(":")
    owner: Any = importlib.import_module(module)
    *path, leaf = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, lock, made = getattr(owner, leaf), threading.Lock(), 0

    def wrapper(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        with lock:
            made += 1
            due = fault.call in (0, made)
        if not due:
            return original(*arguments, **options)
        return fault.action(lambda: original(*arguments, **options), *arguments)

    setattr(owner, leaf, wrapper)


# -- actions ------------------------------------------------------------------------------------------------


def kill(call: Call, *arguments: Any) -> Any:
    """SIGKILL, before the call."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(call: Call, *arguments: Any) -> Any:
    call()
    os.kill(os.getpid(), signal.SIGKILL)


def terminate(call: Call, *arguments: Any) -> Any:
    """SIGTERM, as a scheduler sends it; the handler of the product decides what comes of it."""
    os.kill(os.getpid(), signal.SIGTERM)
    return call()


def user_signal(call: Call, *arguments: Any) -> Any:
    """SIGUSR1, as `sbatch --signal=USR1@…` sends it."""
    os.kill(os.getpid(), signal.SIGUSR1)
    return call()


def terminate_twice(call: Call, *arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAME_REQUEST + 0.3)
    os.kill(os.getpid(), signal.SIGTERM)
    return call()


def freeze(call: Call, *arguments: Any) -> Any:
    """SIGSTOP: the whole process stands still, its threads too."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return call()


def sleep_for_ever(call: Call, *arguments: Any) -> Any:
    time.sleep(3600)


def slowly(call: Call, *arguments: Any) -> Any:
    time.sleep(0.05)
    return call()


def full_disk(call: Call, *arguments: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_disk(call: Call, *arguments: Any) -> Any:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
