"""Signals of a scheduler, at any moment."""

from __future__ import annotations

import random
from typing import Any

from megatron_aquila import events
from tests.faults.harness import Result, Scenario
from tests.faults.injection import Fault, terminate, terminate_twice, user_signal
from tests.faults.ranks import PREEMPTED
from tests.faults.workplace import (
    DP2,
    FULL2,
    ONE,
    PP2,
    TP2,
    TP2_DP2,
    Layout,
    Workplace,
    difference,
    repeated,
    saved_steps,
    tail,
)

# Where the signal comes, and the steps between checkpoints, so that there is a save to come in the middle of.
MOMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a step": ("megatron_aquila.trainer:run_schedule", {"checkpoint__every": 4}),
    "an update": ("megatron_aquila.trainer:apply_update", {"checkpoint__every": 4}),
    "an evaluation": ("megatron_aquila.trainer:Trainer._evaluate", {}),
    "a save": ("megatron_aquila.checkpoint:flush_and_digest", {}),
    "an asynchronous save": ("megatron_aquila.checkpoint:flush_and_digest", {"checkpoint__asynchronous": True}),
}
_EVALUATED: dict[str, Any] = {"evaluation__every": 2, "evaluation__batches": 1}


def preempted(place: Workplace, case: object, draw: random.Random) -> Result:
    """One rank or all get the signal; every rank ends with the same step saved, and the same command goes on."""
    assert isinstance(case, tuple)
    moment, layout, action = case
    where, changes = MOMENTS[moment]
    changes = {**changes, **_EVALUATED}
    output = place.folder("signal")
    rank = draw.choice([None, draw.randrange(layout.size)])
    ends = place.train(output, layout, faults=[Fault(where, action, draw.randint(1, 3), rank)], **changes)
    assert [end.code for end in ends] == [PREEMPTED] * layout.size, tail(ends)
    stopped = events.read(output / events.FILE)[-1]
    assert stopped["event"] == "stopped" and stopped["step"] == max(saved_steps(output))
    assert f"resumed at step {stopped['step']}" in place.finish(output, layout, **changes)
    again = repeated(output)
    assert again == 0
    apart = difference(output, place.reference(layout, **_EVALUATED), exact=True)
    return Result((layout.size,), again, apart)


def told_twice(place: Workplace, case: object, draw: random.Random) -> Result:
    """The rank that gets it ends at once, and with it the run; what was saved before is there."""
    assert isinstance(case, Layout)
    output = place.folder("twice")
    rank = draw.randrange(case.size)
    fault = Fault("megatron_aquila.trainer:run_schedule", terminate_twice, draw.randint(2, 8), rank)
    ends = place.train(output, case, faults=[fault], patience=5.0)
    assert ends[rank].code == 128 + 15, tail(ends)
    assert all(end.code not in (0, PREEMPTED) for end in ends), tail(ends)
    place.finish(output, case)
    return Result((case.size,), repeated(output), difference(output, place.reference(case), exact=True))


_CASES = [
    (moment, layout, (terminate, user_signal)[(row + column) % 2])
    for row, layout in enumerate((DP2, ONE, TP2, TP2_DP2, PP2, FULL2))
    for column, moment in enumerate(MOMENTS)
]

SCENARIOS = [
    Scenario(
        f"SIGTERM or SIGUSR1, to one rank or all, during {', '.join(MOMENTS)}",
        preempted,
        _CASES,
        (3, 9),
        "the step is ended and saved, exit code 75 on every rank; the same command goes on",
    ),
    Scenario(
        "a second SIGTERM before the step has ended",
        told_twice,
        (TP2, ONE, TP2_DP2),
        (0,),
        "that rank ends at once (143), the run with it; goes on from the last checkpoint",
    ),
]
