"""The paper's tables, re-read: the figures that were computed elsewhere before, and the page that is made of them."""

from pathlib import Path

import pytest

from megatron_aquila.evaluation import published, statistics
from megatron_aquila.evaluation.published import CPT, DPO, Judged, Reread, counts_that_fit

PAGE = Path(__file__).parents[3] / "docs" / "the_paper_re-read.md"


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Reread]:
    return {(row.score.step, row.score.benchmark): row for row in published.reread()}


@pytest.mark.parametrize(
    "step, benchmark, p",
    [
        (CPT, "MMLU medical", 0.003),
        (CPT, "MedQA", 0.13),
        (CPT, "C-Eval medical", 0.96),
        (CPT, "PubMedQA", 0.78),
        (DPO, "C-Eval medical", 0.69),
        (DPO, "CMB-Exam", 0.45),
        (DPO, "MMLU medical", 0.93),
    ],
)
def test_p_is_that_of_the_reference(rows: dict[tuple[str, str], Reread], step: str, benchmark: str, p: float) -> None:
    assert rows[step, benchmark].p == pytest.approx(p, abs=0.0006 if p < 0.01 else 0.006)


def test_medmcqa_with_the_papers_count() -> None:
    """The reference took the paper's 6,100; the validation split is what fits."""
    assert statistics.two_proportions(0.3858, 6100, 0.3823, 6100) == pytest.approx(0.69, abs=0.005)


def test_one_difference_is_more_than_chance(rows: dict[tuple[str, str], Reread]) -> None:
    verdicts = {key: row.verdict for key, row in rows.items()}
    assert verdicts.pop((CPT, "MMLU medical")) == "better"
    assert set(verdicts.values()) == {"not distinguishable"}
    assert rows[CPT, "MMLU medical"].adjusted == pytest.approx(8 * rows[CPT, "MMLU medical"].p)


@pytest.mark.parametrize(
    "pair, low, high", [(published.PAIRS[0], 58.1, 66.5), (published.PAIRS[1], 72.1, 79.5)], ids=["chat", "dpo"]
)
def test_win_rates_of_the_reference(pair: Judged, low: float, high: float) -> None:
    interval = statistics.wilson(pair.counts()[0], pair.n)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (low, high)
    assert sum(pair.counts()) == pair.n
    assert pair.win + pair.tie + pair.loss == pytest.approx(100)


@pytest.mark.parametrize(
    "percent, n, right",
    [
        (50.44, 113, [57]),
        (53.10, 113, [60]),
        (48.77, 113, []),
        (48.40, 113, []),
        (42.91, 1089, []),
        (49.32, 1089, []),
        (38.65, 1273, [492]),
        (41.56, 1273, [529]),
        (71.60, 500, [358]),
        (38.58, 6100, []),
        (38.58, 6150, []),
        (38.58, 4183, [1614]),
        (38.23, 4183, [1599]),
        (47.12, 11_200, [5277, 5278]),
        (0.0, 7, [0]),
        (100.0, 7, [7]),
    ],
)
def test_counts_behind_a_percentage(percent: float, n: int, right: list[int]) -> None:
    assert counts_that_fit(percent, n) == right
    assert all(abs(100 * k / n - percent) <= 0.005 + 1e-9 for k in right)


def test_the_averages_of_cmb_clin_weigh_answers() -> None:
    for models in published.CLIN.values():
        for *rounds, average in models:
            weighted = sum(n * mean for n, mean in zip(published.CLIN_TURNS, rounds)) / 207
            assert weighted == pytest.approx(average, abs=0.0015)
            for n, mean in zip(published.CLIN_TURNS, rounds):  # each bar is a sum of whole scores
                assert n * mean == pytest.approx(round(n * mean), abs=0.003 * n)


def test_the_page_is_what_the_functions_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == published.page(), (
        f"make it again: python -m megatron_aquila.evaluation.published {PAGE.name}"
    )
