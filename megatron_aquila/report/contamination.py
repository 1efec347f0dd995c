"""Evaluation items that the training data holds, and what the models score with and without them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from data_tools.pages.html import Column, Markup, count, details, join, tag
from megatron_aquila.evaluation import contamination
from megatron_aquila.evaluation.contamination import Contamination, ContaminationError, Share
from megatron_aquila.evaluation.contamination_scores import Subset, split_scores
from megatron_aquila.evaluation.results import FOLDER, Interval
from megatron_aquila.report.models import Scored
from megatron_aquila.report.runs import Run
from megatron_aquila.report.words import figure, p_value, short_path, verdict_word, wide_table, with_interval

_SHOWN = 40  # items whose places are told


def find_contamination(runs: Sequence[Run], more: Iterable[Path]) -> list[Contamination]:
    """The contamination reports of the runs (in their evaluation folder, or one below), then those of `more`.

    Raises: ContaminationError.
    """
    paths = [found for run in runs for found in sorted((run.path / FOLDER).glob(f"**/{contamination.FILE}"))]
    paths += [path / contamination.FILE for path in more if (path / contamination.FILE).is_file()]
    unique = {path.resolve(): path for path in paths}
    found = [contamination.read_report(path) for path in unique.values()]
    return list({one.digest + one.model_dump_json(include={"sets"}): one for one in found}.values())


def contamination_section(found: Sequence[Contamination], scored: Sequence[Scored]) -> Markup:
    """For each version of the training data its table, and the scores on the clean and the flagged items."""
    parts: list[Markup] = []
    for one in found:
        parts.append(tag("h3", "Training data ", tag("code", one.digest[:12]), tag("span", _read(one), class_="note")))
        shares: list[tuple[str, Share]] = [*one.sets.items(), *one.tasks.items()]
        rows = [
            (
                name,
                count(share.n),
                count(share.too_short),
                count(share.flagged),
                with_interval(share.share, share.interval),
            )
            for name, share in shares
        ]
        columns = ("evaluation items", "n", "too short", "flagged", "share")
        parts.append(wide_table([Column(heading) for heading in columns], rows))
        parts += [_scores(one, scored), _evidence(one)]
    if not parts:
        return Markup()
    note = tag(
        "p",
        "Flagged: held by one training record or more, found by n-grams after folding. Too short: cannot be told from "
        "ordinary text, and not looked for. A difference between flagged and clean items is a hint, no proof.",
        class_="note",
    )
    return join([note, *parts])


def _read(one: Contamination) -> str:
    files = [file for data in one.training for file in data.files]
    records = sum(file.records for file in files)
    return f"{count(records)} records in {count(len(files))} file{'' if len(files) == 1 else 's'}"


def _scores(found: Contamination, scored: Sequence[Scored]) -> Markup:
    """Of each evaluation the tasks that have flagged items."""
    rows = []
    for model in scored:
        try:
            splits = split_scores(model.directory, found)
        except ContaminationError:
            continue  # the report is of other questions than the evaluation
        rows += [
            (
                f"{model.name}: {one.task}",
                _subset(one.clean),
                _subset(one.flagged),
                "–" if one.difference is None else figure(f"{100 * one.difference:+.1f}", _reach(one.interval)),
                p_value(one.adjusted),
                verdict_word(one.verdict),
            )
            for one in splits
            if one.flagged.n
        ]
    if not rows:
        return Markup()
    columns = [Column("accuracy on"), Column("clean items"), Column("flagged items"), Column("difference, points")]
    return wide_table([*columns, Column("p, Holm"), Column("flagged items are answered", numeric=False)], rows)


def _subset(one: Subset) -> Markup:
    return with_interval(one.accuracy, one.interval, f"n {count(one.n)}")


def _reach(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _evidence(found: Contamination) -> Markup:
    """Where the clearest flagged items stand in the training data."""
    items = [(name, item) for name, one in found.sets.items() for item in one.items if item.evidence]
    rows = [
        (
            item.id,
            name,
            f"{shown.training_id}, {short_path(shown.file)}",
            f"{shown.part}, {100 * shown.ratio:.0f}\u00a0%",
            shown.excerpt,
        )
        for name, item in items[:_SHOWN]
        for shown in item.evidence[:1]
    ]
    if not rows:
        return Markup()
    summary = "where they stand" if len(items) <= _SHOWN else f"where the first {_SHOWN} of {count(len(items))} stand"
    columns = [Column(name, numeric=False) for name in ("item", "set", "training record", "part", "excerpt")]
    return details(summary, wide_table(columns, rows))
