"""Every layout computes the same: losses, gradient norms and weights over the same steps from the same start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.megatron_aquila.engine.runs import Engine, rows, tiny_run
from tests.world import world

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "TP2": (2, {"parallel__tensor_parallel": 2}),
    "TP2+SP": (2, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    "PP2": (2, {"parallel__pipeline_parallel": 2}),
    "TP2xPP2": (4, {"parallel__tensor_parallel": 2, "parallel__pipeline_parallel": 2}),
    "PP2+VPP2": (2, {"parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
    "DP2": (2, {}),
    "DP2+sharded optimizer": (2, {"parallel__sharding": "optimizer"}),
    "DP2+full": (2, {"parallel__sharding": "full"}),
    "TP2xDP2+SP+full": (
        4,
        {"parallel__sharding": "full", "parallel__tensor_parallel": 2, "parallel__sequence_parallel": True},
    ),
    "DP2+full+recompute+tied": (
        2,
        {"parallel__sharding": "full", "training__recompute": "full", "model__shape__tie_embeddings": True},
    ),
    "DP2+overlap": (
        2,
        {
            "parallel__sharding": "optimizer",
            "parallel__overlap_grad_reduce": True,
            "parallel__overlap_param_gather": True,
        },
    ),
    "full recompute": (1, {"training__recompute": "full"}),
    "selective recompute": (1, {"training__recompute": "selective"}),
    "logits in slices": (1, {"training__logits_mib": 0}),
    "micro-batches of 4": (1, {}),
    "TP2+SP+tied": (
        2,
        {
            "parallel__tensor_parallel": 2,
            "parallel__sequence_parallel": True,
            "model__shape__tie_embeddings": True,
        },
    ),
    "PP2+tied": (2, {"parallel__pipeline_parallel": 2, "model__shape__tie_embeddings": True}),
}


def train(**changes: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(**changes)
    with parallel_world(run, choose_device("cpu")) as layout:
        engine = Engine(run, layout)
        data = rows(run.training.global_batch_size * run.training.steps)
        reports = [engine.step(step, data) for step in range(run.training.steps)]
        weights = engine.weights()
    return reports, {name: value.numpy() for name, value in weights.items()}


_baselines: dict[tuple[bool, int, int], Any] = {}


def baseline(tied: bool, num_layers: int, steps: int) -> Any:
    key = tied, num_layers, steps
    if key not in _baselines:
        model = {"model__shape__tie_embeddings": tied, "model__shape__num_layers": num_layers}
        (_baselines[key],) = world(1, train, **model, training__steps=steps)
    return _baselines[key]


def layers(changes: dict[str, Any]) -> int:
    """Four where layers are gathered ahead of each other or split into virtual stages; else two show as much."""
    ahead = changes.get("parallel__sharding") == "full" or "parallel__overlap_param_gather" in changes
    return 4 if ahead or "parallel__virtual_pipeline" in changes else 2


def steps_of(changes: dict[str, Any]) -> int:
    """Twenty; eight where a step takes many collectives, and where a variant adds to a layout that has had twenty."""
    many = changes.get("parallel__sharding") == "full" or "parallel__overlap_param_gather" in changes
    return 8 if many or "model__shape__tie_embeddings" in changes else 20


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_agrees_with_one_process(name: str) -> None:
    size, changes = LAYOUTS[name]
    num_layers = layers(changes)
    steps = steps_of(changes)
    expected, expected_weights = baseline("tied" in name, num_layers, steps)
    model = changes.get("parallel__tensor_parallel", 1) * changes.get("parallel__pipeline_parallel", 1)
    # of 8 rows two micro-batches on every rank, where the one process has four
    changes = {**changes, "model__shape__num_layers": num_layers, "training__micro_batch_size": 4 * model // size}
    results = world(size, train, **changes, training__steps=steps)
    for reports, weights in results:
        for step, (report, wanted) in enumerate(zip(reports, expected, strict=True)):
            assert report["count"] == wanted["count"]
            assert report["loss"] == pytest.approx(wanted["loss"], abs=1e-5), f"step {step}"
            assert report["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4), f"step {step}"
        assert weights.keys() == expected_weights.keys()
        for tensor, value in weights.items():
            assert abs(value - expected_weights[tensor]).max() < 1e-5, tensor
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.2, "the run must learn, or equality shows nothing"
