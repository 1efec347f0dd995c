"""`aquila data corpus` and `why`. Only typer is imported here, so that `--help` is instant."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_tools.cli_common import DATA_FAULT, bar, console, one_sentence

if TYPE_CHECKING:
    from rich.console import Console

    from data_tools.corpus.why import Fate

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Keys to change, such as output=corpora/try or steps.2.action=label.", metavar="[KEY=VALUE]..."
    ),
]


def corpus(
    recipe: Annotated[Path, typer.Argument(help="YAML file: sources, steps, stages.", metavar="RECIPE")],
    overrides: Overrides = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes [one per core].")] = None,
    executor: Annotated[
        str | None, typer.Option(help="Run on a cluster through datatrove: slurm or ray.", metavar="NAME")
    ] = None,
    executor_options: Annotated[
        Path | None,
        typer.Option(help="YAML file with the executor's arguments, such as partition and time.", metavar="FILE"),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Of each phase on a cluster.")] = 100,
    schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema, and do nothing.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Bars, on a terminal.")] = True,
) -> None:
    """Make a training corpus of raw text: clean, filter, deduplicate, decontaminate, mix, index.

    OUTPUT/documents/STAGE/ holds the documents of each stage, OUTPUT/STAGE.bin and .idx the tokens, OUTPUT/funnel.html
    and .json the report of what every step did. After an interruption the same command goes on from what was finished.
    """
    with one_sentence():
        import os

        from data_tools.corpus.recipe import Recipe, load_recipe
        from data_tools.corpus.run import build_corpus

        if schema:
            import json

            typer.echo(json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False))
            return
        loaded = load_recipe(recipe, overrides or ())
        if executor is not None:
            from data_tools.corpus.cluster import read_options, submit

            options = {} if executor_options is None else read_options(executor_options)
            typer.echo(submit(loaded, executor, options, tasks=tasks))
            return
        terminal = console()
        with bar(terminal, progress and terminal.is_terminal) as on_progress:
            cores = len(os.sched_getaffinity(0))
            summary = build_corpus(loaded, workers=workers or cores, on_progress=on_progress)
        from data_tools.corpus.page_terminal import terminal_summary

        terminal.print(terminal_summary(summary.funnel))
        rate = (
            f", {summary.funnel['read']['documents'] / summary.seconds:,.0f} documents/s" if summary.pieces_done else ""
        )
        kept = f", {summary.pieces_reused:,} pieces kept from an earlier run" if summary.pieces_reused else ""
        terminal.print(f"{summary.seconds:.1f} s{rate}{kept}; the report: {summary.output / 'funnel.html'}")


def why(
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.", metavar="ID...")],
    corpus: Annotated[Path, typer.Option(help="The output directory of a corpus.", metavar="DIRECTORY")],
) -> None:
    """Say what became of documents: which step dropped them and why, or where they are."""
    with one_sentence():
        from data_tools.corpus.why import fates

        terminal = console()
        unknown = 0
        for name in ids:
            found = fates(corpus, name)
            unknown += not found
            if not found:
                terminal.print(f"{name}: no such document was read (a bad record is in {corpus / 'quarantine.jsonl'})")
            for fate in found:
                _print_fate(terminal, name, fate)
        if unknown:
            raise typer.Exit(DATA_FAULT)


def _print_fate(terminal: "Console", name: str, fate: "Fate") -> None:
    from rich.markup import escape

    decision = fate.decision
    if decision is None:
        places = ", ".join(f"{path}:{line}" for path, line in fate.places)
        terminal.print(f"[bold]{escape(name)}[/]: kept, in {escape(places)}")
        if fate.meta:
            terminal.print(f"  {escape(_pairs(fate.meta))}", style="dim")
        return
    terminal.print(
        f"[bold]{escape(name)}[/]: dropped by [bold]{decision['step']}[/]: {decision['reason']}"
        + (f" ({escape(_pairs(decision['detail']))})" if decision["detail"] else "")
    )
    facts = {key: decision[key] for key in ("source", "lang", "characters", "tokens", "offset")}
    terminal.print(f"  {escape(_pairs(facts))}", style="dim")
    if fate.members:
        kept = next((str(member["id"]) for member in fate.members if member["kept"]), "?")
        others = ", ".join(str(member["id"]) for member in fate.members if not member["kept"])
        terminal.print(f"  of its cluster {escape(kept)} is kept; duplicates of it: {escape(others)}")
    terminal.print(f"  {escape(decision['excerpt'])}", style="italic")


def _pairs(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())
