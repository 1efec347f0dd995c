"""A rank alone in a world that is not there: what it holds and keeps is what a rank of a real world does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from megatron_aquila.errors import ConfigError
from tests.megatron_aquila.engine.runs import LENGTH, TINY, Engine, rows, tiny_run
from tests.world import world


def held_by_a_real_rank(**changes: Any) -> dict[str, int]:
    """Bytes after a step on this rank of a real world: weights, main gradients, Adam's moments and float32 values."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.fsdp import to_local
    from megatron_aquila.engine.optimizer import chained
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(**changes)
    with parallel_world(run, choose_device("cpu")) as layout:
        engine = Engine(run, layout)
        engine.step(0, rows(run.training.global_batch_size))
        states = [state for inner in chained(engine.optimizer) for state in inner.optimizer.state.items()]
        moments = sum(
            to_local(state[kind]).numel() * state[kind].element_size()
            for _, state in states
            for kind in ("exp_avg", "exp_avg_sq")
        )
        copies = 0
        if run.training.precision != "fp32" and run.parallel.sharding != "full":
            copies = sum(4 * main.numel() for main, _ in states)
        if run.parallel.sharding == "full":
            groups = engine.chunks[0].param_and_grad_buffer.parameter_groups
            if run.training.precision != "fp32":
                copies = sum(group.main_weight_buffer.data.nbytes for group in groups)
            weights = sum(group.model_weight_buffer.data.nbytes for group in groups)
            gradients = sum(group.main_grad_buffer.data.nbytes for group in groups)
        elif run.parallel.sharding == "optimizer":
            weights = sum(buffer.param_data.nbytes for chunk in engine.chunks for buffer in chunk.buffers)
            gradients = sum(buffer.grad_data.nbytes for chunk in engine.chunks for buffer in chunk.buffers)
        else:
            weights = sum(weight.nbytes for chunk in engine.chunks for weight in chunk.parameters())
            gradients = sum(weight.main_grad.nbytes for chunk in engine.chunks for weight in chunk.parameters())
        return {"weights": weights, "gradients": gradients, "optimizer": moments + copies}


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel__sharding": "none", "parallel__pipeline_parallel": 2, "training__precision": "bf16"},
        {"parallel__sharding": "optimizer", "training__precision": "bf16"},
        {"parallel__sharding": "optimizer", "parallel__tensor_parallel": 2, "training__precision": "fp32"},
        {"parallel__sharding": "full", "training__precision": "bf16"},
    ],
    ids=str,
)
def test_a_rank_holds_the_bytes_of_a_real_one(changes: dict[str, Any]) -> None:
    from megatron_aquila.engine.fake_world import built_bytes

    run = tiny_run(**changes)
    for rank, real in enumerate(world(2, held_by_a_real_rank, **changes)):
        built = built_bytes(run, run.model.resolve(), 2, rank)
        assert {name: getattr(built, name) for name in real} == real, rank


