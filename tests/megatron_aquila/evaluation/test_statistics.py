"""Against scipy and statsmodels, closed forms, and the reference's own table of what the benchmarks can show."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api
from scipy import stats
from statsmodels.stats import contingency_tables, inter_rater, multitest, proportion

from megatron_aquila.evaluation import statistics
from megatron_aquila.evaluation.results import Interval
from megatron_aquila.evaluation.statistics import StatisticsError

COUNTS = [(0, 3), (3, 3), (1, 2), (57, 113), (380, 500), (537, 1089), (11_199, 11_200), (0, 1)]


def _bounds(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


@pytest.mark.parametrize("right, n", COUNTS)
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_wilson_is_statsmodels(right: int, n: int, confidence: float) -> None:
    expected = proportion.proportion_confint(right, n, 1 - confidence, "wilson")
    assert _bounds(statistics.wilson(right, n, confidence)) == pytest.approx(expected, abs=1e-12)


def test_wilson_touches_the_ends_and_keeps_a_width() -> None:
    none, all_right = statistics.wilson(0, 3), statistics.wilson(3, 3)
    assert (none.low, all_right.high) == (0, 1)
    assert none.high == pytest.approx(1.96**2 / (3 + 1.96**2), abs=1e-4)  # z² / (n + z²)
    assert all_right.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize("right, n", [(0, 0), (4, 3), (-1, 3)])
def test_impossible_counts_are_refused(right: int, n: int) -> None:
    with pytest.raises(StatisticsError, match="items"):
        statistics.wilson(right, n)


@pytest.mark.parametrize("counts", [(312, 134, 54), (500, 0, 0), (10, 5, 1)])
def test_goodman_is_statsmodels(counts: tuple[int, ...]) -> None:
    expected = proportion.multinomial_proportions_confint(counts, 0.05, "goodman")
    assert [_bounds(found) for found in statistics.goodman(counts)] == [
        pytest.approx(row, abs=1e-12) for row in expected
    ]


def test_simple_error_is_scipys() -> None:
    values = np.random.default_rng(0).random(50)
    assert statistics.standard_error(values) == pytest.approx(stats.sem(values))
    assert statistics.standard_error([True, False, True]) == pytest.approx(stats.sem([1, 0, 1]))


@pytest.mark.parametrize("groups", [2, 5, 40])
def test_clustered_error_is_that_of_regression_on_a_constant(groups: int) -> None:
    generator = np.random.default_rng(groups)
    clusters = generator.integers(groups, size=200)
    clusters[:groups] = range(groups)
    values = (generator.random(200) + 0.3 * generator.standard_normal(groups)[clusters] > 0.5).astype(float)
    fit = statsmodels.api.OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert statistics.clustered_standard_error(values, clusters.tolist()) == pytest.approx(fit.bse[0])


def test_clusters_of_one_item_give_the_simple_error_and_one_cluster_none() -> None:
    values = [0.1, 0.4, 0.9]
    assert statistics.clustered_standard_error(values, "abc") == pytest.approx(stats.sem(values))
    assert math.isnan(statistics.clustered_standard_error(values, "aaa"))
    assert statistics.clustered_standard_error([0.1] * 7, range(7)) == 0
    with pytest.raises(StatisticsError, match="3 values and 2 clusters"):
        statistics.clustered_standard_error(values, "ab")
    with pytest.raises(StatisticsError, match="at least one"):
        statistics.clustered_standard_error([], [])


def test_a_macro_average_weighs_tasks_alike() -> None:
    n = [19, 22, 49, 23]
    found = statistics.macro_average([9, 11, 25, 12], n)
    assert found.value == pytest.approx(np.mean(np.array([9, 11, 25, 12]) / n))
    # The reference: 5.0 points for C-Eval's four parts and 1.6 for MMLU's six, at one half.
    assert 100 * found.standard_error == pytest.approx(5.0, abs=0.05)
    mmlu = [135, 265, 144, 173, 100, 272]
    assert 100 * statistics.macro_average([size // 2 for size in mmlu], mmlu).standard_error == pytest.approx(
        1.6, abs=0.05
    )
    assert statistics.micro_average([9, 11, 25, 12], n).interval == statistics.wilson(57, 113)
    # One task is Wilson's own interval; all wrong still has a width.
    assert _bounds(statistics.macro_average([3], [9]).interval) == pytest.approx(_bounds(statistics.wilson(3, 9)))
    assert statistics.macro_average([0, 0], [5, 5]).interval.high > 0.2


def test_the_macro_interval_covers_what_it_says() -> None:
    generator, n, truth = np.random.default_rng(3), [19, 22, 49, 23], np.array([0.3, 0.5, 0.7, 0.55])
    draws = generator.binomial(n, truth, size=(600, 4)).tolist()
    intervals = [statistics.macro_average(right, n).interval for right in draws]
    assert np.mean([i.low <= truth.mean() <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.025)


def _answers(n: int = 300) -> tuple[np.ndarray, np.ndarray, list[int]]:
    generator = np.random.default_rng(7)
    ease = generator.standard_normal(n // 3)[np.arange(n) // 3]
    a, b = (generator.standard_normal(n) + ease + shift > 0 for shift in (0, 0.5))
    return a, b, (np.arange(n) // 3).tolist()


@pytest.mark.parametrize("kinds", ["few", "many"])
def test_the_bootstrap_is_that_of_scipy(kinds: str) -> None:
    """`few`: right or wrong; `many`: real values, which take the other path of the code."""
    a, b, _ = _answers()
    values = (b.astype(float) - a) if kinds == "few" else np.random.default_rng(1).gamma(2.0, size=300)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(5))
    found = statistics.bootstrap_mean(values, range(300))
    ours, theirs = _bounds(found.interval), expected.confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert ours == pytest.approx(tuple(theirs), abs=0.1 * (theirs[1] - theirs[0]) / 2)


def test_the_bootstrap_draws_clusters_not_items() -> None:
    a, b, clusters = _answers()
    found = statistics.paired_bootstrap(a, b, clusters)
    generator, whole = np.random.default_rng(11), (b.astype(float) - a).reshape(100, 3)
    means = np.quantile([whole[generator.integers(100, size=100)].mean() for _ in range(4000)], [0.025, 0.975])
    assert _bounds(found.interval) == pytest.approx(tuple(means), abs=0.008)
    assert found.standard_error == pytest.approx(statistics.clustered_standard_error(b.astype(float) - a, clusters))
    assert statistics.paired_bootstrap(a, b, clusters) == found  # seeded
    assert statistics.paired_bootstrap(a, b, clusters, seed=1).interval != found.interval
    mirrored = statistics.paired_bootstrap(b, a, clusters)
    assert mirrored.value == -found.value


def test_the_bootstrap_of_equal_answers_and_of_a_macro_average() -> None:
    a, b, clusters = _answers()
    assert _bounds(statistics.paired_bootstrap(a, a, clusters).interval) == (0, 0)
    with pytest.raises(StatisticsError, match="2 and 3 items cannot be paired"):
        statistics.paired_bootstrap([1, 0], [1, 0, 1], "ab")
    tasks = [(a[:30], b[:30], clusters[:30]), (a[30:], b[30:], clusters[30:])]
    macro = statistics.paired_bootstrap_macro(tasks)
    parts = [statistics.paired_bootstrap(*task) for task in tasks]
    assert macro.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    assert macro.standard_error == pytest.approx(math.hypot(*(part.standard_error for part in parts)) / 2)
    half = (macro.interval.high - macro.interval.low) / 2
    assert half == pytest.approx(1.96 * macro.standard_error, rel=0.1)


@pytest.mark.parametrize("b, c", [(0, 0), (0, 1), (6, 0), (5, 15), (12, 12), (1400, 1300), (5700, 5500)])
def test_mcnemar_is_that_of_statsmodels_and_a_binomial(b: int, c: int) -> None:
    expected = contingency_tables.mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert statistics.mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)
    assert statistics.sign_test(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)


def test_swapped_clusters_are_counted_one_by_one() -> None:
    a, b, clusters = (part[:24] for part in _answers())
    differences = (b.astype(int) - a).reshape(8, 3).sum(1)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()))
    assert statistics.sign_flip_exact(a, b, clusters) == pytest.approx(expected, rel=1e-12)
    alone = statistics.sign_flip_exact(a, b, range(24))
    assert alone == pytest.approx(statistics.mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum())))
    assert statistics.sign_flip_exact(a, a, clusters) == 1


@pytest.mark.parametrize("ps", [[0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.9, 0.0001, 1.0], []])
def test_holm_is_statsmodels(ps: list[float]) -> None:
    expected = multitest.multipletests(ps, method="holm")[1] if ps else []
    assert statistics.holm(ps) == pytest.approx(list(expected))


def test_two_proportions_is_statsmodels() -> None:
    expected = proportion.proportions_ztest([312, 380], [500, 450])[1]
    assert statistics.two_proportions(312 / 500, 500, 380 / 450, 450) == pytest.approx(expected)
    assert statistics.two_proportions(0.0, 5, 0.0, 5) == 1


@pytest.mark.parametrize("counts", [(0, 10, 10, 10), (56, 70, 48, 80), (5, 56, 0, 29)])
def test_the_difference_of_shares_is_newcombes(counts: tuple[int, int, int, int]) -> None:
    expected = proportion.confint_proportions_2indep(counts[2], counts[3], counts[0], counts[1], method="newcomb")
    found = statistics.share_difference(*counts)
    assert _bounds(found.interval) == pytest.approx(expected, abs=1e-12)


# The reference's table: n, SE, half-width, MDE of different items, MDE of the same items; percentage points.
SHOWN = [
    (113, 4.70, 9.2, 18.6, 11.8),
    (208, 3.47, 6.8, 13.7, 8.7),
    (500, 2.24, 4.4, 8.9, 5.6),
    (1089, 1.52, 3.0, 6.0, 3.8),
    (1273, 1.40, 2.7, 5.5, 3.5),
    (4183, 0.77, 1.5, 3.1, 1.9),
    (11200, 0.47, 0.9, 1.9, 1.2),
]


@pytest.mark.parametrize("n, error, half, unpaired, paired", SHOWN)
def test_what_the_benchmarks_can_show(n: int, error: float, half: float, unpaired: float, paired: float) -> None:
    found = statistics.micro_average([n // 2], [n]).standard_error
    assert 100 * found == pytest.approx(error, abs=0.006)
    assert 100 * 1.96 * found == pytest.approx(half, abs=0.051)
    assert 100 * statistics.minimum_detectable_effect(n) == pytest.approx(unpaired, abs=0.06)  # made with 2.8 SE
    assert 100 * statistics.minimum_detectable_effect(n, correlation=0.6) == pytest.approx(paired, abs=0.051)


def test_an_effect_of_that_size_is_found_four_times_in_five() -> None:
    effect, n = 0.1, 700
    share, other = 0.5 - effect / 2, 0.5 + effect / 2
    generator = np.random.default_rng(2)
    a, b = generator.random((2000, n)) < share, generator.random((2000, n)) < other
    error = statistics.paired_error(a[0], b[0], range(n))
    needed = statistics.minimum_detectable_effect(n)
    assert statistics.detectable(error) == pytest.approx(needed, rel=0.1)
    power = np.mean([statistics.mcnemar_exact(int(x), int(y)) < 0.05 for x, y in zip((a & ~b).sum(1), (b & ~a).sum(1))])
    expected = 1 - stats.norm.cdf(1.96 - effect / (needed / 2.8016))
    assert power == pytest.approx(expected, abs=0.04)
    assert expected > 0.9


def test_models_that_agree_on_all_items_are_not_shown_to_be_equal() -> None:
    same = [True, False] * 50
    assert statistics.detectable(statistics.paired_error(same, same, range(100))) == pytest.approx(
        2.8016 / 102, rel=1e-3
    )
    assert statistics.correlation(same, same) == pytest.approx(1)
    assert math.isnan(statistics.correlation([1, 1], [0, 1]))
    a, b, clusters = _answers()
    assert statistics.correlation(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert statistics.paired_error(a, b, clusters) >= statistics.clustered_standard_error(b.astype(float) - a, clusters)


@pytest.mark.parametrize(
    "low, high, p, word",
    [
        (0.01, 0.05, 0.01, "better"),
        (-0.05, -0.01, 0.01, "worse"),
        (0.01, 0.05, 0.06, "not distinguishable"),  # Holm took it back
        (-0.01, 0.05, 0.01, "not distinguishable"),
        (0.0, 0.0, 1.0, "not distinguishable"),
    ],
)
def test_the_verdict_needs_the_interval_and_the_test(low: float, high: float, p: float, word: str) -> None:
    assert statistics.verdict(Interval(low=low, high=high), p) == word


def test_net_win() -> None:
    found = statistics.net_win(380, 89, 31)
    assert found.value == pytest.approx(0.698)
    assert found.standard_error == pytest.approx(math.sqrt((0.76 + 0.062 - 0.698**2) / 500))
    assert found.standard_error == pytest.approx(np.std([1] * 380 + [0] * 89 + [-1] * 31) / math.sqrt(500))
    assert found.value - found.interval.low == pytest.approx(1.96 * found.standard_error, rel=0.15)
    everything = statistics.net_win(20, 0, 0)
    assert everything.interval.high == 1 and everything.interval.low < 0.9


def test_kappa_is_statsmodels() -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(3, size=80)
    b = np.where(generator.random(80) < 0.6, a, generator.integers(3, size=80))
    table = np.histogram2d(a, b, bins=3)[0]
    assert statistics.cohen_kappa(a.tolist(), b.tolist()) == pytest.approx(inter_rater.cohens_kappa(table).kappa)
    assert math.isnan(statistics.cohen_kappa("aa", "aa"))
    with pytest.raises(StatisticsError, match="1 and 2 labels"):
        statistics.cohen_kappa("a", "ab")


def test_equal_models_are_told_apart_less_often_than_alpha_says() -> None:
    generator, words = np.random.default_rng(4), []
    for _ in range(400):
        ease = generator.random(150)
        a, b = (generator.random(150) < ease for _ in range(2))
        found = statistics.paired_bootstrap(a, b, range(150), resamples=400)
        p = statistics.mcnemar_exact(int((a & ~b).sum()), int((b & ~a).sum()))
        words.append(statistics.verdict(found.interval, p))
    assert 0 < 400 - words.count("not distinguishable") <= 0.05 * 400
