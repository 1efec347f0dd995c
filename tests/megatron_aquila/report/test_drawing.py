"""Axes, curves and paths against values worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from megatron_aquila.report.charts import Chart, Line, Whisker, draw, percent_label, whiskers
from megatron_aquila.report.curves import Curve, ReportError, band_path, line_path, read_metrics, smooth, thin
from megatron_aquila.report.scales import Axis, axis, label
from megatron_aquila.report.words import duration, p_value, short_path, warnings, with_interval

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "more", "low", "high", "ticks"),
    [
        # 4 % of room on either side of 0…10.
        ([0, 10], {}, -0.4, 10.4, (0, 2, 4, 6, 8, 10)),
        ([0, 10], {"floor": 0, "ceiling": 10}, 0, 10, (0, 2, 4, 6, 8, 10)),
        ([0, 300], {"room": 0.0, "wanted": 4}, 0, 300, (0, 100, 200, 300)),
        # Nothing is marked between steps.
        ([1, 3], {"room": 0.0, "wanted": 4}, 1, 3, (1, 1.5, 2, 2.5, 3)),
        ([1, 3], {"room": 0.0, "wanted": 4, "whole": True}, 1, 3, (1, 2, 3)),
        ([-3, NAN, 1], {"room": 0.0, "wanted": 4}, -3, 1, (-3, -2, -1, 0, 1)),
        # One value stands in the middle.
        ([5], {}, 4.5, 5.5, (4.6, 4.8, 5, 5.2, 5.4)),
        ([0], {}, -0.5, 0.5, (-0.4, -0.2, 0, 0.2, 0.4)),
        ([], {"room": 0.0}, 0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        # Two decades and less than three marks of powers of ten: 1, 2 and 5 are marked too.
        ([1, 60], {"log": None, "room": 0.0}, math.exp(-0.05), 60 * math.exp(0.05), (1, 2, 5, 10, 20, 50)),
        ([1, 29], {"log": None, "room": 0.0}, 1, 29, (5, 10, 15, 20, 25)),
        ([0, 1e9], {"log": None, "room": 0.0}, 0, 1e9, (0, 2e8, 4e8, 6e8, 8e8, 1e9)),
    ],
)
def test_axes(values: list[float], more: dict, low: float, high: float, ticks: tuple[float, ...]) -> None:
    found = axis(values, **more)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.ticks == pytest.approx(ticks)


def test_places_on_axes() -> None:
    linear, log = Axis(-2, 2, ()), Axis(1, 10_000, (), log=True)
    assert [linear.place(value) for value in (-2, -1, 0, 2, 5, -9)] == pytest.approx([0, 0.25, 0.5, 1, 1, 0])
    assert [log.place(value) for value in (1, 10, 100, 1e4, 0, -3)] == pytest.approx([0, 0.25, 0.5, 1, 0, 0])


@pytest.mark.parametrize(
    "values", [[1e308, -1e308], [5e-324, 1.0], [1e300, 1e300 * (1 + 1e-15)], [1e-310, 1e308], [1e308]]
)
@pytest.mark.parametrize("log", [False, True, None])
def test_huge_and_tiny_values_stay_on_the_drawing(values: list[float], log: bool | None) -> None:
    found = axis(values, log=log)
    assert all(math.isfinite(found.place(value)) and 0 <= found.place(value) <= 1 for value in values)
    assert found.place(max(values)) >= found.place(min(values))
    assert found.ticks and all(map(math.isfinite, found.ticks))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (-1.5, "-1.5"),
        (2e-7, "2e-7"),
        (12_500, "12.5 k"),
        (20_000, "20 k"),
        (1e6, "1 M"),
        (NAN, "–"),
    ],
)
def test_labels(value: float, written: str) -> None:
    assert label(value).replace("\u00a0", " ") == written


def test_a_path_by_hand() -> None:
    x, y = Axis(0, 10, ()), Axis(0, 4, ())
    assert line_path(Curve([0, 5, 10], [0, 4, 1]), x, y) == "M0 1000L500 0L1000 750"
    # A gap breaks the line, and a value between gaps is a dot.
    curve = Curve([0, 1, 2, 3, 4, 5, 6], [0, 1, NAN, 2, NAN, 3, 4])
    assert line_path(curve, x, y) == "M0 1000L100 750M300 500h0M500 250L600 0"
    assert line_path(Curve([5], [2]), x, y) == "M500 500h0"
    assert line_path(Curve([5, 6], [NAN, NAN]), x, y) == ""
    assert band_path([0, 10], [1, 2], [3, 4], x, y) == "M0 250L1000 0L1000 500L0 750Z"


def test_a_thinned_curve_keeps_every_extreme() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000)
    values[[123, 70_001]] = 50, -60  # spikes of one step
    thinned = thin(Curve(range(1, 100_001), values.tolist()), buckets=200)
    assert len(thinned) == 400
    assert list(thinned.steps) == sorted(thinned.steps)
    kept = dict(zip(thinned.steps, thinned.values))
    assert kept[124] == 50 and kept[70_002] == -60
    # Every bucket's least and greatest value, by numpy.
    by_bucket = values.reshape(200, 500)
    pairs = np.array(thinned.values).reshape(200, 2)
    np.testing.assert_array_equal(pairs.min(1), by_bucket.min(1))
    np.testing.assert_array_equal(pairs.max(1), by_bucket.max(1))


def test_thinning_keeps_gaps_and_short_curves() -> None:
    short = Curve([1, 2], [NAN, 3])
    assert thin(short, 10) is short
    values = [1.0] * 50 + [NAN] * 50 + [2.0] * 50
    thinned = thin(Curve(range(150), values), buckets=15)
    assert sum(math.isnan(value) for value in thinned.values) == 5
    assert line_path(thinned, Axis(0, 149, ()), Axis(0, 2, ())).count("M") == 2


def test_the_trend_is_a_centred_triangle() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    smoothed = smooth(Curve(range(300), values.tolist()))
    assert smoothed is not None
    kernel = np.ones(11) / 11  # reach: 300 / 60 = 5
    expected = np.convolve(np.convolve(values, kernel, "valid"), kernel, "valid")
    np.testing.assert_allclose(np.array(smoothed.values)[10:-10], expected, rtol=1e-12)
    assert smoothed.values[0] == pytest.approx(values[0])
    # A straight line has itself as its trend, to the very ends.
    line = smooth(Curve(range(100), [2.0 * i for i in range(100)]))
    assert line is not None
    np.testing.assert_allclose(line.values, 2.0 * np.arange(100), rtol=1e-9)
    # Values that are not finite are left out; reach 1: first (3 + 5) / 2 beside the gap, then the mean of three.
    gap = smooth(Curve(range(24), [3.0, 3.0, 3.0, NAN, 5.0, *[5.0] * 19]))
    assert gap is not None and list(gap.values[:6]) == pytest.approx([3, 3, (3 + 3 + 4) / 3, 4, (4 + 5 + 5) / 3, 5])
    assert smooth(Curve(range(19), [1.0] * 19)) is None
    huge = smooth(Curve(range(100), [1e308] * 100))
    assert huge is not None and max(huge.values) == pytest.approx(1e308)


def test_metrics_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "a": 1, "b": null}\n{"step": 10, "a": 2.5}\n\n{"step": 15, "a"')
    found = read_metrics(path)
    assert list(found) == ["a", "b"]
    assert (list(found["a"].steps), list(found["a"].values)) == ([5, 10], [1, 2.5])
    assert math.isnan(found["b"].values[0]) and found["b"].last is None
    assert read_metrics(tmp_path / "none.jsonl") == {}
    for bad in ("[1]", '{"a": 1}', '{"step": null}', '{"step": 1, "a": "x"}', '{"step": 1, "a": [1]}', "nonsense"):
        path.write_text(f'{{"step": 5}}\n{bad}\n')
        with pytest.raises(ReportError, match=r"metrics\.jsonl, line 2 is not an object"):
            read_metrics(path)


def test_a_chart_draws_what_it_is_given() -> None:
    few = Curve([10, 20], [0.5, 0.75])
    figure = draw(
        Chart("share", [Line(few, 1, "a", "dots", band=([0.4, 0.6], [0.6, 0.9]))], shares=True, floor=0, ceiling=1)
    )
    # The axis is 0.4…0.9 with 4 % of room: 0.38…0.92; 0.5 lies at (0.92 − 0.5) / 0.54 from the top.
    height = 1000 * (0.92 - 0.5) / 0.54
    assert f"M500 {height:.1f}h0" in figure
    assert re.findall(r"<title>(a, step [^<]*)</title>", figure) == ["a, step 10: 50\u00a0%", "a, step 20: 75\u00a0%"]
    assert 'class="band s1"' in figure
    # An axis may hold more than is drawn: at 2 of 1 to 5 lies a quarter.
    fixed = draw(Chart("score", [Line(Curve([1, 3], [2, 3]), 0, "", "dots")], floor=1, ceiling=5, holds=(1, 5)))
    assert "M333.3 750h0" in fixed and ">5</span>" in fixed
    assert draw(Chart("nothing", [Line(Curve([1, 2], [NAN, NAN]), 0)])) == ""
    assert "2 not finite" in draw(Chart("some", [Line(Curve([1, 2, 3], [NAN, NAN, 1]), 0)]))
    assert "log scale" in draw(Chart("norm", [Line(Curve([1, 2], [1, 1e6]), 0)], log=None))


def test_whiskers_are_to_scale() -> None:
    row = [Whisker(0.5, 0.25, 0.75, 0, "first"), Whisker(1.0, 0.9, 1.0, 7, "second")]
    drawn = whiskers([("task", row, "")], bounds=(0.0, 1.0), written=percent_label)
    # 0.25…1 with 4 % of room below, and the bound above: 0.22…1.
    place = [f"{1000 * (value - 0.22) / 0.78:.1f}" for value in (0.25, 0.75)]
    assert f"M{place[0]} 10.5H{place[1]}" in drawn
    assert f"M{1000 * 0.28 / 0.78:.0f} 10.5h0" in drawn
    assert 'class="dot s1" d="M1000 21.5h0"' in drawn  # the eighth series has the second colour
    # The label at the end of the axis lies within it.
    assert re.findall(r'class="end" style="left:100%">(.*?)<', drawn) == ["100\u00a0%"]
    assert whiskers([], bounds=(0.0, 1.0), written=percent_label) == ""


def test_words() -> None:
    seconds = (0, 4.25, 12.4, 59.7, 245, 3600, 12_000, 187_200)
    written = ["0 s", "4.2 s", "12 s", "1 min", "4 min 5 s", "1 h", "3 h 20 min", "2 d 4 h"]
    assert [duration(one).replace("\u00a0", " ") for one in seconds] == written
    assert [p_value(p) for p in (None, 0.5, 0.0123, 1e-9)] == ["–", "0.5", "0.012", "<\u00a00.001"]
    assert with_interval(None, None) == "–"
    assert [short_path(p) for p in ("a/b/c/d", "/a/b/c", "/a")] == ["a/b/c/d", "…/b/c", "…/a"]
    told = warnings([("odd", "a", "x"), ("odd", "b", "x"), ("odd", "c", ""), ("even", "a", "x"), ("odd", "a", "x")])
    assert re.findall(r"<li>(\w+) <span[^>]*>(.*?)</span>", told) == [("odd", "(a, b: x; c)"), ("even", "(a: x)")]
    assert warnings([]) == ""
