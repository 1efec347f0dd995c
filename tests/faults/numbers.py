"""Losses and gradients that are no numbers, or far too high; replicas that differ in a bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from megatron_aquila import events, metrics
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.resilience import ledger
from tests.faults.harness import Result, Scenario
from tests.faults.injection import Call, Fault
from tests.faults.ranks import ended_with
from tests.faults.workplace import (
    DP2,
    DP2_UNSHARDED,
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
    tensors,
)

LOSS = "megatron_aquila.stages.cpt:ContinuedPretraining.loss"
UPDATE = "megatron_aquila.trainer:apply_update"
_LONG: dict[str, Any] = {"training__steps": 12, "resilience__spike_window": 8}


def loss_not_a_number(call: Call, *arguments: Any) -> Any:
    total, count, sums = call()
    return total * float("nan"), count, sums


def loss_infinite(call: Call, *arguments: Any) -> Any:
    total, count, sums = call()
    return total + float("inf"), count, sums


def gradient_not_a_number(call: Call, stage: Any, logps: torch.Tensor, *arguments: Any) -> Any:
    """The loss stays as it is: the root of zero has the slope infinity, times zero."""
    total, count, sums = call()
    return total + (logps.sum() * 0.0).sqrt(), count, sums


def loss_too_high(call: Call, *arguments: Any) -> Any:
    total, count, sums = call()
    return total * 50.0, count, sums


def update_left_out(call: Call, *arguments: Any) -> Any:
    """The oracle of a batch that is left out: its gradients are there, and nothing is done with them."""
    from megatron_aquila.engine.step import Update

    return Update(applied=False, grad_norm=0.0)


KINDS = {
    loss_not_a_number: "loss not finite",
    loss_infinite: "loss not finite",
    gradient_not_a_number: "gradient not finite",
    loss_too_high: "loss spike",
}


def _micro_batches(layout: Layout) -> int:
    """Losses that a rank of the last stage computes a step."""
    return 1 if layout in (DP2, FULL2, TP2_DP2, DP2_UNSHARDED) else 2


def poisoned(place: Workplace, case: object, draw: random.Random) -> Result:
    """One micro-batch on one rank is bad: what the policy says happens, and no more."""
    assert isinstance(case, tuple)
    poison, policy, layout = case
    spike = poison is loss_too_high
    step = 10 if spike else draw.randint(2, 7)
    key = "resilience__spike" if spike else "resilience__nonfinite"
    changes: dict[str, Any] = {**(_LONG if spike else {}), key: policy}
    rank = layout.size - 1  # it holds the last stage, and is no rank that writes
    fault = Fault(LOSS, poison, _micro_batches(layout) * (step - 1) + 1, rank)
    output = place.folder("poison")
    ends = place.train(output, layout, faults=[fault], **changes)
    codes = [end.code for end in ends]
    event = _anomaly(output, KINDS[poison], step, policy)
    assert event["samples"] == _ids(place.reference(layout, **(_LONG if spike else {})), step)
    if policy == "halt":
        assert ended_with(ends, 2), tail(ends)
        assert max(saved_steps(output), default=0) < step
        place.finish(output, layout, **changes)
        reference = place.reference(layout, **(_LONG if spike else {}))
        return Result((layout.size,), repeated(output), difference(output, reference, exact=True))
    assert codes == [0] * layout.size, tail(ends)
    skipped = {line["step"] for line in ledger.read(output / ledger.FILE) if line.get("skipped")}
    assert ledger.verify(output / ledger.FILE) == []
    if policy == "record":
        assert skipped == set()
        oracle = _run(place, layout, [fault], {**_LONG, "resilience__spike": "off"})
    else:
        assert skipped == {step}
        assert open_checkpoint(output).state["updates"] == (12 if spike else 8) - 1
        oracle = _run(place, layout, [Fault(UPDATE, update_left_out, step, None)], _LONG if spike else {})
    _same_weights(output, oracle)
    again = repeated(output)
    if policy == "rollback":
        # at step 0, where there was no checkpoint yet
        begun = [event for event in events.read(output / events.FILE) if event["event"] in events.BEGINNINGS]
        assert len(begun) == 2 and begun[1]["step"] < step
    return Result((layout.size,), again)


def too_many(place: Workplace, policy: object, draw: random.Random) -> Result:
    """Every batch is bad: after `most_anomalies` the run stops, and stops again when started again."""
    output = place.folder("many")
    changes: dict[str, Any] = {"resilience__nonfinite": policy, "resilience__most_anomalies": 2}
    fault = Fault(LOSS, loss_not_a_number, 0, rank=None)
    ends = place.train(output, DP2, faults=[fault], **changes)
    assert ended_with(ends, 2), tail(ends)
    assert "most_anomalies" in "".join(end.output for end in ends), tail(ends)
    found = [event for event in events.read(output / events.FILE) if event["event"] == "anomaly"]
    assert len({event["step"] for event in found}) == 3
    return Result((2,), apart=None, faults=len(found))


def flipped(call: Call, trainer: Any) -> Any:
    """The lowest bit of one number of a weight that other ranks have a copy of."""
    weights = dict(trainer.chunks[0].named_parameters())
    name = next(name for name in weights if name.endswith("final_layernorm.weight") or "layer_norm_weight" in name)
    values = weights[name].data.view(-1).view(torch.int32)
    values[len(values) // 2] ^= 1
    return call()


def drifted(place: Workplace, case: object, draw: random.Random) -> Result:
    """Found by the check of that step; started again, the run goes on from before it."""
    assert isinstance(case, tuple)
    layout, rank = case
    output, call = place.folder("drift"), draw.randint(1, 7)
    fault = Fault("megatron_aquila.trainer:Trainer._compare_replicas", flipped, call, rank)
    changes = {"resilience__replica_check_every": 1}
    ends = place.train(output, layout, faults=[fault], **changes)
    assert ended_with(ends, 2), tail(ends)
    last = events.read(output / events.FILE)[-1]
    assert last["event"] == "replicas" and last["step"] == call
    sentence = last["message"].partition("hold different ones: ")[2].partition(". A device")[0]
    assert "norm" in sentence and str(rank) in sentence and ", model." not in sentence, last
    assert last["message"] in "".join(end.output for end in ends), tail(ends)
    place.finish(output, layout, **changes)
    return Result((layout.size,), repeated(output), difference(output, place.reference(layout), exact=True))


def _anomaly(output: Path, kind: str, step: int, policy: str) -> dict[str, Any]:
    (found,) = [event for event in events.read(output / events.FILE) if event["event"] == "anomaly"]
    assert (found["kind"], found["step"], found["policy"]) == (kind, step, policy)
    return found


def _ids(reference: Path, step: int) -> list[list[int]]:
    return next(line["ids"] for line in ledger.read(reference / ledger.FILE) if line["step"] == step)


def _run(place: Workplace, layout: Layout, faults: list[Fault], changes: dict[str, Any]) -> Path:
    output = place.folder("oracle")
    ends = place.train(output, layout, faults=faults, **changes)
    assert [end.code for end in ends] == [0] * layout.size, tail(ends)
    return output


def _same_weights(output: Path, oracle: Path) -> None:
    expected, found = tensors(oracle), tensors(output)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    logged = [record["step"] for record in metrics.read(output / metrics.FILE)]
    assert logged == sorted(set(logged)), json.dumps(logged)


_NOT_FINITE = [
    (poison, policy, layout)
    for layout in (DP2, PP2, ONE, TP2, FULL2, TP2_DP2)
    for poison in (loss_not_a_number, gradient_not_a_number, loss_infinite)[: 3 if layout is DP2 else 2]
    for policy in ("skip", "rollback", "halt")
]
_SPIKES = [
    (loss_too_high, policy, layout) for layout in (DP2, PP2, ONE) for policy in ("rollback", "skip", "record", "halt")
]

SCENARIOS = [
    Scenario(
        "a loss or a gradient that is NaN or infinite, of one micro-batch on one rank",
        poisoned,
        _NOT_FINITE,
        (0, 19),
        "as resilience.nonfinite says: halts before the weights are touched (exit code 2), leaves the batch out, or "
        "goes back to the last checkpoint and leaves it out there; an event with the samples",
        "with skip and rollback the batch, as asked: weights equal those of a run without its update",
    ),
    Scenario(
        "a loss 50 times too high, of one micro-batch on one rank",
        poisoned,
        _SPIKES,
        (9,),
        "likewise, by resilience.spike, or an event only",
        "with skip and rollback the batch, as asked",
    ),
    Scenario(
        "every loss NaN",
        too_many,
        ("skip", "rollback"),
        (0,),
        "resilience.most_anomalies batches are left out, then exit code 2",
        "the batches left out",
    ),
    Scenario(
        "one bit flipped in one rank's copy of a weight",
        drifted,
        [(DP2_UNSHARDED, 1), (TP2, 1), (TP2_DP2, 3), (DP2, 0), (TP2_DP2, 1)],
        (1,),
        "the next check finds it and names weight and rank, exit code 2; started again, goes on from before it",
    ),
]
