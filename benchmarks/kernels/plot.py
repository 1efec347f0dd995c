"""What was measured, for readers: one figure.

Left, the time of each way to log-probs from logits, in units of ours. Right, what each way from hidden states and
weight takes: peak memory above, time below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from benchmarks.kernels.ceilings import describe
from benchmarks.kernels.linear import FROZEN, TRAINED
from benchmarks.kernels.measure import AGAIN, OURS, Absent, Case, Timing, is_ours
from benchmarks.kernels.memory import Peak
from benchmarks.kernels.peers import OURS_KEPT
from benchmarks.kernels.run import Report
from benchmarks.kernels.tokens import BOTH, FORWARD

_SERIES = (
    (FORWARD, "bf16", "#1b6ca8"),
    (FORWARD, "fp32", "#8fc1e3"),
    (BOTH, "bf16", "#c8553d"),
    (BOTH, "fp32", "#f2b5a0"),
)
_OURS, _OURS_LIGHT, _PEER, _PEER_LIGHT, _INK = "#1b6ca8", "#8fc1e3", "#7d7d7d", "#c4c4c4", "#333333"
_BACKGROUND = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
_NAMES = {f"{OURS}, {TRAINED}": "ours, store", f"{OURS}, {FROZEN}": "ours, frozen weight"}


def write(report: Report, path: Path) -> None:
    figure = Figure(figsize=(14, 7.6), layout="constrained", dpi=120)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.05), wspace=0.03)
    left, right = halves
    figure.suptitle(describe(report.machine), fontsize=13, color=_INK, weight="bold")
    _draw_tokens(left.subplots(), report)
    above, below = right.subplots(2, 1)
    _draw_memory(above, report)
    _draw_times(below, report)
    figure.savefig(path)


def _draw_tokens(axes: Axes, report: Report) -> None:
    rows, columns = report.sizes.shown
    cases = {
        (case.labels["step"], case.labels["dtype"]): case
        for case in report.of("token_logps")
        if (case.labels["rows"], case.labels["columns"], case.labels["masked"]) == (rows, columns, 0.0)
    }
    names: list[str] = [OURS_KEPT]
    for case in cases.values():
        names += [name for name in case.results if name not in (*names, OURS, AGAIN) and _measured(case, name)]
    height = 0.8 / len(_SERIES)
    largest = 1.0
    for index, (step, dtype, color) in enumerate(_SERIES):
        if (step, dtype) not in cases:
            continue
        case = cases[step, dtype]
        ratios = [(place, case.ratio(name)) for place, name in enumerate(names)]
        drawn = [(place, ratio) for place, ratio in ratios if ratio is not None]
        ours = case.results[OURS]
        note = f", ours {ours.least * 1e3:.3g} ms" if isinstance(ours, Timing) else ""
        places = [place + (index - 1.5) * height for place, _ in drawn]
        bars = axes.barh(places, [ratio for _, ratio in drawn], height, color=color, label=f"{step}, {dtype}{note}")
        axes.bar_label(
            bars, [f"{ratio:.2f}" for _, ratio in drawn], padding=3, fontsize=8, color=_INK, bbox=_BACKGROUND
        )
        largest = max([largest, *(ratio for _, ratio in drawn)])
    axes.axvline(1, color=_INK, linewidth=1)
    if largest > 8:
        axes.set_xscale("log")
        axes.set_xlim(0.5, largest * 1.6)
        axes.set_xticks([tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if tick <= largest * 1.6])
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, largest * 1.12)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=largest > 4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("time ÷ ours, gradient in the logits' place; right of 1, ours is faster", fontsize=9)
    axes.set_title(f"Log-probabilities from logits, {rows:,} tokens × {columns:,} columns", fontsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2, frameon=False, fontsize=9)
    _clean(axes)


def _draw_memory(axes: Axes, report: Report) -> None:
    rows, columns, hidden = report.sizes.linear_memory
    peaks = {name: peak for name, peak in report.peaks["linear_logps"].items() if isinstance(peak, Peak)}
    names = list(peaks)
    scale, unit = _unit(max((peak.beyond_inputs for peak in peaks.values()), default=1))
    beyond = [max(peak.beyond_gradients, 0) / scale for peak in peaks.values()]
    whole = [peak.beyond_inputs / scale for peak in peaks.values()]
    returned = [total - part for total, part in zip(whole, beyond)]
    colors = [_OURS if is_ours(name) else _PEER for name in names]
    light = [_OURS_LIGHT if is_ours(name) else _PEER_LIGHT for name in names]
    axes.barh(range(len(names)), beyond, 0.7, color=colors)
    bars = axes.barh(range(len(names)), returned, 0.7, left=beyond, color=light)
    axes.bar_label(bars, [f"{total:.3g}" for total in whole], padding=3, fontsize=9, color=_INK)
    _name_bars(axes, names, whole)
    axes.set_xlabel(f"{unit} beyond the inputs; light: the returned gradients", loc="right")
    dtype = report.sizes.linear_memory_dtype
    title = f"From hidden states and weight: peak memory, {rows:,} × {columns:,} × {hidden:,}, {dtype}"
    axes.set_title(title, fontsize=11, loc="right")
    _clean(axes)


def _draw_times(axes: Axes, report: Report) -> None:
    rows, columns, hidden = report.sizes.linear
    bars: list[tuple[str, float]] = []
    for case in report.of("linear_logps"):
        if case.labels["dtype"] == "bf16":
            bars += [
                (f"{name}, {case.labels['step']}", outcome.least * 1e3)
                for name, outcome in case.results.items()
                if isinstance(outcome, Timing) and name != AGAIN
            ]
    names = [name for name, _ in bars]
    values = [value for _, value in bars]
    drawn = axes.barh(range(len(names)), values, 0.7, color=[_OURS if is_ours(name) else _PEER for name in names])
    axes.bar_label(
        drawn,
        [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values],
        padding=3,
        fontsize=9,
        color=_INK,
    )
    _name_bars(axes, names, values)
    axes.set_xlabel("ms, forward + backward (least)", loc="right")
    title = f"From hidden states and weight: time, {rows:,} × {columns:,} × {hidden:,}, bf16"
    axes.set_title(title, fontsize=11, loc="right")
    _clean(axes)


def _name_bars(axes: Axes, names: list[str], values: list[float]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(values, default=1.0) * 1.2)


def _short(name: str) -> str:
    """The bars' names say only what differs: a frozen weight."""
    return _NAMES.get(name, name).removesuffix(f", {TRAINED}").replace(f", {FROZEN}", ", frozen weight")


def _unit(largest: float) -> tuple[float, str]:
    return (2**30, "GiB") if largest >= 2**30 else (2**20, "MiB")


def _measured(case: Case, name: str) -> bool:
    return not isinstance(case.results[name], Absent)


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
