"""Learning rate as a pure function of the step.

Steps are optimizer steps, counted from 1. With W warm-up steps, T total steps, peak lr, floor m, and x how
far the decay has come (0 to 1):

    1 <= t <= W      lr * t / W                              step 1 already learns; step W is at the peak
    constant         lr
    cosine, linear   m + (lr - m) * c(x),  x = (t - W) / (T - W)         step T is at the floor
    wsd              lr until T - D, then as above with x = (t - (T - D)) / D    D decay steps

    c(x):  cosine (1 + cos(pi x)) / 2 · linear 1 - x · exponential 2 * 0.5^x - 1 · minus_sqrt 1 - sqrt(x)

It is Megatron's ``OptimizerParamScheduler`` after t calls of ``step(1)``; Megatron's own loop takes step t
with the value after t - 1 calls, hence its first step at a learning rate of zero, and never reaches the
floor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron_aquila.config import OptimizerConfig, ScheduleConfig


def warmup_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """W: the given steps, or the ratio of ``total_steps`` rounded up as transformers does, or 0."""
    return _steps(schedule.warmup_steps, schedule.warmup_ratio, total_steps)


def decay_steps(schedule: ScheduleConfig, total_steps: int) -> int:
    """D of wsd: the given steps, or the ratio of ``total_steps`` rounded up."""
    return _steps(schedule.decay_steps, schedule.decay_ratio, total_steps)


def minimum_learning_rate(optimizer: OptimizerConfig) -> float:
    """m, the floor of the decay: ``min_lr``, or ``min_lr_ratio`` of the peak, or 0."""
    schedule = optimizer.schedule
    if schedule.min_lr is not None:
        return schedule.min_lr
    return optimizer.lr * (schedule.min_lr_ratio or 0.0)


def learning_rate(step: int, total_steps: int, optimizer: OptimizerConfig) -> float:
    """Learning rate of optimizer step ``step``: 1 ... ``total_steps``, and beyond as at the last.

    Raises ValueError for a step below 1.
    """
    if step < 1:
        raise ValueError(f"steps count from 1, not {step}")
    schedule = optimizer.schedule
    warmup = warmup_steps(schedule, total_steps)
    if step <= warmup:
        return optimizer.lr * step / warmup
    if schedule.kind == "constant":
        return optimizer.lr
    start, style = warmup, str(schedule.kind)
    if schedule.kind == "wsd":
        start, style = total_steps - decay_steps(schedule, total_steps), schedule.decay_style or "linear"
    if step <= start:
        return optimizer.lr
    progress = min(1.0, (step - start) / (total_steps - start))
    minimum = minimum_learning_rate(optimizer)
    return minimum + (optimizer.lr - minimum) * _remaining(style, progress)


def _remaining(style: str, progress: float) -> float:
    """c(x): 1 at the start of the decay, 0 at its end."""
    if style == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if style == "linear":
        return 1.0 - progress
    if style == "exponential":
        return 2.0 * 0.5**progress - 1.0
    if style == "minus_sqrt":
        return 1.0 - math.sqrt(progress)
    raise ValueError(f"unknown decay style '{style}'")


def _steps(steps: int | None, ratio: float | None, total_steps: int) -> int:
    if steps is not None:
        return steps
    # 0.07 * 100 is 7.000000000000001: the subtraction keeps such a product from costing a step
    return math.ceil((ratio or 0.0) * total_steps - 1e-9)
