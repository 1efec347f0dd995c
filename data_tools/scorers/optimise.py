"""Minimising a smooth convex function: L-BFGS, in plain numpy, the same steps on every machine with any number of
threads (no BLAS).
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
_MEMORY = 10
_SUFFICIENT = 1e-4
_CURVATURE = 0.9
_LINE_STEPS = 40


class Minimum(NamedTuple):
    """`gradient` is the largest component of the gradient at `point`."""

    point: Vector
    value: float
    gradient: float
    iterations: int


def minimise(
    function: Callable[[Vector], tuple[float, Vector]], start: Vector, *, tolerance: float, max_iterations: int
) -> Minimum:
    """The point where no component of the gradient exceeds `tolerance`, or the last after `max_iterations`.

    Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 7.5, with a bisecting search for the weak Wolfe
    conditions.
    """
    point, (value, gradient) = start.copy(), function(start)
    pairs: deque[tuple[Vector, Vector, float]] = deque(maxlen=_MEMORY)
    for iteration in range(max_iterations):
        if float(np.abs(gradient).max()) <= tolerance:
            return Minimum(point, value, float(np.abs(gradient).max()), iteration)
        direction = -_inverse_hessian_times(gradient, pairs)
        found = _line_search(function, point, value, gradient, direction)
        if found is None:  # rounding leaves nothing to gain
            return Minimum(point, value, float(np.abs(gradient).max()), iteration)
        new_point, new_value, new_gradient = found
        moved, changed = new_point - point, new_gradient - gradient
        curvature = _dot(moved, changed)
        if curvature > 0:
            pairs.append((moved, changed, curvature))
        point, value, gradient = new_point, new_value, new_gradient
    return Minimum(point, value, float(np.abs(gradient).max()), max_iterations)


def _line_search(
    function: Callable[[Vector], tuple[float, Vector]], point: Vector, value: float, gradient: Vector, direction: Vector
) -> tuple[Vector, float, Vector] | None:
    slope = _dot(gradient, direction)
    low, high, step = 0.0, np.inf, 1.0
    for _ in range(_LINE_STEPS):
        new = point + step * direction
        new_value, new_gradient = function(new)
        if new_value > value + _SUFFICIENT * step * slope:
            high = step
        elif _dot(new_gradient, direction) < _CURVATURE * slope:
            low = step
        else:
            return new, new_value, new_gradient
        step = (low + high) / 2 if np.isfinite(high) else 2 * step
    return None


def _inverse_hessian_times(gradient: Vector, pairs: deque[tuple[Vector, Vector, float]]) -> Vector:
    result = gradient.copy()
    shares = []
    for moved, changed, curvature in reversed(pairs):
        share = _dot(moved, result) / curvature
        shares.append(share)
        result -= share * changed
    if pairs:
        _, changed, curvature = pairs[-1]
        result *= curvature / _dot(changed, changed)
    for (moved, changed, curvature), share in zip(pairs, reversed(shares)):
        result += moved * (share - _dot(changed, result) / curvature)
    return result


def _dot(left: Vector, right: Vector) -> float:
    return float((left * right).sum())
