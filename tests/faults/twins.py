"""Two jobs with one folder, as when a job is submitted twice."""

from __future__ import annotations

import random
import signal
import time

import psutil

from tests.faults.harness import Result, Scenario
from tests.faults.injection import Fault, freeze
from tests.faults.ranks import RanksRunning
from tests.faults.workplace import DP2, FULL2, ONE, PP2, TP2_DP2, Workplace, difference, repeated, tail

MOMENTS = {
    "a step": "megatron_aquila.trainer:run_schedule",
    "a save": "megatron_aquila.checkpoint:flush_and_digest",
}


def begun_twice(place: Workplace, case: object, draw: random.Random) -> Result:
    """The first job stands still at a moment of its run until the second has ended, and then goes on."""
    assert isinstance(case, tuple)
    moment, layout = case
    output = place.folder("twice-begun")
    fault = Fault(MOMENTS[moment], freeze, draw.randint(2, 4), None)
    first = place.start(output, layout, faults=[fault])
    try:
        _wait_until_stopped(first)
        second = place.train_at(place.recipe(output, layout), output.with_suffix(".second.json"), layout)
    finally:
        first.send(signal.SIGCONT)
    ends = first.ends()
    assert [end.code for end in second] == [0] * layout.size, tail(second)
    assert [end.code for end in ends] == [2] * layout.size, tail(ends)
    assert all("Traceback" not in end.output for end in ends), tail(ends)
    if moment == "a step":
        assert "another process has begun to train in the same folder" in ends[0].output, tail(ends)
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


def _wait_until_stopped(running: RanksRunning) -> None:
    deadline = time.monotonic() + 120
    while any(psutil.Process(process.pid).status() != psutil.STATUS_STOPPED for process in running.processes):
        assert time.monotonic() < deadline and all(process.is_alive() for process in running.processes)
        time.sleep(0.05)


SCENARIOS = [
    Scenario(
        f"a second job begins in the same folder, during {' or '.join(MOMENTS)} of the first",
        begun_twice,
        [(moment, layout) for layout in (ONE, DP2, PP2, FULL2, TP2_DP2) for moment in MOMENTS],
        (2,),
        "the first ends (exit code 2, a sentence), the second goes on",
    ),
]
