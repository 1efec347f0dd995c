"""Models side by side: every task with its interval, and averages by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.evaluation.results import GroupResult, Interval, TaskResult
from megatron_aquila.report.charts import Whisker, legend, percent_label, whiskers
from megatron_aquila.report.models import Scored, asked_apart, by_model
from megatron_aquila.report.words import reach, warnings, wide_table, with_interval


def scores_section(scored: Sequence[Scored]) -> Markup:
    """Strips and a table for each group, then for tasks of none, with a column for each model."""
    if not scored:
        return Markup()
    models = by_model(scored)
    parts: list[str] = [_facts(scored)]
    groups = dict.fromkeys(name for one in scored for name in one.evaluation.groups)
    for group in groups:
        members = dict.fromkeys(
            task for one in scored if group in one.evaluation.groups for task in one.evaluation.groups[group].tasks
        )
        parts += _panel(
            group, _average_rows(group, models) + [r for task in members for r in _task_rows(task, models)], models
        )
    grouped = {task for one in scored for found in one.evaluation.groups.values() for task in found.tasks}
    single = dict.fromkeys(task for one in scored for task in one.evaluation.tasks if task not in grouped)
    if single:
        rows = [row for task in single for row in _task_rows(task, models)]
        parts += _panel("Tasks" if groups else "", rows, models)
    parts.append(_warnings(models))
    return join(parts)


_Models = Mapping[str, Sequence[Scored]]  # the page's name of a model → its evaluations


@dataclass(frozen=True)
class _Cell:
    value: float
    interval: Interval | None  # None: a metric that has none
    n: int
    invalid: int = 0


@dataclass(frozen=True)
class _Row:
    name: str
    cells: tuple[_Cell | None, ...]  # one a model


def _average_rows(group: str, models: _Models) -> list[_Row]:
    """Macro, then micro averages."""

    def members(one: Scored) -> list[TaskResult]:
        found = one.evaluation.groups.get(group)
        return [one.evaluation.tasks[task] for task in found.tasks if task in one.evaluation.tasks] if found else []

    def cell(one: Scored, kind: str) -> _Cell:
        found: GroupResult = one.evaluation.groups[group]
        average = found.macro if kind == "macro" else found.micro
        return _Cell(average.value, average.interval, found.n, sum(task.invalid for task in members(one)))

    asked = asked_apart(list(models.values()), members)
    return [
        _Row(_named(f"{kind} average", manner), tuple(None if one is None else cell(one, kind) for one in row))
        for kind in ("macro", "micro")
        for manner, row in asked
    ]


def _task_rows(task: str, models: _Models) -> list[_Row]:
    """Accuracy, then a row for each further metric."""
    asked = asked_apart(
        list(models.values()), lambda one: [found] if (found := one.evaluation.tasks.get(task)) is not None else []
    )
    rows = []
    for manner, row in asked:
        found = [None if one is None else one.evaluation.tasks[task] for one in row]
        cells = (None if t is None else _Cell(t.accuracy, t.interval, t.n, t.invalid) for t in found)
        rows.append(_Row(_named(task, manner), tuple(cells)))
        for metric in dict.fromkeys(name for t in found if t for name in t.metrics):
            cells = (_Cell(t.metrics[metric], None, t.n) if t and metric in t.metrics else None for t in found)
            rows.append(_Row(_named(f"{task}, {metric.replace('_', ' ')}", manner), tuple(cells)))
    return rows


def _named(name: str, manner: str) -> str:
    return f"{name} ({manner})" if manner else name


def _panel(title: str, rows: Sequence[_Row], models: _Models) -> list[Markup]:
    names = list(models)
    strips = []
    for row in rows:
        drawn = [
            Whisker(c.value, c.interval.low, c.interval.high, i, f"{names[i]}: {_written(c, c.interval)}")
            for i, c in enumerate(row.cells)
            if c is not None and c.interval is not None
        ]
        if drawn:
            strips.append((row.name, drawn, ""))
    sizes = [{cell.n for cell in row.cells if cell is not None} for row in rows]
    columns = [Column(""), Column("n"), *map(Column, names)]
    cells = [
        (row.name, count(min(size)) if len(size) == 1 else "differs", *(_cell(c, len(size) > 1) for c in row.cells))
        for row, size in zip(rows, sizes)
    ]
    parts = [tag("h3", title)] if title else []
    parts.append(whiskers(strips, bounds=(0.0, 1.0), written=percent_label))
    if len(names) > 1:
        parts.append(legend([(index, "dots", name) for index, name in enumerate(names)]))
    return [*parts, wide_table(columns, cells)]


def _cell(cell: _Cell | None, with_n: bool) -> Markup:
    if cell is None:
        return join(["–"])
    size = f"n {count(cell.n)}" if with_n else ""
    return with_interval(cell.value, cell.interval, size, f"{count(cell.invalid)} invalid" if cell.invalid else "")


def _written(cell: _Cell, interval: Interval) -> str:
    return f"{100 * cell.value:.1f} % ({reach(interval)}) of {count(cell.n)}"


def _facts(scored: Sequence[Scored]) -> Markup:
    note = tag(
        "p",
        "Accuracy; the whiskers, and the figures behind it, are its 95\u00a0% interval. Answers out of which nothing "
        "could be read are invalid and count as wrong. Macro averages weigh tasks alike, "
        "micro averages questions.",
        class_="note",
    )
    columns = ["model", "suite", "shots", "prompt", "asked through", "precision", "weights"]
    rows = []
    for one in scored:
        model, tasks = one.evaluation.model, one.evaluation.tasks.values()
        shots = sorted({task.shots for task in tasks})
        kinds = sorted({task.kind for task in tasks})
        where = model.name if model.step is None else f"{model.name}, step {count(model.step)}"
        rows.append(
            (
                one.name if one.name == where else f"{one.name} ({where})",
                one.evaluation.suite or "chosen tasks",
                ", ".join(map(str, shots)) or "–",
                f"{'chat template' if model.chat_template else 'plain text'}, {', '.join(kinds)}",
                f"{model.backend}, {model.layout}",
                model.precision,
                tag("code", model.digest[:12]),
            )
        )
    made = wide_table([Column(name, numeric=False) for name in columns], rows)
    return join([note, details("how the models were asked", made)])


def _warnings(models: _Models) -> Markup:
    told = [
        (text, name, task)
        for name, evaluations in models.items()
        for one in evaluations
        for task, found in one.evaluation.tasks.items()
        for text in found.warnings
    ]
    return warnings(told)
