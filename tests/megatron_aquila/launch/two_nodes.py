"""Two nodes train the tiny model through recipes/launch/torchrun.sh, and one whole node is killed.

Cold starts of launchers and ranks take seconds of CPU each: one scenario is a test, the others are for `make faults`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from megatron_aquila.config import RunConfig
from tests.megatron_aquila.corpora import recipe, write_recipe

SCRIPT = Path(__file__).parents[3] / "recipes" / "launch" / "torchrun.sh"
STEPS = 60  # some hundredths of a second each: a node that is to be lost in the middle is


def run_of(corpus: Path, output: Path, steps: int = STEPS, every: int = 5) -> RunConfig:
    """No dropout, so that a changed layout changes rounding only; an epsilon that keeps it from growing."""
    return recipe(
        corpus,
        output,
        model__hidden_dropout=0.0,
        training__steps=steps,
        optimizer__lr=1e-3,
        optimizer__eps=1e-5,
        checkpoint__every=every,
        checkpoint__keep=3,
        evaluation__every=0,
    )


class ScriptNode:
    """A node: torchrun.sh with one rank, its launcher and its rank in processes of their own."""

    def __init__(self, run: Path, log: Path, nodes: str, port: int) -> None:
        self.log = log
        changes = {
            "NNODES": nodes,
            "RDZV_ENDPOINT": f"127.0.0.1:{port}",
            "GPUS": "1",
            "KEEP_ALIVE": "1",
            "LAST_CALL": "1",
            "RESTART_PAUSE": "1",
            "JOIN_TIMEOUT": "200",
            "OMP_NUM_THREADS": "1",
        }
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [SCRIPT, run], env={**os.environ, **changes}, stdout=file, stderr=file, cwd=log.parent
            )

    def lose(self) -> None:
        """SIGKILL for the launcher and its rank at once, as when a machine loses its power."""
        pid = self.process.pid
        for one in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
            os.kill(one, signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 240) -> int:
        return self.process.wait(seconds)


def steps_done(output: Path) -> int:
    """The last step in metrics.jsonl; 0 before there is one."""
    try:
        lines = (output / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return 0
    whole = [line for line in lines if line.endswith("}")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(holds: Callable[[], bool], *nodes: ScriptNode, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        for node in nodes:
            assert node.process.poll() is None, node.log.read_text()
        assert time.monotonic() < deadline, "\n".join(node.log.read_text() for node in nodes)
        time.sleep(0.05)


def lose_a_node(corpus: Path, folder: Path, *, comes_back: bool) -> tuple[RunConfig, int]:
    """Train on two nodes, kill the second at a third of the run, and let the job go on by itself: on one node, or, when
    the second `comes_back`, on both. The run, which is complete then, and the step after which the node was lost.
    """
    run = run_of(corpus, folder / "run")
    path = write_recipe(run, folder / "recipe.yaml")
    nodes, port = ("2" if comes_back else "1:2"), free_port()
    one = ScriptNode(path, folder / "node-1.log", nodes, port)
    two = ScriptNode(path, folder / "node-2.log", nodes, port)
    until(lambda: steps_done(run.output) >= STEPS // 3, one, two)
    two.lose()
    lost = steps_done(run.output)
    if comes_back:
        two = ScriptNode(path, folder / "node-2-again.log", nodes, port)
        assert two.end() == 0, two.log.read_text()
    assert one.end() == 0, one.log.read_text()
    assert "restart 1 of 10" in one.log.read_text()
    return run, lost


def stop_and_go_on(corpus: Path, folder: Path) -> RunConfig:
    """SIGUSR1 to one of two nodes in the middle: both save and end with 75, and the same command completes the run."""
    run = run_of(corpus, folder / "run")
    path = write_recipe(run, folder / "recipe.yaml")
    for attempt in (1, 2):
        port = free_port()
        one, two = (ScriptNode(path, folder / f"node-{i}-{attempt}.log", "2", port) for i in (1, 2))
        if attempt == 1:
            until(lambda: steps_done(run.output) >= STEPS // 3, one, two)
            two.process.send_signal(signal.SIGUSR1)
        assert [one.end(), two.end()] == [75 if attempt == 1 else 0] * 2, one.log.read_text() + two.log.read_text()
    return run
