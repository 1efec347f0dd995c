"""The learning rate of every step, against closed formulas and against Megatron's scheduler."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_aquila.config import OptimizerConfig
from megatron_aquila.schedule import decay_steps, learning_rate, warmup_steps

PEAK, TOTAL = 3e-4, 200

Formula = Callable[[int], float]


def optimizer(**schedule: Any) -> OptimizerConfig:
    return OptimizerConfig(lr=PEAK, schedule=schedule)


def series(config: OptimizerConfig, total: int = TOTAL) -> list[float]:
    return [learning_rate(step, total, config) for step in range(1, total + 1)]


# Each formula is written out for its case: T = 200, peak 3e-4.
CASES: list[tuple[str, dict[str, Any], Formula]] = [
    ("constant", {"kind": "constant"}, lambda t: 3e-4),
    ("constant, warm-up", {"kind": "constant", "warmup_steps": 10}, lambda t: 3e-5 * min(t, 10)),
    ("linear to zero", {"kind": "linear"}, lambda t: 3e-4 * (200 - t) / 200),
    (
        "linear, ratio 0.05",
        {"kind": "linear", "warmup_ratio": 0.05, "min_lr": 1e-5},
        lambda t: 3e-5 * t if t <= 10 else 3e-4 + (1e-5 - 3e-4) * (t - 10) / 190,
    ),
    (
        "cosine, 20 steps, floor a tenth",
        {"kind": "cosine", "warmup_steps": 20, "min_lr_ratio": 0.1},
        lambda t: 1.5e-5 * t if t <= 20 else 3e-5 + 2.7e-4 * math.cos(math.pi * (t - 20) / 360) ** 2,
    ),
    ("cosine to zero", {}, lambda t: 3e-4 * math.cos(math.pi * t / 400) ** 2),
    (
        "wsd linear",
        {"kind": "wsd", "warmup_steps": 20, "decay_ratio": 0.2},
        lambda t: 3e-4 * min(t / 20, 1.0, (200 - t) / 40),
    ),
    (
        "wsd cosine",
        {"kind": "wsd", "warmup_ratio": 0.1, "decay_steps": 50, "decay_style": "cosine", "min_lr": 1e-5},
        lambda t: (
            1.5e-5 * t if t <= 20 else (3e-4 if t <= 150 else 1e-5 + 2.9e-4 * math.cos(math.pi * (t - 150) / 100) ** 2)
        ),
    ),
    (
        "wsd exponential",
        {"kind": "wsd", "decay_steps": 100, "decay_style": "exponential"},
        lambda t: 3e-4 * (2 ** (1 - max(t - 100, 0) / 100) - 1),
    ),
    (
        "wsd minus_sqrt, decay after warm-up at once",
        {"kind": "wsd", "warmup_steps": 50, "decay_steps": 150, "decay_style": "minus_sqrt"},
        lambda t: 6e-6 * t if t <= 50 else 3e-4 * (1 - ((t - 50) / 150) ** 0.5),
    ),
]
NAMES = [case[0] for case in CASES]


@pytest.mark.parametrize(("schedule", "formula"), [case[1:] for case in CASES], ids=NAMES)
def test_every_step_equals_the_formula(schedule: dict[str, Any], formula: Formula) -> None:
    assert series(optimizer(**schedule)) == pytest.approx(
        [formula(step) for step in range(1, TOTAL + 1)], rel=1e-12, abs=1e-18
    )


@pytest.mark.parametrize("schedule", [case[1] for case in CASES], ids=NAMES)
def test_every_step_equals_megatrons_scheduler(schedule: dict[str, Any]) -> None:
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    config = optimizer(**schedule).schedule
    group = {"lr": 0.0, "weight_decay": 0.0}
    scheduler = OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]),
        init_lr=0.0,
        max_lr=PEAK,
        min_lr=config.min_lr if config.min_lr is not None else PEAK * (config.min_lr_ratio or 0.0),
        lr_warmup_steps=config.warmup_steps or round((config.warmup_ratio or 0.0) * TOTAL),
        lr_decay_steps=TOTAL,
        lr_decay_style="WSD" if config.kind == "wsd" else config.kind,
        start_wd=0.1,
        end_wd=0.1,
        wd_incr_steps=TOTAL,
        wd_incr_style="constant",
        wsd_decay_steps=config.decay_steps or round((config.decay_ratio or 0.0) * TOTAL),
        lr_wsd_decay_style=config.decay_style or "linear",
    )
    theirs = []
    for _ in range(TOTAL + 5):
        scheduler.step(1)  # theirs after t steps is ours of step t
        theirs.append(group["lr"])
    ours = [learning_rate(step, TOTAL, optimizer(**schedule)) for step in range(1, TOTAL + 6)]
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18)


def test_the_ends() -> None:
    """The first step learns, the last warm-up step is at the peak, the last step of the run at the floor."""
    rates = series(optimizer(kind="cosine", warmup_steps=8, min_lr_ratio=0.1))
    assert rates[0] == PEAK / 8
    assert rates[7] == PEAK == max(rates)
    assert rates[8] < PEAK
    assert rates[-1] == pytest.approx(PEAK / 10, rel=1e-12)
    assert min(rates[8:]) == rates[-1]


def test_one_step_runs() -> None:
    assert series(optimizer(kind="constant", warmup_steps=1), total=1) == [PEAK]
    assert series(optimizer(min_lr=1e-5), total=1) == pytest.approx([1e-5])


@pytest.mark.parametrize(
    ("ratio", "total", "steps"),
    [(0.05, 19074, 954), (0.01, 12716, 128), (0.07, 100, 7), (0.0, 100, 0), (1e-3, 100, 1), (0.1, 30, 3)],
)
def test_a_ratio_becomes_whole_steps_rounded_up(ratio: float, total: int, steps: int) -> None:
    assert warmup_steps(optimizer(warmup_ratio=ratio).schedule, total) == steps
    if steps:
        assert decay_steps(optimizer(kind="wsd", decay_ratio=ratio).schedule, total) == steps


def test_steps_count_from_one() -> None:
    with pytest.raises(ValueError, match="steps count from 1"):
        learning_rate(0, TOTAL, optimizer())
