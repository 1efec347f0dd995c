"""How a dialogue or a pair is made to fit `max_length` tokens, and which can not be.

Tensor names end in their axes: N tokens of one sequence. A position is trained where its mask is 1: its token is
predicted from those before it. The first token of a sequence has none before it and is never trained.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.records import RecordError

Array = npt.NDArray[Any]

TURNS_DROPPED, ANSWER_CUT = "turns_dropped", "answer_cut"


class TooLongError(RecordError):
    """A good sample of which too little is left within `max_length`: it is dropped, and no fault of the data."""


class Rendered(Protocol):
    """A conversation as tokens (`chat.Turns`)."""

    @property
    def tokens(self) -> Array:
        """int32 [N]."""

    @property
    def mask(self) -> Array:
        """uint8 [N]: 1 where a token is trained."""

    @property
    def ends(self) -> Sequence[int]:
        """For each answer the number of tokens up to and including its closing and what the template puts after it."""


class Sequenced(NamedTuple):
    """One sequence as it is written: tokens int32 [N], mask uint8 [N]."""

    tokens_N: Array
    mask_N: Array


class Fitted(NamedTuple):
    """The sequences of a sample, and how it was cut: TURNS_DROPPED, ANSWER_CUT or "" where nothing trained is lost."""

    sequences: tuple[Sequenced, ...]
    cut: str


def fit_dialogue(turns: Rendered, max_length: int) -> Fitted:
    """A dialogue within `max_length` tokens.

    Whole exchanges are dropped from the end until it fits. Where not even the first one does, its answer is cut at
    `max_length`: it then has no closing token, so that nothing learns to stop there. An untrained trailer after the
    last closing may be cut off unnoticed.

    Raises:
        TooLongError: `prompt-too-long`, when that leaves no trained token.
        RecordError: `no-trained-token`, when there is none in the first place.
    """
    mask_N = _trainable(turns.mask)
    trained = np.flatnonzero(mask_N)
    if not len(trained):
        raise RecordError("no-trained-token", "no token of its answers can be learnt from")
    if len(mask_N) <= max_length:
        return Fitted((Sequenced(turns.tokens, mask_N),), "")
    kept = 0
    for number, end in enumerate(turns.ends, start=1):
        before = int(np.searchsorted(trained, end))
        if before and trained[before - 1] < max_length:
            kept = number
    if kept:
        end, cut = min(turns.ends[kept - 1], max_length), TURNS_DROPPED if kept < len(turns.ends) else ""
    else:
        end, cut = max_length, ANSWER_CUT
    if trained[0] >= end:
        raise TooLongError(
            "prompt-too-long", f"{trained[0]:,} tokens come before the first answer: {_limit(max_length)}"
        )
    return Fitted((Sequenced(turns.tokens[:end], mask_N[:end]),), cut)


def fit_pair(chosen: Rendered, rejected: Rendered, max_length: int) -> Fitted:
    """Prompt + chosen and prompt + rejected, each within `max_length` tokens.

    The prompt, untrained, is kept whole in both. Each answer is cut at `max_length` on its own; it then has no closing
    token. Where a tokenizer joins the end of the prompt to one answer only, the tokens in question count as the
    answer's in both, so that the two go on from the same tokens.

    Raises:
        TooLongError: `prompt-too-long`, when no trained token of one of them is left; `equal-after-cut`.
        RecordError: `prompt-differs`, when the two do not begin with the same prompt tokens, `equal-answers`,
            `no-trained-token`.
    """
    masks = [_trainable(turns.mask) for turns in (chosen, rejected)]
    if not all(mask_N.any() for mask_N in masks):
        raise RecordError("no-trained-token", "no token of one of its answers can be learnt from")
    starts = [int(mask_N.argmax()) for mask_N in masks]
    start = min(starts)
    if not start or not np.array_equal(chosen.tokens[:start], rejected.tokens[:start]):
        detail = "the tokenizer makes other tokens of the prompt before the chosen than before the rejected answer"
        raise RecordError("prompt-differs", detail)
    masks = [_trained_between(mask_N, start, first) for mask_N, first in zip(masks, starts)]
    if start >= max_length:
        raise TooLongError("prompt-too-long", f"the prompt has {start:,} tokens: {_limit(max_length)}")
    sequences = tuple(
        Sequenced(turns.tokens[:max_length], mask_N[:max_length]) for turns, mask_N in zip((chosen, rejected), masks)
    )
    lost = any(mask_N[max_length:].any() for mask_N in masks)
    if np.array_equal(sequences[0].tokens_N, sequences[1].tokens_N):
        if lost:
            raise TooLongError("equal-after-cut", f"the answers differ only in what is cut off: {_limit(max_length)}")
        raise RecordError("equal-answers", "'chosen' and 'rejected' have the same tokens: there is nothing to prefer")
    return Fitted(sequences, ANSWER_CUT if lost else "")


def _trained_between(mask_N: Array, start: int, end: int) -> Array:
    if start == end:
        return mask_N
    mask_N = mask_N.copy()
    mask_N[start:end] = 1
    return mask_N


def _trainable(mask_N: Array) -> Array:
    if len(mask_N) and mask_N[0]:
        mask_N = mask_N.copy()
        mask_N[0] = 0
    return mask_N


def _limit(max_length: int) -> str:
    return f"the limit (--max-length) is {max_length:,}"
