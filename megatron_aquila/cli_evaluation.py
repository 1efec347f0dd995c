"""`aquila eval <verb>`. Only typer is imported here, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_aquila.cli_compare import compare
from megatron_aquila.cli_contamination import contamination
from megatron_aquila.cli_tasks import DATA, Data, fetch, tasks, verify

if TYPE_CHECKING:
    from megatron_aquila.evaluation.settings import EvaluationSettings

app = typer.Typer(
    name="eval",
    help="Score models on medical questions, offline, with error bars.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(tasks)
app.command()(fetch)
app.command()(verify)


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="A run, a checkpoint or a Hugging Face directory.", metavar="MODEL")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tasks, groups, dialogue sets or files of questions; and settings, such as shots=3, chat=true, "
            "parallel.tensor_parallel=2, backend=hf.",
            metavar="[TASK | KEY=VALUE]...",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="paper-cpt or paper-chat.")] = None,
    data: Data = DATA,
    output: Annotated[Path | None, typer.Option(help="Directory to write [MODEL/evaluation/NAME].")] = None,
) -> None:
    """Score a model, and keep every answer.

    Starts the processes that the layout needs on this machine, or joins those of torchrun or srun."""
    from data_tools.config_files import load_model
    from megatron_aquila.evaluation.settings import EvaluationSettings

    given = what or []
    changes = [name for name in given if "=" in name and not Path(name).is_file()]
    settings = load_model(EvaluationSettings, None, changes, schema="`aquila eval settings`")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read at its import; a log would hold every state of a bar
    from megatron_aquila.evaluation.plan import prepare

    names = [name for name in given if name not in changes]
    joins = _joins_world()
    plan = prepare(
        model, names, suite=suite, data=data, output=output, settings=settings
    )  # said here, before ranks start
    if not joins:
        _start_ranks(settings)
    from megatron_aquila.evaluation.run import carry_out

    done = carry_out(plan)
    if done is not None:  # not on a rank that served
        from rich.console import Console

        from megatron_aquila.evaluation.summary import print_summary

        directory, evaluation = done
        print_summary(evaluation, Console())
        print(directory)


app.command()(compare)
app.command()(contamination)


@app.command()
def settings() -> None:
    """Print the JSON Schema of `aquila eval run`'s settings."""
    import json

    from megatron_aquila.evaluation.settings import EvaluationSettings

    print(json.dumps(EvaluationSettings.model_json_schema(), indent=2, ensure_ascii=False))


def _joins_world() -> bool:
    """Whether a launcher made this process a rank; it then ends with it."""
    from megatron_aquila import launch

    os.environ.update(launch.environment_from_slurm(os.environ))
    if launch.in_world(os.environ):
        launch.end_with_launcher(os.environ)
        return True
    return False


def _start_ranks(settings: EvaluationSettings) -> None:
    """Start the processes that a layout needs, where it is more than this one, and end with them."""
    from megatron_aquila import launch

    if settings.backend != "aquila":
        return
    processes = launch.processes_needed(settings, 0 if settings.device == "cpu" else launch.visible_gpus())
    if processes > 1:
        raise typer.Exit(launch.run_processes(processes, sys.argv[1:]))
