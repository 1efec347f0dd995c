"""`aquila eval tasks`, `fetch` and `verify`. Only typer is imported here, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option(help="Directory of the questions.")]
DATA = Path("data/evaluation")


def tasks(
    data: Data = DATA,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="Print where the YAML lies, for `lm_eval --include_path`.")
    ] = False,
) -> None:
    """List the tasks, groups, suites and dialogue sets, and which of their data are there."""
    from megatron_aquila.evaluation.tasks import catalog
    from megatron_aquila.evaluation.tasks.data import split_path

    if definitions:
        print(catalog.DEFINITIONS)
        return
    from rich.console import Console
    from rich.table import Table

    def table(*columns: str) -> Table:
        made = Table(box=None, pad_edge=False)
        for column in columns:
            made.add_column(column, no_wrap=column in ("task", "dialogue set", "group or suite"))
        return made

    def there(name: str, split: str) -> str:
        return "yes" if split_path(data, name, split).is_file() else "no"

    asked = table("task", "questions", "asked by", "set", "in data")
    for task in catalog.tasks().values():
        rows = f"{task.rows:,}" if task.rows else "any"
        asked.add_row(task.name, rows, task.kind, task.set, there(task.set, task.split))
    sets = table("dialogue set", "dialogues", "judged by", "set", "in data")
    for found in catalog.DIALOGUE_SETS.values():
        sets.add_row(found.name, f"{found.rows:,}", found.judge, found.set, there(found.set, found.split))
    names = table("group or suite", "holds")
    for group, members in catalog.groups().items():
        names.add_row(group, f"{len(members)} tasks")
    for suite in catalog.SUITES.values():
        names.add_row(suite.name, f"{', '.join(suite.members)}: {suite.about}")
    console = Console()
    for shown in (asked, sets, names):
        console.print(shown, end="\n\n")
    console.print(f"A set that is not in {data}: aquila eval fetch SET --from …")


def fetch(
    name: Annotated[str, typer.Argument(help="Which set: `aquila eval tasks` names them.", metavar="SET")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Directory, file or archive as published, or the http(s) prefix of a mirror you trust."
        ),
    ],
    data: Data = DATA,
    any_rows: Annotated[
        bool, typer.Option("--any-rows", help="Take another number of rows than was published; the manifest says so.")
    ] = False,
    cop_base: Annotated[
        int | None,
        typer.Option(help="MedMCQA: whether `cop` counts from 0 or 1, where the file leaves it open.", min=0, max=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Huatuo: of the draw of 500 questions.")] = 0,
) -> None:
    """Read a published set, count and check it, and write it with its digests."""
    from megatron_aquila.evaluation.tasks.fetch import fetch as fetch_set

    done = fetch_set(name, source, data, any_rows=any_rows, cop_base=cop_base, seed=seed)
    said = {True: "as published", False: "another version than the published one", None: ""}
    for file in done.files:
        print(f"read {file.name}  {file.size:,} bytes  SHA-256 {file.sha256}  {said[file.as_published]}".rstrip())
    for split, rows in done.splits.items():
        print(f"wrote {done.directory / split}.jsonl  {rows:,} rows")
    for note in done.notes:
        print(note)


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which sets [all].", metavar="[SET]...", show_default=False)
    ] = None,
    data: Data = DATA,
) -> None:
    """Compare every file with its manifest: SHA-256 and rows. Exit status 1 names each that differs."""
    from megatron_aquila.evaluation.tasks.data import verify as faults_of

    faults = faults_of(data, names or ())
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        raise typer.Exit(1)
    print(f"{data}: every file is as it was fetched")
