"""Core attention that never crosses a document.

Megatron's local `DotProductAttention` refuses packed sequences; Transformer Engine's needs a GPU. This module
stands in their place in the layer spec: torch's scaled dot product, causal, one call a document, so the cost is
Σ len² of the documents and not of the pack, and no mask is ever built.

For generation it keeps keys and values (`KeyValueCache`), told by `CachedTokens` where the tokens of a forward belong.
For scoring, documents of a pack may go on after others of it (`PrefixedPack`). With context parallelism a rank has some
of the tokens of a pack (`ContextPack`).

Axes: T tokens of a pack, S sequence, B batch, H query heads of this rank, G key/value heads of this rank, D head,
Q query heads of a group, L places of a cache, or a prefix and what goes on after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.attention.bias import causal_lower_right

from megatron_aquila.engine import varlen
from megatron_aquila.engine.context import ContextPack, Exchange, Lookup


@dataclass(kw_only=True)
class Pack(PackedSeqParams):
    """Documents end to end. Beside Megatron's fields: the bounds `[0, …, T]` as a list, for attention, and the places
    of the labels (`[M]` int64), for the output layer; neither need ask the device for them.

    For `DocumentAttention` every token brings its position (`[T]` int64), and `qkv_format` stays unset: Megatron would
    turn positions by the bounds, and wait for the device in every layer to know them.
    """

    bounds: Sequence[int]
    labelled: torch.Tensor
    positions: torch.Tensor | None = None


def packed_sequences(
    cu_seqlens: list[int], labelled: torch.Tensor, device: torch.device, positions: torch.Tensor | None = None
) -> Pack:
    """The description of a pack whose documents start at `cu_seqlens` (`[0, …, T]`; int32 on the device).

    positions: for `DocumentAttention`; without, the layers are Transformer Engine's.
    """
    bounds = varlen.bounds([end - start for start, end in pairwise(cu_seqlens)], device)
    return Pack(
        qkv_format="thd" if positions is None else None,
        cu_seqlens_q=bounds.cu_seqlens,
        cu_seqlens_kv=bounds.cu_seqlens,
        max_seqlen_q=bounds.longest,
        max_seqlen_kv=bounds.longest,
        bounds=cu_seqlens,
        labelled=labelled,
        positions=positions,
    )


class KeyValueCache:
    """Keys and values `[B, G, L, D]` of each layer of this rank, of up to `sequences` sequences of `capacity` tokens.

    A sequence has a slot, the same in every layer. Memory is taken at a layer's first use.
    """

    def __init__(self, config: TransformerConfig, sequences: int, capacity: int, device: torch.device) -> None:
        groups = config.num_query_groups // config.tensor_model_parallel_size
        self.capacity = -(-capacity // 8) * 8  # the kernels that take a mask want it aligned
        self._shape = (sequences, groups, self.capacity, config.kv_channels)
        self._options: dict[str, Any] = {"dtype": config.params_dtype, "device": device}
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        if number not in self._layers:
            # Not empty: what a mask hides has the weight 0, and 0 · NaN is NaN.
            self._layers[number] = (
                torch.zeros(self._shape, **self._options),
                torch.zeros(self._shape, **self._options),
            )
        return self._layers[number]

    def keep(self, slots: Sequence[int]) -> None:
        """Give the sequences in `slots` the slots 0, 1, …, and forget the others."""
        chosen = torch.tensor(slots, device=self._options["device"])
        for tensors in self._layers.values():
            for tensor in tensors:
                tensor[: len(slots)] = tensor[chosen]


@dataclass(kw_only=True)
class CachedTokens(PackedSeqParams):
    """Tokens `[T]` laid end to end in one row, `[1, T]` for the model, whose keys and values go into a cache.

    Either whole sequences of `lengths` from their first token on, in the slots from `first_slot` on; or, `lengths`
    being None, the next token of each sequence in the slots 0, 1, …. Every token has its own position, and the row may
    have padding at its end. `AquilaModel` gives logits of the rows `last` only.
    """

    cache: KeyValueCache
    positions: torch.Tensor  # [T + padding] int64
    last: torch.Tensor  # [B] int64, the row of each sequence's last token
    lengths: Sequence[int] | None
    first_slot: int = 0
    longest: int = 0  # tokens of the longest sequence, this one's included
    visible: torch.Tensor | None = None  # [B, 1, 1, longest] bool, what the next token sees


@dataclass(frozen=True)
class Continuations:
    """Documents of like length, end to end in a pack, that each go on after the same rows of it.

    rows: `[B, S]` int64, of the pack: a document each, its last row repeated up to the length of the longest.
    kept: `[tokens]` int64, which of the B · S are no repetition.
    """

    prefix: tuple[int, int]
    rows: torch.Tensor
    kept: torch.Tensor


@dataclass(kw_only=True)
class PrefixedPack(PackedSeqParams):
    """A pack that may hold documents which go on after others of it, in whose place many documents begin alike.

    Without any it is what `packed_sequences` makes. With some, `spans` are in order all that the pack holds, documents
    by themselves as their lengths; every token has its own position, and `qkv_format` stays unset, so that Megatron
    does not turn positions by the bounds. Without gradients and without dropout.
    """

    bounds: Sequence[int] = ()
    positions: torch.Tensor | None = None  # [T] int64
    spans: Sequence[int | Continuations] = ()


class DocumentAttention(torch.nn.Module):
    """softmax(Q·Kᵀ / sqrt(D)) · V, causal, within each document of `cu_seqlens`.

    The signature is that of Megatron's core attention.
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
            raise ValueError("context_parallel_size must be 1: packs are cut here (engine/context.py), not by Megatron")
        # Where the whole is computed again in the backward pass, keys and values of other ranks are there for it.
        self.keeps_exchanged = config.recompute_granularity is not None
        self.layer_number = layer_number
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        self.scale = softmax_scale
        self.varlen = varlen.chosen_here(config.params_dtype, config.kv_channels, self.dropout).kernel
        self.deterministic = config.deterministic_mode

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
        """`[S, B, H, D]` → `[S, B, H·D]`; with `packed_seq_params` of `qkv_format` thd, `[T, H, D]` → `[T, H·D]`.

        Where the format is unset, as in `CachedTokens`, a `ContextPack`, a `Pack` with positions and a `PrefixedPack`
        with spans, tokens come as `[T, 1, H, D]`: Megatron does not know their layout.
        """
        if isinstance(packed_seq_params, CachedTokens):
            tokens = (
                len(packed_seq_params.last) if packed_seq_params.lengths is None else sum(packed_seq_params.lengths)
            )
            out = self._cached(query[:tokens, 0], key[:tokens, 0], value[:tokens, 0], packed_seq_params)
            return F.pad(out, (0, 0, 0, len(query) - tokens)).unsqueeze(1)
        if isinstance(packed_seq_params, ContextPack):
            return self._in_context(query[:, 0], key[:, 0], value[:, 0], packed_seq_params).unsqueeze(1)
        if packed_seq_params is None:
            query_BHSD, key_BGSD, value_BGSD = (x.permute(1, 2, 0, 3) for x in (query, key, value))
            out_BHSD = self._attend(query_BHSD, key_BGSD, value_BGSD)
            return out_BHSD.permute(2, 0, 1, 3).flatten(2)

        if isinstance(packed_seq_params, PrefixedPack) and packed_seq_params.spans:
            return self._spans(query[:, 0], key[:, 0], value[:, 0], packed_seq_params.spans).unsqueeze(1)
        if packed_seq_params.qkv_format is None:
            return self._pack(query[:, 0], key[:, 0], value[:, 0], packed_seq_params).unsqueeze(1)
        return self._pack(query, key, value, packed_seq_params)

    def _pack(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pack: Any) -> torch.Tensor:
        """`[T, H, D]` → `[T, H·D]`, in one call where there is a kernel for it."""
        if self.varlen is None:
            return self._documents(query, key, value, [end - start for start, end in pairwise(pack.bounds)])
        bounds = varlen.Bounds(pack.cu_seqlens_q, pack.max_seqlen_q)
        return self._at_once(query, key, value, bounds, bounds)

    def _in_context(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pack: ContextPack
    ) -> torch.Tensor:
        """`[T, H, D]` → `[T, H·D]`, T the tokens of this rank's two chunks; the first document of each may have begun
        before it."""
        lookups = pack.plan.lookups
        if not pack.plan.longest:  # no document crosses a chunk
            chunks = (x.chunk(2) for x in (query, key, value))
            return torch.cat([self._looking(*part) for part in zip(*chunks, lookups, pack.bounds)])
        exchange = Exchange(pack.plan, pack.group, key, value, keep=self.keeps_exchanged)
        found = []
        with exchange.saving():
            keys, values = exchange.rows.unbind(0)
            for part, lookup, bounds in zip(query.chunk(2), lookups, pack.bounds):
                rows = slice(lookup.first, lookup.first + lookup.before + len(part))
                found.append(self._looking(part, keys[rows], values[rows], lookup, bounds))
        return exchange.finish(torch.cat(found))

    def _looking(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lookup: Lookup,
        bounds: tuple[varlen.Bounds, varlen.Bounds],
    ) -> torch.Tensor:
        """One chunk, `[C, H, D]` → `[C, H·D]`, with the keys and values from its first document's start on."""
        if self.varlen is None:
            return self._documents(query, key, value, lookup.lengths, lookup.key_lengths)
        return self._at_once(query, key, value, *bounds)

    def _at_once(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        queries: varlen.Bounds,
        keys: varlen.Bounds,
    ) -> torch.Tensor:
        """`[T, H, D]` → `[T, H·D]`, all documents in one call of the kernel."""
        assert self.varlen is not None
        return self.varlen(
            query,
            key,
            value,
            queries,
            keys,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
            deterministic=self.deterministic,
        ).flatten(1)

    def _spans(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Sequence[int | Continuations]
    ) -> torch.Tensor:
        """`[T, H, D]` → `[T, H·D]`, each document for itself and for what it goes on after."""
        found = []
        first = 0
        for span in spans:
            if isinstance(span, int):
                rows = slice(first, first + span)
                found.append(self._documents(query[rows], key[rows], value[rows], [span]))
            else:
                found.append(self._continued(query, key, value, span))
            first += len(found[-1])
        return torch.cat(found)

    def _continued(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Continuations
    ) -> torch.Tensor:
        # Padding stands at the end, so no token that is kept looks at it.
        before = slice(*documents.prefix)
        count, length = documents.rows.shape
        keys_BGLD, values_BGLD = (
            torch.cat([x[before].expand(count, -1, -1, -1), x[documents.rows]], dim=1).transpose(1, 2)
            for x in (key, value)
        )
        out_BHSD = F.scaled_dot_product_attention(
            query[documents.rows].transpose(1, 2),
            keys_BGLD,
            values_BGLD,
            attn_mask=causal_lower_right(length, keys_BGLD.shape[2]),
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out_BHSD.transpose(1, 2).flatten(0, 1)[documents.kept].flatten(1)

    def _cached(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, tokens: CachedTokens
    ) -> torch.Tensor:
        keys_BGLD, values_BGLD = tokens.cache.layer(self.layer_number)
        if tokens.lengths is not None:
            slots = range(tokens.first_slot, tokens.first_slot + len(tokens.lengths))
            for cached, new in ((keys_BGLD, key), (values_BGLD, value)):
                for slot, part in zip(slots, new.split(tokens.lengths)):
                    cached[slot, :, : len(part)] = part.transpose(0, 1)
            return self._documents(query, key, value, tokens.lengths)

        count, groups = key.shape[:2]
        slots_B, positions_B = torch.arange(count, device=key.device), tokens.positions[:count]
        keys_BGLD[slots_B, :, positions_B] = key
        values_BGLD[slots_B, :, positions_B] = value
        # The query heads of a group take the place of the sequence, so that no key or value is repeated for them.
        out_BGQD = F.scaled_dot_product_attention(
            query.unflatten(1, (groups, -1)),
            keys_BGLD[:count, :, : tokens.longest],
            values_BGLD[:count, :, : tokens.longest],
            attn_mask=tokens.visible,
            scale=self.scale,
        )
        return out_BGQD.flatten(1)

    def _documents(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: Sequence[int],
        key_lengths: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """`[T, H, D]` → `[T, H·D]`, each document for itself; with `key_lengths`, of the tokens at its end."""
        looked_at = lengths if key_lengths is None else key_lengths
        # One split and not a slice a document: the backward of a slice fills a tensor of the pack's whole length.
        queries, keys, values = (
            x.transpose(0, 1).unsqueeze(0).split(list(parts), dim=2)
            for x, parts in ((query, lengths), (key, looked_at), (value, looked_at))
        )
        documents = [self._attend(*document) for document in zip(queries, keys, values)]
        return torch.cat(documents, dim=2).squeeze(0).transpose(0, 1).flatten(1)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        later = query.shape[2] != key.shape[2]  # the last tokens of a document
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            dropout_p=self.dropout if self.training else 0.0,
            attn_mask=causal_lower_right(query.shape[2], key.shape[2]) if later else None,
            is_causal=not later,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
