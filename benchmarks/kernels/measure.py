"""Clocks: variants of one computation, in turn, in one process.

Rounds go A B C A B C, so that a machine that slows down does so for all. The least time of a variant is what ratios are
made of; median and spread stand beside it. What cannot be measured is `Absent`, with the reason.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

OURS, AGAIN = "ours", "ours, again"
_TOO_LONG = 3.0  # seconds of one call, after which a peer is not called again
_SHORT = 0.25  # seconds that the rounds of the first variant may take up beyond those asked for
_MOST_ROUNDS = 50
_WRONG = 0.05  # relative error beyond which a peer computes something else
_COLD_BYTES = 256 << 20  # larger than the second-level cache of any GPU


@dataclass(frozen=True)
class Absent:
    """A measurement that could not be made."""

    reason: str

    @classmethod
    def because(cls, error: BaseException) -> Absent:
        text = " ".join(str(error).split())
        return cls(f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds of a call over the rounds, and its result's relative error against float64."""

    least: float
    median: float
    most: float
    rounds: int
    error: float

    @property
    def spread(self) -> float:
        return (self.most - self.least) / self.median


class Variant(NamedTuple):
    """One way of computing.

    prepare: makes the input of a call, off the clock.
    call: what is timed.
    check: relative error of what the call returned.
    """

    prepare: Callable[[], Any]
    call: Callable[[Any], Any]
    check: Callable[[Any], float]


Outcome = Timing | Absent
Labels = dict[str, str | int | float]


@dataclass
class Case:
    """The variants of one computation at one size.

    labels: what tells the case from others of its part: dtype, rows, columns, …
    tolerance: of the relative error of ours.
    notes: numbers of the case; of a variant where they begin with its name.
    """

    part: str
    labels: Labels
    tolerance: float
    results: dict[str, Outcome]
    notes: dict[str, float] = field(default_factory=dict)

    def ratio(self, name: str, of: str = OURS) -> float | None:
        """Time of a variant in units of ours: above 1 where ours is faster."""
        theirs, ours = self.results.get(name), self.results.get(of)
        if not isinstance(theirs, Timing) or not isinstance(ours, Timing):
            return None
        return theirs.least / ours.least

    def noise(self) -> float:
        """By how much the repeated variant differs from itself, or a variant of ours between rounds at the median."""
        again = self.ratio(AGAIN)
        ours = self.results.get(OURS)
        between = ours.median / ours.least - 1 if isinstance(ours, Timing) else 0.0
        return max(abs(again - 1) if again else 0.0, between)

    def wrong(self) -> list[str]:
        """Variants of ours whose result is not what it should be."""
        return [
            f"{self.part} {self.labels} {name}: relative error {outcome.error:.2e} above {self.tolerance:.0e}"
            for name, outcome in self.results.items()
            if is_ours(name) and isinstance(outcome, Timing) and not outcome.error <= self.tolerance
        ]


def is_ours(name: str) -> bool:
    return name.startswith(OURS)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """‖result − expected‖ / ‖expected‖ in float64; a NaN stays one."""
    return ((result.double() - expected.double()).norm() / expected.double().norm()).item()


def interleave(
    variants: Mapping[str, Variant], device: torch.device, rounds: int, *, launches: bool = False
) -> dict[str, Outcome]:
    """Time the variants in turn.

    Args:
        variants: by name. A failure of a peer makes it absent; a failure of ours is raised.
        rounds: at least; more where calls are short.
        launches: on a GPU, time what a caller waits, launches included, and not what the device works.
    """
    outcomes: dict[str, Outcome] = {}
    errors: dict[str, float] = {}
    warm: dict[str, float] = {}
    scratch = torch.empty(_COLD_BYTES, dtype=torch.uint8, device=device) if device.type == "cuda" else None
    for name, variant in variants.items():
        outcome = _warm_up(name, variant, device)
        if isinstance(outcome, Absent):
            outcomes[name] = outcome
        else:
            errors[name], warm[name] = outcome
    first = min(warm.values(), default=1.0)
    rounds = max(rounds, min(_MOST_ROUNDS, int(_SHORT / first)))
    seconds: dict[str, list[float]] = {name: [] for name in errors}
    gc.disable()
    try:
        for _ in range(rounds):
            for name, taken in seconds.items():
                if taken and max(taken) > _TOO_LONG and not is_ours(name):
                    continue
                taken.append(_once(variants[name], device, scratch, launches))
    finally:
        gc.enable()
    for name, taken in seconds.items():
        outcomes[name] = Timing(min(taken), statistics.median(taken), max(taken), len(taken), errors[name])
    return {name: outcomes[name] for name in variants}


def _warm_up(name: str, variant: Variant, device: torch.device) -> tuple[float, float] | Absent:
    """Error of the first result, and seconds of the last call; the first one may compile."""
    try:
        error = variant.check(variant.call(variant.prepare()))
        seconds = 0.0
        for _ in range(3 if device.type == "cuda" else 1):
            seconds = _once(variant, device, None, True)
    except Exception as failure:  # a peer may fail in any way: its reason is kept
        if is_ours(name):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return Absent.because(failure)
    if not is_ours(name) and not error <= _WRONG:
        return Absent(f"another result: relative error {error:.1e}")
    return error, seconds


def _once(variant: Variant, device: torch.device, scratch: torch.Tensor | None, launches: bool) -> float:
    argument = variant.prepare()
    if device.type == "cpu":
        began = time.perf_counter()
        result = variant.call(argument)
        seconds = time.perf_counter() - began
        del result  # freeing it is no part of the call
        return seconds
    if scratch is not None:
        scratch.zero_()  # or small inputs would be read from the cache that `prepare` left them in
    if launches:
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        result = variant.call(argument)
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        del result
        return seconds
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    result = variant.call(argument)
    end.record()
    torch.cuda.synchronize(device)
    del result
    return start.elapsed_time(end) / 1e3
