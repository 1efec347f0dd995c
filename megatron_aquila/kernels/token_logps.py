"""Log-probabilities of target tokens from vocabulary-parallel logits, by the fused kernels.

Axes: N tokens (any leading shape), V columns of this rank's vocabulary shard.

The forward reads each logit once; one all-gather of three numbers a token merges the ranks. The backward reads each
logit once, writes its gradient once, and communicates nothing. Beyond the logits it keeps 12 bytes a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from megatron_aquila.kernels import IGNORE_INDEX, ops


@dataclass(frozen=True)
class Shard:
    """The columns of the vocabulary that a tensor-parallel rank holds, and the group it shares it with.

    All ranks hold `width` columns, in rank order; those at and beyond `vocab_size` are padding and carry no mass.
    """

    width: int
    vocab_size: int
    group: dist.ProcessGroup | None = None

    @property
    def ranks(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def first_column(self) -> int:
        return 0 if self.group is None else dist.get_rank(self.group) * self.width

    @property
    def columns(self) -> int:
        """Columns of this rank that are tokens."""
        return min(max(self.vocab_size - self.first_column, 0), self.width)

    def check(self, targets: torch.Tensor) -> None:
        """Refuse targets outside the vocabulary. On a GPU looking would mean waiting: there such a row yields NaN.

        Raises:
            ValueError: the vocabulary does not fit the shards, or a target is neither a token nor `IGNORE_INDEX`.
        """
        if self.vocab_size > self.width * self.ranks:
            raise ValueError(
                f"{self.ranks} shards of {self.width} columns cannot hold a vocabulary of {self.vocab_size}"
            )
        if self.ranks > 1 and self.width >= self.vocab_size:
            raise ValueError(
                f"each of {self.ranks} ranks brings {self.width} columns, for a vocabulary of {self.vocab_size}: "
                "pass the rank's own columns, not gathered logits"
            )
        if targets.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = ops.first_wrong_target(targets, self.vocab_size, IGNORE_INDEX)
            if wrong is not None:
                raise ValueError(
                    f"target {wrong} is outside the vocabulary of {self.vocab_size} tokens: "
                    "the data was indexed with another tokenizer"
                )

    def state(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(m, 1/s, log p), `[3, N]`, over all ranks, of this rank's logits `[N, width]`."""
        if self.ranks == 1:
            state: torch.Tensor = ops.token_state(logits, targets, self.vocab_size, IGNORE_INDEX)
            return state
        return self.merge(ops.token_stats(logits, targets, self.columns, self.first_column, IGNORE_INDEX), targets)

    def merge(self, stats: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(m, 1/s, log p), `[3, N]`, over all ranks, from this rank's statistics."""
        parts = stats.unsqueeze(0) if self.group is None or self.ranks == 1 else gather(stats, self.group)
        state: torch.Tensor = ops.merge_stats(parts, targets, self.vocab_size, IGNORE_INDEX, True)
        return state


def gather(mine: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """Every rank's tensor `[ranks, …]`, in rank order; all have one shape."""
    everyone = mine.new_empty(dist.get_world_size(group), *mine.shape)
    dist.all_gather(list(everyone), mine.contiguous(), group=group)
    return everyone


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor, shard: Shard, inplace: bool
    ) -> torch.Tensor:
        state = shard.state(logits_NV, targets_N)
        ctx.save_for_backward(logits_NV, targets_N, state)
        ctx.shard, ctx.inplace, ctx.used_up = shard, inplace, False
        return state[2].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        logits_NV, targets_N, state = take_saved(ctx)
        return logit_gradient(logits_NV, targets_N, state, grads[0], None, ctx.shard, ctx.inplace), None, None, None


def take_saved(ctx: Any) -> tuple[torch.Tensor, ...]:
    """What a Function saved, logits first: once, if their gradient takes their place."""
    if ctx.used_up:
        raise RuntimeError("backward ran twice, but the first run put the gradient in the logits' place (inplace=True)")
    ctx.used_up = ctx.inplace
    saved: tuple[torch.Tensor, ...] = ctx.saved_tensors
    return saved


def logit_gradient(
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    state: torch.Tensor,
    grad_N: torch.Tensor,
    scale: torch.Tensor | None,
    shard: Shard,
    inplace: bool,
) -> torch.Tensor:
    """The gradient with respect to the logits, in their place if `inplace`."""
    arguments = (targets_N, state, grad_N, scale, shard.columns, shard.first_column, IGNORE_INDEX)
    if inplace:
        ops.token_gradient_(logits_NV, *arguments)
        return logits_NV
    gradient: torch.Tensor = ops.token_gradient(logits_NV, *arguments)
    return gradient


def vocab_parallel_logps(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    vocab_size: int,
    group: dist.ProcessGroup | None = None,
    inplace: bool = False,
) -> torch.Tensor:
    """Log-probability of each target token.

    Args:
        logits: `[..., V]`, float32, bfloat16, float16 (or float64, on the CPU): this rank's columns. The shards of
            all ranks have one width V and lie in rank order; columns at and beyond `vocab_size` are padding, carry
            no mass and get no gradient. Any strides; columns that are not adjacent cost a copy.
        targets: `[...]`, int64, global token ids; `IGNORE_INDEX` (-100) yields 0 and no gradient, and the logits of
            that row are not read.
        vocab_size: ids in the real vocabulary.
        group: the tensor-parallel group; None for unsplit logits.
        inplace: the backward writes the gradient over the logits. Only for logits that nothing else reads again,
            and for one backward.

    Returns:
        `[...]` float32 (float64 for float64 logits). NaN logits give NaN, never a finite number; so does, on a GPU,
        a target that is no token.

    Raises:
        ValueError: the shapes differ, the shards cannot hold the vocabulary, or, on the CPU, a target is neither a
            token id nor `IGNORE_INDEX`.
        RuntimeError: a second backward with `inplace`.
    """
    logits_NV, targets_N = as_rows(logits, targets)
    shard = Shard(logits_NV.shape[1], vocab_size, group)
    shard.check(targets_N)
    if torch.is_grad_enabled() and logits_NV.requires_grad:
        logps: torch.Tensor = _TokenLogps.apply(logits_NV, targets_N, shard, inplace)
    else:
        logps = shard.state(logits_NV, targets_N)[2]
    return logps if targets.dim() == 1 else logps.view(targets.shape)


def as_rows(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[N, V]` with adjacent columns, targets `[N]`; views where the strides allow it."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit")
    if logits.dim() != 2:
        logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        logits = logits.contiguous()
    return logits, targets
