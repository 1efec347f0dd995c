"""How far scores can be trusted: intervals, standard errors, tests and the effects that they can find.

Pure functions of counts and items. Shares lie between 0 and 1, differences are the second model's score less the
first one's, p-values are two-sided.

N: items. G: clusters, the groups of items that share a text or a case. K: kinds of clusters. R: resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.results import Interval

Values = Sequence[float] | Sequence[bool] | npt.NDArray[np.float64] | npt.NDArray[np.bool_]
Clusters = Sequence[Hashable]
Verdict = Literal["better", "worse", "not distinguishable"]

ALPHA = 0.05
POWER = 0.8
CONFIDENCE = 0.95
RESAMPLES = 10_000
_BATCH = 1 << 22  # counts drawn at a time: 32 MiB


class StatisticsError(AquilaError):
    """Figures that no statistic can be made of."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with its interval. The standard error of a single cluster is NaN."""

    value: float
    standard_error: float
    interval: Interval


def z_of(confidence: float) -> float:
    """The normal quantile whose two-sided interval holds `confidence`: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(right: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of `right` of `n` (Wilson 1927). It has a width at 0 of n and at n of n.

    Raises:
        StatisticsError: n is 0, or `right` is not between 0 and n.
    """
    if n <= 0:
        raise StatisticsError("an interval of 0 items does not exist: score at least one item")
    if not 0 <= right <= n:
        raise StatisticsError(f"{right} right of {n} items is impossible: the count must lie between 0 and {n}")
    z = z_of(confidence)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # The ends touch 0 and 1 exactly there, which rounding would miss.
    return Interval(low=0.0 if right == 0 else centre - half, high=1.0 if right == n else centre + half)


def goodman(counts: Sequence[int], confidence: float = CONFIDENCE) -> tuple[Interval, ...]:
    """Simultaneous intervals of all the shares of a multinomial, such as win, tie and loss (Goodman 1965).

    They are Wilson's at confidence 1 − α / K for K shares, so that all of them hold together at `confidence`.
    """
    return tuple(wilson(count, sum(counts), 1 - (1 - confidence) / len(counts)) for count in counts)


def standard_error(values: Values) -> float:
    """Of the mean of independent values: sd / √n, sd over n − 1 (Miller 2024, arXiv 2411.00640, equation 1)."""
    return clustered_standard_error(values, range(len(values)))


def clustered_standard_error(values: Values, clusters: Clusters) -> float:
    """Of the mean of values that depend on each other within a cluster (Miller 2024, equation 4; Liang & Zeger 1986).

    √(G / (G − 1) Σ_g (Σ_{i∈g} (x_i − x̄))²) / N. The factor G / (G − 1) makes it equal `standard_error` where every
    cluster has one item. NaN where there is one cluster: its items say nothing of how others would turn out.

    Raises:
        StatisticsError: there is no value, or not one cluster a value.
    """
    sums_G, sizes_G = _by_cluster(values, clusters)
    groups, count = len(sums_G), sizes_G.sum()
    if groups < 2:
        return math.nan
    residuals_G = sums_G - sizes_G * (sums_G.sum() / count)
    # Residues of rounding are not spread: equal values have none.
    if np.all(np.abs(residuals_G) <= 1e-12 * np.maximum(1.0, np.abs(sums_G))):
        return 0.0
    return float(np.sqrt(groups / (groups - 1) * np.square(residuals_G).sum()) / count)


