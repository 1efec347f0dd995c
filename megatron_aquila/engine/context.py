"""Context parallelism: the ranks of one group share the tokens of a pack.

A pack of T tokens is cut into 2·cp chunks of one length; rank r computes chunks r and 2·cp − 1 − r, which together see
as much of a long document as those of every other rank. Everything but attention looks at one token at a time. For
attention a document that goes on in a later chunk needs its earlier keys and values there: each rank hands out the
*tails* of its chunks, the tokens whose document does not end with the chunk, and no others. One long document moves
whole; of packs of short ones little moves; where no document crosses a chunk nothing is sent. In the backward pass keys
and values are gathered again instead of being kept, so that what a layer keeps falls with the number of ranks.

Axes: T tokens of a pack, S tokens of this rank (T / cp), C of a chunk (T / 2·cp), R rows of keys that this rank looks
at, G key/value heads of this rank, D head. 2 stands for keys and values, side by side.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from torch.autograd.graph import saved_tensors_hooks

from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch
from megatron_aquila.engine.varlen import Bounds, bounds


@dataclass(frozen=True)
class Context:
    """The context-parallel ranks that share this rank's micro-batches, and its place among them."""

    size: int
    rank: int
    group: Any

    @classmethod
    def here(cls) -> Context:
        group = parallel_state.get_context_parallel_group()
        return cls(dist.get_world_size(group), dist.get_rank(group), group)

    @property
    def chunks(self) -> tuple[int, int]:
        """The numbers of this rank's chunks."""
        return chunks_of(self.rank, self.size)

    def part(self, batch: MicroBatch) -> MicroBatch:
        """This rank's tokens of a micro-batch, `[1, S]`, with the bounds of all of it; on the host, for no device is
        asked where the labels are."""
        tokens, labels, positions = (self._own(x) for x in (batch.tokens, batch.labels, batch.positions))
        labelled = (labels[0] != IGNORE_INDEX).nonzero().squeeze(1)
        return replace(batch, tokens=tokens, labels=labels, positions=positions, labelled=labelled)

    def whole(self, own: torch.Tensor) -> torch.Tensor:
        """`[1, S]` of every rank → `[1, T]`, in order, on every rank. The gradient of what all ranks then compute alike
        is that of the rank's own tokens, once."""
        whole: torch.Tensor = _Whole.apply(own, self)
        return whole

    def pack(self, part: MicroBatch) -> ContextPack:
        """What the model is told of a `part`."""
        plan = ExchangePlan.make(part.cu_seqlens, self.size, self.rank)
        longest = max(end - start for start, end in pairwise(part.cu_seqlens))
        return ContextPack(
            max_seqlen_q=longest,
            max_seqlen_kv=longest,
            positions=part.positions[0],
            labelled=part.labelled,
            plan=plan,
            group=self.group,
            bounds=plan.bounds(part.positions.device),
        )

    def _own(self, whole: torch.Tensor) -> torch.Tensor:
        chunks = whole.chunk(2 * self.size, dim=1)
        return torch.cat([chunks[number] for number in self.chunks], dim=1)


def chunks_of(rank: int, size: int) -> tuple[int, int]:
    """The numbers of the two chunks of a rank, in order."""
    return rank, 2 * size - 1 - rank


