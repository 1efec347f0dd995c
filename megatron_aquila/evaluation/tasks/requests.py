"""The strings whose log-likelihood decides a question: those that lm-eval builds from the definition, without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.tasks.catalog import Task
from megatron_aquila.evaluation.tasks.draws import SEED, examples_for_each
from megatron_aquila.evaluation.tasks.prompts import first_right, right_indices

Doc = Mapping[str, Any]


class ShotsError(AquilaError):
    """A task cannot be asked with so many examples."""


@dataclass(frozen=True)
class ChoiceRequest:
    """One question: log p(continuation | context) is wanted for each continuation.

    letters name the continuations, in their order; right: places of the right ones.
    """

    id: str
    context: str
    continuations: tuple[str, ...]
    letters: tuple[str, ...]
    right: frozenset[int]


def choice_requests(
    task: Task, questions: Sequence[Doc], examples: Sequence[Doc], shots: int, *, seed: int = SEED
) -> list[ChoiceRequest]:
    """One request a question, in order: plain text, no chat template.

    Args:
        questions: all of a task's: examples that are drawn depend on a question's place among them.
        examples: solved questions; see `draws.examples_for_each`.

    Raises:
        ShotsError: as `check_shots`.
    """
    if task.choices is None:
        raise ValueError(f"{task.name} is answered in words")
    check_shots(task, shots, len(examples))
    requests = []
    for question, shown in zip(questions, examples_for_each(examples, shots, len(questions), task.draw, seed)):
        solved = "".join(
            f"{task.prompt(doc)}{task.delimiter}{first_right(doc, task.choices(doc))}\n\n" for doc in shown
        )
        requests.append(
            ChoiceRequest(
                id=question["id"],
                context=f"{task.description}{solved}{task.prompt(question)}",
                continuations=tuple(task.delimiter + choice for choice in task.choices(question)),
                letters=tuple(question["options"]),
                right=frozenset(right_indices(question)),
            )
        )
    return requests


def check_shots(task: Task, shots: int, examples: int) -> None:
    """Raises:
    ShotsError: the task takes no examples, or there are fewer than asked for.
    """
    if shots and not task.takes_shots:
        raise ShotsError(f"{task.name} is asked without examples: set the shots to 0 for it")
    if shots > examples:
        where = task.examples_file or (f"the split {task.examples} of {task.set}" if task.examples else "a file")
        raise ShotsError(
            f"{task.name}: {shots} examples are asked for and {where} gives {examples}: lay it into the data "
            "directory, or ask for fewer"
        )
