"""`aquila data pairs`. Only typer is imported here, so that `--help` is instant."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_tools.cli_common import console, one_sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from data_tools.llm import Estimate
    from data_tools.preferences.run import PairsPlan


def pairs(
    recipe: Annotated[
        Path | None, typer.Argument(help="YAML file: subjective, objective, split.", metavar="RECIPE")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Keys to change, such as objective.draw.count=500.", metavar="[KEY=VALUE]..."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of the index [one per core].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost, and ask nothing.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema, and do nothing.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Bars, on a terminal.")] = True,
) -> None:
    """Make preference pairs: answers that a judge prefers, and right options against wrong ones.

    OUTPUT/pairs_train and pairs_valid hold the pairs as .jsonl and as .bin and .idx, OUTPUT/funnel.html what became of
    every candidate, OUTPUT/audit.jsonl.zst what the models said. Answers are kept: after an interruption the same
    command goes on, and nothing is asked, or paid for, twice.
    """
    with one_sentence():
        import os

        from data_tools.inputs import InputError
        from data_tools.preferences.recipe import PairsRecipe, load_pairs_recipe

        if schema:
            import json

            typer.echo(json.dumps(PairsRecipe.model_json_schema(), indent=2, ensure_ascii=False))
            return
        if recipe is None:
            raise InputError("give a recipe, such as recipes/aquila_med/data_dpo.yaml")
        loaded = load_pairs_recipe(recipe, overrides or ())
        from data_tools.preferences.run import build_pairs, plan_pairs

        terminal = console()
        if dry_run:
            _print_plan(terminal, plan_pairs(loaded))
            return
        with _bars(terminal, progress and terminal.is_terminal) as on_progress:
            cores = len(os.sched_getaffinity(0))
            summary = build_pairs(loaded, workers=workers or cores, on_progress=on_progress)
        _print_funnel(terminal, summary.funnel)
        done = "nothing to do: these pairs are there" if summary.reused else f"{summary.seconds:.1f} s"
        terminal.print(f"{done}; the report: {summary.output / 'funnel.html'}", markup=False)


def _print_funnel(terminal: "Console", funnel: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("kind", "step", *("in", "out"), "dropped", box=None, header_style="dim")
    for kind in funnel["kinds"]:
        for step in kind["steps"]:
            reasons: dict[str, int] = {}
            for row in step["dropped"]:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["count"]
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
            table.add_row(kind["kind"], step["name"], f"{step['in']:,}", f"{step['out']:,}", dropped)
    terminal.print(table)
    for name, rows in funnel["strata"].items():
        if short := [row for row in rows if row["short"]]:
            missing = ", ".join(f"{row['name']} {row['short']:,} of {row['asked']:,}" for row in short)
            terminal.print(f"{name} pairs are missing: {missing}", style="yellow", markup=False)
    for warning in funnel["length_bias"]["warnings"]:
        terminal.print(f"length: {warning}", style="yellow", markup=False)
    for name, account in funnel["accounts"].items():
        terminal.print(
            f"{name}: {account['calls']:,} calls, {account['prompt_tokens'] + account['completion_tokens']:,} tokens, "
            f"cost {account['cost']:.4f}"
        )
    split = ", ".join(f"{name} {found['pairs']:,}" for name, found in funnel["split"].items())
    terminal.print(f"pairs: {split}")
    for name, found in funnel["indexes"].items():
        if gone := ", ".join(f"{reason} {count:,}" for reason, count in found["dropped"].items() if count):
            terminal.print(f"not in the index {name}: {gone}", style="yellow")


def _print_plan(terminal: "Console", plan: "PairsPlan") -> None:
    for kind, rows in plan.strata.items():
        terminal.print(f"[bold]{kind}[/]")
        for name, asked, available in rows:
            terminal.print(f"  {name}: {asked:,} pairs asked, {available:,} candidates", markup=False)
    for title, estimate in (("if every candidate gives a pair", plan.least), ("at most", plan.most)):
        if estimate is None:
            continue
        terminal.print(f"[bold]{title}[/]")
        for name in ("author", "judge"):
            terminal.print(f"  {name}: {_costs(getattr(estimate, name))}", markup=False)


def _costs(estimate: "Estimate") -> str:
    return (
        f"{estimate.calls:,} calls ({estimate.recorded:,} more are recorded), {estimate.prompt_tokens:,} prompt "
        f"tokens, up to {estimate.completion_tokens:,} answer tokens, up to {estimate.cost:.2f} to pay; "
        f"tokens counted by {estimate.counted_by}"
    )


@contextmanager
def _bars(terminal: "Console", wanted: bool) -> "Iterator[Callable[[str, int, int], None]]":
    """Yields what is to be called with what is being done, how much of it is done, and how much there is (0:
    unknown).
    """
    if not wanted:
        yield lambda title, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress("[progress.description]{task.description}", *columns, console=terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def update(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=None)
            bars.update(tasks[title], completed=done, total=total or None)

        yield update