def _home(chunk: int, size: int) -> tuple[int, int]:
    """Which rank computes a chunk, and which of its two it is."""
    return (chunk, 0) if chunk < size else (2 * size - 1 - chunk, 1)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, context: Context) -> torch.Tensor:
        ctx.context = context
        first, second = _gathered(own, context.group).chunk(2, dim=-1)  # of every rank
        return torch.cat([*first, *second.flip(0)], dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.context._own(grads[0]), None


@dataclass(kw_only=True)
class ContextPack(PackedSeqParams):
    """This rank's tokens of a pack. Every token has its own position, and `qkv_format` stays unset, so that Megatron
    does not turn positions by bounds."""

    positions: torch.Tensor  # [S] int64
    labelled: torch.Tensor  # [M] int64, the places of the labels
    plan: ExchangePlan
    group: Any
    bounds: list[tuple[Bounds, Bounds]]  # of queries and keys, a pair for each own chunk


@dataclass(frozen=True)
class Lookup:
    """What the tokens of one own chunk look at.

    lengths: of the parts of documents in the chunk. first, before: the rows from `first` on are those `before` the
    chunk that belong to its first document, and then those of the chunk itself.
    """

    lengths: tuple[int, ...]
    first: int
    before: int

    @property
    def key_lengths(self) -> list[int]:
        """Of the documents from their start, or their first token in the chunk, on."""
        return [self.before + self.lengths[0], *self.lengths[1:]]


@dataclass(frozen=True)
class ExchangePlan:
    """Which keys and values the ranks send each other for one pack; the same on all, but for the fields marked own.

    tails: how many last tokens of each chunk belong to a document that goes on behind it. pieces (own): what this rank
    looks at, in order: `(chunk, tokens)`, the last `tokens` of the chunk; of its own chunks all of them.
    """

    size: int
    rank: int
    chunk: int
    tails: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]
    lookups: tuple[Lookup, Lookup]

    @classmethod
    def make(cls, bounds: Sequence[int], size: int, rank: int) -> ExchangePlan:
        """bounds: `[0, …, T]` of the documents; T is a multiple of 2 · size."""
        total, parts = bounds[-1], 2 * size
        if total % parts:
            raise ValueError(f"a pack of {total} tokens cannot be cut into {parts} chunks of one length")
        chunk = total // parts
        tails, ends = [], []  # ends: of the document that the tail belongs to
        for end in range(chunk, total + 1, chunk):
            number = bisect_left(bounds, end)
            crosses = bounds[number] != end
            tails.append(end - max(bounds[number - 1], end - chunk) if crosses else 0)
            ends.append(bounds[number])
        own = chunks_of(rank, size)
        pieces: list[tuple[int, int]] = []
        for number in range(own[1] + 1):
            wanted = any(number < mine and ends[number] > mine * chunk for mine in own)
            if number in own:
                pieces.append((number, chunk))
            elif wanted and tails[number]:
                pieces.append((number, tails[number]))
        first, second = (_lookup(bounds, chunk, mine, pieces) for mine in own)
        return cls(size, rank, chunk, tuple(tails), tuple(pieces), (first, second))

    @property
    def longest(self) -> int:
        """The longest tail: what every rank sends of both its chunks. With 0 there is no exchange."""
        return max(self.tails)

    @property
    def own(self) -> tuple[int, int]:
        return chunks_of(self.rank, self.size)

    def bounds(self, device: torch.device) -> list[tuple[Bounds, Bounds]]:
        """Of queries and keys, for each own chunk."""
        return [(bounds(look.lengths, device), bounds(look.key_lengths, device)) for look in self.lookups]

    def rows(self, keys_values: torch.Tensor, group: Any) -> torch.Tensor:
        """Keys and values `[2, S, G, D]` of this rank → `[2, R, G, D]` of all that it looks at."""
        everyone = _gathered(self._sent(keys_values), group)
        parts = []
        for number, tokens in self.pieces:
            if number in self.own:
                parts.append(keys_values.chunk(2, dim=1)[self.own.index(number)])
            else:
                parts.append(everyone[_home(number, self.size)][:, self.longest - tokens :])
        return torch.cat(parts, dim=1)

    def back(self, grad: torch.Tensor, group: Any) -> torch.Tensor:
        """The gradient `[2, S, G, D]` of this rank's keys and values, from that of the `rows` of every rank."""
        sent = grad.new_zeros(self.size, 2, 2, self.longest, *grad.shape[2:])
        mine: list[torch.Tensor] = []
        for (number, tokens), part in zip(self.pieces, grad.split([tokens for _, tokens in self.pieces], dim=1)):
            if number in self.own:
                mine.append(part)
            else:
                sent[_home(number, self.size)][:, self.longest - tokens :] = part
        received = torch.empty_like(sent[0])
        dist.reduce_scatter_tensor(received, sent.flatten(0, 1), group=group)
        total = torch.cat(mine, dim=1)
        for place, number in enumerate(self.own):
            tail = self.tails[number]
            total.chunk(2, dim=1)[place][:, self.chunk - tail :] += received[place][:, self.longest - tail :]
        return total

    def _sent(self, keys_values: torch.Tensor) -> torch.Tensor:
        """`[2, 2, longest, G, D]`: of both own chunks the last tokens, of which the tails are the last again."""
        return torch.stack([part[:, self.chunk - self.longest :] for part in keys_values.chunk(2, dim=1)])


