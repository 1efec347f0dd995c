"""How the report writes durations, shares with intervals, p values and verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from data_tools.pages.html import Column, Markup, join, percent, table, tag
from megatron_aquila.evaluation.results import Interval


def duration(seconds: float) -> str:
    """12 s, 4 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 59.5:
        return f"{seconds:.0f}\u00a0s" if seconds >= 9.95 or not seconds else f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    for unit, name, below, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit:,}\u00a0{name}" + (f" {rest}\u00a0{lesser}" if rest else "")
    return f"{whole // 60}\u00a0min" + (f" {whole % 60}\u00a0s" if whole % 60 else "")


def with_interval(value: float | None, interval: Interval | None, *notes: str) -> Markup:
    """A share in per cent, its interval behind it, notes below."""
    if value is None:
        return join(["–"])
    return figure(percent(value), reach(interval), *notes)


def figure(value: str, *notes: str) -> Markup:
    """A figure with what belongs to it: the first note on its line, the others below."""
    first, rest = notes[:1], notes[1:]
    beside = [part for note in first if note for part in (" ", tag("span", note, class_="note"))]
    below = [tag("span", note, class_="note below") for note in rest if note]
    return tag("span", tag("b", value), *beside, *below, class_="score")


def reach(interval: Interval | None) -> str:
    """An interval of shares: 46.4–52.3, in per cent."""
    return "" if interval is None else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return f"{p:.2g}" if p >= 0.001 else "<\u00a00.001"


def verdict_word(word: str | None) -> Markup:
    """better, worse or not distinguishable; the first two stand out."""
    return tag("span", word or "–", class_=word if word in ("better", "worse") else None)


def warnings(told: Iterable[tuple[str, str, str]]) -> Markup:
    """Sentences that should not be overlooked, from (sentence, whom it is about, where or ""); each once, with all
    that it holds for. Nothing where there are none.
    """
    places: dict[str, dict[str, dict[str, None]]] = {}
    for text, who, where in told:
        places.setdefault(text, {}).setdefault(who, {})[where] = None
    drawn = []
    for text, owners in places.items():
        held: dict[tuple[str, ...], list[str]] = {}  # where → who: runs with the same places share an entry
        for who, told_at in owners.items():
            held.setdefault(tuple(filter(None, told_at)), []).append(who)
        entries = [f"{', '.join(who)}{': ' if where else ''}{_some(where)}" for where, who in held.items()]
        drawn.append(tag("li", text, " ", tag("span", f"({'; '.join(entries)})", class_="where")))
    return tag("ul", *drawn, class_="warnings") if drawn else Markup()


def _some(names: Sequence[str], shown: int = 6) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def short_path(path: str) -> str:
    """A path as it may stand on the page: one of the machine loses all but its end."""
    parts = PurePath(path).parts
    return path if not PurePath(path).is_absolute() else "/".join(("…", *parts[1:][-2:]))


def without_paths(sentence: str) -> str:
    """A sentence with its absolute paths made short."""
    return _ABSOLUTE.sub(lambda found: short_path(found[0]), sentence)


_ABSOLUTE = re.compile(r"(?<![\w.…:/<-])/(?:[^\s/,;:'\"<>()]+/)+[^\s/,;:'\"<>()]*[^\s/,;:.'\"<>()]")


def wide_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls by itself, should it not fit."""
    return tag("div", table(columns, rows), class_="scroll")
