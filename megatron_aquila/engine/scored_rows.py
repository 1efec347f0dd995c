"""Log-probabilities of several candidate tokens at one place, and which token the model itself would take there.

Axes: N tokens of a pack, R rows (places) that are asked about, M questions (a row and a token), H hidden, V columns of
this rank's vocabulary shard. The output layer is computed for the R rows only, in slices of them; what the ranks of a
vocabulary tell each other is a few numbers a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from megatron_aquila.engine.attention import PrefixedPack
from megatron_aquila.engine.sampling import largest
from megatron_aquila.kernels import IGNORE_INDEX, ops
from megatron_aquila.kernels.token_logps import Shard, gather


@dataclass(frozen=True)
class Questions:
    """What is asked of a pack: the log-probability of `tokens[m]` as the one after place `rows[row_of[m]]`.

    `rows` `[R]` and `tokens` `[M]` are int64 on the model's device, tokens of the vocabulary; `row_of` `[M]` ascends,
    and every row is asked about. `starts` (a Python list, R + 1) says which questions are a row's:
    `starts[r] … starts[r + 1]`.
    """

    rows: torch.Tensor
    row_of: torch.Tensor
    tokens: torch.Tensor
    starts: Sequence[int]


@dataclass(kw_only=True)
class QuestionedPack(PrefixedPack):
    """Megatron's description of a pack, with what is asked of it: `AquilaModel` answers instead of giving logits."""

    questions: Questions | None = None


def score_rows(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    questions: Questions,
    *,
    vocab_size: int,
    group: dist.ProcessGroup,
    sequence_parallel: bool,
    budget_bytes: int,
) -> torch.Tensor:
    """`[2, M]` float32: log p(token) under softmax(hidden · weightᵀ), and 1 where the token is the row's argmax.

    Of equal logits the lowest id is the argmax, as in `torch.argmax`. Hidden states and weight are as in
    `kernels.linear_logps`; padding of the vocabulary has no mass and is never the argmax. Without gradients. Logits
    take up no more than `budget_bytes`, or those of one row.
    """
    if sequence_parallel:
        hidden_NH = gather(hidden_NH, group).view(-1, hidden_NH.shape[-1])
    if not len(questions.rows):
        return hidden_NH.new_empty(2, 0, dtype=torch.float32)
    shard = Shard(weight_VH.shape[0], vocab_size, group)
    shard.check(questions.tokens)
    asked_RH = hidden_NH[questions.rows]
    local_M = questions.tokens - shard.first_column
    here_M = (local_M >= 0) & (local_M < shard.columns)
    local_M = torch.where(here_M, local_M, 0)
    first_token_R = questions.tokens[_row_starts(questions)]

    step = max(1, budget_bytes // (weight_VH.shape[0] * weight_VH.element_size()))
    stats, logits, tops = [], [], []
    for first in range(0, len(asked_RH), step):
        rows = slice(first, min(first + step, len(asked_RH)))
        asked = slice(questions.starts[rows.start], questions.starts[rows.stop])
        logits_RV = asked_RH[rows] @ weight_VH.t()
        stats.append(ops.token_stats(logits_RV, first_token_R[rows], shard.columns, shard.first_column, IGNORE_INDEX))
        logits.append(logits_RV[questions.row_of[asked] - first, local_M[asked]].float())
        tops.append(largest(logits_RV, shard))
    # The statistics of a row are the same whichever token is asked about: the kernel is given the first.
    largest_R, inverse_sum_R, _ = shard.merge(torch.cat(stats, dim=1), first_token_R)
    logit_M = torch.cat(logits) * here_M
    if shard.ranks > 1:
        dist.all_reduce(logit_M, group=group)
    logp_M = (logit_M - largest_R[questions.row_of]) + inverse_sum_R.log()[questions.row_of]
    greedy_M = torch.cat(tops)[questions.row_of] == questions.tokens
    return torch.stack([logp_M, greedy_M.float()])


def _row_starts(questions: Questions) -> torch.Tensor:
    return torch.tensor(questions.starts[:-1], device=questions.tokens.device)
