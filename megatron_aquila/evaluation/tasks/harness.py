"""Tasks as lm-eval takes them, without its index of 14,000 definitions and without a network."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.tasks.catalog import Task, expand, functions_resolved
from megatron_aquila.evaluation.tasks.data import Record, examples_of, load_split
from megatron_aquila.evaluation.tasks.draws import within_examination
from megatron_aquila.evaluation.tasks.requests import check_shots

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}


def go_offline() -> None:
    """Keep the Hugging Face libraries off the network; before they are imported, which is when they look."""
    os.environ.update(OFFLINE)


def _not_advice(record: logging.LogRecord) -> bool:
    return "Custom kwargs can be passed" not in record.getMessage()


def lm_eval_tasks(chosen: Iterable[str | Task], data: Path | None, shots: int | None = None) -> list[dict[str, Any]]:
    """What `lm_eval.simple_evaluate(tasks=…)` and `TaskManager(include_defaults=False).load(…)` take: definitions with
    their functions, the place of their data and their shots.

    Args:
        chosen: names of tasks, groups and suites, and tasks (`catalog.questions_task`).
        data: the directory of the sets; None where all tasks have files of their own.
        shots: before each question; None: a task's own number, or 0. A task that takes none has none.

    Leave simple_evaluate's own `num_fewshot` out, and its `fewshot_random_seed` as it is (1234): draws are by it.

    Raises:
        UnknownTaskError, EvaluationDataError, ShotsError: see `catalog.expand`, `data.load_split`, `check_shots`.
    """
    # lm-eval 0.4.13 gives the same advice about arguments for each task whose data come from a function.
    logging.getLogger("lm_eval.api.task").addFilter(_not_advice)
    return [_definition(task, data, shots) for task in chosen_tasks(chosen)]


def chosen_tasks(chosen: Iterable[str | Task]) -> list[Task]:
    """Names and tasks as tasks, each name once."""
    found: dict[str, Task] = {}
    for one in chosen:
        found |= {task.name: task for task in ([one] if isinstance(one, Task) else expand([one]))}
    return list(found.values())


def shots_of(task: Task, shots: int | None) -> int:
    """How many examples a task is asked with where `shots` are wanted."""
    return (shots or 0) if task.takes_shots else 0


def records(task: Task, data: Path | None, shots: int | None = 0) -> tuple[list[Record], list[Record]]:
    """A task's questions, in the order of lm-eval's `doc_id`, and its examples.

    Raises:
        EvaluationDataError: see `data.load_split`; ShotsError: there are fewer examples than shots.
    """
    if task.file is not None:
        asked = load_split(task.file)
        shown = load_split(task.examples_file) if task.examples_file else []
    else:
        place = data or Path()
        asked = load_split(place, task.set, task.split, subject=task.subject, rows=task.rows)
        shown = examples_of(place, task.set, task.examples, subject=task.subject) if task.examples else []
    wanted = shots_of(task, shots)
    check_shots(task, wanted, len(shown))
    if wanted and "examples_shown" in task.config["dataset_kwargs"]:
        asked = within_examination(asked, shown, wanted)
    return asked, shown


def _definition(task: Task, data: Path | None, shots: int | None) -> dict[str, Any]:
    records(task, data, shots)  # so that what is missing is said before a model is opened
    wanted = shots_of(task, shots)
    definition = functions_resolved(dict(task.config))
    definition["dataset_kwargs"] = dict(task.config["dataset_kwargs"])
    if task.file is None:
        definition["dataset_kwargs"]["data"] = str((data or Path()).resolve())
    if "examples_shown" in definition["dataset_kwargs"]:
        definition["dataset_kwargs"]["examples_shown"] = wanted
        definition["num_fewshot"] = 0
    else:
        definition["num_fewshot"] = wanted
    return definition