def macro_average(right: Sequence[float], n: Sequence[int], confidence: float = CONFIDENCE) -> Estimate:
    """The unweighted mean of the tasks' accuracies.

    SE: √(Σ_t p_t (1 − p_t) / n_t) / T for T independent tasks. The interval is put together from the tasks' Wilson
    intervals (MOVER: Zou & Donner 2008, equation 4), so that it has a width where every task is at 0 or at 1.
    """
    if not right or len(right) != len(n):
        raise StatisticsError(f"a macro average needs a count and a size of each task; got {len(right)} and {len(n)}")
    shares = [r / size if size else 0.0 for r, size in zip(right, n)]
    intervals = [wilson(r, size, confidence) for r, size in zip(right, n)]
    mean = sum(shares) / len(shares)
    low = math.sqrt(sum((share - i.low) ** 2 for share, i in zip(shares, intervals))) / len(shares)
    high = math.sqrt(sum((i.high - share) ** 2 for share, i in zip(shares, intervals))) / len(shares)
    error = math.sqrt(sum(share * (1 - share) / size for share, size in zip(shares, n))) / len(shares)
    return Estimate(mean, error, Interval(low=max(0.0, mean - low), high=min(1.0, mean + high)))


def micro_average(right: Sequence[int], n: Sequence[int], confidence: float = CONFIDENCE) -> Estimate:
    """The accuracy over the pooled items, with Wilson's interval."""
    total, size = sum(right), sum(n)
    interval = wilson(total, size, confidence)
    share = total / size
    return Estimate(share, math.sqrt(share * (1 - share) / size), interval)


