"""What the runs were trained on: the funnels of corpora, dialogues and pairs in short, and what leaked into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.pages.charts import bar
from data_tools.pages.html import Markup, count, join, percent, short, tag
from megatron_aquila.report.curves import ReportError
from megatron_aquila.report.runs import Run, read_json
from megatron_aquila.report.words import short_path

FUNNEL, PAGE = "funnel.json", "funnel.html"
_PAIR_STEPS = {"candidates": "usable", "draw": "drawn and used", "pairs": "became a pair", "length balance": "balanced"}


@dataclass(frozen=True)
class Published:
    """A directory of published data, the runs that read of it, and which of its parts."""

    directory: Path
    written: str  # the directory as the configuration writes it, or its end
    funnel: Mapping[str, Any]
    uses: tuple[tuple[str, str], ...]  # (run's name, part as in `stage1`)


def find_published(runs: Iterable[Run], names: Mapping[Path, str]) -> list[Published]:
    """The funnels beside the data that the runs' configurations name, in the order of the runs.

    Raises: ReportError.
    """
    uses: dict[Path, dict[tuple[str, str], None]] = {}
    written: dict[Path, str] = {}
    for run in runs:
        for part in ("train", "valid"):
            for path in run.data(part):
                found = run.find(path)
                if found is not None and (found.parent / FUNNEL).is_file():
                    where = found.parent.resolve()
                    uses.setdefault(where, {})[names[run.path], found.name] = None
                    written.setdefault(where, short_path(str(Path(path).parent)))
    return [Published(where, written[where], read_json(where / FUNNEL), tuple(what)) for where, what in uses.items()]


def data_section(published: Sequence[Published]) -> Markup:
    """A short funnel for each; nothing where no data has one."""
    parts: list[str] = []
    for one in published:
        try:
            drawn = _rows(one.funnel)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            path = one.directory / FUNNEL
            raise ReportError(
                f"{path} is not a funnel that this version reads ({error!r}): make the data anew"
            ) from error
        if not drawn:
            continue
        used: dict[str, list[str]] = {}
        for run, part in one.uses:
            used.setdefault(part, []).append(run)
        by = "; ".join(f"{part} by {', '.join(who)}" for part, who in used.items())
        parts += [
            tag("h3", str(one.funnel.get("name") or one.directory.name), tag("span", f"read: {by}", class_="note")),
            tag("ol", *drawn, class_="bars"),
        ]
        facts = ["digest ", tag("code", str(one.funnel.get("digest", "–"))[:16])]
        if (one.directory / PAGE).is_file():
            facts += ["; every step and its reasons: ", tag("code", f"{one.written}/{PAGE}")]
        parts.append(tag("p", *facts, class_="note"))
    return join(parts)


def _rows(funnel: Mapping[str, Any]) -> list[Markup]:
    kind = (funnel.get("format"), funnel.get("version"))
    if kind == ("corpus-funnel", 1):
        return _corpus_rows(funnel)
    if kind == ("preferences-funnel", 1):
        return _pair_rows(funnel)
    return []


def _corpus_rows(funnel: Mapping[str, Any]) -> list[Markup]:
    sizes = [("read", funnel["read"]), *((step["name"], step["out"]) for step in funnel["steps"])]
    whole = before = funnel["read"]["documents"]
    drawn = []
    for name, now in sizes:
        drawn.append(_row(name, now["documents"], before, whole, f"{short(now['tokens'])} tokens"))
        before = now["documents"]
    if funnel.get("mixes", True):
        for stage in funnel["stages"]:
            note = f"{short(stage['tokens'])} tokens mixed"
            drawn.append(_row(stage["name"], stage["documents"], stage["documents"], whole, note))
    return drawn


def _pair_rows(funnel: Mapping[str, Any]) -> list[Markup]:
    drawn = []
    for kind in funnel["kinds"]:
        steps = kind["steps"]
        whole = steps[0]["in"]
        drawn.append(_row(f"{kind['kind']}, read", whole, whole, whole, ""))
        drawn += [
            _row(_PAIR_STEPS.get(step["name"], step["name"]), step["out"], step["in"], whole, "") for step in steps
        ]
    return drawn


def _row(name: str, now: int, before: int, whole: int, note: str) -> Markup:
    drawn = [("kept", now, f"{count(now)} go on"), ("lost", max(before - now, 0), f"{count(before - now)} do not")]
    return tag(
        "li",
        tag("span", name, class_="name"),
        tag("span", bar(drawn, max(whole, now), f"{name}: {count(now)} of {count(whole)}", height=12)),
        tag("span", tag("b", count(now)), class_="number"),
        tag("span", note or percent(now, whole), class_="number note"),
    )
