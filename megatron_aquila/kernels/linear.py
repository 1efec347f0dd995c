"""Log-probabilities from hidden states and the output weight: the logits are never whole.

Axes: N tokens, H hidden, V columns of this rank's vocabulary shard. G is the cost of one product N·V·H.

The products run in torch, the softmax in the fused kernels, slice by slice of the vocabulary or of the tokens. Three
exact schedules give the same result within rounding:

- **store** keeps the logits and turns them into their gradient in place: 3 G, N·V elements;
- **recompute** keeps three numbers a token and computes each slice of the vocabulary again in the backward: 4 G,
  one slice of logits and N·H float32. It slices the vocabulary and not the tokens so that each slice of the weight's
  gradient is one product over all tokens, rounded once;
- **frozen** is for a weight without gradient: forms the hidden states' gradient in the forward, unscaled, chunk of
  tokens by chunk of tokens: 2 G, one chunk of logits and N·H.

`auto` takes `frozen` where the weight has no gradient; else it stores as many slices as the budget holds, and
recomputes the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist

from megatron_aquila.kernels import IGNORE_INDEX, ops
from megatron_aquila.kernels.token_logps import Shard, gather

Mode = Literal["auto", "store", "recompute", "frozen"]

_COLUMN_MULTIPLE = 128  # slices stay aligned for the matrix units
_SLICES = 16  # of the vocabulary when recomputing: their own work is long, their logits a sixteenth
_BLOCK = 4096  # columns of bfloat16 or float16 logits that the CPU widens at a time
_NOWHERE = 1 << 62  # a first column beyond every token: no target lies in the shard


@dataclass(frozen=True)
class _Plan:
    """Slices of the vocabulary `[(first, last), …]`, of which the first `stored` keep their logits."""

    slices: tuple[tuple[int, int], ...]
    stored: int

    @classmethod
    def make(cls, mode: Mode, rows: int, width: int, element: int, budget_bytes: int) -> _Plan:
        whole = rows * width * element
        if mode == "store" or (mode == "auto" and whole <= budget_bytes):
            return cls(((0, width),), 1)
        slices = _SLICES
        if mode == "auto":  # half the budget for the slice at work
            slices = max(slices, math.ceil(2 * whole / max(budget_bytes, 1)))
        step = max(_COLUMN_MULTIPLE, math.ceil(width / slices / _COLUMN_MULTIPLE) * _COLUMN_MULTIPLE)
        cut = tuple((first, min(first + step, width)) for first in range(0, width, step))
        stored = int(budget_bytes / 2 // max(rows * step * element, 1)) if mode == "auto" else 0
        return cls(cut, min(stored, len(cut)))


class _Logits:
    """A reusable buffer for slices of logits; its rows are a multiple of 64 elements apart."""

    def __init__(self, rows: int, columns: int, like: torch.Tensor) -> None:
        self._buffer = like.new_empty(rows, math.ceil(columns / 64) * 64)

    def product(self, hidden_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
        out = self._buffer[: hidden_NH.shape[0], : weight_VH.shape[0]]
        return torch.mm(hidden_NH, weight_VH.t(), out=out)


def _product_in_float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b without rounding the sum to the operands' dtype: partial sums are added up later."""
    if a.dtype in (torch.float32, torch.float64):
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    # torch's CPU product has no output dtype. float32 holds the operands exactly; a block at a time, for memory.
    total = a.new_zeros(a.shape[0], b.shape[1], dtype=torch.float32)
    for first in range(0, a.shape[1], _BLOCK):
        total.addmm_(a[:, first : first + _BLOCK].float(), b[first : first + _BLOCK].float())
    return total


def _slice_of(shard: Shard, first: int, last: int) -> tuple[int, int]:
    """Columns of the slice that are tokens, and its first token id."""
    return min(max(shard.columns - first, 0), last - first), shard.first_column + first


def _stats(logits: torch.Tensor, targets_N: torch.Tensor, shard: Shard, first: int, last: int) -> torch.Tensor:
    columns, first_column = _slice_of(shard, first, last)
    stats: torch.Tensor = ops.token_stats(logits, targets_N, columns, first_column, IGNORE_INDEX)
    return stats


def _local_stats(parts: list[torch.Tensor], targets_N: torch.Tensor, shard: Shard) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0]
    merged: torch.Tensor = ops.merge_stats(torch.stack(parts), targets_N, shard.vocab_size, IGNORE_INDEX, False)
    return merged


