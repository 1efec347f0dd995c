"""``aquila <verb>``: a thin front. Whatever needs torch is imported by the verb that uses it."""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from data_tools.pages.html import visible
from megatron_aquila.cli_evaluation import app as evaluation_app
from megatron_aquila.cli_judge import app as judge_app
from megatron_aquila.cli_plan import plan
from megatron_aquila.cli_release import chat, export
from megatron_aquila.cli_report import report
from megatron_aquila.errors import USER_ERROR, AquilaError

if TYPE_CHECKING:
    from megatron_aquila.config import RunConfig

app = typer.Typer(
    name="aquila",
    help="From a base language model and raw text to a medical model, on Megatron-core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich doubles the time that --help takes
)
config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(evaluation_app, name="eval")
app.add_typer(judge_app, name="judge")

Recipe = Annotated[Path, typer.Argument(help="A recipe: a YAML file, as in recipes/.", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to it, as in optimizer.lr=2e-7.", metavar="[KEY=VALUE]...", show_default=False),
]


def main() -> NoReturn:
    """Entry point of ``aquila`` and ``python -m megatron_aquila``; errors meant for the user become one
    message.
    """
    try:
        app(prog_name="aquila")
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (AquilaError, OSError, ValueError) as error:
        if not _written_for_the_user(error):
            raise
        rank = os.environ.get("RANK", "0")
        print(f"{'' if rank == '0' else f'[rank {rank}] '}aquila: {visible(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, AquilaError) else USER_ERROR)
    sys.exit(0)


def _written_for_the_user(error: Exception) -> bool:
    """Our own error classes; data_tools, which does not know this package, derives its own from the builtin
    ones.
    """
    return isinstance(error, AquilaError) or type(error).__module__.partition(".")[0] == "data_tools"


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"megatron-aquila {metadata.version('megatron-aquila')}")
        except metadata.PackageNotFoundError:
            print("megatron-aquila, run from its source without being installed")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def doctor() -> None:
    """Check this machine and what is installed."""
    from megatron_aquila.doctor import report

    raise typer.Exit(report())


@app.command(
    add_help_option=False,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)
def data(context: typer.Context) -> None:
    """Turn raw text into indexed tokens."""
    from data_tools.cli import app as data_app

    data_app(context.args or ["--help"], prog_name="aquila data")


@config_app.command()
def schema() -> None:
    """Print a recipe's JSON Schema, for editors."""
    import json

    from megatron_aquila.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False))


@config_app.command("reference")
def config_reference() -> None:
    """Print every key of every recipe, as docs/recipe_reference.md has them."""
    from megatron_aquila.config_reference import reference_page

    print(reference_page(), end="")


@config_app.command()
def show(recipe: Recipe, overrides: Overrides = None) -> None:
    """Check a recipe and print it whole.

    With every default written out and the overrides applied."""
    from megatron_aquila.config_loader import config_hash, dump_config, load_config

    config = load_config(recipe, overrides or [])
    length = f"{config.training.epochs} epochs" if config.total_steps is None else f"{config.total_steps:,} steps"
    print(f"# {length}; sha256 {config_hash(config)}")
    print(dump_config(config), end="")


@app.command()
def train(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train as a recipe says.

    Starts the processes it needs on this machine, or joins those of torchrun or srun."""
    config = _in_world("train", recipe, overrides or [])
    from megatron_aquila.trainer import train as train_model

    train_model(config)


@app.command()
def reference(recipe: Recipe, overrides: Overrides = None) -> None:
    """Compute a dpo recipe's reference log-probs.

    Training does so itself where they are not there; this does it apart, on another layout or with longer packs."""
    config = _in_world("reference", recipe, overrides or [])
    from megatron_aquila.trainer import prepare

    prepare(config)


def _in_world(verb: str, recipe: Path, overrides: list[str]) -> "RunConfig":
    """The configuration, in a process that is a rank; where it is none, the ranks are started and waited for."""
    from megatron_aquila import launch
    from megatron_aquila.config_loader import load_config
    from megatron_aquila.layout import require_layout

    config = load_config(recipe, overrides)
    launch.require_environment(config, os.environ)
    os.environ.update(launch.environment_of(config, os.environ))
    os.environ.update(launch.environment_from_slurm(os.environ))
    if not launch.in_world(os.environ):
        processes = launch.processes_needed(config, 0 if config.device == "cpu" else launch.visible_gpus())
        require_layout(config, processes)  # here, so that it is said once and not by every rank
        if processes > 1:
            restarts = config.resilience.max_restarts
            raise typer.Exit(launch.run_processes(processes, [verb, str(recipe), *overrides], max_restarts=restarts))
    else:
        launch.end_with_launcher(os.environ)
        require_layout(config, int(os.environ["WORLD_SIZE"]))  # before torch and Megatron take their seconds
    return config


app.command()(plan)
app.command()(export)
app.command()(chat)
app.command()(report)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option(help="Where the demo works.")] = Path("demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Go on in a directory an earlier demo left.")] = False,
) -> None:
    """Go the whole way on two CPU cores.

    A tiny model, a synthetic clinic: tokens, pre-training, fine-tuning, preference training, evaluation, export."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bars; read at its import
    from megatron_aquila.demo import run_demo

    _prepare_demo(directory, keep)
    raise typer.Exit(run_demo(directory))


def _prepare_demo(directory: Path, keep: bool) -> None:
    """An empty directory, unless an earlier demo's is to be kept; never removes what no demo made."""
    import shutil

    marker = directory / ".made-by-aquila-demo"
    if directory.exists() and any(directory.iterdir()):
        if not marker.exists():
            raise AquilaError(f"{directory} is not empty and no demo made it; give another --directory")
        if keep:
            return
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    marker.touch()
