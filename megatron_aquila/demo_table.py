"""What the demo shows in the end: a row a stage, and what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from megatron_aquila.evaluation.exact_match import ExactMatch


@dataclass(frozen=True)
class Row:
    """One line of the closing table; shares between 0 and 1, None where a stage has no such number.

    asked, never_asked: right answers in words to facts that dialogues ask about (in other wordings) or do not.
    preference: held-out pairs whose chosen answer gained more log-probability over the reference than the rejected.
    """

    name: str
    cloze: float
    asked: float | None = None
    never_asked: float | None = None
    preference: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None


def closing_table(rows: Sequence[Row], *, cloze: int, pairs: int) -> Table:
    """The table; `cloze` and `pairs` are how many questions and held-out pairs its numbers come from."""
    table = Table(
        title="What the model learned of the synthetic clinic, stage by stage",
        caption=f"The exports, asked in transformers. Cloze: {cloze} questions of 4 options, chance is 25 %. Exact "
        "match: right answers in words, to questions that fine-tuning put in other words, and to ones about facts that "
        f"it never asked about. Preference: of {pairs} held-out pairs, those whose better answer gained more than the "
        "worse one over SFT. Losses are per token, of DPO per pair; validation is of the weights exported.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    headings = ("cloze", "exact\nmatch", "of facts\nunasked", "prefer-\nence", "train\nloss", "valid\nloss")
    table.add_column("", no_wrap=True)
    for heading in (*headings, "tokens\n/s", "time"):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        table.add_row(
            row.name,
            f"{row.cloze:.1%}",
            shown(row.asked, ".1%"),
            shown(row.never_asked, ".1%"),
            shown(row.preference, ".1%"),
            shown(row.train_loss, ".3f"),
            shown(row.validation_loss, ".3f"),
            shown(row.tokens_per_second, ",.0f"),
            "" if row.seconds is None else f"{row.seconds:.0f} s",
        )
    return table


def answers(found: ExactMatch) -> Table:
    """Some questions and what the model said."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for example in found.examples:
        table.add_row("asked", Text(example.question))
        table.add_row("said", Text(example.said).append(" ✓" if example.right else " ✗", style="dim"))
    return table
