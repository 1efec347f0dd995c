"""`aquila plan` to the byte: what it says of weights, gradients and optimizer is what the trainer's own objects hold.

The objects are those of any rank of any world, built by `engine/fake_world.py`. The shapes keep their widths here and
lose layers; with AQUILA_WHOLE_SHAPES=1 they keep them all, and every pipeline stage is built.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from megatron_aquila.config import RunConfig
from megatron_aquila.plan.memory import rank_bytes
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import SHAPES, ModelShape, padded_vocab_size
from tests.megatron_aquila.test_recipes import WORLDS, load

if TYPE_CHECKING:
    from megatron_aquila.engine.fake_world import BuiltBytes

NO_LENGTH = {"tokens": None, "epochs": None}
WHOLE = os.environ.get("AQUILA_WHOLE_SHAPES") == "1"
_SMALL = {
    "hidden_size": 64,
    "num_layers": 16,
    "num_attention_heads": 8,
    "ffn_hidden_size": 176,
    "max_position_embeddings": 128,
}
SHAPES_TO_PLAN = {
    **{name: SHAPES[name] for name in ("aquila-7b", "aquila2-7b-2024", "aquila3-7b")},
    # as many layers and heads as the layouts divide
    "aquila-tiny": SHAPES["aquila-tiny"].model_copy(
        update={"num_layers": 16, "num_attention_heads": 8, "num_query_groups": 8}
    ),
    "tied": ModelShape(**_SMALL, vocab_size=1000, tie_embeddings=True),
    "qkv bias": ModelShape(**_SMALL, vocab_size=999, qkv_bias=True, num_query_groups=8),
    "odd": ModelShape(**{**_SMALL, "hidden_size": 72}, vocab_size=1013, head_dim=10),
}
_OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
# processes, layout, precision
LAYOUTS: list[tuple[int, dict[str, Any], str]] = [
    (8, {"sharding": "none"}, "bf16"),
    (6, {"tensor_parallel": 2, "sharding": "optimizer"}, "bf16"),
    (24, {"tensor_parallel": 4, "sequence_parallel": True, "sharding": "optimizer", **_OVERLAP}, "bf16"),
    (24, {"tensor_parallel": 8, "sequence_parallel": True, "sharding": "optimizer"}, "fp16"),
    (24, {"sharding": "optimizer", "overlap_grad_reduce": True}, "fp32"),
    (24, {"pipeline_parallel": 4, "sharding": "optimizer", **_OVERLAP}, "bf16"),
    (16, {"pipeline_parallel": 8, "virtual_pipeline": 2, "tensor_parallel": 2, "sharding": "none"}, "fp16"),
    (
        24,
        {
            "pipeline_parallel": 2,
            "virtual_pipeline": 4,
            "tensor_parallel": 4,
            "sequence_parallel": True,
            "sharding": "optimizer",
            "overlap_grad_reduce": True,
        },
        "bf16",
    ),
    (14, {"pipeline_parallel": 2, "sharding": "optimizer"}, "fp32"),
    (8, {"sharding": "full"}, "bf16"),
    (24, {"sharding": "full", "tensor_parallel": 2}, "bf16"),
    (6, {"sharding": "full", "tensor_parallel": 2, "sequence_parallel": True}, "fp32"),
]


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """Megatron-FSDP collects garbage in every build, which looks at all that pytest and torch have ever made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def cut(shape: ModelShape, parallel: dict[str, Any]) -> ModelShape:
    """Two layers a model chunk."""
    chunks = parallel.get("pipeline_parallel", 1) * (parallel.get("virtual_pipeline") or 1)
    return shape if WHOLE else shape.model_copy(update={"num_layers": 2 * chunks})


def run_of(shape: ModelShape, parallel: dict[str, Any], precision: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "planned",
            "model": {"shape": shape.model_dump()},
            "data": {"train": [{"path": "unused"}], "tokenizer": "unused", "sequence_length": 64},
            "parallel": parallel,
            "training": {"steps": 2, "global_batch_size": 2688, "precision": precision},
            "optimizer": {"lr": 1e-3, "schedule": {"kind": "constant"}},
            "checkpoint": {"every": 10},
            "evaluation": {"every": 0, "batches": 1},
        }
    )


