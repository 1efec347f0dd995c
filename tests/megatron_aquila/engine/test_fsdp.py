"""Weights fully sharded: what a rank holds, random states, and the same numbers on GPUs.

That losses, weights and checkpoints equal those of the other shardings is in `test_layouts.py` and `test_resume.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from tests.megatron_aquila.engine.runs import Engine, rows, tiny_run
from tests.world import world

FULL = {"parallel__sharding": "full"}


def one_step(**changes: Any) -> dict[str, Any]:
    """Elements of weights and Adam state that stay on this rank after a step, and its tensor-parallel random state."""
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.fsdp import local_parameters
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(**changes)
    with parallel_world(run, choose_device(run.device)) as layout:
        engine = Engine(run, layout)
        random_state = get_cuda_rng_tracker().get_states()["model-parallel-rng"].tolist()
        engine.step(0, rows(run.training.global_batch_size))
        chunk = engine.chunks[0]
        chunk.release_weights()  # the next step's first layer is on its way already
        shards = [shard.to_local() for group in engine.optimizer.param_groups for shard in group["params"]]
        moments = [state["exp_avg"].to_local() for state in engine.optimizer.optimizer.state.values()]
        return {
            "weights": sum(shard.numel() for shard in shards),
            "moments": sum(moment.numel() for moment in moments),
            "gathered": sum(raw.untyped_storage().nbytes() for _, raw in local_parameters(chunk)),
            "whole": sum(raw.numel() for _, raw in local_parameters(chunk)),
            "random_state": random_state,
        }


def test_a_rank_keeps_its_share_only() -> None:
    ranks = world(2, one_step, **FULL)
    for rank in ranks:
        assert rank["gathered"] == 0
        assert rank["moments"] == rank["weights"]
        assert rank["weights"] < 0.55 * rank["whole"]
    assert sum(rank["weights"] for rank in ranks) == ranks[0]["whole"]


def test_tensor_parallel_ranks_keep_their_own_dropout() -> None:
    """The very random states that a run has which is not fully sharded."""
    states = [rank["random_state"] for rank in world(4, one_step, **FULL, parallel__tensor_parallel=2)]
    assert states[0] != states[1]
    assert states[0] == states[2] and states[1] == states[3]


def losses(**changes: Any) -> list[tuple[float, float]]:
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.optimizer import gather_parameters
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(**changes)
    with parallel_world(run, choose_device(run.device)) as layout:
        engine = Engine(run, layout)
        data = rows(run.training.global_batch_size * run.total_steps)
        reports = [engine.step(step, data) for step in range(run.total_steps)]
        gather_parameters(engine.chunks)
    return [(report["loss"], report["grad_norm"]) for report in reports]


def losses_in_small_buckets(**changes: Any) -> list[tuple[float, float]]:
    """Every weight outside the layers in a bucket of its own and nothing fetched ahead, as in a large model."""
    from megatron_aquila.engine import fsdp

    usual = fsdp.DistributedDataParallelConfig
    fsdp.DistributedDataParallelConfig = partial(usual, bucket_size=1, suggested_communication_unit_size=1)
    try:
        return losses(**changes)
    finally:
        fsdp.DistributedDataParallelConfig = usual


def test_each_weight_is_gathered_where_it_is_used() -> None:
    """The output layer's too, which is not called as a module."""
    few = {"training__steps": 3}
    expected = world(2, losses, **few)[0]
    for (loss, norm), (wanted, wanted_norm) in zip(world(2, losses_in_small_buckets, **few, **FULL)[0], expected):
        assert loss == pytest.approx(wanted, abs=1e-5)
        assert norm == pytest.approx(wanted_norm, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: weights are divided between replicas")
def test_losses_on_gpus_equal_those_without_sharding() -> None:
    expected = world(2, losses, device="cuda")[0]
    found = world(2, losses, device="cuda", **FULL)[0]
    for step, ((loss, norm), (wanted, wanted_norm)) in enumerate(zip(found, expected)):
        assert loss == pytest.approx(wanted, abs=1e-5), step
        assert norm == pytest.approx(wanted_norm, rel=1e-3), step
