"""Axes: where a value lies between 0 and 1, which round values are marked, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from data_tools.pages.html import short

_LOG_FROM = 30.0  # a positive measure whose largest value is so many times its smallest is drawn on a log axis
_LOG_BOUNDS = (1e-290, 1e290)  # beyond them a float has no room for a margin, and is drawn on a linear axis
_ROOM = 0.04  # of the axis, left free on either side


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high` (low < high), and its marked values, ascending."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`; what lies beyond them is put on the edge."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        # Divided first: high − low of two huge values may be infinite.
        span = high / 2 - low / 2
        return min(1.0, max(0.0, (at / 2 - low / 2) / span))


def axis(
    values: Iterable[float],
    *,
    log: bool | None = False,
    floor: float | None = None,
    ceiling: float | None = None,
    room: float = _ROOM,
    wanted: int = 5,
    whole: bool = False,
) -> Axis:
    """An axis that holds all finite `values`, with about `wanted` marks.

    log: None lets the values decide. floor, ceiling: the measure's own bounds, beyond which no room is left.
    whole: there is nothing between whole numbers to be marked, as with steps.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    fits = _LOG_BOUNDS[0] < low and high < _LOG_BOUNDS[1]
    if fits and (log or (log is None and high / low >= _LOG_FROM)):
        return _log_axis(low, high, room, wanted)
    if low == high:
        margin = abs(low) * 0.1 or 0.5
    else:
        margin = (high / 2 - low / 2) * 2 * room
        margin = margin if math.isfinite(margin) else 0.0
    low, high = low - margin, high + margin
    low = low if floor is None else max(low, floor)
    high = high if ceiling is None else min(high, ceiling)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    return Axis(low, high, _linear_ticks(low, high, wanted, least=1.0 if whole else 0.0))


def _log_axis(low: float, high: float, room: float, wanted: int) -> Axis:
    margin = max((math.log(high) - math.log(low)) * room, 0.05)
    low, high = math.exp(math.log(low) - margin), math.exp(math.log(high) + margin)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / wanted))
    decades = [10.0**power for power in range(first, last + 1, step) if low <= 10.0**power <= high]
    if len(decades) < 3 and step == 1:
        fine = (digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5))
        decades = [value for value in fine if low <= value <= high]
    return Axis(low, high, tuple(decades), log=True)


def _linear_ticks(low: float, high: float, wanted: int, least: float = 0.0) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten, at least `least`, within [low, high]."""
    span = high - low
    if not math.isfinite(span):
        return (low, 0.0, high)
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    # The nearest on a log scale: the bounds are √2, √10 and √50.
    digit = next(digit for digit, below in ((1, 1.41), (2, 3.16), (5, 7.07), (10, math.inf)) if rough / power < below)
    step = max(digit * power, least)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first > 10 * wanted:  # the values differ by less than a float can tell
        return (low, high)
    # 0.30000000000000004 is nobody's round number.
    return tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))


def label(value: float) -> str:
    """A value beside an axis: 0.25, 20 k, 1.5 M, 2e-7."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e15:
        mantissa, _, power = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(power)}" if power else mantissa
    if abs(value) >= 10_000:
        number, gap, unit = short(value).partition("\u00a0")
        return (number.rstrip("0").rstrip(".") if "." in number else number) + gap + unit
    return f"{value:.4g}"
