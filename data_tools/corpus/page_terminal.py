"""The funnel report's short form for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from data_tools.corpus.page import mixed, totals
from data_tools.corpus.page_steps import reasons_of
from data_tools.pages.html import count, percent, short, visible

_REASONS = 3


def terminal_summary(funnel: Mapping[str, Any]) -> Group:
    """What was read, what each step let through and why it dropped the rest, and the stages that were mixed."""
    rows = totals(funnel)
    _, whole = rows[0]
    noun = funnel.get("noun", "documents")
    table = Table(title=f"{visible(funnel['name'])}: the funnel", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in (noun, "of read", "tokens", "of read"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("dropped by reason, or done", overflow="fold")
    quarantined = sum(funnel["read"]["quarantined"].values())
    said = [f"{count(quarantined)} records quarantined" if quarantined else ""]
    for step in funnel["steps"]:
        reasons = reasons_of(step["dropped"])
        named = [f"{reason} {count(number)}" for reason, number in reasons[:_REASONS]]
        if len(reasons) > _REASONS:
            named.append(f"{len(reasons) - _REASONS} more reasons")
        if not named:
            done = sorted(step["counts"].items(), key=lambda item: (-item[1], item[0]))
            named = [f"{name} {count(number)}" for name, number in done[:_REASONS]]
        said.append(", ".join(named))
    for (name, now), text in zip(rows, said, strict=True):
        shares = [percent(now[unit], whole[unit]) for unit in ("documents", "tokens")]
        cells = (count(now["documents"]), shares[0], short(now["tokens"]), shares[1])
        table.add_row(Text(visible(name)), *cells, Text(visible(text), style="dim"))
    return Group(table, *(_stage(stage, noun, bool(mixed(funnel))) for stage in funnel["stages"]))


def _stage(stage: Mapping[str, Any], noun: str, mixes: bool) -> Text:
    if not mixes:
        return Text(visible(f"{stage['name']}: {count(stage['documents'])} {noun}, {short(stage['tokens'])} tokens"))
    parts = ", ".join(
        f"{part['name']} {percent(part['share'])} ({part['epochs']:.2f} epochs{', capped' if part['capped'] else ''})"
        for part in stage["parts"]
    )
    asked = f" of {short(stage['tokens_asked'])} asked" if stage["tokens_asked"] is not None else ""
    return Text(visible(f"{stage['name']}: {short(stage['tokens'])} tokens{asked}: {parts}"))


def plants_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Recall and precision of each step against what was planted (`plants.score_plants`)."""
    table = Table(
        title="What was planted, and what each step caught",
        caption="Recall is of the plants that reached the step. A false alarm: the step took what was not planted.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for heading in ("step", "planted"):
        table.add_column(heading, no_wrap=True)
    headings = ("number", "gone\nbefore", "caught", "missed", "recall", "false\nalarms", "preci-\nsion")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    last = ""
    for row in rows:
        counts = [count(row[key]) for key in ("planted", "earlier", "caught", "missed")]
        shares = ["" if row[key] is None else percent(row[key]) for key in ("recall", "precision")]
        alarms = "" if row["false_alarms"] is None else count(row["false_alarms"])
        style = "bold" if row["kind"] == "all" else None
        table.add_row(
            row["step"] if row["step"] != last else "", row["kind"], *counts, shares[0], alarms, shares[1], style=style
        )
        last = row["step"]
    return table
