"""The same run on a cluster, through datatrove's executors (Slurm, Ray); extra `[cluster]`.

A phase is an array of tasks, each of which does its share of the shards; what needs all shards is a task of its own
that waits for them. Tasks are told apart from each other by nothing but their rank: every piece of work is committed by
itself, so that a task that was killed is simply run again, by the scheduler or by the same command.

All nodes must see the recipe's files and its output directory under the same paths.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from data_tools.config_files import ConfigFileError, dump_config, load_mapping
from data_tools.corpus.recipe import Recipe, load_recipe
from data_tools.corpus.run import CorpusRun, index_stages, prepare_output
from data_tools.inputs import InputError
from data_tools.manifest import published
from data_tools.publish import atomic_path

SLURM, RAY = "slurm", "ray"
EXECUTORS = (SLURM, RAY)


@dataclass(frozen=True)
class ShardTasks:
    """The shards of a phase, dealt out to `world_size` ranks. Called by an executor."""

    directory: str  # where the recipe's relative paths begin
    recipe: str
    phase: int

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        os.chdir(self.directory)
        run = CorpusRun(load_recipe(Path(self.recipe)))
        mine = run.todo(self.phase, rank, world_size)
        if mine:
            run.work.start()
        for task in mine:
            run.work.do(task, lambda done: None)


@dataclass(frozen=True)
class Settle:
    """What needs all shards after a phase; after the last one, publishing and indexing."""

    directory: str
    recipe: str
    phase: int
    workers: int

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        os.chdir(self.directory)
        run = CorpusRun(load_recipe(Path(self.recipe)))
        if unfinished := run.todo(self.phase):
            raise RuntimeError(f"{len(unfinished)} shards are not done yet: run the same command again")
        run.settle(self.phase)
        if self.phase == run.phases[-1]:
            run.publish()
            if run.recipe.index:
                index_stages(run.recipe, self.workers)


def read_options(path: Path) -> dict[str, Any]:
    """The executor's arguments in a YAML file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return load_mapping(path)
    except ConfigFileError as error:
        raise InputError(str(error)) from error


def submit(recipe: Recipe, executor: str, options: Mapping[str, Any], *, tasks: int) -> str:
    """Hand the run to a scheduler. Slurm's jobs are queued, each waiting for the one before; Ray's are waited for.

    Args:
        options: arguments of datatrove's executor, such as partition and time for Slurm.
        tasks: ranks of a phase.

    Returns a sentence for the user.

    Raises:
        InputError: datatrove is not installed, an unknown executor or option, or the recipe cannot be begun.
    """
    make = _executor(executor)
    run = CorpusRun(recipe)
    prepare_output(recipe.output)
    if published(recipe.output, run.plan.digest) is not None:
        return f"{recipe.output} holds this corpus already"
    run.directory.mkdir(exist_ok=True)
    saved = run.directory / f"{run.plan.global_key(0)}.recipe.yaml"
    with atomic_path(saved) as temporary:
        temporary.write_text(dump_config(recipe), encoding="utf-8")
    logs = recipe.output / "logs" / run.plan.digest[:12]
    workers = int(options.get("cpus_per_task", 1))
    here, path = str(Path.cwd()), str(saved.absolute())
    last = None
    for phase in run.phases:
        for name, step, count in (
            (f"phase-{phase}", ShardTasks(here, path, phase), min(tasks, len(run.plan.shards))),
            (f"settle-{phase}", Settle(here, path, phase, workers), 1),
        ):
            logging = str((logs / name).absolute())
            try:
                last = make(
                    pipeline=[step], tasks=count, logging_dir=logging, depends=last, **_named(make, name, options)
                )
            except TypeError as error:
                raise InputError(f"datatrove's {executor} executor does not take these options: {error}") from error
    assert last is not None
    last.run()
    if published(recipe.output, run.plan.digest) is not None:
        return f"{recipe.output} is ready"
    return f"submitted; the report will be {recipe.output / 'funnel.html'}, the tasks' logs are in {logs}"


def _executor(name: str) -> Callable[..., Any]:
    if name not in EXECUTORS:
        raise InputError(f"there is no executor {name!r}: take one of {', '.join(EXECUTORS)}")
    try:
        if name == SLURM:
            from datatrove.executor.slurm import SlurmPipelineExecutor

            return SlurmPipelineExecutor
        import ray  # noqa: F401 (datatrove imports it late)
        from datatrove.executor.ray import RayPipelineExecutor

        return RayPipelineExecutor
    except ImportError as error:
        raise InputError(f"{error.name} is not installed: pip install 'megatron-aquila[cluster]'") from error


def _named(make: Callable[..., Any], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with a name for the job, and with the virtual environment of this process where none is given."""
    taken = signature(make).parameters
    given = dict(options)
    if "job_name" in taken:
        given = {"job_name": name, **given}
    if (
        "venv_path" in taken
        and sys.prefix != sys.base_prefix
        and not {"venv_path", "condaenv", "env_command"} & set(given)
    ):
        given["venv_path"] = str(Path(sys.prefix) / "bin" / "activate")
    return given
