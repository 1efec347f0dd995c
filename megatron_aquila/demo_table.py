"""What the demo shows in the end: a row a stage, and what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from megatron_aquila.demo_evaluation import Answers
from megatron_aquila.evaluation.results import Item
from megatron_aquila.evaluation.statistics import wilson


@dataclass(frozen=True)
class Row:
    """One line of the closing tables; None where a stage has no such number.

    preference: share of the held-out pairs whose chosen answer gained more log-probability over the reference than the
    rejected one.
    """

    name: str
    answers: Answers
    preference: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None


def training_table(rows: Sequence[Row], *, pairs: int) -> Table:
    """How training went; `pairs` is how many held-out pairs there are."""
    table = Table(
        title="Training",
        caption=f"Losses are per token, of DPO per pair; validation is of the weights exported. Preference: of {pairs} "
        "held-out pairs, those whose better answer gained more than the worse one over SFT.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in ("train\nloss", "valid\nloss", "prefer-\nence", "tokens\n/s", "time"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        if row.seconds is not None:
            table.add_row(
                row.name,
                shown(row.train_loss, ".3f"),
                shown(row.validation_loss, ".3f"),
                shown(row.preference, ".1%"),
                shown(row.tokens_per_second, ",.0f"),
                f"{row.seconds:.0f} s",
            )
    return table


def evaluation_table(rows: Sequence[Row]) -> Table:
    """What the models know, with 95 % intervals."""
    first, last = rows[0].answers, rows[-1].answers
    by_kind = {kind: len(words_of(last.words, kind)) for kind in ("wording", "fact")}
    table = Table(
        title="What the model learned of the synthetic clinic, stage by stage (right answers in %, 95 % intervals)",
        caption=f"Cloze: {len(first.cloze)} questions of 4 options about the clinic, {len(first.general)} about its "
        f"general text; chance is 25 %. In words: {by_kind['wording']} questions that fine-tuning put in other words, "
        f"and {by_kind['fact']} about facts that it never asked about.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in ("cloze", "general\ncloze", "in words", "in words,\nnot asked about"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        words = [words_of(row.answers.words, kind) for kind in ("wording", "fact")]
        table.add_row(row.name, *map(_cell, (row.answers.cloze, row.answers.general, *words)))
    return table


def words_of(items: Sequence[Item], kind: str) -> list[Item]:
    """The questions in words that are new in their `wording`, or about a `fact` that was never asked about."""
    return [item for item in items if item.subject == kind]


def _cell(items: Sequence[Item]) -> str:
    if not items:
        return ""
    right = sum(item.right for item in items)
    bounds = wilson(right, len(items))
    return f"{100 * right / len(items):.1f} ({100 * bounds.low:.0f}–{100 * bounds.high:.0f})"


def answers(found: Sequence[Item], questions: dict[str, str]) -> Table:
    """Some questions (text by id) and what the model said."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for kind in ("wording", "fact"):
        for item in words_of(found, kind)[:2]:
            table.add_row("asked", Text(questions[item.id]))
            table.add_row("said", Text(item.text or "").append(" ✓" if item.right else " ✗", style="dim"))
    return table
