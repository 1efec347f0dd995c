"""Evaluations side by side: every task with its interval, averages by name, and what may be said of one model beside
another over the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.results import Evaluation, Interval
from megatron_aquila.report.charts import Whisker, legend, percent_label, whiskers
from megatron_aquila.report.runs import Run
from megatron_aquila.report.words import reach, warnings, wide_table, with_interval


@dataclass(frozen=True)
class Scored:
    """An evaluation, where it lies, and what the page calls it."""

    directory: Path
    name: str
    evaluation: Evaluation


def find_scored(runs: Sequence[Run], names: Mapping[Path, str], more: Iterable[Path]) -> list[Scored]:
    """The evaluations of the runs in their order, then those of `more`; each once.

    Raises: ResultsError.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for run in runs:
        for path in results.find(run.path):
            found.setdefault(path.resolve(), (names[run.path], path))
    for path in more:
        if (path / results.FILE).is_file():
            found.setdefault(path.resolve(), ("", path))
    read = [(owner, path, results.read(path)) for owner, path in found.values()]
    titles = [owner or evaluation.model.name for owner, _, evaluation in read]
    return [
        Scored(path, title if titles.count(title) == 1 else f"{title}, {path.name}", evaluation)
        for title, (_, path, evaluation) in zip(titles, read)
    ]


def scores_section(scored: Sequence[Scored]) -> Markup:
    """Strips and a table for each group, then for tasks of none; nothing without evaluations."""
    if not scored:
        return Markup()
    parts: list[str] = [_facts(scored)]
    groups = dict.fromkeys(name for one in scored for name in one.evaluation.groups)
    for group in groups:
        members = dict.fromkeys(
            task for one in scored if group in one.evaluation.groups for task in one.evaluation.groups[group].tasks
        )
        rows = [_average_row(group, kind, scored) for kind in ("macro", "micro")]
        parts += _panel(group, rows + [row for task in members for row in _task_rows(task, scored)], scored)
    grouped = {task for one in scored for found in one.evaluation.groups.values() for task in found.tasks}
    single = dict.fromkeys(task for one in scored for task in one.evaluation.tasks if task not in grouped)
    if single:
        parts += _panel("Tasks" if groups else "", [row for task in single for row in _task_rows(task, scored)], scored)
    parts.append(_warnings(scored))
    return join(parts)


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


def _average_row(group: str, kind: str, scored: Sequence[Scored]) -> _Row:
    cells: list[_Cell | None] = []
    for one in scored:
        found = one.evaluation.groups.get(group)
        if found is None:
            cells.append(None)
            continue
        average = found.macro if kind == "macro" else found.micro
        invalid = sum(one.evaluation.tasks[task].invalid for task in found.tasks if task in one.evaluation.tasks)
        cells.append(_Cell(average.value, average.interval, found.n, invalid))
    return _Row(f"{kind} average", tuple(cells))


def _task_rows(task: str, scored: Sequence[Scored]) -> list[_Row]:
    """Accuracy, then a row for each further metric."""
    found = [one.evaluation.tasks.get(task) for one in scored]
    rows = [_Row(task, tuple(_Cell(t.accuracy, t.interval, t.n, t.invalid) if t else None for t in found))]
    for metric in dict.fromkeys(name for t in found if t for name in t.metrics):
        cells = (_Cell(t.metrics[metric], None, t.n) if t and metric in t.metrics else None for t in found)
        rows.append(_Row(f"{task}, {metric.replace('_', ' ')}", tuple(cells)))
    return rows


def _panel(title: str, rows: Sequence[_Row], scored: Sequence[Scored]) -> list[Markup]:
    strips = []
    for row in rows:
        drawn = [
            Whisker(c.value, c.interval.low, c.interval.high, i, f"{scored[i].name}: {_written(c, c.interval)}")
            for i, c in enumerate(row.cells)
            if c is not None and c.interval is not None
        ]
        if drawn:
            strips.append((row.name, drawn, ""))
    sizes = [{cell.n for cell in row.cells if cell is not None} for row in rows]
    columns = [Column(""), Column("n"), *(Column(one.name) for one in scored)]
    cells = [
        (row.name, count(min(size)) if len(size) == 1 else "differs", *(_cell(c, len(size) > 1) for c in row.cells))
        for row, size in zip(rows, sizes)
    ]
    parts = [tag("h3", title)] if title else []
    parts.append(whiskers(strips, bounds=(0.0, 1.0), written=percent_label))
    if len(scored) > 1:
        parts.append(legend([(index, "dots", one.name) for index, one in enumerate(scored)]))
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


def _warnings(scored: Sequence[Scored]) -> Markup:
    return warnings(
        [
            f"{one.name}, {name}: {text}"
            for one in scored
            for name, task in one.evaluation.tasks.items()
            for text in task.warnings
        ]
    )