@pytest.mark.parametrize(
    ("world_size", "changes"),
    [
        (24, {"parallel__sharding": "none", "training__precision": "fp16"}),
        (24, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True, "parallel__pipeline_parallel": 2}),
        (
            64,
            {
                "parallel__pipeline_parallel": 2,
                "parallel__virtual_pipeline": 2,
                "parallel__overlap_grad_reduce": True,
                "parallel__overlap_param_gather": True,
                "training__precision": "bf16",
                "training__recompute": "full",
            },
        ),
        (8, {"parallel__sharding": "full", "parallel__tensor_parallel": 2, "training__precision": "bf16"}),
        (2, {"stage": "dpo", "training__recompute": "selective"}),
        (8, {"parallel__context_parallel": 2, "parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    ],
    ids=str,
)
def test_a_step_of_shapes_on_the_first_and_the_last_rank(world_size: int, changes: dict[str, Any]) -> None:
    from megatron_aquila.engine.fake_step import dry_step
    from megatron_aquila.engine.fake_world import built_bytes

    run = tiny_run(**{"parallel__sharding": "optimizer", "training__global_batch_size": 384, **changes})
    for rank in (0, world_size - 1):
        assert dry_step(run, world_size, rank) == built_bytes(run, run.model.resolve(), world_size, rank)


def test_a_model_that_cannot_run_fails_the_dry_step() -> None:
    """Rows that the output layer cannot multiply with the hidden states, deep inside the step."""
    from megatron_aquila.engine import fake_step
    from megatron_aquila.engine.model import AquilaModel

    run = tiny_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AquilaModel, "_output_weight", lambda self: self.output_layer.weight[:, 1:])
        problems, built = fake_step.check_build(run, 1)
    assert not built
    assert len(problems) == 1 and "do not fit" in problems[0] and problems[0].startswith("rank 0 of 1 would fail")
    problems, built = fake_step.check_build(run, 1)
    assert problems == [] and set(built) == {0} and (built[0].saved_activations or 0) > 0


def test_a_layout_that_does_not_divide_is_refused() -> None:
    from megatron_aquila.engine.fake_step import check_build
    from megatron_aquila.engine.fake_world import fake_rank

    run = tiny_run(parallel__tensor_parallel=2)
    assert "cannot be divided" in check_build(run, 3)[0][0]
    with pytest.raises(ConfigError, match="cannot be divided"), fake_rank(run, 3, 0):
        pass
    with pytest.raises(ValueError, match="has no rank 2"), fake_rank(run, 2, 2):
        pass


def saved_bytes(fake: bool, changes: dict[str, Any]) -> list[int]:
    """Bytes that autograd saves for one micro-batch, with fake tensors or with real ones of a world of one."""
    from megatron_aquila.engine import fake_step
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(model__hidden_dropout=0.1, **changes)
    if fake:
        return fake_step.saved_activations(run, run.model.resolve(), 1, 0)
    with parallel_world(run, choose_device("cpu")):
        return fake_step._saved_by_chunk(run, run.model.resolve())


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_autograd_saves_is_what_it_saves_of_real_tensors(recompute: str, precision: str) -> None:
    changes = {"training__recompute": recompute, "training__precision": precision}
    real = world(1, saved_bytes, fake=False, changes=changes)[0]
    assert saved_bytes(True, changes) == real


def test_recomputing_saves_less() -> None:
    none, selective, full = (
        saved_bytes(True, {"training__recompute": mode})[0] for mode in ("none", "selective", "full")
    )
    assert full < selective < none
    hidden = 4 * TINY["hidden_size"] * 2 * 32  # type: ignore[operator] - float32, two rows of 32 tokens
    assert full < 3 * hidden * (TINY["num_layers"] + 2)  # type: ignore[operator]


def test_nothing_is_left_behind() -> None:
    """Random states, groups and tensors are what they were; a step afterwards gives the very same numbers."""
    assert world(1, step_around_a_fake_rank)[0]


def step_around_a_fake_rank() -> bool:
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.fake_step import dry_step
    from megatron_aquila.engine.parallel import parallel_world

    def loss() -> dict[str, float]:
        run = tiny_run(model__hidden_dropout=0.2)
        with parallel_world(run, choose_device("cpu")) as layout:
            return Engine(run, layout).step(0, rows(8))

    before = loss()
    random_state = torch.get_rng_state()
    tracked = get_cuda_rng_tracker().get_states()
    dry_step(tiny_run(parallel__tensor_parallel=2, training__global_batch_size=96), 24, 7)
    assert not dist.is_initialized() and not parallel_state.model_parallel_is_initialized()
    assert torch.equal(torch.get_rng_state(), random_state)
    states = get_cuda_rng_tracker().get_states()
    assert all(torch.equal(states[name], tracked[name]) for name in tracked) and states.keys() == tracked.keys()
    assert type(torch.ones(2) + 1) is torch.Tensor and (torch.ones(2) + 1).tolist() == [2.0, 2.0]
    return loss() == before


@pytest.mark.parametrize(("recompute", "rows_"), [("none", 1), ("none", 2), ("none", 4), ("full", 1)])
def test_what_a_context_parallel_rank_saves_is_what_is_planned(recompute: str, rows_: int) -> None:
    """Beside the masks of the CPU's attention, as numbers, over documents that go on from an earlier part."""
    from megatron_aquila.engine.context import ExchangePlan
    from megatron_aquila.engine.fake_step import saved_activations
    from megatron_aquila.plan.activations import Micro, chunk_bytes
    from megatron_aquila.plan.sizes import Sizes

    changes = {"training__recompute": recompute, "training__micro_batch_size": rows_, "model__hidden_dropout": 0.0}
    run = tiny_run(parallel__context_parallel=2, **changes)
    shape, tokens = run.model.resolve(), rows_ * LENGTH
    for rank in range(2):
        lookups = ExchangePlan.make(list(range(0, tokens + 1, LENGTH)), 2, rank).lookups
        masks = sum(look.lengths[0] * (look.before + look.lengths[0]) for look in lookups if look.before)
        micro = Micro(tokens // 2, 4, exchanged=rows_ % 4 != 0, fused_norm=False, fused_swiglu=False)
        planned = chunk_bytes(shape, Sizes(1, 1, 1, 2, 1), micro, recompute, first=True, last=True)  # type: ignore[arg-type]
        planned += 4 * masks * shape.num_layers if recompute == "none" else 0
        assert saved_activations(run, shape, 2, rank) == [planned]
