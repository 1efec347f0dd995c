"""Whole machines that die: the launcher of one is killed with its ranks, as by a loss of power."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from megatron_aquila.checkpoint import open_checkpoint
from tests.faults.harness import Result, Scenario
from tests.faults.workplace import DP2, Workplace, difference, losses, repeated
from tests.megatron_aquila.corpora import write_recipe

_LAUNCHER = Path(__file__).parents[2] / "recipes" / "launch" / "torchrun.sh"
_LIMIT_SECONDS = 240.0
# long enough to be in the middle of
_CHANGES: dict[str, Any] = {"training__steps": 40, "checkpoint__every": 5, "optimizer__lr": 1e-4}


class Node:
    """A machine of one process, by the launcher as a user starts it."""

    def __init__(self, recipe: Path, log: Path, meet: Path, nodes: str) -> None:
        self._log = log
        environment = {
            **os.environ,
            "NNODES": nodes,
            "RDZV_ENDPOINT": str(meet),
            "LOCAL_ADDR": "127.0.0.1",
            "GPUS": "1",
            "MAX_RESTARTS": "3",
            "RESTART_PAUSE": "0.2",
            "LAST_CALL": "2",
            "KEEP_ALIVE": "1",
            "JOIN_TIMEOUT": "120",
            "OMP_NUM_THREADS": "1",
        }
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [_LAUNCHER, recipe], env=environment, stdout=out, stderr=out, start_new_session=True
            )

    def lose_power(self) -> None:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(_LIMIT_SECONDS)

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def lost(place: Workplace, case: object, draw: random.Random) -> Result:
    """One of two nodes dies in the middle of the run; the other goes on alone, or waits for it to come back."""
    assert case in ("stays away", "comes back")
    comes_back = case == "comes back"
    reference, output = place.reference(DP2, **_CHANGES), place.folder("nodes")
    output.parent.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(place.recipe(output, DP2, **_CHANGES), output.with_suffix(".json"))
    meet = output.with_suffix(".meet")
    wanted = "2" if comes_back else "1:2"
    logs = [output.with_suffix(f".{number}.log") for number in range(2)]
    nodes = [Node(recipe, log, meet, wanted) for log in logs]
    victim = draw.randrange(2)
    try:
        began = time.monotonic()
        while max(losses(output), default=0) < 7:
            assert time.monotonic() - began < _LIMIT_SECONDS, [node.said() for node in nodes]
            assert all(node.process.poll() is None for node in nodes), [node.said() for node in nodes]
            time.sleep(0.01)
        nodes[victim].lose_power()
        assert open_checkpoint(output).step < 40, "it was over too soon"
        if comes_back:
            nodes[victim] = Node(recipe, logs[victim], meet, wanted)
        waited_for = nodes if comes_back else [nodes[1 - victim]]
        codes = [node.end() for node in waited_for]
        assert codes == [0] * len(codes), [node.said() for node in nodes]
        assert "(restart 1 of 3)" in nodes[1 - victim].said(), nodes[1 - victim].said()
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.lose_power()
    again = repeated(output)
    return Result((2,) if comes_back else (1, 2), again, difference(output, reference, exact=comes_back))


SCENARIOS = [
    Scenario(
        "one of two nodes (loopback, recipes/launch/torchrun.sh) loses its power: launcher and ranks",
        lost,
        ("stays away", "comes back", "stays away", "comes back"),
        (0,),
        "the other goes on by itself from the last checkpoint: alone (NNODES=1:2), or when it is back (NNODES=2)",
        alone=True,
    )
]
