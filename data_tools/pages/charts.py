"""Drawings as SVG inside a page: bars that stretch with it, and histograms."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.pages.html import Markup, count, figure, percent, tag

_UNIT = 1000.0  # width of a bar in its own units; it is stretched to the width there is

# A histogram's drawing, in CSS pixels at its natural size.
_WIDTH, _HEIGHT = 320.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 8.0, 30.0, 20.0
_LINE_LABEL = 11.0  # height of one row of threshold labels


def bar(parts: Sequence[tuple[str, float, str]], whole: float, label: str, height: float = 18) -> Markup:
    """A horizontal bar: parts of (class, amount, tooltip) from left to right on a track of `whole`."""
    drawn, start = [], 0.0
    for name, amount, tip in parts:
        width = _UNIT * amount / whole if whole else 0.0
        if width > 0:
            drawn.append(
                tag("rect", tag("title", tip), class_=name, x=_number(start), y=0, width=_number(width), height=height)
            )
        start += width
    track = tag("rect", class_="track", x=0, y=0, width=_number(_UNIT), height=height)
    return tag(
        "svg",
        track,
        *drawn,
        class_="bar",
        viewBox=f"0 0 {_UNIT:.0f} {height:g}",
        height=height,
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def histogram(data: Mapping[str, Any], noun: str = "documents") -> Markup:
    """One measure in one language: a figure of bars with a line at each threshold.

    `data`: measure, lang, edges (B + 1 values, ascending), counts (B), limits, log. `noun`: what was measured.
    """
    edges, counts, limits = data["edges"], data["counts"], sorted(data["limits"])
    low, high = (_place(edges[0], data["log"]), _place(edges[-1], data["log"]))

    def x(value: float) -> float:
        share = (_place(value, data["log"]) - low) / (high - low) if high > low else 0.5
        return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)

    bottom, total, most = _HEIGHT - _BOTTOM, sum(counts), max(counts, default=0)
    drawn = [tag("line", class_="axis", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=bottom, y2=bottom)]
    for left, right, number in zip(edges[:-1], edges[1:], counts, strict=True):
        if number:
            # What is there is seen: never less than a line.
            height = max(1.0, (bottom - _TOP) * number / most)
            tip = f"{figure(left)} to {figure(right)}: {count(number)} {noun}, {percent(number, total)}"
            drawn.append(
                tag(
                    "rect",
                    tag("title", tip),
                    class_="column",
                    x=_number(x(left) + 0.5),
                    y=_number(bottom - height),
                    width=_number(max(0.8, x(right) - x(left) - 1)),
                    height=_number(height),
                )
            )
    drawn += _thresholds([(x(limit), figure(limit)) for limit in limits], bottom)
    for value, anchor in ((edges[0], "start"), (edges[-1], "end")):
        drawn.append(_text(x(value), _HEIGHT - 6, figure(value), anchor))
    if high > low:
        middle = (low + high) / 2
        drawn.append(_text(_WIDTH / 2, _HEIGHT - 6, figure(math.exp(middle) if data["log"] else middle), "middle"))
    language = data["lang"] or "all languages"
    name = data["measure"].replace("_", " ").replace("-", " ")
    scale = ", log scale" if data["log"] else ""
    drawing = tag(
        "svg",
        *drawn,
        class_=f"histogram {_language_class(data['lang'])}",
        viewBox=f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}",
        role="img",
        aria_label=f"{name}, {language}, {count(total)} {noun}: limits {', '.join(map(figure, limits)) or 'none'}",
    )
    heading = (tag("b", name), tag("span", language, class_=f"tag {_language_class(data['lang'])}"))
    note = tag("span", f"{count(total)} {noun}{scale}", class_="note")
    return tag("figure", tag("figcaption", *heading, note), drawing)


def _thresholds(lines: Sequence[tuple[float, str]], bottom: float) -> list[Markup]:
    """Lines at x with their labels, each label in the first of two rows where it touches no other."""
    drawn, ends = [], [-math.inf, -math.inf]
    for x, label in lines:
        half = 3.2 * len(label) + 2
        centre = min(max(x, half), _WIDTH - half)
        row = next((row for row, end in enumerate(ends) if centre - half > end), None)
        drawn.append(tag("line", class_="limit", x1=_number(x), x2=_number(x), y1=_TOP - 4, y2=_number(bottom)))
        if row is not None:
            ends[row] = centre + half
            drawn.append(_text(centre, _LINE_LABEL * (row + 1) - 2, label, "middle", "limit"))
    return drawn


def _language_class(lang: str) -> str:
    return lang if lang in ("zh", "en") else "other"


def _place(value: float, log: bool) -> float:
    return math.log(max(value, 1e-12)) if log else value


def _text(x: float, y: float, text: str, anchor: str, name: str | None = None) -> Markup:
    return tag("text", text, x=_number(x), y=_number(y), text_anchor=anchor, class_=name)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
