"""Length bias: the statistics against exact arithmetic, and what the balance drops."""

import math
import random
from fractions import Fraction

import pytest

from data_tools.preferences.length_bias import (
    LengthBiasConfig,
    Lengths,
    length_bias,
    sign_test,
    unbalanced,
    wilson,
)


def pairs(longer: int, shorter: int, equal: int = 0, kind: str = "subjective", lang: str = "zh") -> list[Lengths]:
    sizes = [(20, 10)] * longer + [(10, 30)] * shorter + [(10, 10)] * equal
    return [
        Lengths(f"{kind}{lang}{n}", kind, lang, f"{kind}{lang}{n}".encode(), a, b, a // 2, b // 2)
        for n, (a, b) in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("longer", "shorter"), [(0, 0), (1, 0), (5, 5), (6, 5), (14, 3), (3, 14), (60, 40), (300, 200)]
)
def test_the_sign_test_is_the_binomial_sum(longer: int, shorter: int) -> None:
    n, k = longer + shorter, max(longer, shorter)
    exact = min(Fraction(1), 2 * Fraction(sum(math.comb(n, j) for j in range(k, n + 1)), 2**n))
    assert sign_test(longer, shorter) == pytest.approx(float(exact), rel=1e-10)


def test_the_sign_test_of_many_pairs_is_finite() -> None:
    assert sign_test(9019, 0) == 0.0 or sign_test(9019, 0) < 1e-300
    # the normal approximation with continuity correction, at 3 standard deviations
    n, k = 1_000_000, 501_500
    z = (k - 0.5 - n / 2) / math.sqrt(n / 4)
    assert sign_test(k, n - k) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (7, 12), (5500, 9019)])
def test_wilson_solves_its_equation(successes: int, trials: int) -> None:
    """The ends are where (share − p)² = z² p (1 − p) / n (Wilson 1927)."""
    share, z = successes / trials, 1.959963984540054
    ends = wilson(successes, trials)
    for end in ends:
        assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / trials, abs=1e-12)
    assert ends[0] - 1e-12 <= share <= ends[1] + 1e-12
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_report_by_kind_and_language() -> None:
    rows = [*pairs(90, 10, 5), *pairs(40, 60, lang="en"), *pairs(0, 0, 30, kind="objective")]
    random.Random(0).shuffle(rows)
    found = length_bias(rows, LengthBiasConfig())
    groups = {(row["kind"], row["lang"]): row for row in found["groups"]}
    assert list(groups) == sorted(groups)
    assert set(groups) == {
        ("", ""), ("objective", ""), ("objective", "zh"), ("subjective", ""), ("subjective", "en"), ("subjective", "zh")
    }  # fmt: skip
    chinese = groups["subjective", "zh"]
    assert [chinese[key] for key in ("pairs", "longer_chosen", "shorter_chosen", "equal", "share")] == [
        105,
        90,
        10,
        5,
        0.9,
    ]
    assert chinese["chosen_characters"] == {"mean": round((90 * 20 + 15 * 10) / 105, 3), "median": 20.0}
    assert chinese["rejected_tokens"]["mean"] == round((90 * 5 + 10 * 15 + 5 * 5) / 105, 3)
    assert groups["objective", ""]["share"] is None
    assert groups["objective", ""]["p_value"] == 1
    # Of all subjective pairs 65 % of 200: the kind is warned about, and then its languages are not, nor all together.
    [warning] = found["warnings"]
    assert "65.0% of the subjective pairs" in warning
    assert "longer" in warning
    [warning] = length_bias(rows, LengthBiasConfig(warn_above=0.7))["warnings"]
    assert "90.0% of the subjective zh pairs" in warning
    assert not length_bias(pairs(6, 1), LengthBiasConfig())["warnings"], "7 pairs prove nothing"
    [warning] = length_bias(pairs(10, 90), LengthBiasConfig())["warnings"]
    assert "the shorter one" in warning


@pytest.mark.parametrize(("longer", "shorter", "kept"), [(90, 10, 12), (10, 90, 12), (55, 45, 55), (30, 0, 0)])
def test_the_balance_drops_the_commoner_side_and_no_more_than_it_must(longer: int, shorter: int, kept: int) -> None:
    rows = [*pairs(longer, shorter, 5), *pairs(50, 50, lang="en")]
    config = LengthBiasConfig(balance=0.55)
    gone = unbalanced(rows, config, seed=3)
    assert all(name.startswith("subjectivezh") for name in gone), "English is even"
    left = [pair for pair in rows if pair.id not in gone and pair.lang == "zh"]
    sides = sorted((sum(pair.sign == 1 for pair in left), sum(pair.sign == -1 for pair in left)))
    assert sides == sorted((kept, min(longer, shorter)))
    assert sum(pair.sign == 0 for pair in left) == 5
    if sum(sides):
        assert sides[1] / sum(sides) <= 0.55
        assert gone == set() or (sides[1] + 1) / (sum(sides) + 1) > 0.55, "one more would be too many"
    assert unbalanced(rows[::-1], config, seed=3) == gone
    assert not gone or unbalanced(rows, config, seed=4) != gone or kept == 0
    assert unbalanced(rows, LengthBiasConfig(), seed=3) == set()
