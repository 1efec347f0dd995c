"""The curves of a place on the road: one run's, or several over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.report.charts import Chart, Line, grid, legend
from megatron_aquila.report.curves import Curve, smooth
from megatron_aquila.report.questions import question_section
from megatron_aquila.report.runs import Run, Slot
from megatron_aquila.report.scales import label
from megatron_aquila.report.words import duration, wide_table

# Measures that have a chart of their own, in this order, and the chart but for its lines.
# Without train/ or validation/:
_STAGE_CHARTS = {
    "rewards/margins": Chart("reward margin", level=0.0, legend=False),
    "rewards/accuracies": Chart("reward accuracy", level=0.5, floor=0.0, ceiling=1.0, shares=True, legend=False),
}
# Of chosen and of rejected:
_PAIRED_CHARTS = {
    "rewards": Chart("rewards", note="dots: validation", level=0.0),
    "logps": Chart("log-probability", note="nats"),
}
_MACHINE_CHARTS = {
    "train/lr": Chart("learning rate", holds=(0.0,)),
    "train/grad_norm": Chart("gradient norm", log=None),
    "throughput/tokens_per_second": Chart("tokens per second", holds=(0.0,)),
    "throughput/mfu": Chart("model FLOPs utilisation", holds=(0.0,), shares=True),
    "memory/peak_gib": Chart("peak memory", note="GiB a rank", holds=(0.0,)),
}
# Drawn, counted or told elsewhere.
_KNOWN = {"train/loss", "validation/loss", "train/supervised_tokens", *_MACHINE_CHARTS}
_KNOWN |= {
    f"{part}/{name}"
    for part in ("train", "validation")
    for name in (*_STAGE_CHARTS, *(f"{name}/{side}" for name in _PAIRED_CHARTS for side in ("chosen", "rejected")))
}


def stage_section(slot: Slot, names: Mapping[Path, str]) -> Markup:
    """Loss, what the stage itself measures, and the machine; nothing where nothing was logged."""
    runs = [run for run in slot.runs if run.curves]
    if not runs:
        silent = ", ".join(names[run.path] for run in slot.runs)
        return tag("p", f"{silent}: nothing has been logged yet.", class_="note")
    unit = "per pair" if any("train/rewards/margins" in run.curves for run in runs) else "per supervised token"
    parts: list[str] = [tag("p", join(_summary(run) for run in runs), class_="note")] if len(runs) == 1 else []
    if len(runs) > 1:
        parts.append(legend([(index, "line", names[run.path]) for index, run in enumerate(runs)]))
    measure = _Measures(runs, names)
    charts = [Chart("loss", measure.lines("loss"), note=f"nats {unit}", log=None, wide=True)]
    charts += [replace(chart, lines=measure.lines(name)) for name, chart in _STAGE_CHARTS.items()]
    charts += [replace(chart, lines=measure.sides(name)) for name, chart in _PAIRED_CHARTS.items()]
    counters = {f"train/{found[0]}" for run in runs if (found := run.samples)}
    others = {
        name.partition("/")[2]
        for run in runs
        for name in run.curves
        if name.startswith(("train/", "validation/")) and name not in _KNOWN | counters
    }
    charts += [Chart(name.replace("_", " "), measure.lines(name), log=None) for name in sorted(others)]
    charts += [replace(chart, lines=measure.plain(name)) for name, chart in _MACHINE_CHARTS.items()]
    parts += [grid(charts), _validations(runs, names), question_section(runs, names)]
    return join(part for part in parts if part)


def _summary(run: Run) -> str:
    facts = [f"{count(run.steps)} steps"]
    if run.samples:
        facts.append(f"{count(run.samples[1])} {run.samples[0]}")
    tokens = run.curves.get("train/supervised_tokens")
    if tokens is not None and tokens.last is not None and run.stage != "dpo":
        facts.append(f"{count(tokens.last)} supervised tokens")
    if run.training_seconds:
        facts.append(f"{duration(run.training_seconds)} of training steps")
    return ", ".join(facts) + "."


class _Measures:
    """The lines of a chart. One run: training in one colour, validation in the next. Several: a colour each, named
    above all charts; validation is dots.
    """

    def __init__(self, runs: Sequence[Run], names: Mapping[Path, str]) -> None:
        self._runs = runs
        self._names = names
        self.single = len(runs) == 1

    def plain(self, name: str) -> list[Line]:
        noisy = name not in ("train/lr", "memory/peak_gib")
        return [
            line
            for series, run in enumerate(self._runs)
            if (curve := run.curves.get(name)) is not None
            for line in (self._smoothed(curve, series, "") if noisy else [Line(curve, series)])
        ]

    def lines(self, name: str) -> list[Line]:
        """Training and validation."""
        found: list[Line] = []
        for series, run in enumerate(self._runs):
            training, validation = run.curves.get(f"train/{name}"), run.curves.get(f"validation/{name}")
            if training is not None:
                found += self._smoothed(training, series, "training" if self.single else "")
            if validation is not None:
                text = "validation" if self.single else f"{self._names[run.path]}, validation"
                found.append(Line(validation, series + self.single, text, "dots"))
        return found

    def sides(self, name: str) -> list[Line]:
        """Chosen and rejected; of one run validation too."""
        found: list[Line] = []
        for index, run in enumerate(self._runs):
            for side, text in enumerate(("chosen", "rejected")):
                curve = run.curves.get(f"train/{name}/{text}")
                series = side if self.single else index
                if curve is not None:
                    found += self._smoothed(curve, series, text if self.single else "")
                checked = run.curves.get(f"validation/{name}/{text}")
                if checked is not None and self.single:
                    found.append(Line(checked, series, f"{text}, validation", "dots", named=False))
        return found

    @staticmethod
    def _smoothed(curve: Curve, series: int, name: str) -> list[Line]:
        """The values themselves; behind their running mean where there are many."""
        mean = smooth(curve)
        if mean is None:
            return [Line(curve, series, name)]
        return [Line(curve, series, style="faint"), Line(mean, series, f"{name}, smoothed" if name else "", "trend")]


def _validations(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    """What the dots are, in figures."""
    found = [(run, run.curves["validation/loss"]) for run in runs if "validation/loss" in run.curves]
    if not found:
        return Markup()
    measures = [
        (f"validation/{name}", title)
        for name, title in (("loss", "loss"), *((name, chart.title) for name, chart in _STAGE_CHARTS.items()))
        if any(f"validation/{name}" in run.curves for run in runs)
    ]
    rows = []
    for run, losses in found:
        values = [_by_step(run, name) for name, _ in measures]
        # A long run's table shows its last validations: the curve has all.
        for step in [*dict.fromkeys(losses.steps)][-_ROWS:]:
            title = f"step {count(step)}" if len(found) == 1 else f"{names[run.path]}, step {count(step)}"
            rows.append((title, *(value.get(step, "–") for value in values)))
    columns = [Column("at"), *(Column(title) for _, title in measures)]
    summary = "validation in figures" if all(len(c) <= _ROWS for _, c in found) else f"the last {_ROWS} validations"
    return details(summary, wide_table(columns, rows))


_ROWS = 40


def _by_step(run: Run, name: str) -> dict[float, str]:
    curve = run.curves.get(name)
    if curve is None:
        return {}
    if "accuracies" in name:
        return {step: f"{100 * value:.1f}\u00a0%" for step, value in curve.finite}
    return {step: f"{value:.4f}" for step, value in curve.finite}


def verdict(run: Run) -> str:
    """One sentence: what became of the loss."""
    losses, validation = run.curves.get("train/loss"), run.curves.get("validation/loss")
    checked = validation.finite if validation is not None else []
    if len(checked) > 1:
        (_, first), (at, last) = checked[0], checked[-1]
        where, best = min(checked, key=lambda one: one[1])
        if best == last:
            said = f"validation loss went from {_loss(first)} to {_loss(last)}, its lowest, at step {count(at)}"
        else:
            said = f"validation loss was lowest, {_loss(best)}, at step {count(where)} and ended at {_loss(last)}"
    elif checked:
        said = f"validation loss {_loss(checked[0][1])} at step {count(checked[0][0])}"
    elif losses is not None and losses.finite:
        said = f"training loss went from {_loss(losses.finite[0][1])} to {_loss(losses.finite[-1][1])}"
    else:
        return "Nothing has been logged yet."
    if "validation/rewards/accuracies" in run.curves:
        accuracy = run.curves["validation/rewards/accuracies"].last
        margin = run.curves.get("validation/rewards/margins")
        if accuracy is not None:
            said += f"; the chosen answer has the higher reward in {100 * accuracy:.1f}\u00a0% of the validation pairs"
        if margin is not None and margin.last is not None:
            said += f", by {label(margin.last)} on average"
    lost = [name for name, curve in run.curves.items() if curve.lost]
    if lost:
        said += f"; not finite at times: {', '.join(sorted(lost))}"
    return f"{said[0].upper()}{said[1:]}."


def _loss(value: float) -> str:
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 else label(value)