@pytest.mark.parametrize(("world_size", "parallel", "precision"), LAYOUTS, ids=[str(n) for n in range(len(LAYOUTS))])
@pytest.mark.parametrize("name", SHAPES_TO_PLAN)
def test_the_plan_is_what_is_built(name: str, world_size: int, parallel: dict[str, Any], precision: str) -> None:
    from megatron_aquila.engine.fake_world import built_bytes

    shape = cut(SHAPES_TO_PLAN[name], parallel)
    run = run_of(shape, parallel, precision)
    tensor, pipeline = run.parallel.tensor_parallel, run.parallel.pipeline_parallel
    data = world_size // (tensor * pipeline)
    stages = range(pipeline) if WHOLE else sorted({0, pipeline // 2, pipeline - 1})
    for stage in stages:  # with it, the first, the last and a middle data-parallel rank come in turn
        data_rank, tensor_rank = (0, data - 1, data // 2)[stage % 3], (stage + 1) % tensor
        built = built_bytes(run, shape, world_size, (stage * data + data_rank) * tensor + tensor_rank)
        planned = rank_bytes(run, shape, world_size, stage, tensor_rank, data_rank)
        assert (planned.weights, planned.gradients, planned.optimizer, planned.parameters) == (
            built.weights,
            built.gradients,
            built.optimizer,
            built.parameters,
        ), stage


@pytest.mark.parametrize("name", SHAPES_TO_PLAN)
def test_a_shape_counts_its_parameters(name: str) -> None:
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.fake_world import fake_rank
    from megatron_aquila.engine.model import build_model

    shape = SHAPES_TO_PLAN[name]
    run = run_of(shape, {"sharding": "none"}, "bf16")
    with fake_rank(run, 1, 0):
        chunks, _ = build_model(run, shape, choose_device("cpu"))
        built = sum(parameter.numel() for chunk in chunks for parameter in chunk.parameters())
    padding = padded_vocab_size(shape.vocab_size, run.model.vocab_divisible_by, 1) - shape.vocab_size
    matrices = 1 if shape.tie_embeddings else 2
    assert built - matrices * padding * shape.hidden_size == shape.parameters()


@cache
def held_after_a_step(recipe: str, world_size: int) -> list[BuiltBytes]:
    """Of the first rank of the world and of the last, which is in the last pipeline stage, replica and tensor shard."""
    from megatron_aquila.engine.fake_step import dry_step

    run = RunConfig.model_validate(json.loads(recipe))
    ranks = [0, world_size - 1] if run.parallel.pipeline_parallel > 1 else [world_size - 1]
    return [dry_step(run, world_size, rank) for rank in ranks]


@pytest.mark.parametrize("name", [name for name in WORLDS if name.startswith("aquila_med/")])
def test_a_recipe_takes_a_step_in_its_world(name: str) -> None:
    """On paper: data, tokenizer and weights are not there. Recipes of like shapes share a step."""
    run = load(name)
    shape = cut(run.model.resolve(), run.parallel.model_dump())
    shaped = {
        "name": "step",
        "stage": run.stage,
        "model": run.model.model_copy(update={"shape": shape, "weights": None}).model_dump(mode="json"),
        "data": {"train": [{"path": "x"}], "tokenizer": "x", "sequence_length": run.data.sequence_length},
        "parallel": run.parallel.model_dump(mode="json"),
        "training": {**run.training.model_dump(mode="json"), "global_batch_size": 48, "steps": 2, **NO_LENGTH},
        "preference": run.preference.model_dump(mode="json"),
        "optimizer": {"lr": 1e-6, "schedule": {"kind": "constant"}},
        "checkpoint": {"every": 10},
        "evaluation": {"every": 0, "batches": 1},
    }
    world_size = WORLDS[name]
    held = held_after_a_step(json.dumps(shaped, sort_keys=True), world_size)[-1]
    stage = run.parallel.pipeline_parallel - 1
    last = Sizes.of(run, world_size).shards - 1
    planned = rank_bytes(run, shape, world_size, stage, run.parallel.tensor_parallel - 1, last)
    assert (held.weights, held.gradients, held.optimizer) == (planned.weights, planned.gradients, planned.optimizer)
