"""Ranks and disks that neither go on nor fail."""

from __future__ import annotations

import os
import random
from typing import Any

from tests.faults.harness import Result, Scenario
from tests.faults.injection import Call, Fault, freeze, sleep_for_ever
from tests.faults.ranks import HUNG, STOPPED_WITH_THE_REST
from tests.faults.workplace import DP2, FULL2, ONE, PP2, TP2, TP2_DP2, Layout, Workplace, difference, repeated, tail

TIMEOUT = 5.0
"""Seconds; a step of these runs takes a tenth of one, on a busy machine some tenths."""


def write_that_never_returns(call: Call, path: Any, *arguments: Any) -> Any:
    """A file system that is gone: nobody reads from this pipe."""
    os.mkfifo(path.with_suffix(".dead"))
    path.with_suffix(".dead").write_bytes(b"weights")


def hung_step(place: Workplace, case: object, draw: random.Random) -> Result:
    """One rank sleeps, or is stopped, in a step, the others wait for it in a collective."""
    assert isinstance(case, tuple)
    layout, action = case
    output, rank = place.folder("hang"), draw.randrange(layout.size)
    fault = Fault("megatron_aquila.trainer:run_schedule", action, draw.randint(2, 7), rank)
    ends = place.train(output, layout, faults=[fault], patience=15.0, resilience__step_timeout=TIMEOUT)
    for other, end in enumerate(ends):
        stack = output / "ranks" / f"rank-{other:05d}.stack"
        if other == rank and action is freeze:  # it cannot do anything, its watchdog included
            assert end.code == STOPPED_WITH_THE_REST, tail(ends)
            continue
        assert end.code == HUNG, tail(ends)
        trace = stack.read_text(encoding="utf-8")
        assert ("sleep_for_ever" if other == rank else "_train_step") in trace, trace
    said = "".join(end.output for end in ends)
    assert "was stuck in 'step'" in said and str(output / "ranks") in said, said
    return _goes_on(place, output, layout)


def hung_save(place: Workplace, case: object, draw: random.Random) -> Result:
    """One rank's write never returns."""
    assert isinstance(case, tuple)
    layout, asynchronous = case
    output, rank = place.folder("hung-save"), draw.randrange(layout.size)
    fault = Fault("megatron_aquila.engine.snapshot:write_shards", write_that_never_returns, 2, rank)
    changes = {"resilience__save_timeout": TIMEOUT, "checkpoint__asynchronous": asynchronous}
    ends = place.train(output, layout, faults=[fault], patience=15.0, **changes)
    assert [end.code for end in ends] == [HUNG] * layout.size, tail(ends)
    trace = (output / "ranks" / f"rank-{rank:05d}.stack").read_text(encoding="utf-8")
    assert "write_that_never_returns" in trace, trace
    assert "was stuck in 'save'" in "".join(end.output for end in ends), tail(ends)
    return _goes_on(place, output, layout)


def _goes_on(place: Workplace, output: Any, layout: Layout) -> Result:
    place.finish(output, layout)
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


SCENARIOS = [
    Scenario(
        "one rank stops in a step (sleeps, or SIGSTOP) and the others wait for it",
        hung_step,
        [(layout, action) for layout in (TP2, DP2, PP2, FULL2, TP2_DP2) for action in (sleep_for_ever, freeze)],
        (0,),
        f"after step_timeout ({TIMEOUT:g} s here): stacks of all ranks that can still write one, exit code 76; "
        "started again, goes on from the last checkpoint",
        alone=True,
    ),
    Scenario(
        "a write of a save that never returns; synchronous and asynchronous",
        hung_save,
        [(layout, asynchronous) for layout in (ONE, TP2, TP2_DP2) for asynchronous in (False, True)],
        (0,),
        f"after save_timeout ({TIMEOUT:g} s here): likewise",
        alone=True,
    ),
]
