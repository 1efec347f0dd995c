"""Kills in the middle of a save, and checkpoints that are not as they were written."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from megatron_aquila.checkpoint import FOLDER
from tests.faults.harness import Result, Scenario
from tests.faults.injection import Fault
from tests.faults.ranks import KILLED, ended_with
from tests.faults.schedules import SAVE_POINTS
from tests.faults.workplace import (
    ONE,
    TP2,
    TP2_DP2,
    Layout,
    Workplace,
    difference,
    losses,
    repeated,
    saved_steps,
    tail,
)

SaveCase = tuple[str, Layout, bool]


def killed_in_a_save(place: Workplace, case: object, draw: random.Random) -> Result:
    """In the second save; what is there afterwards is the first one, or the whole of the second."""
    assert isinstance(case, tuple)
    point, layout, asynchronous = case
    where, action, any_rank = SAVE_POINTS[point]
    changes = {"checkpoint__keep": 1, "checkpoint__asynchronous": asynchronous}
    output = place.folder("save")
    rank = draw.randrange(layout.size) if any_rank else 0
    # with `keep: 1` the second save is the first one that prunes
    call = 1 if point == "while pruning" else 2
    ends = place.train(output, layout, faults=[Fault(where, action, call, rank)], patience=0.0, **changes)
    assert ends[rank].code == KILLED, tail(ends)
    published = point in ("before LATEST", "while pruning")
    expected = 4 if published else 2
    assert max(saved_steps(output)) == expected
    said = place.finish(output, layout, **changes)
    assert f"resumed at step {expected}" in said
    assert not list((output / FOLDER).glob(".tmp-*"))
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


# -- damage -------------------------------------------------------------------------------------------------


def _shard(checkpoint: Path) -> Path:
    return sorted(checkpoint.glob("shard-*.safetensors"))[-1]


def flipped_bit(checkpoint: Path) -> None:
    path = _shard(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def zeroed_page(checkpoint: Path) -> None:
    path = _shard(checkpoint)
    content = bytearray(path.read_bytes())
    start = len(content) // 2 // 4096 * 4096
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    path.write_bytes(content)


def truncated(checkpoint: Path) -> None:
    path = _shard(checkpoint)
    path.write_bytes(path.read_bytes()[:-100])


def missing_file(checkpoint: Path) -> None:
    _shard(checkpoint).unlink()


def extra_file(checkpoint: Path) -> None:
    (checkpoint / "shard-99999.safetensors").write_bytes(b"")


def altered_state(checkpoint: Path) -> None:
    path = checkpoint / "state.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"step": 8', '"step": 7', 1), encoding="utf-8")


DAMAGES = (flipped_bit, zeroed_page, truncated, missing_file, extra_file, altered_state)


def damaged(place: Workplace, case: object, draw: random.Random) -> Result:
    """The newest checkpoint of a whole run is spoilt: the one before it is taken, with a warning that names both."""
    assert isinstance(case, tuple)
    damage, layout = case
    output = _copied(place, layout, "damaged")
    damage(output / FOLDER / "step-00000008")
    said = place.finish(output, layout)
    assert "DAMAGED CHECKPOINT" in said and "using step-00000006 instead" in said and "resumed at step 6" in said
    assert (output / FOLDER / "damaged-step-00000008").is_dir()
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


def wrong_latest(place: Workplace, case: object, draw: random.Random) -> Result:
    """LATEST names a checkpoint that does not exist, an old one, or is no text: nobody believes it."""
    assert isinstance(case, bytes)
    output = _copied(place, ONE, "latest")
    shutil.rmtree(output / FOLDER / "step-00000008")
    (output / FOLDER / "LATEST").write_bytes(case)
    assert "resumed at step 6" in place.finish(output, ONE)
    return Result((1,), repeated(output), difference(output, place.reference(ONE), exact=True))


def none_is_left(place: Workplace, case: object, draw: random.Random) -> Result:
    """No checkpoint is sound, or none is there: the run must not begin anew with other weights."""
    assert isinstance(case, str)
    if case == "an empty folder":
        output = place.folder("none")
        ends = place.train(output, ONE, checkpoint__resume="required")
        assert ends[0].code == 2 and "holds no checkpoint" in ends[0].output, tail(ends)
        assert not saved_steps(output) and not losses(output)
        return Result((1,), apart=None)
    layout = TP2 if case == "auto" else ONE
    output = _copied(place, layout, "none")
    before = losses(output)
    for step in saved_steps(output):
        draw.choice(DAMAGES[:5])(output / FOLDER / f"step-{step:08d}")
    for _ in range(2):  # what was renamed is not forgotten
        ends = place.train(output, layout, checkpoint__resume=case)
        assert ended_with(ends, 2), tail(ends)
        assert "no sound checkpoint" in "".join(end.output for end in ends), tail(ends)
    assert losses(output) == before and not saved_steps(output)
    return Result((layout.size,), apart=None)


def _copied(place: Workplace, layout: Layout, name: str) -> Path:
    output = place.folder(name)
    shutil.copytree(place.reference(layout), output)
    return output


_MATRIX: list[SaveCase] = [
    (point, layout, asynchronous)
    for layout in (ONE, TP2, TP2_DP2)
    for asynchronous in (False, True)
    for point in SAVE_POINTS
]
_DAMAGES: list[tuple[Callable[[Path], None], Layout]] = [
    (damage, layout) for damage in DAMAGES for layout in (ONE, TP2, TP2_DP2)
]

SCENARIOS = [
    Scenario(
        f"SIGKILL in a save: {', '.join(SAVE_POINTS)}; synchronous and asynchronous",
        killed_in_a_save,
        _MATRIX,
        (5, 31),
        "the checkpoint before it, or the whole new one, is found; leftovers are removed",
    ),
    Scenario(
        "newest checkpoint with a flipped bit, a zeroed page, a truncated, missing or extra file, an altered state",
        damaged,
        _DAMAGES,
        (4,),
        "warning that names file and reason; it is set aside, the one before is taken",
    ),
    Scenario(
        "LATEST that names nothing, an old checkpoint, or no text",
        wrong_latest,
        (b"step-00000099\n", b"step-00000002\n", b"\xff\xfe\x00"),
        (0,),
        "the newest sound checkpoint is taken",
    ),
    Scenario(
        "no sound checkpoint left (resume auto and required), or none at all (required)",
        none_is_left,
        ("auto", "required", "an empty folder"),
        (1, 2),
        "exit code 2, a sentence; nothing is trained, also the second time",
        "nothing: no run begins anew with other weights",
    ),
]
