"""Losses on pairs of answers, packed: DPO and its relatives.

Axes: N tokens, S = 2P sequences, P pairs. Sequence 2p is the chosen answer of pair p, 2p + 1 the rejected one.
The formulas, with their sources, stand in `csrc/include/aquila/preference.h`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from megatron_aquila.kernels import (
    BY_LENGTH,
    IGNORE_INDEX,
    PREFERENCE_LOSSES,
    REFERENCE_FREE,
    WITH_LABEL_SMOOTHING,
    WITH_MARGIN,
    Loss,
    ops,
)
from megatron_aquila.kernels.token_logps import Shard, as_rows, logit_gradient, take_saved


@dataclass(frozen=True)
class PreferenceLoss:
    """Which loss, and its constants.

    Raises:
        ValueError: a constant is out of its range, or does nothing in this loss.
    """

    loss: Loss = "sigmoid"
    beta: float = 0.1  # IPO's τ; ORPO's λ
    label_smoothing: float = 0.0  # ε: conservative DPO with "sigmoid", its unbiased form with "robust"; SimPO
    margin: float = 0.0  # SimPO's γ, subtracted from β times the difference
    sft_weight: float = 0.0  # of − log p(chosen) / length, beside any of them
    length_normalised: bool = False  # log-ratios per token, not per answer; with "sigmoid", TRL's "sigmoid_norm"

    def __post_init__(self) -> None:
        if self.loss not in PREFERENCE_LOSSES:
            raise ValueError(f"loss {self.loss!r} is none of {', '.join(PREFERENCE_LOSSES)}")
        for name in ("beta", "label_smoothing", "margin", "sft_weight"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is not finite")
        if self.beta <= 0:
            raise ValueError(f"beta={self.beta} must be above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={self.label_smoothing} must lie in [0, 0.5)")
        if self.label_smoothing and self.loss not in WITH_LABEL_SMOOTHING:
            raise ValueError(f"label_smoothing has no meaning in the loss {self.loss!r}")
        if self.margin and self.loss not in WITH_MARGIN:
            raise ValueError(f"margin has no meaning in the loss {self.loss!r}")
        if self.sft_weight < 0:
            raise ValueError(f"sft_weight={self.sft_weight} must not be negative")
        if self.length_normalised and self.loss in BY_LENGTH:
            raise ValueError(f"the loss {self.loss!r} is normalised by length already: leave length_normalised out")

    @property
    def needs_reference(self) -> bool:
        return self.loss not in REFERENCE_FREE

    def check(self, reference_S: torch.Tensor | None) -> None:
        if self.needs_reference != (reference_S is not None):
            need = "needs" if self.needs_reference else "takes no"
            raise ValueError(f"the loss {self.loss!r} {need} log-probs of a reference model")

    def arguments(self) -> tuple[int, float, float, float, float, bool, int]:
        """The constants as the operator takes them."""
        number = PREFERENCE_LOSSES.index(self.loss)
        constants = (self.beta, self.label_smoothing, self.margin, self.sft_weight, self.length_normalised)
        return number, *constants, IGNORE_INDEX


@dataclass(frozen=True)
class PreferenceResult:
    """The loss, and what is worth logging. Everything lies on the device; nothing was waited for.

    loss: scalar, the sum over pairs, in the dtype of the log-probs; the one differentiable part.
    sequences: `[S, 3]`, columns `ops.SEQUENCE_COLUMNS`: summed log-prob, reward, tokens that count.
    pairs: `[P, 3]`, columns `ops.PAIR_COLUMNS`: loss, logit, reward margin.
    totals: `[8]`, entries `ops.TOTALS`: sums over the pairs; accuracy counts the pairs with a margin above 0.

    These three are float64. A reward is β (Σ log π − Σ log π_ref), or, without a reference, β times the mean log-prob.
    As in TRL it belongs to the whole answer even where the loss is `length_normalised` (or IPO, which always is): the
    logit shows what the loss saw, and its sign may differ from the margin's.
    """

    loss: torch.Tensor
    sequences: torch.Tensor
    pairs: torch.Tensor
    totals: torch.Tensor

    def total(self, name: str) -> torch.Tensor:
        return self.totals[ops.TOTALS.index(name)]


class _Preference(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logps_N: torch.Tensor,
        targets_N: torch.Tensor,
        cu_seqlens: torch.Tensor,
        reference_S: torch.Tensor | None,
        settings: PreferenceLoss,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        coefficients_N, sequences, pairs, totals = ops.preference(
            logps_N, targets_N, cu_seqlens, reference_S, *settings.arguments()
        )
        ctx.save_for_backward(coefficients_N)
        ctx.mark_non_differentiable(sequences, pairs, totals)
        return totals[0].to(logps_N.dtype, copy=True), sequences, pairs, totals

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (coefficients_N,) = ctx.saved_tensors
        return coefficients_N * grads[0], None, None, None, None


class _PreferenceFromLogits(torch.autograd.Function):
    """Statistics, merge and loss forward; one gradient kernel backward, which scales by the upstream scalar itself."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: torch.Tensor,
        targets_N: torch.Tensor,
        cu_seqlens: torch.Tensor,
        reference_S: torch.Tensor | None,
        settings: PreferenceLoss,
        shard: Shard,
        inplace: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        state = shard.state(logits_NV, targets_N)
        coefficients_N, sequences, pairs, totals = ops.preference(
            state[2], targets_N, cu_seqlens, reference_S, *settings.arguments()
        )
        ctx.save_for_backward(logits_NV, targets_N, state, coefficients_N)
        ctx.shard, ctx.inplace, ctx.used_up = shard, inplace, False
        ctx.mark_non_differentiable(sequences, pairs, totals)
        return totals[0].to(state.dtype, copy=True), sequences, pairs, totals

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_NV, targets_N, state, coefficients_N = take_saved(ctx)
        gradient = logit_gradient(logits_NV, targets_N, state, coefficients_N, grads[0], ctx.shard, ctx.inplace)
        return gradient, None, None, None, None, None, None


