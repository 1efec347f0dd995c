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
    import textwrap
    from itertools import groupby

    def missing(name: str, split: str) -> str:
        return "" if split_path(data, name, split).is_file() else "missing"

    print(f"{'questions, by set':<48}{'n':>9}  asked by")
    for name, members in groupby(catalog.tasks().values(), lambda task: task.set):
        for place, task in enumerate(members):
            if place == 0:
                print(f"{name:<48}{missing(name, task.split):>9}".rstrip())
            print(f"  {task.name:<46}{f'{task.rows:,}' if task.rows else 'any':>9}  {task.kind}")
    print(f"\n{'dialogues':<48}{'n':>9}  judged by")
    for found in catalog.DIALOGUE_SETS.values():
        print(f"{found.set:<48}{missing(found.set, found.split):>9}".rstrip())
        print(f"  {found.name:<46}{found.rows:>9,}  {found.judge}")
    print("\ngroups, averaged")
    for group, names in catalog.groups().items():
        print(f"  {group:<46}{len(names):>9}  tasks")
    print("\nsuites (--suite)")
    for suite in catalog.SUITES.values():
        print(f"  {suite.name}: {', '.join(suite.members)}")
        print(textwrap.fill(suite.about, 80, initial_indent="    ", subsequent_indent="    "))
    print(f"\nWhat is missing in {data}: aquila eval fetch SET --from …")


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
