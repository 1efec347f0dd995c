"""How often each token occurs in each document of a batch, as flat arrays: no loop over documents or tokens.

N: documents; E: entries, one for each pair of a document and a token that it holds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_COUNTED = 1 << 12
# Damping by count, from a table: the same value wherever in an array a count stands.
_LOG = np.concatenate([[0.0], 1.0 + np.log(np.arange(1, _COUNTED))])


class TokenCounts(NamedTuple):
    """rows [E] int64 from 0 to N - 1, ascending; tokens [E] int64, ascending within a row; counts [E] int64."""

    documents: int
    rows_E: npt.NDArray[np.int64]
    tokens_E: npt.NDArray[np.int64]
    counts_E: npt.NDArray[np.int64]


def count_tokens(ids: Sequence[npt.NDArray[np.int32]], vocab_size: int) -> TokenCounts:
    """Counts by one sort of (document, token) keys, of 32 bits where they are enough."""
    documents = len(ids)
    if not documents:
        return TokenCounts(0, *(np.zeros(0, np.int64) for _ in range(3)))
    key: Any = np.uint32 if documents * vocab_size < 1 << 32 else np.uint64
    lengths = np.fromiter(map(len, ids), np.int64, documents)
    keys = np.repeat(np.arange(documents, dtype=key) * key(vocab_size), lengths)
    keys += np.concatenate(ids).astype(key)
    keys.sort()
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    unique = keys[starts]
    rows = unique // key(vocab_size)
    tokens = unique - rows * key(vocab_size)
    counts = np.diff(starts, append=len(keys))
    return TokenCounts(documents, rows.astype(np.int64), tokens.astype(np.int64), counts)


def damped(counts_E: npt.NDArray[np.int64], damping: str) -> npt.NDArray[np.float64]:
    """[E] values of counts: `log`: 1 + ln count (counts above 4,095 taken as that), `binary`: 1."""
    if damping == "binary":
        return np.ones(len(counts_E))
    return _LOG[np.minimum(counts_E, _COUNTED - 1)]


def unit_rows(counts: TokenCounts, damping: str) -> npt.NDArray[np.float64]:
    """[E] damped counts, each document scaled to length 1: a score does not grow with the length of a text."""
    values = damped(counts.counts_E, damping)
    norms = np.sqrt(row_sums(counts, np.square(values)))
    return values / norms[counts.rows_E]


def row_sums(counts: TokenCounts, values_E: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[N] sums of each document's values, added in the order of its tokens whatever the batch."""
    return np.bincount(counts.rows_E, values_E, minlength=counts.documents).astype(np.float64, copy=False)
