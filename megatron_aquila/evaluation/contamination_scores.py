"""An evaluation's scores on the items that training data holds and on the others, and the tables of both reports."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from rich import box
from rich.table import Table

from megatron_aquila.evaluation import results, statistics
from megatron_aquila.evaluation.comparison import probability
from megatron_aquila.evaluation.contamination import Contamination, ContaminationError
from megatron_aquila.evaluation.results import Interval
from megatron_aquila.evaluation.statistics import Verdict
from megatron_aquila.evaluation.summary import interval, share


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subset(_Record):
    """Some of a task's items; the accuracy of none is None."""

    n: int
    right: int
    accuracy: float | None
    interval: Interval | None = Field(description="Wilson, 95 %")


class SplitScore(_Record):
    """A task's items by whether training data holds them. The difference is flagged less clean: None without both."""

    task: str
    clean: Subset
    flagged: Subset
    difference: float | None
    interval: Interval | None = Field(description="Newcombe, 95 %")
    p: float | None = Field(description="two shares, z")
    adjusted: float | None = Field(description="Holm, over the tasks")
    verdict: Verdict | None = Field(
        description="of the flagged items' score: better says that they are answered better"
    )


def split_scores(evaluation: Path, contamination: Contamination) -> list[SplitScore]:
    """Each task whose questions the report was made of, by the SHA-256 of their file.

    Items that are too short to be looked for count as clean. Harder or easier items may be held more often: a
    difference is a hint, no proof that what was seen was remembered.

    Raises:
        ContaminationError: the report is of none of the evaluation's questions.
        ResultsError: the directory is not an evaluation.
    """
    scored = results.read(evaluation)
    sets = {found.data: found for found in contamination.sets.values()}
    rows: list[tuple[str, Subset, Subset]] = []
    for name, task in scored.tasks.items():
        if task.data not in sets:
            continue
        held = {item.id for item in sets[task.data].items}
        items = results.read_items(evaluation, name)
        flagged = [item.right for item in items if item.id in held]
        rows.append((name, _subset([item.right for item in items if item.id not in held]), _subset(flagged)))
    if not rows:
        raise ContaminationError(
            f"the report is of other questions than {evaluation} (files are told by their SHA-256): make it with the "
            "data that was evaluated"
        )
    ps = {
        name: statistics.two_proportions(clean.right / clean.n, clean.n, flagged.right / flagged.n, flagged.n)
        for name, clean, flagged in rows
        if clean.n and flagged.n
    }
    adjusted = dict(zip(ps, statistics.holm(list(ps.values()))))
    return [_split(name, clean, flagged, ps.get(name), adjusted.get(name)) for name, clean, flagged in rows]


def _split(name: str, clean: Subset, flagged: Subset, p: float | None, adjusted: float | None) -> SplitScore:
    if p is None or adjusted is None:
        return SplitScore(
            task=name, clean=clean, flagged=flagged, difference=None, interval=None, p=None, adjusted=None, verdict=None
        )
    found = statistics.share_difference(clean.right, clean.n, flagged.right, flagged.n)
    return SplitScore(
        task=name,
        clean=clean,
        flagged=flagged,
        difference=found.value,
        interval=found.interval,
        p=p,
        adjusted=adjusted,
        verdict=statistics.verdict(found.interval, adjusted),
    )


def _subset(right: list[bool]) -> Subset:
    n, count = len(right), sum(right)
    if not n:
        return Subset(n=0, right=0, accuracy=None, interval=None)
    return Subset(n=n, right=count, accuracy=count / n, interval=statistics.wilson(count, n))


def table(contamination: Contamination) -> Table:
    """What was found, a row a set, and a row a task where a set serves several."""
    made = Table(
        title="Evaluation items in the training data",
        caption=f"Training data {contamination.digest[:12]}. Flagged: held by one record or more; 95 %: Wilson. Too "
        "short: cannot be told from ordinary text, and not looked for.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    made.add_column("")
    for heading in ("n", "too short", "flagged", "share", "95 %"):
        made.add_column(heading, justify="right")
    made.add_column("found by")
    for name, row in [*contamination.sets.items(), *((f"  {name}", row) for name, row in contamination.tasks.items())]:
        parts = ", ".join(f"{part} {count:,}" for part, count in getattr(row, "parts", {}).items())
        cells = (f"{row.n:,}", f"{row.too_short:,}", f"{row.flagged:,}", share(row.share), interval(row.interval))
        made.add_row(name, *cells, parts)
    return made


def scores_table(name: str, scores: list[SplitScore]) -> Table:
    """Accuracy on the clean and the flagged items; differences in points."""
    made = Table(
        title=f"{name}: with and without items that were trained on",
        caption="Flagged less clean, in points, 95 % (Newcombe); p: two shares, after Holm.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    made.add_column("")
    for heading in ("clean", "n", "flagged", "n", "difference", "95 %", "p"):
        made.add_column(heading, justify="right")
    made.add_column("flagged items")
    for row in scores:
        cells = []
        for subset in (row.clean, row.flagged):
            cells += ["" if subset.accuracy is None else share(subset.accuracy), f"{subset.n:,}"]
        if row.difference is not None and row.interval is not None and row.adjusted is not None:
            cells += [
                f"{100 * row.difference:+.1f}",
                f"{100 * row.interval.low:+.1f} to {100 * row.interval.high:+.1f}",
                probability(row.adjusted),
                str(row.verdict),
            ]
        made.add_row(row.task, *cells)
    return made