class _SlicedLogps(torch.autograd.Function):
    """Modes store and recompute, and every mixture of them."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, shard: Shard, plan: _Plan
    ) -> torch.Tensor:
        kept, parts, buffer = [], [], None
        for index, (first, last) in enumerate(plan.slices):
            if index < plan.stored or buffer is None:
                buffer = _Logits(hidden_NH.shape[0], last - first, hidden_NH)
            logits = buffer.product(hidden_NH, weight_VH[first:last])
            if index < plan.stored:
                kept.append(logits)
                buffer = None
            parts.append(_stats(logits, targets_N, shard, first, last))
        state = shard.merge(_local_stats(parts, targets_N, shard), targets_N)
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, state)
        ctx.kept, ctx.shard, ctx.plan = kept, shard, plan
        return state[2].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None]:
        hidden_NH, weight_VH, targets_N, state = ctx.saved_tensors
        shard, plan, kept = ctx.shard, ctx.plan, ctx.kept
        if kept is None:
            raise RuntimeError("backward ran twice, but the first run put the gradient in the stored logits' place")
        if plan.stored:
            ctx.kept = None  # the stored logits become their gradient, and go slice by slice
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = None
        grad_weight = torch.empty_like(weight_VH) if wants_weight else None
        buffer = None
        for index, (first, last) in enumerate(plan.slices):
            if index < plan.stored:
                logits, kept[index] = kept[index], None
            else:
                buffer = buffer or _Logits(hidden_NH.shape[0], last - first, hidden_NH)
                logits = buffer.product(hidden_NH, weight_VH[first:last])
            columns, first_column = _slice_of(shard, first, last)
            ops.token_gradient_(logits, targets_N, state, grads[0], None, columns, first_column, IGNORE_INDEX)
            if wants_hidden:
                part = _product_in_float32(logits, weight_VH[first:last])
                grad_hidden = part if grad_hidden is None else grad_hidden.add_(part)
                del part
            if grad_weight is not None:
                torch.mm(logits.t(), hidden_NH, out=grad_weight[first:last])
            del logits
        if grad_hidden is not None:
            if shard.ranks > 1:  # each rank has the part of its own columns
                dist.all_reduce(grad_hidden, group=shard.group)
            grad_hidden = grad_hidden.to(hidden_NH.dtype)
        return grad_hidden, grad_weight, None, None, None


class _FrozenLogps(torch.autograd.Function):
    """Mode frozen. With p̃ the softmax over this rank's columns of a token, and w = s_local e^(m_local − m) / s:

        ∂ log p(y) / ∂ hidden = W_y − Σ_ranks w · p̃ W

    so p̃ W needs no communication, and w comes after one all-gather.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, shard: Shard, chunk: int
    ) -> torch.Tensor:
        rows, width = hidden_NH.shape[0], weight_VH.shape[0]
        statistics = ops.statistics_dtype(hidden_NH.dtype)
        stats = torch.empty(3, rows, dtype=statistics, device=hidden_NH.device)
        expected = torch.empty_like(hidden_NH, dtype=statistics)
        buffer = _Logits(min(chunk, rows), width, hidden_NH)
        minus_one = torch.full((min(chunk, rows),), -1.0, dtype=statistics, device=hidden_NH.device)
        for first in range(0, rows, chunk):
            part = slice(first, min(first + chunk, rows))
            targets = targets_N[part]
            logits = buffer.product(hidden_NH[part], weight_VH)
            stats[:, part] = local = _stats(logits, targets, shard, 0, width)
            local[1].reciprocal_()
            ops.token_gradient_(
                logits, targets, local, minus_one[: len(targets)], None, shard.columns, _NOWHERE, IGNORE_INDEX
            )
            expected[part] = _product_in_float32(logits, weight_VH)
        local_m, local_s, _ = stats
        state = shard.merge(stats, targets_N)
        # A shard that is all padding or −inf has s = 0 and a p̃ of NaN: it adds nothing.
        weight_N = torch.where(local_s == 0, 0.0, local_s * (local_m - state[0]).exp() * state[1])
        expected.mul_(-weight_N.unsqueeze(1)).masked_fill_((local_s == 0).unsqueeze(1), 0.0)
        local = targets_N - shard.first_column
        here = (local >= 0) & (local < shard.columns)
        expected.add_(weight_VH[torch.where(here, local, 0)] * here.unsqueeze(1))
        if shard.ranks > 1:
            dist.all_reduce(expected, group=shard.group)
        ctx.save_for_backward(expected.to(hidden_NH.dtype), targets_N)
        return state[2].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        unscaled_NH, targets_N = ctx.saved_tensors
        grad_N = grads[0].masked_fill(targets_N == IGNORE_INDEX, 0.0).unsqueeze(1)
        return (unscaled_NH * grad_N).to(unscaled_NH.dtype), None, None, None, None


