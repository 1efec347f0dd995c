"""A rank's blocks cover the global tensors exactly once, whole or in the optimizer's flat ranges."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.placement import _place
from megatron_aquila.global_tensors import global_shapes
from megatron_aquila.shapes import ModelShape, padded_vocab_size

SHAPE = ModelShape(
    hidden_size=24,
    num_layers=2,
    num_attention_heads=12,
    num_query_groups=4,
    ffn_hidden_size=20,
    vocab_size=101,
    max_position_embeddings=8,
    qkv_bias=True,
)


def layout(rank: int, size: int) -> Layout:
    return Layout(
        world_size=size,
        rank=rank,
        tensor_size=size,
        tensor_rank=rank,
        pipeline_size=1,
        pipeline_rank=0,
        data_size=1,
        data_rank=0,
        virtual_size=1,
    )


def local_shape(name: str, size: int) -> tuple[int, ...]:
    whole = global_shapes(SHAPE)[name]
    if name.endswith("layernorm.weight"):
        return whole
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return (whole[0], whole[1] // size)
    rows = padded_vocab_size(whole[0], 8, size) if "decoder" not in name else whole[0]
    return (rows // size, *whole[1:])


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", [name for name in global_shapes(SHAPE) if "layers.1" not in name])
def test_flat_ranges_of_all_ranks_cover_each_tensor_once(name: str, size: int) -> None:
    whole = global_shapes(SHAPE)[name]
    hits = torch.zeros(whole, dtype=torch.int)
    rng = random.Random(size)
    for rank in range(size):
        placement = _place(name, local_shape(name, size), SHAPE, layout(rank, size))
        numbers = torch.arange(torch.Size(placement.local_shape).numel())
        cuts = sorted({0, len(numbers), *rng.sample(range(len(numbers)), 4)})
        for start, stop in itertools.pairwise(cuts):
            for view, offset in placement.views(numbers[start:stop], start):
                region = hits
                for dim, (first, length) in enumerate(zip(offset, view.shape)):
                    region = region.narrow(dim, first, length)
                if placement.writes:
                    region += 1
    assert (hits == 1).all()


def test_gate_and_up_keep_their_halves_when_split() -> None:
    """Rank 1 of 2 holds the second half of the gate and the second half of up, not the rows of up alone."""
    name = "decoder.layers.0.mlp.linear_fc1.weight"
    placement = _place(name, (20, 24), SHAPE, layout(1, 2))
    values = torch.arange(20).repeat_interleave(24)
    rows = {offset[0]: view[0, 0].item() for view, offset in placement.views(values)}
    assert rows == {10: 0, 30: 10}
