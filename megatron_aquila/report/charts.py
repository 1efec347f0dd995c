"""Line charts and interval strips as markup: SVG that stretches to the width there is, its labels HTML beside it.

Text would be distorted by stretching, and lines keep their width by `vector-effect`; so charts read alike on a desk
and on a phone. Series are told apart by colour (Okabe and Ito's, safe for the colour-blind) and by dashes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from data_tools.pages.html import Markup, count, tag
from megatron_aquila.report.curves import Curve, band_path, line_path, number, point, thin
from megatron_aquila.report.scales import Axis, axis, label

SERIES = 6  # colours and dashes there are; further series begin anew
_BOX = {"viewBox": "0 0 1000 1000", "preserveAspectRatio": "none"}


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    style: "line", "faint" (raw values behind their trend), "trend" or "dots" (few values, each marked).
    name: what the line is; named: whether the legend has it, too.
    """

    curve: Curve
    series: int
    name: str = ""
    style: str = "line"
    named: bool = True
    band: tuple[Sequence[float], Sequence[float]] | None = None  # lower and upper ends, one of each a value


@dataclass(frozen=True)
class Chart:
    """A chart over steps. log: None lets the values decide; floor, ceiling: bounds of the measure itself."""

    title: str
    lines: Sequence[Line] = ()
    note: str = ""
    log: bool | None = False
    floor: float | None = None
    ceiling: float | None = None
    wide: bool = False
    level: float | None = None  # a horizontal line, such as zero or a start
    holds: tuple[float, ...] = ()  # values that the axis has, drawn or not
    shares: bool = False  # values are shares of one, written as per cent
    x_name: str = "step"
    x_from_zero: bool = True
    legend: bool = True


def draw(chart: Chart) -> Markup:
    """The chart as a figure; nothing where no series has a finite value."""
    lines = [line for line in chart.lines if line.curve.is_finite.any()]
    if not lines:
        return Markup()
    thinned = [thin(line.curve) for line in lines]
    values = [value for curve in thinned for value in curve.values]
    values += [end for line in lines if line.band for side in line.band for end in side]
    if chart.level is not None and not chart.log:
        values.append(chart.level)
    values += chart.holds
    start = [0.0] if chart.x_from_zero else []
    x = axis([*start, *(step for curve in thinned for step in curve.steps)], room=0.0, wanted=4, whole=True)
    y = axis(values, log=chart.log, floor=chart.floor, ceiling=chart.ceiling, wanted=4)
    written = percent_label if chart.shares else label
    drawn = [
        tag(
            "line",
            class_="grid",
            x1=0,
            x2=1000,
            y1=number(1000 - 1000 * y.place(t)),
            y2=number(1000 - 1000 * y.place(t)),
        )
        for t in y.ticks
    ]
    if chart.level is not None and y.low <= chart.level <= y.high:
        at = number(1000 - 1000 * y.place(chart.level))
        drawn.append(tag("line", class_="level", x1=0, x2=1000, y1=at, y2=at))
    for line, curve in zip(lines, thinned):
        drawn += _series(line, curve, x, y, written, chart.x_name)
    lost = sum(line.curve.lost for line in lines if line.style != "trend")
    notes = [chart.note, "log scale" if y.log else "", f"{count(lost)} not finite" if lost else ""]
    named = [line for line in lines if line.name and line.named]
    ys = [tag("span", written(t), style=f"bottom:{number(100 * y.place(t))}%") for t in y.ticks]
    xs = [tag("span", label(t), style=f"left:{number(100 * x.place(t))}%") for t in _spread(x)]
    ends = [(line.name or chart.title, line.curve.last) for line in lines if line.style != "faint"]
    said = "; ".join(f"{name} ends at {written(last)}" for name, last in ends if last is not None)
    return tag(
        "figure",
        tag("figcaption", tag("b", chart.title), tag("span", ", ".join(filter(None, notes)), class_="note")),
        tag(
            "div",
            tag("div", *ys, class_="ys", aria_hidden="true"),
            tag("svg", *drawn, **_BOX, role="img", aria_label=f"{chart.title} by {chart.x_name}: {said}"),
            tag("div", *xs, class_="xs", aria_hidden="true"),
            class_="plot",
        ),
        legend([(line.series, line.style, line.name) for line in named]) if len(named) > 1 and chart.legend else "",
        class_="chart wide" if chart.wide else "chart",
    )


