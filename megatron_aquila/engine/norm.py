"""RMSNorm that allows sequence parallelism.

Megatron's local spec wraps `torch.nn.RMSNorm` and refuses `sequence_parallel` (torch_norm.py, 0.16 to 0.19).
All it takes is to mark the weight, so that `finalize_model_grads` sums its gradient over the tensor-parallel ranks,
each of which saw its own part of the sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig


class RMSNorm(torch.nn.RMSNorm):
    """y = x / sqrt(mean(x²) + eps) · weight over the last axis; statistics in float32.

    Takes and returns `[s, b, h]` in the model's dtype, and may stand wherever a `ModuleSpec` asks for a norm.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype, device=torch.cuda.current_device())
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
