"""One flipped bit in one copy of one weight is found and named; sound replicas raise no alarm, whatever the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.megatron_aquila.engine.runs import Engine, rows, tiny_run
from tests.world import world

Flip = tuple[int, str, int]  # rank, local name, element

FULL = {"parallel__sharding": "full"}
TP2 = {"parallel__tensor_parallel": 2}
SP = {"parallel__sequence_parallel": True}
PP2 = {"parallel__pipeline_parallel": 2}
TIED = {"model__shape__tie_embeddings": True}
OVERLAP = {
    "parallel__sharding": "optimizer",
    "parallel__overlap_grad_reduce": True,
    "parallel__overlap_param_gather": True,
}

_QKV = "decoder.layers.1.self_attention.linear_qkv.weight"
_NORM = "decoder.layers.0.input_layernorm.weight"
_TABLE = "embedding.word_embeddings.weight"
_OUTPUT = "output_layer.weight"

# name: processes, changes, bits to flip, what is said
LAYOUTS: dict[str, tuple[int, dict[str, Any], list[Flip], list[str]]] = {
    "DP2": (2, {}, [(1, _QKV, 77)], [f"{_QKV}: rank 0 and rank 1 differ"]),
    "DP2+overlap+bf16": (
        2,
        {**OVERLAP, "training__precision": "bf16"},
        [(0, _TABLE, 5)],
        [f"{_TABLE}: rank 0 and rank 1 differ"],
    ),
    "TP2+SP": (2, TP2 | SP, [(1, _NORM, 3), (0, _QKV, 1)], [f"{_NORM}: rank 0 and rank 1 differ"]),
    "PP2+tied": (2, PP2 | TIED, [(1, _OUTPUT, 640)], [f"{_TABLE}: rank 0 and rank 1 differ"]),
    "PP2+VPP2+tied": (
        2,
        {**PP2, **TIED, "parallel__virtual_pipeline": 2},
        [(0, _TABLE, 0)],
        [f"{_TABLE}: rank 0 and rank 1 differ"],
    ),
    "TP2xDP2": (
        4,
        TP2,
        [(3, _NORM, 0), (2, _QKV, 9)],
        [f"{_NORM}: rank 3 differs from ranks 0, 1, 2", f"{_QKV}: rank 0 and rank 2 differ"],
    ),
    "TP2xDP2+SP+full": (4, {**FULL, **TP2, **SP}, [(2, _NORM, 1)], [_NORM]),
}


def checks(changes: dict[str, Any], flips: list[Flip], rounds: int = 2) -> tuple[list[str], list[str], list[str]]:
    """What is said after some steps, after the flips, and after they have been undone."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.fsdp import held_parts, local_parameters
    from megatron_aquila.engine.optimizer import gather_parameters
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.replicas import differing_replicas

    run = tiny_run(**changes)
    with parallel_world(run, choose_device("cpu")) as layout:
        engine = Engine(run, layout)
        data = rows(run.training.global_batch_size * rounds)
        for step in range(rounds):
            engine.step(step, data)
        gather_parameters(engine.chunks)
        sound = differing_replicas(engine.chunks, layout)

        parts = held_parts(engine.chunks)

        def flip() -> None:
            for rank, name, element in flips:
                for chunk in engine.chunks if rank == layout.rank else ():
                    for local, parameter in local_parameters(chunk):
                        if local == name:
                            flat = parts[parameter].model if parts else parameter.data.view(-1)
                            flat.view(torch.int16)[element] ^= 1  # the lowest bit of the lower half, or of bf16

        flip()
        flipped = differing_replicas(engine.chunks, layout)
        flip()
        return sound, flipped, differing_replicas(engine.chunks, layout)


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_flipped_bit_is_named_and_nothing_else(name: str) -> None:
    size, changes, flips, expected = LAYOUTS[name]
    num_layers = 4 if "parallel__virtual_pipeline" in changes or PP2.items() <= changes.items() else 2
    changes = {**changes, "model__shape__num_layers": num_layers}
    results = world(size, checks, changes=changes, flips=flips)
    assert all(result == results[0] for result in results), "every rank says the same"
    sound, flipped, mended = results[0]
    assert sound == mended == []
    assert len(flipped) == len(expected)
    for found, wanted in zip(flipped, expected):
        assert found.startswith(wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 4095, 16_384, 40_001])
@pytest.mark.parametrize("start", [0, 1])
def test_checksum_is_the_weighted_sum_of_the_bits(dtype: torch.dtype, size: int, start: int) -> None:
    """Wherever in memory they begin: what is compared lies at other places of other buffers."""
    from megatron_aquila.engine.replicas import _weights, checksum

    flat = torch.randn(start + size, generator=torch.Generator().manual_seed(size)).to(dtype)[start:]
    weights = _weights(flat.device).tolist()
    assert all(weight % 2 for weight in weights), "an odd weight loses no bit modulo 2^64"
    raw, width = flat.clone().view(torch.uint8).numpy().tobytes(), flat.element_size()
    whole = len(raw) // (8 * 4096) * 8 * 4096
    words = [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, whole, 8)]
    rest = [int.from_bytes(raw[at : at + width], "little", signed=True) for at in range(whole, len(raw), width)]
    total = sum(value * weights[place % 4096] for part in (words, rest) for place, value in enumerate(part))
    assert int(checksum(flat)) % 2**64 == total % 2**64


def test_every_bit_of_every_place_counts() -> None:
    from megatron_aquila.engine.replicas import checksum

    flat = torch.randn(9_000, generator=torch.Generator().manual_seed(0))
    expected, seen = int(checksum(flat)), set()
    for element in np.random.default_rng(0).integers(0, 9_000, 40).tolist():
        for bit in range(32):
            mask = 1 << bit if bit < 31 else -(2**31)
            flat.view(torch.int32)[element] ^= mask
            seen.add(int(checksum(flat)))
            flat.view(torch.int32)[element] ^= mask
    assert expected not in seen and len(seen) > 38 * 32
    flat[[3, 4]] = flat[[4, 3]]
    assert int(checksum(flat)) != expected, "exchanged weights are other weights"
