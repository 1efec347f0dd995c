"""Models beside each other over the same questions: differences with intervals, and the verdict in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.evaluation.comparison import Against, ComparisonError, Row, compare
from megatron_aquila.report.charts import Whisker, points_label, whiskers
from megatron_aquila.report.models import Scored, by_model
from megatron_aquila.report.words import figure, p_value, verdict_word, wide_table

_SERIES = {"better": 2, "worse": 1, "not distinguishable": 5}


def comparison_section(scored: Sequence[Scored], roads: Sequence[Sequence[Path]]) -> Markup:
    """Each evaluation beside the one before it on its road (runs in order) that holds the same tasks, and the last
    beside the first. Nothing where no two share a task.
    """
    parts = [_compared(before, after) for before, after in _pairs(scored, roads)]
    if not parts:
        return Markup()
    note = tag(
        "p",
        "The same questions, answered by both: paired bootstrap over clusters for the 95\u00a0% interval, exact "
        "McNemar for p, adjusted by Holm over each comparison. A difference counts where both say so; one smaller "
        "than the least detectable may be there unseen.",
        class_="note",
    )
    return join([note, *parts])


def _pairs(scored: Sequence[Scored], roads: Sequence[Sequence[Path]]) -> list[tuple[Scored, Scored]]:
    """(before, after), each once: neighbours on the roads, the last beside the first, the ends of further roads and the
    models from elsewhere beside the first road's end.
    """
    models = list(by_model(scored).values())
    on_roads = [[m for m in sorted(models, key=_place(road)) if m[0].run in road] for road in roads]
    ends = [road[-1] for road in on_roads if road]
    elsewhere = [model for model in models if model[0].run is None]
    found: list[tuple[Scored, Scored]] = []
    for road in on_roads:
        for place, model in enumerate(road):
            found += _matched(model, road[:place][::-1])
        if road:
            found += _matched(road[-1], road[:-1])
    beside = ends or elsewhere
    for model in [*ends, *elsewhere]:
        if model is not beside[0]:
            found += _matched(model, beside[:1])
    unique = {(before.directory, after.directory): (before, after) for before, after in found}
    return list(unique.values())


def _place(road: Sequence[Path]) -> Callable[[Sequence[Scored]], int]:
    return lambda model: road.index(model[0].run) if model[0].run in road else -1


def _matched(model: Sequence[Scored], others: Sequence[Sequence[Scored]]) -> list[tuple[Scored, Scored]]:
    """Each of a model's evaluations and one of the first of `others` that was asked tasks of it."""
    pairs = []
    for one in model:
        candidates = next((found for other in others if (found := [o for o in other if _common(o, one)])), [])
        if candidates:
            pairs.append((max(candidates, key=partial(_nearness, one)), one))
    # Where two are compared, what was asked otherwise and cannot be compared is no news.
    compared = {
        (before.model, task) for before, after in pairs if _alike(before, after) for task in _common(before, after)
    }
    return [
        (before, after)
        for before, after in pairs
        if _alike(before, after) or any((before.model, task) not in compared for task in _common(before, after))
    ]


def _nearness(one: Scored, other: Scored) -> tuple[bool, bool, int, bool]:
    same_template = one.evaluation.model.chat_template == other.evaluation.model.chat_template
    return _alike(one, other), same_template, len(_common(one, other)), one.label == other.label


def _common(one: Scored, other: Scored) -> list[str]:
    return [task for task in one.evaluation.tasks if task in other.evaluation.tasks]


def _alike(one: Scored, other: Scored) -> bool:
    """Whether all tasks in common were asked alike, as a comparison wants it."""
    a, b = one.evaluation, other.evaluation
    return all(
        (x.data, x.prompt, x.kind, x.shots) == (y.data, y.prompt, y.kind, y.shots) and (not x.shots or a.seed == b.seed)
        for x, y in ((a.tasks[task], b.tasks[task]) for task in _common(one, other))
    )


def _compared(before: Scored, after: Scored) -> Markup:
    title = f"{after.name} beside {before.name}"
    if before.label == after.label and not (before.alone and after.alone):
        title = f"{after.model} beside {before.model}, {after.label}"
    try:
        found = compare(before.directory, after.directory).others[0]
    except ComparisonError as error:
        said = _with_names(str(error), before, after)
        return join([tag("h3", title), tag("p", f"Not compared: {said}.", class_="note")])
    words = Counter[str](row.verdict for row in found.rows)
    said = ", ".join(f"{count(words[word])} {word}" for word in _SERIES if words[word])
    strips = [(_title(row), [_strip(row)], verdict_word(row.verdict)) for row in found.rows]
    parts = [
        tag("h3", title, tag("span", said, class_="note")),
        whiskers(strips, bounds=(-1.0, 1.0), written=points_label, level=0.0),
        details("the figures", _table(found)),
    ]
    if found.notes:
        parts.append(tag("p", f"{_with_names('; '.join(found.notes), before, after)}.", class_="note"))
    return join(parts)


def _with_names(text: str, *scored: Scored) -> str:
    """The text with the evaluations' names for their directories, the longer first: one may begin another."""
    for one in sorted(scored, key=lambda one: -len(str(one.directory))):
        text = text.replace(str(one.directory), one.name)
    return text


def _strip(row: Row) -> Whisker:
    tip = f"{100 * row.difference:+.1f} points ({_reach(row)}), {row.verdict}"
    return Whisker(row.difference, row.interval.low, row.interval.high, _SERIES.get(row.verdict, 5), tip)


def _table(found: Against) -> Markup:
    columns = [Column(""), Column("n"), Column("before"), Column("after"), Column("difference, points")]
    columns += [Column("gained, lost"), Column("p"), Column("p, Holm"), Column("least detectable")]
    rows = [
        (
            _title(row),
            count(row.n),
            f"{100 * row.first:.1f}\u00a0%",
            f"{100 * row.other:.1f}\u00a0%",
            figure(f"{100 * row.difference:+.1f}", _reach(row)),
            f"{count(row.gained)}, {count(row.lost)}",
            p_value(row.p),
            p_value(row.adjusted),
            f"{100 * row.detectable:.1f}",
            verdict_word(row.verdict),
        )
        for row in found.rows
    ]
    return wide_table([*columns, Column("verdict", numeric=False)], rows)


def _title(row: Row) -> str:
    return row.name if row.kind == "task" else f"{row.name}, {row.kind} average"


def _reach(row: Row) -> str:
    return f"{100 * row.interval.low:+.1f} to {100 * row.interval.high:+.1f}"
