"""Nodes on one machine: a launcher each, in a process that is warm, over ranks that train nothing.

A rank here stops with the others when one was asked to, as the trainer's do by their all-reduce; what they share is a
file named by the port of their round's store.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_aquila.nodes.agent import Agent
from megatron_aquila.nodes.meeting import Nodes
from tests.world import forked

RANK_PROGRAM = """\
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
rank, port = os.environ["RANK"], os.environ["MASTER_PORT"]
asked = folder / f"asked.{port}"
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: asked.touch())
keys = ("WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR")
started = folder / f"started.{time.time_ns()}.{rank}"
started.with_name("." + started.name).write_text(json.dumps({key: os.environ[key] for key in keys}))
started.with_name("." + started.name).rename(started)
code = folder / f"code.{rank}"
while not (folder / "finish").exists():
    if asked.exists():
        time.sleep(0.3 * int(rank))
        sys.exit(75)
    if code.exists():
        number = int(code.read_text())
        code.unlink()
        sys.exit(number)
    time.sleep(0.01)
"""


class Node:
    """A launcher of `processes` ranks in a process of its own; `namespace`: of the network, by name."""

    def __init__(
        self, folder: Path, nodes: Nodes, *, processes: int = 1, max_restarts: int = 3, namespace: str | None = None
    ) -> None:
        self.folder = folder
        self.log = folder / f"log.{time.time_ns()}"
        (folder / "rank.py").write_text(RANK_PROGRAM)
        self.process = forked(_launch, str(folder), str(self.log), nodes, processes, max_restarts, namespace)

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def lose(self) -> None:
        """SIGKILL for the launcher and its ranks, as when a machine loses its power."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *map(int, children)]:
            assert one is not None
            os.kill(one, signal.SIGKILL)
        self.process.join(60)

    def end(self, seconds: float = 120) -> int | None:
        self.process.join(seconds)
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text()


def _launch(folder: str, log: str, nodes: Nodes, processes: int, max_restarts: int, namespace: str | None) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(out, sys.stdout.fileno())
    os.dup2(out, sys.stderr.fileno())
    if namespace is not None:
        enter(namespace)
    command = [sys.executable, "-S", "-E", f"{folder}/rank.py", folder]
    code = Agent(command, processes, nodes, max_restarts=max_restarts, pause=0.1).run()
    sys.stderr.flush()
    os._exit(code)


def enter(namespace: str) -> None:
    """Go into a network namespace that `ip netns add` has made. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/var/run/netns/{namespace}").open() as file:
        if libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


def starts(folder: Path) -> list[dict[str, Any]]:
    """What every rank that was ever started found in its environment, in the order of their starts."""
    found = sorted(folder.glob("started.*"), key=lambda path: int(path.name.split(".")[1]))
    return [{"RANK": path.name.split(".")[2], **json.loads(path.read_text())} for path in found]


def wait_until(holds: Callable[[], bool], *nodes: Node, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        for node in nodes:
            assert node.process.is_alive(), f"exit code {node.process.exitcode}\n{node.said()}"
        assert time.monotonic() < deadline, [node.said() for node in nodes] + starts(nodes[0].folder)
        time.sleep(0.02)
