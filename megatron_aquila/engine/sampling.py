"""Which token comes next, from vocabulary-parallel logits: the largest, or one drawn.

Axes: B sequences, V columns of this rank's vocabulary shard, W the whole vocabulary.

A draw depends on its sequence alone: on its seed, its prompt and how many tokens it has, never on the sequences beside
it, on the device's random numbers or on how the vocabulary is divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megatron_aquila.kernels.token_logps import Shard, gather

_STEPS = 1 << 52  # of a uniform number; float64 holds u · total apart from the total


@dataclass(frozen=True)
class Decoding:
    """How an answer is written.

    Attributes:
        max_new_tokens: where an answer is cut that does not end.
        stop_ids: tokens that end an answer; they are not part of it.
        temperature: logits are divided by it before a token is drawn; 0 takes the most likely one (greedy).
        top_p: draw among the most likely tokens that together reach this probability; 1: among all.
        top_k: draw among this many most likely tokens; 0: among all.
        seed: of the draws. Answers to one prompt with one seed are the same.

    Raises:
        ValueError: a value has no meaning.
    """

    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: an answer has at least one token")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: give 0 (the most likely token) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: give a probability above 0, up to 1")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: give 0 (all tokens) or more")


def largest(logits_BV: torch.Tensor, shard: Shard) -> torch.Tensor:
    """`[B]` int64, on every rank: the token of the largest logit, of equals the one with the lowest id.

    Padding of the vocabulary is never chosen. -1 where a logit is NaN or infinite.
    """
    best_B = torch.full(logits_BV.shape[:1], -torch.inf, dtype=torch.float64, device=logits_BV.device)
    token_B = torch.zeros_like(best_B)
    if shard.columns:
        found_B = logits_BV[:, : shard.columns].argmax(dim=1)  # of a row with a NaN, that
        best_B = logits_BV.gather(1, found_B.unsqueeze(1)).squeeze(1).double()
        token_B = (found_B + shard.first_column).double()
    if shard.group is not None and shard.ranks > 1:
        best_RB, token_RB = gather(torch.stack([best_B, token_B]), shard.group).unbind(dim=1)
        winner_1B = best_RB.argmax(dim=0, keepdim=True)  # the first of equals: ids ascend with the rank
        best_B, token_B = best_RB.gather(0, winner_1B)[0], token_RB.gather(0, winner_1B)[0]
    return torch.where(best_B.isfinite(), token_B, -1).long()


def whole_vocabulary(logits_BV: torch.Tensor, shard: Shard) -> torch.Tensor:
    """`[B, W]` float32: the logits of all tokens, without padding, on every rank."""
    if shard.group is not None and shard.ranks > 1:
        logits_BV = gather(logits_BV, shard.group).transpose(0, 1).flatten(1)
    return logits_BV[:, : shard.vocab_size].float()


def narrowed(logits_BW: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Logits after temperature, top-k and top-p, in this order; -inf for tokens that are not drawn from.

    The rules of transformers: of top-k, tokens equal to the k-th stay; of top-p, tokens go, from the least likely on,
    while those gone have no more than 1 - p together, but never the most likely one.
    """
    logits_BW = logits_BW / decoding.temperature
    if 0 < decoding.top_k < logits_BW.shape[1]:
        smallest_B1 = logits_BW.topk(decoding.top_k, dim=1).values[:, -1:]
        logits_BW = logits_BW.masked_fill(logits_BW < smallest_B1, -torch.inf)
    if decoding.top_p < 1:
        ascending_BW, order_BW = logits_BW.sort(dim=1)
        gone_BW = ascending_BW.softmax(dim=1).cumsum(dim=1) <= 1 - decoding.top_p
        gone_BW[:, -1] = False
        logits_BW = logits_BW.masked_fill(torch.zeros_like(gone_BW).scatter(1, order_BW, gone_BW), -torch.inf)
    return logits_BW


def drawn(logits_BW: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """`[B]` int64: the token at which the cumulated probability, in the order of the ids, passes `uniform_B` (0 … 1).

    A token without probability is never drawn.
    """
    cumulated_BW = logits_BW.double().softmax(dim=1).cumsum(dim=1)
    wanted_B1 = uniform_B.unsqueeze(1).to(cumulated_BW) * cumulated_BW[:, -1:]
    return torch.searchsorted(cumulated_BW, wanted_B1, right=True).squeeze(1)


def uniform(seed: int, prompt: Sequence[int], place: int) -> float:
    """A number in [0, 1) for the token at `place` of the answer to `prompt`: uniform over seeds, prompts and places."""
    key = np.array([seed, place, *prompt], dtype="<i8").tobytes()
    return (int.from_bytes(hashlib.sha256(key).digest()[:8], "little") % _STEPS) / _STEPS