class _GatherSequence(torch.autograd.Function):
    """Sequence parallelism: every rank's tokens, end to end. The gradient is the rank's own tokens: it arrives summed
    over the ranks already."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.rank, ctx.rows = dist.get_rank(group), hidden_NH.shape[0]
        return gather(hidden_NH, group).view(-1, hidden_NH.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0][ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None


def linear_logps(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    vocab_size: int,
    group: dist.ProcessGroup | None = None,
    sequence_parallel: bool = False,
    mode: Mode = "auto",
    budget_bytes: int = 1 << 30,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Log-probability of each target token under softmax(hidden · weightᵀ).

    Args:
        hidden: `[..., H]`: the same on all ranks of `group`, or, with `sequence_parallel`, this rank's part of the
            tokens, in rank order.
        weight: `[V, H]`, of the same dtype: this rank's rows of the output weight; as in `vocab_parallel_logps`, rows
            at and beyond `vocab_size` are padding.
        targets: `[...]`, int64, of all tokens (of all ranks, with `sequence_parallel`); `IGNORE_INDEX` yields 0.
        vocab_size: ids in the real vocabulary.
        group: the tensor-parallel group; None for an unsplit weight. The gradient of `hidden` is summed over it.
        mode: see the head of this file.
        budget_bytes: what logits may take up in mode auto, and a chunk of them in mode frozen.
        rows: `[M]`, int64, indices of the tokens that count (into the flattened targets). The others are left out of
            every product. Without it the CPU looks for them itself; a GPU, which would have to wait, computes all.

    Returns:
        `[...]`, the shape of `targets`, float32 (float64 for float64 hidden states).

    Raises:
        ValueError: shapes or dtypes do not fit, or mode frozen is asked of a weight that has a gradient.
        RuntimeError: a second backward over stored logits.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is none of {', '.join(get_args(Mode))}")
    if weight.dim() != 2 or hidden.shape[-1] != weight.shape[1] or hidden.dtype != weight.dtype:
        raise ValueError(
            f"hidden {hidden.dtype} {tuple(hidden.shape)} and weight {weight.dtype} {tuple(weight.shape)} do not fit"
        )
    if sequence_parallel and group is None:
        raise ValueError("sequence_parallel needs the tensor-parallel group")
    hidden_NH = hidden.reshape(-1, hidden.shape[-1])
    if sequence_parallel:
        hidden_NH = _GatherSequence.apply(hidden_NH, group)
    targets_N = targets.reshape(-1)
    if hidden_NH.shape[0] != targets_N.shape[0]:
        raise ValueError(f"{hidden_NH.shape[0]} hidden states for {targets_N.shape[0]} targets")
    shard = Shard(weight.shape[0], vocab_size, group)
    shard.check(targets_N)
    if rows is None and targets_N.device.type == "cpu":
        rows = (targets_N != IGNORE_INDEX).nonzero().squeeze(1)
    if rows is None or len(rows) == len(targets_N):
        return _logps(hidden_NH, weight, targets_N, shard, mode, budget_bytes).view(targets.shape)
    logps = _logps(hidden_NH[rows], weight, targets_N[rows], shard, mode, budget_bytes)
    return (
        torch.zeros(targets_N.shape, dtype=logps.dtype, device=logps.device)
        .index_copy(0, rows, logps)
        .view(targets.shape)
    )


def _logps(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, shard: Shard, mode: Mode, budget: int
) -> torch.Tensor:
    element = hidden_NH.element_size()
    trained = torch.is_grad_enabled() and weight_VH.requires_grad
    if mode == "frozen" and trained:
        raise ValueError("mode frozen computes no gradient of the weight, but the weight requires one")
    logps: torch.Tensor
    if torch.is_grad_enabled() and not trained and hidden_NH.requires_grad and mode in ("auto", "frozen"):
        chunk = max(1, budget // max(weight_VH.shape[0] * element, 1))
        logps = _FrozenLogps.apply(hidden_NH, weight_VH, targets_N, shard, chunk)
        return logps
    plan = _Plan.make("recompute" if mode == "frozen" else mode, hidden_NH.shape[0], shard.width, element, budget)
    if not torch.is_grad_enabled() or not (trained or hidden_NH.requires_grad):
        plan = _Plan(plan.slices, 0)  # nothing to keep for a backward that will not come
    logps = _SlicedLogps.apply(hidden_NH, weight_VH, targets_N, shard, plan)
    return logps
