"""What the fused kernels compute, in plain torch: the oracle of their tests, and the floor of their benchmarks.

Axes: N tokens (any leading shape), V columns of this rank's vocabulary shard, S sequences, P pairs.

With x the logits of one token over the whole vocabulary and y its target,

    log p(y) = (x_y - m) - log Σ_v exp(x_v - m),    m = max_v x_v

The statistics are float32, or float64 where the logits are. Each rank reduces its own columns to three numbers
per token (m, Σ exp, x_y); one all-gather of those merges the ranks, and the backward needs no communication:

    ∂ log p(y) / ∂ x_v = 1[v = y] - exp(x_v - m) / s
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import logsigmoid

from megatron_aquila.kernels import IGNORE_INDEX, ops
from megatron_aquila.kernels.preference import PreferenceLoss


class _VocabParallelLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: torch.Tensor,
        targets_N: torch.Tensor,
        first_column: int,
        valid_columns: int,
        group: dist.ProcessGroup | None,
    ) -> torch.Tensor:
        x_NV = logits_NV[..., :valid_columns].to(ops.statistics_dtype(logits_NV.dtype))
        local_N = targets_N - first_column
        here_N = (local_N >= 0) & (local_N < valid_columns)
        column_N = torch.where(here_N, local_N, 0)

        minus_infinity = x_NV.new_full(targets_N.shape, -torch.inf)
        if valid_columns:
            max_N = x_NV.amax(dim=-1)
            # A row that is -inf throughout has no finite maximum to subtract; 0 keeps its sum at 0.
            reference_N = torch.where(max_N.isneginf(), 0.0, max_N)
            sum_N = (x_NV - reference_N.unsqueeze(-1)).exp().sum(dim=-1)
            target_N = x_NV.gather(-1, column_N.unsqueeze(-1)).squeeze(-1)
            target_N = torch.where(here_N, target_N, minus_infinity)
        else:  # this shard is all padding
            max_N, sum_N, target_N = minus_infinity, torch.zeros_like(minus_infinity), minus_infinity

        if group is not None and dist.get_world_size(group) > 1:
            max_N, sum_N, target_N = _merge(max_N, sum_N, target_N, group)

        ignored_N = targets_N == IGNORE_INDEX
        logps_N = (target_N - max_N) - sum_N.log()
        ctx.save_for_backward(logits_NV, column_N, here_N, max_N, sum_N, ignored_N)
        ctx.valid_columns = valid_columns
        return logps_N.masked_fill(ignored_N, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        logits_NV, column_N, here_N, max_N, sum_N, ignored_N = ctx.saved_tensors
        grad_N = grads[0].masked_fill(ignored_N, 0.0)
        valid = ctx.valid_columns
        grad_NV = torch.zeros_like(logits_NV)
        if valid:
            softmax_NV = (logits_NV[..., :valid].to(max_N.dtype) - max_N.unsqueeze(-1)).exp_()
            softmax_NV.mul_(-(grad_N / sum_N).unsqueeze(-1))
            softmax_NV.scatter_add_(-1, column_N.unsqueeze(-1), (grad_N * here_N).unsqueeze(-1))
            softmax_NV.masked_fill_((grad_N == 0).unsqueeze(-1), 0.0)  # an ignored row of infinities stays 0
            grad_NV[..., :valid].copy_(softmax_NV)
        return grad_NV, None, None, None, None


def _merge(
    max_N: torch.Tensor, sum_N: torch.Tensor, target_N: torch.Tensor, group: dist.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Merge every rank's (max, Σ exp, target logit): one all-gather of 12 bytes a token."""
    mine = torch.stack((max_N, sum_N, target_N))
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    max_TN, sum_TN, target_TN = torch.stack(everyone, dim=1)
    max_N = max_TN.amax(dim=0)
    reference_N = torch.where(max_N.isneginf(), 0.0, max_N)
    scale_TN = (torch.where(max_TN.isneginf(), 0.0, max_TN) - reference_N).exp()
    return max_N, (sum_TN * scale_TN).sum(dim=0), target_TN.amax(dim=0)


def vocab_parallel_logps(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    vocab_size: int,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """As `token_logps.vocab_parallel_logps`, with the logits' gradient in memory of its own."""
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit")
    width = logits.shape[-1]
    rank = dist.get_rank(group) if group is not None else 0
    first = rank * width
    valid = min(max(vocab_size - first, 0), width)
    logps: torch.Tensor = _VocabParallelLogps.apply(logits, targets, first, valid, group)
    return logps


def preference_loss(
    logps_S: torch.Tensor, lengths_S: torch.Tensor, reference_S: torch.Tensor | None, settings: PreferenceLoss
) -> torch.Tensor:
    """Losses of pairs `[P]`, from the summed log-probs and the token counts of their sequences `[S]`."""
    chosen, rejected = logps_S[0::2], logps_S[1::2]
    lengths_S = lengths_S.clamp(min=1)
    chosen_mean, rejected_mean = chosen / lengths_S[0::2], rejected / lengths_S[1::2]
    beta, smoothing = settings.beta, settings.label_smoothing

    def smoothed(h: torch.Tensor) -> torch.Tensor:
        return -(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h)

    if settings.loss == "simpo":
        loss = smoothed(beta * (chosen_mean - rejected_mean) - settings.margin)
    elif settings.loss == "orpo":
        odds = (chosen_mean - rejected_mean) - ((-chosen_mean.expm1()).log() - (-rejected_mean.expm1()).log())
        loss = -chosen_mean - beta * logsigmoid(odds)
    else:
        assert reference_S is not None
        ratios_S = logps_S - reference_S
        if settings.loss == "ipo":
            loss = ((ratios_S / lengths_S)[0::2] - (ratios_S / lengths_S)[1::2] - 1 / (2 * beta)) ** 2
        else:
            if settings.length_normalised:
                ratios_S = ratios_S / lengths_S
            h = beta * (ratios_S[0::2] - ratios_S[1::2])
            if settings.loss == "hinge":
                loss = (1 - h).relu()
            elif settings.loss == "robust":
                loss = ((1 - smoothing) * -logsigmoid(h) + smoothing * logsigmoid(-h)) / (1 - 2 * smoothing)
            else:
                loss = smoothed(h)
    return loss - settings.sft_weight * chosen_mean
