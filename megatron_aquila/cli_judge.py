"""`aquila judge`. Only typer is imported here, so that `--help` is instant."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from megatron_aquila.evaluation.judge.config import JudgeConfig

app = typer.Typer(help="Let a language model judge answers.", no_args_is_help=True, rich_markup_mode=None)

Recipe = Annotated[Path | None, typer.Argument(help="YAML file: answers, model, output.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Keys to change, such as limit=50.", metavar="[KEY=VALUE]...", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and cost, and ask nothing.")]
AgreementFile = Annotated[
    Path | None,
    typer.Option(
        "--agreement", help="Verdicts of people or another judge: .jsonl of id, round, verdict.", metavar="FILE"
    ),
]
Schema = Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON Schema, and do nothing.")]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="A bar, on a terminal.")]


@app.command()
def pair(
    recipe: Recipe = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    agreement: AgreementFile = None,
    schema: Schema = False,
    progress: Progress = True,
) -> None:
    """Which of two answers is better, asked in both orders.

    Answers against the references in their file, or against another model's. OUTPUT/judge.json holds the figures,
    OUTPUT/verdicts.jsonl all that was said. The judge's answers are kept: nothing is asked, or paid for, twice.
    """
    from megatron_aquila.evaluation.judge.config import PairConfig

    _judge(PairConfig, recipe, overrides or [], dry_run, agreement, schema, progress)


@app.command()
def rubric(
    recipe: Recipe = None,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    agreement: AgreementFile = None,
    schema: Schema = False,
    progress: Progress = True,
) -> None:
    """Rate answers by four criteria from 1 to 5, round by round.

    OUTPUT/judge.json holds the figures, OUTPUT/verdicts.jsonl all that was said. The judge's answers are kept: nothing
    is asked, or paid for, twice.
    """
    from megatron_aquila.evaluation.judge.config import RubricConfig

    _judge(RubricConfig, recipe, overrides or [], dry_run, agreement, schema, progress)


def _judge(
    kind: "type[JudgeConfig]",
    recipe: Path | None,
    overrides: list[str],
    dry_run: bool,
    agreement: Path | None,
    schema: bool,
    progress: bool,
) -> None:
    from rich.console import Console

    from data_tools.llm import LanguageModel
    from megatron_aquila.evaluation.judge import run
    from megatron_aquila.evaluation.judge.config import load
    from megatron_aquila.evaluation.judge.summary import JudgeError
    from megatron_aquila.evaluation.judge.table import table

    if schema:
        import json

        typer.echo(json.dumps(kind.model_json_schema(), indent=2, ensure_ascii=False))
        return
    if recipe is None:
        raise JudgeError("give a recipe, such as recipes/aquila_med/judge_pair.yaml")
    config = load(kind, recipe, overrides)
    if dry_run:
        planned = run.plan(config)
        found = run.estimate(config, planned)
        typer.echo(
            f"{len(planned.drawn.items):,} items of {planned.drawn.rows:,} answers, {config.canaries:,} known pairs: "
            f"{found.calls:,} calls ({found.recorded:,} more are recorded), {found.prompt_tokens:,} prompt tokens, "
            f"up to {found.completion_tokens:,} answer tokens, up to {found.cost:.2f} to pay; "
            f"tokens counted by {found.counted_by}; each answer that is no verdict is asked for up to {config.retries} "
            "more times"
        )
        for reason, count in sorted(planned.drawn.skipped.items()):
            typer.echo(f"not asked about: {reason} {count:,}")
        return
    terminal = Console(stderr=True, highlight=False, soft_wrap=True)
    model = LanguageModel(config.model)
    try:
        with _bar(terminal, progress and terminal.is_terminal) as on_progress:
            summary = run.run(config, agreement=agreement, model=model, on_progress=on_progress)
    finally:
        account = model.account
        if account.requests:
            terminal.print(
                f"{account.calls:,} calls, {account.recorded:,} answers recorded before, "
                f"{account.prompt_tokens + account.completion_tokens:,} tokens, cost {account.cost:.4f}"
            )
    Console(highlight=False).print(table(summary))
    terminal.print(f"written: {config.output}", markup=False)


@contextmanager
def _bar(terminal: "Console", wanted: bool) -> "Iterator[Callable[[int, int], None]]":
    """Yields what is to be called with how many items are done, and how many there are."""
    if not wanted:
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress("items", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=terminal) as bars:
        task = bars.add_task("items", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
