"""What autograd really saves of a forward, storage by storage, against the formulas of `plan/activations.py`."""

from __future__ import annotations

from typing import Any

import pytest

from megatron_aquila.kernels.linear import _Plan
from megatron_aquila.plan.activations import Micro, chunk_bytes, logits_bytes
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape, padded_vocab_size
from tests.megatron_aquila.corpora import recipe
from tests.world import world

TOKENS = 64
WIDE = {"hidden_size": 48, "num_attention_heads": 4, "num_query_groups": 4, "ffn_hidden_size": 80, "num_layers": 3}
GROUPED = {"hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 48, "num_layers": 2}
CASES: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "bf16": (GROUPED, {}),
    "fp32, dropout": (WIDE, {"training__precision": "fp32", "model__hidden_dropout": 0.1}),
    "selective": (WIDE, {"training__recompute": "selective"}),
    "full, dropout": (GROUPED, {"training__recompute": "full", "model__hidden_dropout": 0.1}),
    "explicit head_dim": ({**GROUPED, "head_dim": 16}, {}),
    "TP2": (GROUPED, {"parallel__tensor_parallel": 2}),
    "TP2+SP": (
        WIDE,
        {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True, "model__hidden_dropout": 0.1},
    ),
    "TP2+SP, full": (
        GROUPED,
        {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True, "training__recompute": "full"},
    ),
}


def saved_bytes(sizes: dict[str, int], changes: dict[str, Any]) -> int:
    """Bytes of the distinct storages that one forward of the whole model saves, parameters left out."""
    from pathlib import Path

    import torch

    from megatron_aquila.engine.attention import packed_sequences
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import build_model
    from megatron_aquila.engine.parallel import parallel_world

    run = recipe(Path("data"), Path("run"), **{**_settings(sizes), **changes})
    device = choose_device("cpu")
    with parallel_world(run, device):
        (chunk,), _ = build_model(run, run.model.resolve(), device)
        for parameter in chunk.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        storages = {parameter.untyped_storage().data_ptr(): 0 for parameter in chunk.parameters()}
        kept = []  # alive, so that no address comes twice

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)
            storage = tensor.untyped_storage()
            storages.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        tokens = torch.arange(TOKENS)[None]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            chunk(
                tokens,
                tokens,
                None,
                labels=tokens.clone(),
                packed_seq_params=packed_sequences([0, TOKENS], torch.arange(TOKENS), device),
            )
        return sum(storages.values())


def _settings(sizes: dict[str, int]) -> dict[str, Any]:
    return {
        "model__shape": {**sizes, "vocab_size": 1000, "max_position_embeddings": TOKENS},
        "model__hidden_dropout": 0.0,
        "training__precision": "bf16",
        "data__sequence_length": TOKENS,
    }


@pytest.mark.parametrize("case", CASES)
def test_saved_tensors(case: str) -> None:
    sizes, changes = CASES[case]
    tensor = changes.get("parallel__tensor_parallel", 1)
    measured = world(tensor, saved_bytes, sizes=sizes, changes=changes)
    micro = Micro(
        tokens=TOKENS,
        element=4 if changes.get("training__precision") == "fp32" else 2,
        sequence_parallel=changes.get("parallel__sequence_parallel", False),
        hidden_dropout=changes.get("model__hidden_dropout", 0.0),
        fused_norm=False,
        fused_swiglu=False,
    )
    shape = ModelShape(**sizes, vocab_size=1000, max_position_embeddings=TOKENS)
    recompute = changes.get("training__recompute", "none")
    counted = chunk_bytes(shape, Sizes(tensor, 1, 1, 1, 1), micro, recompute, first=True, last=True)
    assert measured == [counted] * tensor


@pytest.mark.parametrize("logits_mib", [0, 1, 64, 1024])
@pytest.mark.parametrize("tensor", [1, 4])
def test_logits_follow_the_schedule_of_the_kernel(logits_mib: int, tensor: int) -> None:
    shape = ModelShape(
        hidden_size=64, num_layers=1, num_attention_heads=4, ffn_hidden_size=64, vocab_size=99_900,
        max_position_embeddings=512,
    )  # fmt: skip
    rows, element = 512, 2
    width = padded_vocab_size(shape.vocab_size, 128, tensor) // tensor
    plan = _Plan.make("auto", rows, width, element, logits_mib << 20)
    # As `_Logits` allocates them: rows a multiple of 64 elements apart.
    sizes = [rows * -(-(last - first) // 64) * 64 * element for first, last in plan.slices]
    found = logits_bytes(shape, Sizes(tensor, 1, 1, 1, 1), Micro(rows, element), 128, logits_mib)
    assert found.stored == sum(sizes[: plan.stored])
    columns = sum(last - first for first, last in plan.slices[: plan.stored])
    assert found.recomputed == pytest.approx(1 - columns / width, abs=1e-12)
    gradients = 2 * rows * shape.hidden_size * 4 + width * shape.hidden_size * element
    assert found.working == gradients + (max(sizes[plan.stored :]) if plan.stored < len(sizes) else 0)
