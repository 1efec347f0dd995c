"""Where the time went, what the runs were told to do, and what they ran on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.pages.charts import bar
from data_tools.pages.html import Column, Markup, count, details, join, percent, tag
from megatron_aquila import events
from megatron_aquila.events import Goodput, goodput
from megatron_aquila.report.curves import ReportError
from megatron_aquila.report.runs import Run, Slot
from megatron_aquila.report.words import duration, warnings, wide_table, without_paths

_COLOURS = {
    "training": "kept",
    "repeated": "lost",
    "startup": "part-1",
    "validation": "part-3",
    "questions": "part-4",
    "saving": "part-other",
    "down": "part-down",
    "other": "part-5",
}
_KINDS = tuple(_COLOURS)
_SHOWN = 20  # warnings of a run
_TOLD = ("warning", "anomaly", "replicas")


def read_events(run: Run) -> list[events.Event]:
    """Raises: ReportError."""
    path = run.path / events.FILE
    try:
        return events.read(path)
    except ValueError as error:
        raise ReportError(f"{path} is not a file of events: {error}") from error


def goodput_of(run: Run) -> Goodput | None:
    """Raises: ReportError."""
    took = run.curves.get("throughput/step_seconds")
    records = [
        {"step": step, "throughput/step_seconds": value}
        for step, value in (zip(took.steps, took.values) if took is not None else ())
        if value == value
    ]
    try:
        return goodput(read_events(run), records)
    except (KeyError, TypeError) as error:
        raise ReportError(
            f"{run.path / events.FILE}: an event lacks or misuses {error}; a run wrote it whole"
        ) from error


def time_section(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    """A bar a run of what its time was spent on, and its warnings; nothing for runs without events."""
    found = [(run, spent) for run in runs if (spent := goodput_of(run)) is not None and spent.total_seconds > 0]
    if not found:
        return Markup()
    rows, seen = [], set()
    for run, spent in found:
        kinds = sorted(spent.by_kind, key=lambda k: _KINDS.index(k) if k in _KINDS else len(_KINDS))
        parts = [
            (_COLOURS.get(kind, "part-5"), spent.by_kind[kind], f"{kind}: {duration(spent.by_kind[kind])}")
            for kind in kinds
            if spent.by_kind[kind] > 0
        ]
        seen |= {kind for kind in kinds if spent.by_kind[kind] > 0}
        name = names[run.path]
        rows.append(
            tag(
                "li",
                tag("span", name, class_="name"),
                tag("span", bar(parts, spent.total_seconds, f"{name}: {percent(spent.share)} of the time trained")),
                tag("span", tag("b", percent(spent.share)), class_="number"),
                tag("span", f"of {duration(spent.total_seconds)}", class_="number note"),
            )
        )
    shown = [kind for kind in _KINDS if kind in seen] + sorted(seen - set(_KINDS))
    keys = tag("p", *(tag("span", tag("i", class_=_COLOURS.get(k, "part-5")), k) for k in shown), class_="legend")
    cells = [
        (
            names[run.path],
            *(duration(spent.by_kind.get(kind, 0.0)) for kind in shown),
            count(spent.restarts),
            count(spent.steps_repeated),
        )
        for run, spent in found
    ]
    headings = [Column("run"), *map(Column, shown), Column("restarts"), Column("steps trained again")]
    note = tag("p", "The share of all time that went into training steps which are part of the run in the end.")
    return join([note, tag("ol", *rows, class_="bars"), keys, wide_table(headings, cells), _warnings(runs, names)])


def _warnings(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    told = []
    for run in runs:
        found = [event for event in read_events(run) if event.get("event") in _TOLD]
        told += [(_facts(event), names[run.path], f"step {event.get('step', '?')}") for event in found[:_SHOWN]]
        if len(found) > _SHOWN:
            told.append((f"{count(len(found) - _SHOWN)} more warnings", names[run.path], ""))
    return warnings(told)


def _facts(event: Mapping[str, Any]) -> str:
    """What a warning says: its sentence, or else its facts."""
    for key in ("message", "text", "warning"):
        if isinstance(event.get(key), str):
            return without_paths(str(event[key]))
    kept = {k: v for k, v in event.items() if k not in ("time", "event", "step", "seconds", "training_seconds")}
    return without_paths(", ".join(f"{key} {value}" for key, value in kept.items())) or "no more is known"


def configuration_section(slots: Sequence[Slot], names: Mapping[Path, str]) -> Markup:
    """Each run's configuration; before it, where runs stand side by side, the keys that differ."""
    parts: list[str] = []
    for slot in slots:
        told = [run for run in slot.runs if run.config]
        if len(told) > 1:
            parts += [tag("h3", slot.title, tag("span", "what differs", class_="note")), _differences(told, names)]
    shown = [run for slot in slots for run in slot.runs if run.recipe]
    for run in shown:
        title = f"{names[run.path]}: the configuration, every default included"
        facts = tag("p", "SHA-256 of the file ", tag("code", run.digest), class_="note")
        parts.append(details(title, facts, tag("pre", run.recipe)))
    return join(parts)


def _differences(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    flat = [dict(_flat(run.config)) for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    differing = [key for key in keys if len({str(one.get(key)) for one in flat}) > 1]
    if not differing:
        return tag("p", "Nothing: the same keys have the same values.", class_="note")
    columns = [Column("key"), *(Column(names[run.path], numeric=False) for run in runs)]
    rows = [(tag("code", key), *(_value(one.get(key, "–")) for one in flat)) for key in differing]
    return wide_table(columns, rows)


def _value(value: object) -> str:
    return "null" if value is None else str(value)


def _flat(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of every leaf."""
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(one, Mapping) for one in node):
        for index, value in enumerate(node):
            yield from _flat(value, f"{key}[{index}]")
    else:
        yield key, node


def versions_section(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    """What the runs' newest checkpoints say that they were made with; runs alike share a row."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        if run.versions:
            found.setdefault(tuple(run.versions.items()), []).append(names[run.path])
    if not found:
        return Markup()
    columns = [Column("runs"), Column("made with", numeric=False)]
    return wide_table(
        columns,
        [(", ".join(who), ", ".join(f"{name} {version}" for name, version in facts)) for facts, who in found.items()],
    )