def _series(line: Line, curve: Curve, x: Axis, y: Axis, written: Callable[[float], str], x_name: str) -> list[Markup]:
    name = f"s{line.series % SERIES}"
    drawn: list[Markup] = []
    if line.band and curve is line.curve:  # not of so many values that they were thinned out
        area = band_path(line.curve.steps, *line.band, x, y)
        drawn.append(tag("path", class_=f"band {name}", d=area))
    style = {"faint": "faint ", "dots": "thread "}.get(line.style, "")
    title = (tag("title", line.name),) if line.name else ()
    drawn.append(tag("path", *title, class_=f"curve {style}{name}", d=line_path(curve, x, y)))
    if line.style == "dots":
        for step, value in curve.finite:
            tip = tag("title", f"{line.name or 'value'}, {x_name} {count(step)}: {written(value)}")
            drawn.append(tag("path", tip, class_=f"dot {name}", d=f"M{point(step, value, x, y)}h0"))
    return drawn


def legend(entries: Iterable[tuple[int, str, str]]) -> Markup:
    """Entries of (series, style, name), each beside a sample of its line."""
    drawn = []
    for series, style, name in entries:
        colour = f"s{series % SERIES}"
        sample = [tag("path", class_=f"curve {'thread ' if style == 'dots' else ''}{colour}", d="M1 6h28")]
        if style == "dots":
            sample.append(tag("path", class_=f"dot {colour}", d="M15 6h0"))
        drawn.append(tag("span", tag("svg", *sample, class_="sample", viewBox="0 0 30 12", aria_hidden="true"), name))
    return tag("p", *drawn, class_="legend") if drawn else Markup()


@dataclass(frozen=True)
class Whisker:
    """A value with its interval, and what to say of it."""

    value: float
    low: float
    high: float
    series: int
    tip: str


def whiskers(
    rows: Sequence[tuple[str, Sequence[Whisker], str]],
    *,
    bounds: tuple[float, float],
    written: Callable[[float], str],
    level: float | None = None,
) -> Markup:
    """Rows of (name, values, remark), each on a strip over one common axis, the values one below the other.

    bounds: what the measure cannot leave; written: a value beside the axis; level: a vertical line, such as no
    difference.
    """
    every = [end for _, row, _ in rows for one in row for end in (one.low, one.high, one.value) if math.isfinite(end)]
    if not every:
        return Markup()
    if level is not None:
        every.append(level)
    x = axis(every, floor=bounds[0], ceiling=bounds[1], wanted=5)
    drawn = []
    for name, row, remark in rows:
        height = 10 + 11 * len(row)
        marks = [
            tag("line", class_="grid", x1=at, x2=at, y1=0, y2=height)
            for at in (number(1000 * x.place(t)) for t in x.ticks)
        ]
        if level is not None:
            at = number(1000 * x.place(level))
            marks.append(tag("line", class_="level", x1=at, x2=at, y1=0, y2=height))
        for index, one in enumerate(row):
            y, colour = 10.5 + 11 * index, f"s{one.series % SERIES}"
            left, right, middle = (number(1000 * x.place(end)) for end in (one.low, one.high, one.value))
            marks += [
                tag("path", tag("title", one.tip), class_=f"reach {colour}", d=f"M{left} {y}H{right}"),
                tag("path", tag("title", one.tip), class_=f"dot {colour}", d=f"M{middle} {y}h0"),
            ]
        strip = tag(
            "svg",
            *marks,
            class_="strip",
            viewBox=f"0 0 1000 {height}",
            height=height,
            preserveAspectRatio="none",
            role="img",
            aria_label=f"{name}: {'; '.join(one.tip for one in row)}",
        )
        drawn.append(tag("li", tag("span", name, class_="name", title=name), strip, remark))
    ticks = [
        # The strip may end where the screen does.
        tag("span", written(t), class_="end" if x.place(t) > 0.97 else None, style=f"left:{number(100 * x.place(t))}%")
        for t in _spread(x)
    ]
    beside = [tag("span", "")] if any(remark for _, _, remark in rows) else []
    drawn.append(
        tag("li", tag("span", "", class_="name"), tag("div", *ticks, class_="xs"), *beside, aria_hidden="true")
    )
    return tag("ol", *drawn, class_="whiskers")


def _spread(x: Axis) -> Sequence[float]:
    """The marks, without those so near to another that their labels would touch."""
    kept: list[float] = []
    for tick in x.ticks:
        if not kept or x.place(tick) - x.place(kept[-1]) > 0.1:
            kept.append(tick)
    return kept


def points_label(difference: float) -> str:
    """A difference of shares, in points: +2.5."""
    return f"{'+' if difference > 0 else ''}{label(100 * difference)}"


def percent_label(share: float) -> str:
    return f"{label(100 * share)}\u00a0%"


def grid(charts: Iterable[Chart]) -> Markup:
    """Charts side by side where there is room."""
    figures = [figure for figure in map(draw, charts) if figure]
    return tag("div", *figures, class_="charts") if figures else Markup()
