"""`aquila eval contamination`. Only typer is imported here, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated

import typer

FOUND = 1  # exit code: more was found than --fail-above allows


def contamination(
    training: Annotated[
        list[Path],
        typer.Argument(
            help="What `aquila data corpus`, `dialogues` or `pairs` published, or .jsonl and .parquet files.",
            metavar="TRAINING...",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="The directory of the evaluation sets, or a file of questions. May be repeated."),
    ],
    output: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("contamination.json"),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="An evaluation to score with and without what was found. May be repeated.", metavar="DIR"),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with 1 where more than this share of a set was found.", metavar="SHARE"),
    ] = None,
    options_alone: Annotated[
        bool, typer.Option("--options-alone", help="Options and long answers are evidence without their question.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each takes a file at a time.")] = 1,
) -> None:
    """Say which evaluation questions a version of the training data holds, and where.

    A question counts as held where half of its 13-grams stand close together in one record, after case, width,
    punctuation and white space are taken away; a short one where the whole of it does.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from megatron_aquila.evaluation import contamination as reports
    from megatron_aquila.evaluation import contamination_scores as scores

    terminal = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("")
        found = reports.find_contamination(
            training,
            data,
            reports.Settings(options_alone=options_alone),
            workers=workers,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    reports.write(found, output)
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(scores.table(found))
    unreadable = sum(sum(file.unreadable.values()) for source in found.training for file in source.files)
    if unreadable:
        console.print(f"{unreadable:,} records could not be read, and were not searched: see {output}", markup=False)
    for directory in evaluation or ():
        console.print(scores.scores_table(directory.name, scores.split_scores(directory, found)))
    if fail_above is not None:
        over = [name for name, found_set in found.sets.items() if found_set.share > fail_above]
        if over:
            typer.echo(f"aquila: more than {fail_above:.2%} of {', '.join(over)} stands in the training data", err=True)
            raise typer.Exit(FOUND)
