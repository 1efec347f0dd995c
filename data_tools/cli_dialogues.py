"""`aquila data dialogues` and `import`. Only typer is imported here, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated

import typer

from data_tools.cli_common import DATA_FAULT, bar, console, one_sentence

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys to change, such as output=sft/try or steps.9.diversity=null.", metavar="[KEY=VALUE]..."),
]


def dialogues(
    recipe: Annotated[Path | None, typer.Argument(help="YAML file: sources, steps.", metavar="RECIPE")] = None,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [one per core]; with models on GPUs, as many as those.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema, and do nothing.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Bars, on a terminal.")] = True,
) -> None:
    """Make the dialogues of supervised fine-tuning: import published sets, clean, score, select, index.

    OUTPUT/dialogues/NAME/ holds the selected dialogues with their scores, OUTPUT/NAME.bin and .idx the tokens,
    OUTPUT/funnel.html and .json the report. After an interruption the same command goes on from what was finished;
    other limits of the step `select` score nothing again.
    """
    with one_sentence():
        import os

        from data_tools.dialogues.recipe import DialogueRecipe, load_recipe
        from data_tools.dialogues.run import build_dialogues
        from data_tools.inputs import InputError

        if schema:
            import json

            typer.echo(json.dumps(DialogueRecipe.model_json_schema(), indent=2, ensure_ascii=False))
            return
        if recipe is None:
            raise InputError("give a recipe, such as recipes/aquila_med/data_sft.yaml")
        loaded = load_recipe(recipe, overrides or ())
        terminal = console()
        with bar(terminal, progress and terminal.is_terminal) as on_progress:
            cores = len(os.sched_getaffinity(0))
            summary = build_dialogues(loaded, workers=workers or cores, on_progress=on_progress)
        from data_tools.corpus.page_terminal import terminal_summary

        terminal.print(terminal_summary(summary.funnel))
        kept = f", {summary.pieces_reused:,} pieces kept from an earlier run" if summary.pieces_reused else ""
        terminal.print(f"{summary.seconds:.1f} s{kept}; the report: {summary.output / 'funnel.html'}", markup=False)


def import_files(
    files: Annotated[
        list[str] | None, typer.Argument(help="Files, directories and patterns.", metavar="FILE...")
    ] = None,
    format: Annotated[str | None, typer.Option(help="What the files are; --list shows what there is.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="The .jsonl, .jsonl.gz, .jsonl.zst or .parquet to write.", metavar="FILE")
    ] = None,
    list_formats: Annotated[bool, typer.Option("--list", help="Print the formats, and do nothing.")] = False,
) -> None:
    """Turn the files of a published set into dialogues, one record each: {"id", "messages", "lang", "source", …}.

    What cannot be used goes to OUTPUT.quarantine.jsonl with its place and reason. Recipes import by themselves: this
    is for a look.
    """
    with one_sentence():
        from data_tools.inputs import InputError

        terminal = console()
        if list_formats:
            from data_tools.dialogues.importers import IMPORTERS

            for name, one in IMPORTERS.items():
                typer.echo(f"{name:<20} {one.title}")
            return
        if not files or format is None or output is None:
            raise InputError("give FILEs, --format and --output; --list shows the formats")
        from data_tools.dialogues.importing import import_to_file

        account = import_to_file(files, format, output)
        terminal.print(f"{output}: {account.dialogues:,} dialogues of {account.units:,} records", markup=False)
        for reason, count in account.quarantined.items():
            terminal.print(f"  {count:,} {reason}", style="yellow")
        if account.damage:
            terminal.print(f"  {account.damage}", style="red", markup=False)
            raise typer.Exit(DATA_FAULT)
