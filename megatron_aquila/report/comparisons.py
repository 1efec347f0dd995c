"""Models beside each other over the same questions: differences with intervals, and the verdict in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.evaluation.comparison import Against, ComparisonError, Row, compare
from megatron_aquila.report.charts import Whisker, points_label, whiskers
from megatron_aquila.report.scores import Scored
from megatron_aquila.report.words import figure, p_value, verdict_word, wide_table

_SERIES = {"better": 2, "worse": 1, "not distinguishable": 5}


def comparison_section(scored: Sequence[Scored]) -> Markup:
    """Each evaluation beside the one before it of the same suite, and the last beside the first."""
    suites: dict[str | None, list[Scored]] = {}
    for one in scored:
        suites.setdefault(one.evaluation.suite, []).append(one)
    parts: list[Markup] = []
    for members in suites.values():
        pairs = list(pairwise(members))
        if len(members) > 2:
            pairs.append((members[0], members[-1]))
        for before, after in pairs:
            parts.append(_compared(before, after))
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


def _compared(before: Scored, after: Scored) -> Markup:
    title = f"{after.name} beside {before.name}"
    try:
        found = compare(before.directory, after.directory).others[0]
    except ComparisonError as error:
        return join([tag("h3", title), tag("p", f"Not compared: {error}.", class_="note")])
    words = Counter[str](row.verdict for row in found.rows)
    said = ", ".join(f"{count(words[word])} {word}" for word in _SERIES if words[word])
    strips = [(_title(row), [_strip(row)], verdict_word(row.verdict)) for row in found.rows]
    parts = [
        tag("h3", title, tag("span", said, class_="note")),
        whiskers(strips, bounds=(-1.0, 1.0), written=points_label, level=0.0),
        details("the figures", _table(found)),
    ]
    if found.notes:
        parts.append(tag("p", f"{'; '.join(found.notes)}.", class_="note"))
    return join(parts)


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
