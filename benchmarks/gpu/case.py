"""What is measured: a case, and how many layers of a shape fit for it. Light: torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron_aquila.shapes import ModelShape

Stage = Literal["cpt", "sft", "dpo"]
OUT_OF_MEMORY = 3  # exit code
RESULT = "result "  # what the line of the result begins with
# bf16 weights, float32 gradients, float32 values and Adam's two moments
_BYTES_PER_PARAMETER = 2 + 4 + 4 + 8
_RESERVE = 0.9  # of the memory that is free: the allocator cannot use every gap
_BEYOND = 3 << 30  # workspaces, and what is copied for a moment


@dataclass(frozen=True)
class Case:
    """One row of the table.

    layers: ours, or Transformer Engine's. logits: kept for the backward, or computed again (`training.logits_mib`).
    num_layers: of the shape; None: as many as fit. seconds: of timed steps, at least.
    """

    stage: Stage
    layers: Literal["own", "transformer engine"] = "own"
    logits: Literal["stored", "recomputed"] = "recomputed"
    fp8: Literal["hybrid", "e4m3"] | None = None
    shape: str = "aquila-7b"
    device: Literal["cuda", "cpu"] = "cuda"
    length: int = 4096
    micro_batches: int = 8
    num_layers: int | None = None
    seconds: float = 15.0

    @property
    def name(self) -> str:
        numbers = f" fp8 {self.fp8}" if self.fp8 else ""
        return f"{self.stage}, {self.layers} layers{numbers}, logits {self.logits}"


def layers_that_fit(free: int, shape: ModelShape, length: int) -> int:
    """Layers of `shape` whose training fits into `free` bytes, activations of `length` tokens included; at least one.

    Activations that a layer keeps in bf16, by token: inputs of two norms and four products, queries, keys, values
    before and after rotation, two residuals; and of the MLP gate and up, their product, and what lies between.
    """
    one = shape.model_copy(update={"num_layers": 1})
    two = shape.model_copy(update={"num_layers": 2})
    per_layer = two.parameters() - one.parameters()
    rest = one.parameters() - per_layer
    activations = length * (30 * shape.hidden_size + 10 * shape.ffn_hidden_size)
    left = free * _RESERVE - _BEYOND - rest * _BYTES_PER_PARAMETER - 2 * 2 * length * shape.vocab_size
    return max(1, min(shape.num_layers, int(left // (per_layer * _BYTES_PER_PARAMETER + activations))))
