"""Rank correlation, for lengths, whose few giants would rule Pearson's."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from megatron_aquila.evaluation.statistics import correlation


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's (1904): Pearson's of the ranks, equal values sharing the mean of theirs. None: one is constant."""
    if len(a) < 2:
        return None
    found = correlation(_ranks(a), _ranks(b))
    return None if math.isnan(found) else found


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """float64 [N]."""
    _, kinds_N, counts_K = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last_K = np.cumsum(counts_K)
    ranks: npt.NDArray[np.float64] = (last_K - (counts_K - 1) / 2)[kinds_N]
    return ranks