def preference_loss(
    logps: torch.Tensor,
    targets: torch.Tensor,
    cu_seqlens: torch.Tensor,
    reference: torch.Tensor | None,
    settings: PreferenceLoss,
) -> PreferenceResult:
    """The loss of pairs of answers from the log-probs of their tokens.

    Args:
        logps: `[N]` or `[1, N]`, float32 (float64 on the CPU), of a pack of sequences.
        targets: of the same shape, int64; tokens whose target is `IGNORE_INDEX` (prompts, padding) count for nothing.
        cu_seqlens: `[S + 1]`, int64, where the sequences begin and end; those of a pair are neighbours. Tokens outside
            all of them have no gradient.
        reference: `[S]`, float64: the reference model's log-probs, summed over each sequence's tokens that count, as
            `sequences` has them; None for the losses without one.
        settings: which loss.

    An answer without a token that counts has the sum 0 and moves nothing; `sequences` shows its length 0.

    Raises:
        ValueError: shapes or dtypes do not fit, the number of sequences is odd, or `reference` is there or absent
            against what the loss needs.
    """
    settings.check(reference)
    if logps.shape != targets.shape:
        raise ValueError(f"logps {tuple(logps.shape)} and targets {tuple(targets.shape)} do not fit")
    return PreferenceResult(*_Preference.apply(logps.reshape(-1), targets.reshape(-1), cu_seqlens, reference, settings))


def vocab_parallel_preference_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    cu_seqlens: torch.Tensor,
    reference: torch.Tensor | None,
    settings: PreferenceLoss,
    *,
    vocab_size: int,
    group: dist.ProcessGroup | None = None,
    inplace: bool = False,
) -> PreferenceResult:
    """`preference_loss` of `vocab_parallel_logps`, with fewer launches; arguments as there."""
    settings.check(reference)
    logits_NV, targets_N = as_rows(logits, targets)
    shard = Shard(logits_NV.shape[1], vocab_size, group)
    shard.check(targets_N)
    return PreferenceResult(
        *_PreferenceFromLogits.apply(logits_NV, targets_N, cu_seqlens, reference, settings, shard, inplace)
    )