def paired_bootstrap(
    a: Values,
    b: Values,
    clusters: Clusters,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """mean(b) − mean(a) over the same items, with a percentile interval over resampled clusters (Efron 1979).

    Raises:
        StatisticsError: the lengths differ, or there is no item.
    """
    return bootstrap_mean(_differences(a, b), clusters, resamples, seed, confidence)


def paired_bootstrap_macro(
    tasks: Sequence[tuple[Values, Values, Clusters]],
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The difference of two macro averages; every task (a, b, clusters) is resampled for itself."""
    differences = [(_differences(a, b), clusters) for a, b, clusters in tasks]
    means_TR = [_resampled_means(d, clusters, resamples, (seed, t)) for t, (d, clusters) in enumerate(differences)]
    errors = [clustered_standard_error(d, clusters) for d, clusters in differences]
    value = float(np.mean([d.mean() for d, _ in differences]))
    error = math.sqrt(sum(e * e for e in errors)) / len(errors)
    return Estimate(value, error, _percentiles(np.mean(means_TR, axis=0), confidence))


def bootstrap_mean(
    values: Values,
    clusters: Clusters,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """A mean, such as a rubric's, with a percentile interval over resampled clusters (Field & Welsh 2007)."""
    mean = float(np.asarray(values, np.float64).mean()) if len(values) else math.nan
    error = clustered_standard_error(values, clusters)
    return Estimate(mean, error, _percentiles(_resampled_means(values, clusters, resamples, (seed,)), confidence))


def _resampled_means(
    values: Values, clusters: Clusters, resamples: int, seed: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """float64 [R]. Clusters of equal sum and size are one kind. How often each kind is drawn is multinomial: the same
    distribution as drawing clusters one by one, at the cost of three kinds for right and wrong answers instead of G.
    """
    sums_G, sizes_G = _by_cluster(values, clusters)
    kinds_K2, times_K = np.unique(np.stack([sums_G, sizes_G], axis=1), axis=0, return_counts=True)
    groups = len(sums_G)
    generator = np.random.Generator(np.random.PCG64(seed))
    means_R = np.empty(resamples)
    few = len(times_K) <= groups // 8  # a binomial variate costs as much as some ten whole numbers
    batch = max(1, _BATCH // (len(times_K) if few else groups))
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        if few:
            totals_R2 = generator.multinomial(groups, times_K / groups, size=size) @ kinds_K2
            means_R[start : start + size] = totals_R2[:, 0] / totals_R2[:, 1]
        else:
            drawn_RG = generator.integers(groups, size=(size, groups), dtype=np.int32)
            means_R[start : start + size] = sums_G[drawn_RG].sum(1) / sizes_G[drawn_RG].sum(1)
    return means_R


def _percentiles(means_R: npt.NDArray[np.float64], confidence: float) -> Interval:
    low, high = np.quantile(means_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high))


def _by_cluster(values: Values, clusters: Clusters) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sums and sizes, float64 [G] each, of the clusters in order of their first item."""
    if not len(values):
        raise StatisticsError("there is no item to take a mean of: score at least one")
    if len(values) != len(clusters):
        raise StatisticsError(f"{len(values)} values and {len(clusters)} clusters: give the cluster of each value")
    numbers: dict[Hashable, int] = {}
    of_N = np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])
    sums_G = np.bincount(of_N, np.asarray(values, np.float64))
    return sums_G.astype(np.float64), np.bincount(of_N).astype(np.float64)


def _differences(a: Values, b: Values) -> npt.NDArray[np.float64]:
    if len(a) != len(b):
        raise StatisticsError(f"{len(a)} and {len(b)} items cannot be paired: score the same items with both models")
    return np.asarray(b, np.float64) - np.asarray(a, np.float64)


def sign_test(wins: int, losses: int) -> float:
    """Exact p that decisive cases fall on either side alike: a binomial of one half (Dixon & Mood 1946). Ties say
    nothing; where no case is decisive it is 1.
    """
    if min(wins, losses) < 0:
        raise StatisticsError(f"{wins} wins and {losses} losses: counts cannot be negative")
    cases, term, tail = wins + losses, 1, 0
    for k in range(min(wins, losses) + 1):  # in integers, so that 11,200 cases lose nothing
        tail += term
        term = term * (cases - k) // (k + 1)
    return min(1.0, 2 * tail / 2**cases)


def mcnemar_exact(b: int, c: int) -> float:
    """Exact p of McNemar's test (1947): b items that only the first model has right, c that only the second has.

    Items must be independent; where they share texts, see `sign_flip_exact`.
    """
    return sign_test(b, c)


def sign_flip_exact(a: Sequence[bool], b: Sequence[bool], clusters: Clusters) -> float:
    """Exact p that both models are right alike, where whole clusters may be swapped between them (Fisher 1935).

    The distribution of Σ_g ±d_g is convolved cluster by cluster; d_g: how many more items of g the second has right.
    Equals `mcnemar_exact` where every cluster has one item.
    """
    sums_G, _ = _by_cluster(_differences(a, b), clusters)
    sizes = np.abs(np.rint(sums_G)).astype(np.int64)
    sizes = sizes[sizes > 0]
    observed = abs(int(np.rint(sums_G.sum())))
    if not len(sizes) or np.all(sizes == 1):
        return sign_test((len(sizes) + observed) // 2, (len(sizes) - observed) // 2)
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2  # the ends are still 0: nothing wraps
    sums = np.arange(-total, total + 1)
    return float(min(1.0, chances[np.abs(sums) >= observed].sum()))


def z_test(difference: float, error: float) -> float:
    """p of a difference with a standard error, by the normal distribution; 1 where there is neither."""
    if error == 0 or math.isnan(error):
        return 1.0 if difference == 0 or math.isnan(error) else 0.0
    return math.erfc(abs(difference) / error / math.sqrt(2))


def two_proportions(first: float, n_first: int, second: float, n_second: int) -> float:
    """p that two shares of different items are one: z with the pooled variance. For tables without items, where the
    pairing is lost.
    """
    pooled = (first * n_first + second * n_second) / (n_first + n_second)
    return z_test(second - first, math.sqrt(pooled * (1 - pooled) * (1 / n_first + 1 / n_second)))


def share_difference(
    right_first: float, n_first: int, right_second: float, n_second: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Second share less first one, of different items, with Newcombe's interval (1998, method 10), made of Wilson's."""
    first, second = right_first / max(1, n_first), right_second / max(1, n_second)
    intervals = wilson(right_first, n_first, confidence), wilson(right_second, n_second, confidence)
    error = math.sqrt(first * (1 - first) / n_first + second * (1 - second) / n_second)
    return Estimate(second - first, error, _newcombe(first, intervals[0], second, intervals[1], 0.0))


def _newcombe(first: float, of_first: Interval, second: float, of_second: Interval, phi: float) -> Interval:
    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low = second - first - reach(second - of_second.low, of_first.high - first)
    high = second - first + reach(of_second.high - second, first - of_first.low)
    return Interval(low=max(-1.0, low), high=min(1.0, high))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false alarm among them stays at α, in the given order (Holm 1979)."""
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = running
    return adjusted


def verdict(difference: Interval, p: float, alpha: float = ALPHA) -> Verdict:
    """What may be said of the second model beside the first: both the interval and the (adjusted) p must say it."""
    if p < alpha and difference.low > 0:
        return "better"
    if p < alpha and difference.high < 0:
        return "worse"
    return "not distinguishable"


def minimum_detectable_effect(
    n: int, *, share: float = 0.5, correlation: float = 0.0, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The least true difference that n items of each model show with `power` (Miller 2024, section 5).

    correlation: between the two models' answers to the same items; 0 for different items.
    """
    if n <= 0:
        raise StatisticsError("0 items show no effect of any size: score at least one item")
    return detectable(math.sqrt(2 * share * (1 - share) * (1 - correlation) / n), alpha, power)


def detectable(error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The same from the standard error of the difference: (z_{1−α/2} + z_{power}) SE."""
    return (z_of(1 - alpha) + NormalDist().inv_cdf(power)) * error


def paired_error(a: Sequence[bool], b: Sequence[bool], clusters: Clusters) -> float:
    """Standard error of mean(b) − mean(a) as measured on the items, for `detectable`.

    Never less than that of Agresti & Min (2005), which counts half an item more in each of the four cells: models that
    happen to agree on all items are not thereby shown to agree on others.
    """
    differences = _differences(a, b)
    n = len(differences) + 2
    discordant = float(np.abs(differences).sum()) + 1
    smoothed = math.sqrt(discordant - differences.sum() ** 2 / n) / n
    clustered = clustered_standard_error(differences, clusters)
    return smoothed if math.isnan(clustered) else max(smoothed, clustered)


def correlation(a: Values, b: Values) -> float:
    """Pearson's, between two models' scores of the same items; NaN where one of them is constant."""
    a_N, b_N = np.asarray(a, np.float64), np.asarray(b, np.float64)
    _differences(a, b)
    spread = a_N.std() * b_N.std()
    return float(np.mean((a_N - a_N.mean()) * (b_N - b_N.mean())) / spread) if spread else math.nan


def net_win(wins: int, ties: int, losses: int, confidence: float = CONFIDENCE) -> Estimate:
    """Share of wins less share of losses, d; SE √((w + l − d²) / n) of the shares w and l.

    The interval is Newcombe's for two shares of the same cases (1998, method 10 for pairs), made
    of Wilson's: it has a width where all cases are wins.
    """
    n = wins + ties + losses
    win, loss = wilson(wins, n, confidence), wilson(losses, n, confidence)
    w, ell = wins / n, losses / n
    d = w - ell
    spread = math.sqrt(w * (1 - w) * ell * (1 - ell))
    phi = -w * ell / spread if spread else 0.0  # the correlation of two exclusive outcomes
    interval = _newcombe(ell, loss, w, win, phi)
    return Estimate(d, math.sqrt(max(0.0, w + ell - d * d) / n), interval)


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Agreement of two judges beyond chance (Cohen 1960); NaN where both always say one and the same thing."""
    if not a or len(a) != len(b):
        raise StatisticsError(f"{len(a)} and {len(b)} labels: two judges must label the same cases, at least one")
    n = len(a)
    agreed = sum(x == y for x, y in zip(a, b)) / n
    labels_a, labels_b = list(a), list(b)
    chance = sum(labels_a.count(label) * labels_b.count(label) for label in set(labels_a)) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else math.nan