def _lookup(bounds: Sequence[int], chunk: int, number: int, pieces: Sequence[tuple[int, int]]) -> Lookup:
    start, end = number * chunk, (number + 1) * chunk
    inside = bounds[bisect_right(bounds, start) : bisect_left(bounds, end)]
    before = start - bounds[bisect_right(bounds, start) - 1]
    place = sum(tokens for other, tokens in pieces if other < number)
    return Lookup(tuple(b - a for a, b in pairwise([start, *inside, end])), place - before, before)


def _gathered(mine: torch.Tensor, group: Any) -> torch.Tensor:
    """`[ranks, …]`: every rank's tensor, in rank order."""
    everyone = mine.new_empty(dist.get_world_size(group), *mine.shape)
    dist.all_gather_into_tensor(everyone.flatten(0, 1), mine.contiguous(), group=group)
    return everyone


class Exchange:
    """Keys and values of one layer and one micro-batch, given out and taken back.

    Unless `keep`, the rows are let go after the forward pass and gathered again when the backward pass comes to the
    layer. That is done at one place, so that all ranks do it in the same order: `finish`.
    """

    def __init__(self, plan: ExchangePlan, group: Any, key: torch.Tensor, value: torch.Tensor, *, keep: bool) -> None:
        self.plan, self.group = plan, group
        self._keys_values = torch.stack((key, value))
        self._again = not keep and self._keys_values.requires_grad
        self._rows: torch.Tensor | None = None  # in the backward pass
        self.rows: torch.Tensor = _Rows.apply(self._keys_values, self)
        self._storage = self.rows.untyped_storage()._cdata

    def saving(self) -> AbstractContextManager[None]:
        """Within it, what looks at `rows` does not keep them for its backward."""
        return saved_tensors_hooks(self._pack, self._unpack) if self._again else nullcontext()

    def finish(self, output: torch.Tensor) -> torch.Tensor:
        """`output`, of all that was computed from `rows`; its backward, the first of them, gathers the rows again."""
        if self._again:
            output = _Again.apply(output, self._keys_values.detach(), self)
        del self.rows, self._keys_values
        return output

    def _pack(self, tensor: torch.Tensor) -> Any:
        if tensor.untyped_storage()._cdata == self._storage:
            return tensor.shape, tensor.stride(), tensor.storage_offset()
        return tensor

    def _unpack(self, packed: Any) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return packed
        assert self._rows is not None
        return self._rows.as_strided(*packed)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys_values: torch.Tensor, exchange: Exchange) -> torch.Tensor:
        ctx.exchange = exchange
        return exchange.plan.rows(keys_values, exchange.group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        exchange: Exchange = ctx.exchange
        exchange._rows = None
        return exchange.plan.back(grads[0], exchange.group), None


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, keys_values: torch.Tensor, exchange: Exchange) -> torch.Tensor:
        ctx.save_for_backward(keys_values)
        ctx.exchange = exchange
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        exchange: Exchange = ctx.exchange
        exchange._rows = exchange.plan.rows(ctx.saved_tensors[0], exchange.group)
        return grads[0], None, None
