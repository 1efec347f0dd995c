"""A logged measure over steps: read from the file, smoothed, thinned out to what a screen can show, made a path.

Values are floats; NaN stands for what was logged as null, that is, was not finite. Arrays end in their axis: N, values.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from megatron_aquila.errors import AquilaError
from megatron_aquila.report.scales import Axis

BUCKETS = 360  # of a curve's drawing; each keeps its least and its greatest value
_SCALE = 1000.0  # width and height of a drawing in its own units
_SMOOTHED_FROM = 20  # values; fewer are drawn as they are


class ReportError(AquilaError):
    """What a report is asked of cannot be read."""


@dataclass(frozen=True)
class Curve:
    """A measure by step: both of one length, steps ascending."""

    steps: Sequence[float]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def is_finite(self) -> npt.NDArray[np.bool_]:
        """Whether each value is finite."""
        return np.isfinite(np.asarray(self.values, np.float64))

    @property
    def lost(self) -> int:
        """How many values are not finite."""
        return len(self) - int(self.is_finite.sum())

    @property
    def finite(self) -> list[tuple[float, float]]:
        """(step, value) of the finite values."""
        return [(self.steps[index], self.values[index]) for index in np.flatnonzero(self.is_finite).tolist()]

    @property
    def last(self) -> float | None:
        """The last finite value."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), None)


def read_metrics(path: Path) -> dict[str, Curve]:
    """Every measure of a metrics file (`megatron_aquila.metrics`), read as a stream; none where there is no file.

    Raises:
        ReportError: a line is not what a run logs.
    """
    found: dict[str, tuple[array[float], array[float]]] = {}
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break  # a killed run's half line
            if not line.strip():
                continue
            try:
                _add(found, orjson.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                raise ReportError(
                    f'{path}, line {number} is not an object of a "step" and numbers; a run writes nothing else: '
                    "mend or remove the line"
                ) from None
    return {name: Curve(steps, values) for name, (steps, values) in found.items()}


def _add(found: dict[str, tuple[array[float], array[float]]], record: dict[str, float | None]) -> None:
    step = record["step"]
    if step is None:
        raise KeyError("step")
    for name, value in record.items():
        if name != "step":
            steps, values = found.setdefault(name, (array("d"), array("d")))
            values.append(math.nan if value is None else float(value))
            steps.append(float(step))


def smooth(curve: Curve) -> Curve | None:
    """The curve's trend: a mean over neighbours on both sides, taken twice (a triangle of about a fifteenth of the
    curve), so that it does not lag behind; near the ends it reaches as far on one side as there is on the other.
    Values that are not finite are left out. None where there are too few values to need it.
    """
    if len(curve) - curve.lost < _SMOOTHED_FROM:
        return None
    reach = max(1, len(curve) // 60)
    values_N = np.asarray(curve.values, np.float64)
    return Curve(curve.steps, _centred_means(_centred_means(values_N, reach), reach).tolist())


def _centred_means(values_N: npt.NDArray[np.float64], reach: int) -> npt.NDArray[np.float64]:
    """The mean of the finite values within `reach` places, NaN where there is none."""
    finite_N = np.isfinite(values_N)
    known_N = np.where(finite_N, values_N, 0.0)
    scale = float(np.abs(known_N).max()) or 1.0  # divided by: a sum of huge values stays finite
    sums = np.concatenate([[0.0], np.cumsum(known_N / scale)])
    counts = np.concatenate([[0], np.cumsum(finite_N)])
    place_N = np.arange(len(values_N))
    near_N = np.minimum(reach, np.minimum(place_N, place_N[::-1]))
    low_N, high_N = place_N - near_N, place_N + near_N + 1
    number_N = counts[high_N] - counts[low_N]
    means_N = (sums[high_N] - sums[low_N]) / np.maximum(number_N, 1) * scale
    return np.where(number_N > 0, means_N, np.nan)


def thin(curve: Curve, buckets: int = BUCKETS) -> Curve:
    """The curve with at most two values in each of `buckets` equal spans of steps: the least and the greatest, in
    their order, so that no spike is lost. A span without a finite value stays a gap.
    """
    if len(curve) <= 2 * buckets:
        return curve
    steps_N, values_N = np.asarray(curve.steps, np.float64), np.asarray(curve.values, np.float64)
    width = (steps_N[-1] - steps_N[0]) / buckets or 1.0
    bucket_N = np.minimum(((steps_N - steps_N[0]) / width).astype(np.int64), buckets - 1)
    ends = [*(np.flatnonzero(np.diff(bucket_N)) + 1).tolist(), len(curve)]
    kept: list[int] = []
    for start, end in zip([0, *ends], ends):
        finite = start + np.flatnonzero(curve.is_finite[start:end])
        if len(finite):
            kept += sorted({int(finite[values_N[finite].argmin()]), int(finite[values_N[finite].argmax()])})
        else:
            kept.append(start)
    return Curve([curve.steps[index] for index in kept], [curve.values[index] for index in kept])


def line_path(curve: Curve, x: Axis, y: Axis) -> str:
    """The curve as the `d` of an SVG path, 1000 units wide and high; broken where values are not finite.

    A value between two gaps becomes a line of no length, which round line ends make a dot.
    """
    parts: list[str] = []
    pen_down = False
    for index, (step, value) in enumerate(zip(curve.steps, curve.values)):
        if not math.isfinite(value):
            pen_down = False
            continue
        alone = not pen_down and (index + 1 == len(curve) or not math.isfinite(curve.values[index + 1]))
        parts.append(f"{'L' if pen_down else 'M'}{point(step, value, x, y)}{'h0' if alone else ''}")
        pen_down = True
    return "".join(parts)


def band_path(steps: Sequence[float], lows: Sequence[float], highs: Sequence[float], x: Axis, y: Axis) -> str:
    """The area between two curves."""
    upper = [point(step, high, x, y) for step, high in zip(steps, highs)]
    lower = [point(step, low, x, y) for step, low in zip(steps, lows)]
    return f"M{'L'.join(upper + lower[::-1])}Z" if steps else ""


def point(step: float, value: float, x: Axis, y: Axis) -> str:
    """`X Y` in the drawing's units, downwards as SVG has it."""
    return f"{number(_SCALE * x.place(step))} {number(_SCALE * (1 - y.place(value)))}"


def number(value: float) -> str:
    """A coordinate: a tenth of a unit is less than a pixel."""
    return f"{value:.1f}".removesuffix(".0")
