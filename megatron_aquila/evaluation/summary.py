"""From items to the figures of a task, a group and the closing table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from megatron_aquila.evaluation.results import Average, Evaluation, GroupResult, Interval, Item, TaskResult
from megatron_aquila.evaluation.statistics import (
    Estimate,
    clustered_standard_error,
    macro_average,
    micro_average,
    wilson,
)

_NAME_COLUMNS = 24  # of a terminal, for names at least: narrower ones fold into what nobody reads


def task_result(
    items: Sequence[Item],
    *,
    group: str | None,
    shots: int,
    kind: str,
    data: str,
    prompt: str,
    metrics: Mapping[str, float],
    warnings: Sequence[str] = (),
) -> TaskResult:
    """The figures of one task; the arguments are those of `TaskResult` that items do not tell.

    Raises:
        StatisticsError: there is no item.
    """
    right = sum(item.right for item in items)
    clusters = [item.cluster for item in items]
    interval = wilson(right, len(items))
    error = clustered_standard_error([item.right for item in items], clusters)
    return TaskResult(
        group=group,
        n=len(items),
        right=right,
        invalid=sum(item.invalid for item in items),
        accuracy=right / len(items),
        interval=interval,
        # One cluster tells nothing of how clusters differ.
        standard_error=error if math.isfinite(error) else None,
        clusters=len(set(clusters)),
        metrics=dict(metrics),
        shots=shots,
        kind=kind,
        data=data,
        prompt=prompt,
        warnings=tuple(warnings),
    )


def group_result(tasks: Mapping[str, TaskResult]) -> GroupResult:
    """Both averages over the tasks of a group."""
    right, n = [task.right for task in tasks.values()], [task.n for task in tasks.values()]
    return GroupResult(
        tasks=tuple(tasks),
        n=sum(n),
        macro=_average(macro_average(right, n)),
        micro=_average(micro_average(right, n)),
    )


def _average(estimate: Estimate) -> Average:
    return Average(value=estimate.value, interval=estimate.interval)


def groups_of(tasks: Mapping[str, TaskResult]) -> dict[str, GroupResult]:
    """The averages of every group that has two tasks or more among `tasks`."""
    members: dict[str, dict[str, TaskResult]] = {}
    for name, task in tasks.items():
        if task.group is not None:
            members.setdefault(task.group, {})[name] = task
    return {group: group_result(found) for group, found in members.items() if len(found) > 1}


def table(evaluation: Evaluation) -> Table:
    """What was found, a row a task and two a group, with 95 % intervals. What is alike for all tasks has no column."""
    tasks = evaluation.tasks
    shots = {task.shots for task in tasks.values()}
    alike = f"{_shots(shots.pop())} before each question. " if len(shots) == 1 else ""
    made = Table(
        title=f"{evaluation.model.name}: {evaluation.suite or 'chosen tasks'}",
        caption=f"{alike}Intervals are 95 %: Wilson's for a task and for a micro average (all questions alike); the "
        "macro average weighs tasks alike. Invalid answers count as wrong.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    made.add_column("", overflow="fold", min_width=_NAME_COLUMNS)
    has_invalid = any(task.invalid for task in tasks.values())
    optional = [*(["invalid"] if has_invalid else []), *([] if alike else ["shots"])]
    for heading in ("n", "accuracy", "95 %", *optional):
        made.add_column(heading, justify="right", no_wrap=True)
    shown: set[str] = set()
    for name, task in tasks.items():
        group = task.group if task.group in evaluation.groups else None
        if group is not None and group not in shown:
            shown.add(group)
            for kind in ("macro", "micro"):
                average: Average = getattr(evaluation.groups[group], kind)
                count = f"{evaluation.groups[group].n:,}"
                made.add_row(_name(f"{group}, {kind}", "bold"), count, share(average.value), interval(average.interval))
        figures = {"invalid": f"{task.invalid:,}" if task.invalid else "", "shots": str(task.shots)}
        made.add_row(
            _name(name if group is None else "  " + name.removeprefix(f"{group}_")),
            f"{task.n:,}",
            share(task.accuracy),
            interval(task.interval),
            *(figures[column] for column in optional),
        )
        for metric, value in task.metrics.items():
            made.add_row(_name(f"    {metric.replace('_', ' ')}", "dim"), "", share(value))
    return made


def _name(text: str, style: str = "") -> Text:
    return Text(text, style=style, overflow="fold")


def _shots(number: int) -> str:
    return {0: "No examples", 1: "1 example"}.get(number, f"{number} examples")


def share(value: float) -> str:
    """0.4932 as 49.3 %."""
    return f"{100 * value:.1f} %"


def interval(bounds: Interval) -> str:
    """As 46.4–52.3."""
    return f"{100 * bounds.low:.1f}–{100 * bounds.high:.1f}"


def print_summary(evaluation: Evaluation, console: Console) -> None:
    """The table, what is to be known of its figures, and what a judge can now read."""
    if evaluation.tasks:
        console.print(table(evaluation))
    notes: dict[str, list[str]] = {}
    for name, task in evaluation.tasks.items():
        for warning in task.warnings:
            notes.setdefault(warning, []).append(name)
    for warning, names in notes.items():
        whose = names[0] if len(names) == 1 else _whose(names, evaluation)
        console.print(f"{whose}: {warning}", highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for name, answers in evaluation.dialogues.items():
        console.print(f"{name}: {answers:,} answers, for `aquila judge`", highlight=False, markup=False)


def _whose(names: Sequence[str], evaluation: Evaluation) -> str:
    """Tasks that share a note, by their group where they are all of one."""
    if len(names) == len(evaluation.tasks):
        return "all tasks"
    groups = {evaluation.tasks[name].group for name in names}
    group = groups.pop() if len(groups) == 1 else None
    return group if group is not None else ", ".join(names)
