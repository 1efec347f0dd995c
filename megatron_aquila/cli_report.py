"""`aquila report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs; those they were trained from are found.", metavar="RUN")],
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="An evaluation, judgement or contamination report that lies elsewhere; may be given again.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a report of training runs.

    One HTML page: curves, evaluations with intervals, data, time, configuration. It needs no network."""
    from megatron_aquila.report.page import make_report, write_report

    made = make_report(runs, evaluation or [])
    write_report(made, output)
    for line in made.summary:
        typer.echo(line)
    typer.echo(output)
