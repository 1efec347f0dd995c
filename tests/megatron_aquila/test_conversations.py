"""Whole sft and dpo runs: resumed bit by bit, the same on every layout and packing, the best checkpoint kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_aquila import metrics
from megatron_aquila.checkpoint import open_checkpoint
from tests.megatron_aquila.conversations import conversation_recipe
from tests.megatron_aquila.test_resume import assert_same_run, losses, weights
from tests.world import world


def run_training(data: str, output: str, stage: str, **changes: Any) -> None:
    from megatron_aquila.trainer import train

    train(conversation_recipe(Path(data), Path(output), stage, **{"model__shape__num_layers": 2, **changes}))


_LONG_PACKS = {"data__sequence_length": 512}  # fewer to a step
RESUMES: list[tuple[str, int, dict[str, Any]]] = [
    ("sft", 2, {"parallel__pipeline_parallel": 2}),
    ("dpo", 2, {"parallel__overlap_grad_reduce": True, "parallel__overlap_param_gather": True}),
]


@pytest.mark.parametrize(("stage", "size", "changes"), RESUMES, ids=lambda value: str(value)[:24])
def test_resumed_run_equals_the_uninterrupted_one(
    stage: str, size: int, changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    """Killed in the middle of an epoch, and at its end; with dropout on, so that the random state counts too."""
    reference = tmp_path / "reference"
    common = {"data": str(data), "stage": stage, **_LONG_PACKS, **changes}
    world(size, run_training, output=str(reference), **common)
    assert len(losses(reference)) == 10
    for killed_after in (3, 5):
        resumed = tmp_path / f"resumed-{killed_after}"
        shutil.copytree(reference, resumed)
        for step in range(killed_after + 1, 11):
            shutil.rmtree(resumed / "checkpoints" / f"step-{step:08d}")
        world(size, run_training, output=str(resumed), **common)
        assert_same_run(resumed, reference)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_run_goes_on_with_the_same_samples_on_another_layout(stage: str, data: Path, tmp_path: Path) -> None:
    common = {"data": str(data), "stage": stage, "model__hidden_dropout": 0.0, "optimizer__eps": 1e-5, **_LONG_PACKS}
    reference, moved = tmp_path / "reference", tmp_path / "moved"
    world(2, run_training, output=str(reference), **common)
    shutil.copytree(reference, moved)
    for step in range(4, 11):
        shutil.rmtree(moved / "checkpoints" / f"step-{step:08d}")
    world(2, run_training, output=str(moved), parallel__tensor_parallel=2, training__micro_batch_size=3, **common)
    expected, found = losses(reference), losses(moved)
    for step, (loss, norm) in found.items():
        assert loss == pytest.approx(expected[step][0], abs=1e-5), step
        assert norm == pytest.approx(expected[step][1], rel=1e-3), step
    expected_weights = weights(reference)
    for key, value in weights(moved).items():
        assert (value - expected_weights[key]).abs().max() < 1e-5, key


def test_the_best_checkpoint_is_kept_and_started_from(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    changes = {"checkpoint__best": True, "checkpoint__keep": 1, "evaluation__every": 1, "optimizer__lr": 0.2}
    world(1, run_training, data=str(data), output=str(output), stage="sft", **changes)
    validation = {
        r["step"]: r["validation/loss"] for r in metrics.read(output / metrics.FILE) if "validation/loss" in r
    }
    best = min(validation, key=lambda step: validation[step])
    assert len(validation) == 10 and best != 10, "the run must get worse, or keeping the last would do"
    kept = sorted(path.name for path in (output / "checkpoints").glob("step-*"))
    assert kept == [f"step-{best:08d}", "step-00000010"]
    assert open_checkpoint(output).step == best
    assert open_checkpoint(output).state["chat_template"] == "chatml"


def first_gradients(data: str, output: str, stage: str, **changes: Any) -> Any:
    """Means and blocks `(name, offset, gradient)` of the first step, whose batch is all samples."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.placement import place_parameters
    from megatron_aquila.engine.step import clear_gradients
    from megatron_aquila.trainer import Trainer

    settings = {
        "training__global_batch_size": 1000,
        "training__micro_batch_size": 1,
        "model__hidden_dropout": 0.0,
        "parallel__sharding": "none",
        "model__init_std": 0.2,  # gradients worth comparing
        "optimizer__schedule": {"kind": "constant"},
    }
    run = conversation_recipe(Path(data), Path(output), stage, **{**settings, **changes})
    device = choose_device("cpu")
    with parallel_world(run, device) as layout:
        trainer = Trainer(run, device, layout)
        trainer.close()
        clear_gradients(trainer.chunks, trainer.optimizer)
        report = trainer._run_schedule(trainer._micro_batches(trainer.train_data, 0), forward_only=False)
        blocks = [
            (placement.name, placement.global_shape, offset, view.numpy().copy())
            for parameter, placement in place_parameters(trainer.chunks, trainer.shape, layout)
            for view, offset in placement.views(parameter.main_grad.view(-1))
        ]
    return report, blocks


def global_gradients(results: list[Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for _, blocks in results:
        for name, shape, offset, block in blocks:
            array = whole.setdefault(name, np.full(shape, np.nan))
            array[tuple(slice(start, start + size) for start, size in zip(offset, block.shape))] = block
    return whole


_FEWER = {"training__micro_batch_size": 3}
_FEW = {"training__micro_batch_size": 6}  # where each takes many collectives
CUTS: dict[str, tuple[int, dict[str, Any]]] = {  # sft takes every second one: what is not its loss it shares with dpo
    "micro-batches of 3": (1, {"training__micro_batch_size": 3}),
    "packs of 600": (1, {"data__sequence_length": 600}),
    "packs of 203": (1, {"data__sequence_length": 203}),
    "one sample a pack": (1, {"data__packing": False, "training__micro_batch_size": 8}),
    "DP2": (2, {}),
    "DP4 of 2": (4, {"training__micro_batch_size": 2}),
    "TP2+SP": (2, {**_FEW, "parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    "PP2": (2, {**_FEWER, "parallel__pipeline_parallel": 2}),
    "TP2xPP2": (4, {**_FEW, "parallel__tensor_parallel": 2, "parallel__pipeline_parallel": 2}),
    "PP2+VPP2": (2, {**_FEWER, "parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
}
_expected: dict[str, Any] = {}


@pytest.mark.parametrize(("stage", "cut"), [("dpo", cut) for cut in CUTS] + [("sft", cut) for cut in list(CUTS)[1::2]])
def test_gradient_depends_on_no_layout_packing_or_accumulation(
    stage: str, cut: str, data: Path, tmp_path: Path
) -> None:
    size, changes = CUTS[cut]
    # simpo: its gradient needs no reference and is not symmetric at the start, as that of equal models would be
    common = {"data": str(data), "stage": stage, "preference__loss": "simpo", "preference__beta": 2.0}
    if stage not in _expected:
        _expected[stage] = world(1, first_gradients, output=str(tmp_path / "one"), **common)
    found = world(size, first_gradients, output=str(tmp_path / "cut"), **common, **changes)
    expected_report, report = _expected[stage][0][0], found[0][0]
    assert report.count == expected_report.count and report.tokens == expected_report.tokens
    for name, value in report.means.items():
        assert value == pytest.approx(expected_report.means[name], abs=1e-5), name
    gradients, expected = global_gradients(found), global_gradients(_expected[stage])
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert np.abs(gradient - expected[name]).max() < 1e-5, name
    assert max(np.abs(gradient).max() for gradient in expected.values()) > 1e-2
