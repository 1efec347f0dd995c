"""A document sees itself alone, on every layout; the gradient does not know how the batch was cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.megatron_aquila.engine.runs import END_OF_DOCUMENT, LENGTH, Engine, micro_batch, rows, tiny_run
from tests.world import world

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "TP2+SP": (2, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    "PP2": (2, {"parallel__pipeline_parallel": 2}),
    "TP2xPP2": (4, {"parallel__tensor_parallel": 2, "parallel__pipeline_parallel": 2}),
    "PP2+VPP2": (2, {"parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
    "full recompute": (1, {"training__recompute": "full"}),
}


def logps_before_and_after(**changes: Any) -> list[Any]:
    """Per-token log-probs of a pack, and of the same with its second document replaced."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.step import run_schedule

    run = tiny_run(**changes)
    found: list[Any] = []

    def keep(logps: torch.Tensor, batch: Any) -> Any:
        found.append(logps.detach().clone().numpy())
        return logps.sum(), torch.tensor(logps.numel()), {}

    original = rows(2)
    original[:, [9, 20]] = END_OF_DOCUMENT
    perturbed = original.clone()
    perturbed[0, 10:20] = (perturbed[0, 10:20] + 50) % 150 + 3
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        engine = Engine(run, layout)
        for tokens in (original, perturbed):
            run_schedule(
                engine.chunks,
                [micro_batch(tokens)] * 2,  # as many as an interleaved schedule wants
                keep,
                metric_names=(),
                device=device,
                forward_only=True,
            )
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_perturbing_a_document_changes_no_other(name: str) -> None:
    size, changes = LAYOUTS[name]
    seen = [found for found in world(size, logps_before_and_after, **changes) if found]
    assert seen
    for original, _, perturbed, _ in seen:
        changed = (original != perturbed)[0]
        # rows of 32: the first holds documents 0…9, 10…20, 21…31; the second row follows
        assert changed[10:20].any()
        assert not changed[:9].any() and not changed[21:].any()


def gradients(cut: dict[str, Any]) -> Any:
    """Gradient buffers after one batch of 12 rows, summed over the ranks and divided by the count."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.step import clear_gradients, run_schedule
    from tests.megatron_aquila.engine.runs import loss

    run = tiny_run(training__global_batch_size=12, parallel__sharding="none", **cut)
    data = rows(12)
    data[::2, 3::4] = END_OF_DOCUMENT  # half of the rows have far fewer supervised tokens
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        engine = Engine(run, layout)
        clear_gradients(engine.chunks, engine.optimizer)
        report = run_schedule(
            engine.chunks,
            engine.batches(0, data),
            loss,
            metric_names=(),
            device=device,
            forward_only=False,
        )
        grads = {name: p.main_grad.clone().numpy() for name, p in engine.chunks[0].named_parameters()}
    return {**report.means, "count": report.count}, grads


@pytest.mark.parametrize(
    ("size", "micro_batch_size"), [(1, 1), (1, 3), (1, 12), (2, 1), (2, 3), (4, 1)], ids=lambda n: str(n)
)
def test_gradient_does_not_depend_on_accumulation_or_data_parallel_size(size: int, micro_batch_size: int) -> None:
    """The mean over supervised tokens of the whole batch, not a mean of micro-batch means."""
    [(expected_means, expected)] = world(1, gradients, cut={"training__micro_batch_size": 4})
    for means, found in world(size, gradients, cut={"training__micro_batch_size": micro_batch_size}):
        assert means["count"] == expected_means["count"] < 12 * LENGTH * 0.95
        assert means["loss"] == pytest.approx(expected_means["loss"], abs=1e-6)
        for name, value in found.items():
            assert abs(value - expected[name]).max() < 1e-6, name
