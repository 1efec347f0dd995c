"""`aquila eval compare`. Only typer is imported here, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(help="An evaluation's directory.", metavar="A")],
    others: Annotated[list[Path], typer.Argument(help="One or more to set beside it.", metavar="B...")],
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison there too.", metavar="FILE", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Say of each model whether it is better than A, worse, or not distinguishable, on the same questions.

    Every row: the difference with a paired bootstrap interval, the exact McNemar p, Holm's correction over the table,
    and the smallest difference that so many questions can show.
    """
    from rich.console import Console

    from data_tools.publish import write_whole
    from megatron_aquila.evaluation import comparison

    found = comparison.compare(first, *others, seed=seed)
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = 120
    for against, table in zip(found.others, comparison.tables(found, console.width)):
        console.print(table)
        for note in against.notes:
            console.print(f"Note: {note}.", markup=False)
    if json is not None:
        write_whole(json, (found.model_dump_json(indent=1) + "\n").encode())
