"""Random schedules of kills, resumes and new layouts, each beside the run that nothing happened to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.faults.harness import Result, Scenario
from tests.faults.injection import Fault, kill, kill_after
from tests.faults.ranks import KILLED
from tests.faults.workplace import (
    DROPOUT,
    LAYOUTS,
    ONE,
    STEPS,
    Layout,
    Workplace,
    difference,
    repeated,
    saved_steps,
    tail,
)

CHECKPOINT = "megatron_aquila.checkpoint"
TRAINER = "megatron_aquila.trainer"

# Where in a save: what is called then, whether after the call, and on any rank or on the first alone.
SAVE_POINTS: dict[str, tuple[str, Callable[..., Any], bool]] = {
    "before a shard": ("megatron_aquila.engine.snapshot:write_shards", kill, True),
    "after a shard": ("megatron_aquila.engine.snapshot:write_shards", kill_after, True),
    "before the shards are flushed": (f"{CHECKPOINT}:flush_and_digest", kill, True),
    "after the shards are flushed": (f"{CHECKPOINT}:flush_and_digest", kill_after, True),
    "before the manifest": (f"{CHECKPOINT}:write_manifest", kill, False),
    "before the rename": (f"{CHECKPOINT}:_move_into_place", kill, False),
    "before LATEST": (f"{CHECKPOINT}:_point", kill, False),
    "while pruning": (f"{CHECKPOINT}:_discard", kill_after, False),
}
STEP_POINTS = (f"{TRAINER}:run_schedule", f"{TRAINER}:apply_update")

_EVERY = 2
_CHANGES: dict[str, Any] = {"checkpoint__every": _EVERY, "checkpoint__keep": 2}


def random_schedule(place: Workplace, stage: object, draw: random.Random) -> Result:
    """Up to three kills, each at a moment of its own, on one layout or on several."""
    assert isinstance(stage, str)
    one_layout = draw.random() < 0.4
    layouts = [layout for layout in LAYOUTS if draw.random() < 0.7 or layout.size == 1]
    layout = draw.choice(layouts)
    changes = {**_CHANGES, **(DROPOUT if one_layout else {})}
    if draw.random() < 0.3:
        changes["checkpoint__asynchronous"] = True
    output, used, kills = place.folder("schedule"), {layout.size}, 0
    for _ in range(draw.randint(1, 3)):
        done = max(saved_steps(output), default=0)
        if done >= STEPS - 2:
            break
        faults = [_moment(draw, layout, done)]
        if faults[0].rank == 0 and draw.random() < 0.2 and faults[0].where in STEP_POINTS:
            faults = [Fault(faults[0].where, kill, faults[0].call, rank=None)]  # all of them, the machine's end
        ends = place.train(output, layout, stage, faults, patience=draw.choice((0.0, 0.0, 5.0)), **changes)
        codes = [end.code for end in ends]
        assert KILLED in codes or codes == [0] * layout.size, tail(ends)
        kills += KILLED in codes
        if not one_layout:
            layout = draw.choice(layouts)
            used.add(layout.size)
    place.finish(output, layout, stage, **changes)
    assert kills
    reference = place.reference(layout, stage, **DROPOUT) if one_layout else place.reference(ONE, stage)
    return Result(tuple(used), repeated(output), difference(output, reference, exact=one_layout), kills)


def _moment(draw: random.Random, layout: Layout, done: int) -> Fault:
    rank = draw.randrange(layout.size)
    if draw.random() < 0.5:
        return Fault(draw.choice(STEP_POINTS), kill, draw.randint(1, STEPS - done), rank)
    where, action, any_rank = SAVE_POINTS[draw.choice(list(SAVE_POINTS))]
    # the first thing that is pruned is so at the third save
    call = 1 if where.endswith(":_discard") else draw.randint(1, max((STEPS - done) // _EVERY, 1))
    return Fault(where, action, call, rank if any_rank else 0)


def multi_epoch(place: Workplace, layout: object, draw: random.Random) -> Result:
    """Killed in the second epoch of fine-tuning: the rest of that epoch follows, not the first one again."""
    assert isinstance(layout, Layout)
    output = place.folder("epochs")
    faults = [Fault(f"{TRAINER}:run_schedule", kill, draw.randint(7, 9))]
    ends = place.train(output, layout, "sft", faults, patience=0.0)
    assert ends[0].code == KILLED, tail(ends)
    place.finish(output, layout, "sft")
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout, "sft"), exact=True))


_STAGES = ["dpo" if number % 20 == 7 else "sft" if number % 20 == 17 else "cpt" for number in range(200)]

SCENARIOS = [
    Scenario(
        "SIGKILL of one rank or of all, at a random step or point of a save (also an asynchronous one), up to three "
        "times a run; goes on on the same or another layout (TP, SP, PP, VPP, DP, ZeRO-1, ZeRO-3, CP); cpt, sft, dpo",
        random_schedule,
        _STAGES,
        (0, 3),
        "goes on from the last checkpoint; losses and weights as without the kill, every sample once (ledger)",
    ),
    Scenario(
        "SIGKILL in the second epoch of fine-tuning",
        multi_epoch,
        (LAYOUTS[5], LAYOUTS[0], LAYOUTS[4]),
        (1,),
        "goes on in that epoch where it was",
    ),
]
