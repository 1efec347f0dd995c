"""Core attention that never crosses a document.

Megatron's local `DotProductAttention` refuses packed sequences; Transformer Engine's needs a GPU. This module
stands in their place in the layer spec: torch's scaled dot product, causal, one call a document, so the cost is
Σ len² of the documents and not of the pack, and no mask is ever built.

Axes: T tokens of a pack, S sequence, B batch, H query heads of this rank, G key/value heads of this rank, D head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig


def packed_sequences(cu_seqlens: list[int], labelled: torch.Tensor, device: torch.device) -> PackedSeqParams:
    """Megatron's description of a pack whose documents start at `cu_seqlens` (`[0, …, total]`, int32 on device).

    It is the one thing that reaches every part of the model, so two more ride along: the bounds as a Python list, for
    attention, and the places of the labels (`[M]` int64), for the output layer; neither need ask the device for them.
    """
    bounds = torch.tensor(cu_seqlens, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in pairwise(cu_seqlens))
    params = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=bounds,
        cu_seqlens_kv=bounds,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
    params.bounds = cu_seqlens
    params.labelled = labelled
    return params


class DocumentAttention(torch.nn.Module):
    """softmax(Q·Kᵀ / sqrt(D)) · V, causal, within each document of `cu_seqlens`.

    The signature is that of Megatron's core attention. Context parallelism is not supported here.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if config.context_parallel_size != 1:
            raise ValueError("context_parallel_size must be 1 with this attention: it has no ring exchange")
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None,
    ) -> torch.Tensor:
        """`[S, B, H, D]` → `[S, B, H·D]`; with `packed_seq_params`, `[T, H, D]` → `[T, H·D]`."""
        if packed_seq_params is None:
            query_BHSD, key_BGSD, value_BGSD = (x.permute(1, 2, 0, 3) for x in (query, key, value))
            out_BHSD = self._attend(query_BHSD, key_BGSD, value_BGSD)
            return out_BHSD.permute(2, 0, 1, 3).flatten(2)

        lengths = [end - start for start, end in pairwise(packed_seq_params.bounds)]
        # One split and not a slice a document: the backward of a slice fills a tensor of the pack's whole length.
        queries, keys, values = (x.transpose(0, 1).unsqueeze(0).split(lengths, dim=2) for x in (query, key, value))
        documents = [self._attend(*document) for document in zip(queries, keys, values)]
        return torch.cat(documents, dim=2).squeeze(0).transpose(0, 1).flatten(1)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
