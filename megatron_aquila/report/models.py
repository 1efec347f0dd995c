"""The models that evaluations are of: one model may have been asked several times, with other tasks or otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from data_tools.pages.html import count
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.results import Evaluation, TaskResult
from megatron_aquila.report.runs import Run


@dataclass(frozen=True)
class Scored:
    """An evaluation of questions, and what the page calls it.

    run: the run that the model is of; None: a model from elsewhere. model: the model's name, of it alone.
    label: the evaluation's name among those of its model.
    """

    directory: Path
    run: Path | None
    model: str
    label: str
    evaluation: Evaluation
    alone: bool = True  # the model has no other

    @property
    def name(self) -> str:
        return self.model if self.alone else f"{self.model}, {self.label}"


def find_scored(runs: Sequence[Run], names: Mapping[Path, str], more: Iterable[Path]) -> list[Scored]:
    """The evaluations of the runs in their order, by step, then those of `more`; each once. Those that hold no task
    (answers in dialogues are for the judge) are left out.

    Raises: ResultsError.
    """
    found: dict[Path, tuple[Path | None, Path, Evaluation]] = {}
    for run in runs:
        read = [(path, results.read(path)) for path in results.find(run.path)]
        for path, evaluation in sorted(read, key=lambda one: (one[1].model.step or 0, one[0].name)):
            found.setdefault(path.resolve(), (run.path, path, evaluation))
    for path in more:
        if (path / results.FILE).is_file() and path.resolve() not in found:
            evaluation = results.read(path)
            digest = evaluation.model.digest
            known = (owner for owner, _, other in found.values() if other.model.digest == digest)
            found[path.resolve()] = (next(known, None), path, evaluation)
    models: dict[tuple[Path | None, str, str], list[tuple[Path, Evaluation]]] = {}
    for owner, path, evaluation in found.values():
        if evaluation.tasks:
            name = names[owner] if owner else evaluation.model.name
            models.setdefault((owner, name, evaluation.model.digest), []).append((path, evaluation))
    titles = _titles([(name, ones[0][1]) for (_, name, _), ones in models.items()])
    return [
        Scored(path, owner, title, label, evaluation, len(ones) == 1)
        for ((owner, _, _), ones), title in zip(models.items(), titles)
        for (path, evaluation), label in zip(ones, _unlike([path.name for path, _ in ones]))
    ]


def _titles(models: Sequence[tuple[str, Evaluation]]) -> list[str]:
    """The names, with the step or else the weights where several models have one name."""
    plain = [name for name, _ in models]
    steps = [name if one.model.step is None else f"{name}, step {count(one.model.step)}" for name, one in models]
    weights = [f"{name}, weights {one.model.digest[:8]}" for name, one in models]
    told = [
        name if plain.count(name) == 1 else step if steps.count(step) == 1 else weight
        for name, step, weight in zip(plain, steps, weights)
    ]
    return _unlike(told)


def _unlike(names: Sequence[str]) -> list[str]:
    """The names, numbered where they repeat."""
    return [
        name if name not in names[:place] else f"{name} ({names[:place].count(name) + 1})"
        for place, name in enumerate(names)
    ]


def by_model(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Model → its evaluations."""
    found: dict[str, list[Scored]] = {}
    for one in scored:
        found.setdefault(one.model, []).append(one)
    return found


def asked_apart(
    models: Sequence[Sequence[Scored]], tasks_of: Callable[[Scored], Sequence[TaskResult]]
) -> list[tuple[str, list[Scored | None]]]:
    """Rows of (manner, an evaluation or None for each model) for a task or a group.

    tasks_of: its results in an evaluation; none where that does not hold it.

    One row, its manner "", as long as no model was asked twice; else a row for each manner of asking that tells the
    askings of one model apart.
    """
    held = [[one for one in model if tasks_of(one)] for model in models]
    askings = {one.directory: _manner(one, tasks_of(one)) for model in held for one in model}
    pairs = [pair for model in held for pair in combinations((askings[one.directory] for one in model), 2)]
    telling: list[str] = []
    for manner in next(iter(askings.values()), {}):
        told = [pair for pair in pairs if pair[0][manner] != pair[1][manner]]
        if told:
            telling.append(manner)
            pairs = [pair for pair in pairs if pair not in told]
    rows: dict[str, list[Scored | None]] = {}
    for place, model in enumerate(held):
        for one in model:
            manner = ", ".join(askings[one.directory][key] for key in telling)
            rows.setdefault(manner, [None] * len(models))[place] = one
    return list(rows.items())


def _manner(one: Scored, tasks: Sequence[TaskResult]) -> dict[str, str]:
    """How tasks were asked, by what a reader asks about first."""
    asked, model = one.evaluation, one.evaluation.model
    return {
        "template": f"template {model.chat_template}" if model.chat_template else "plain text",
        "shots": f"{_every(task.shots for task in tasks)} shots",
        "kind": _every(task.kind for task in tasks),
        "limit": "all questions" if asked.limit is None else f"{count(asked.limit)} questions",
        "length": "length as the task says" if asked.max_new_tokens is None else f"{asked.max_new_tokens} tokens",
        "data": f"data {_every(task.data[:8] for task in tasks)}",
        "prompt": f"prompts {_every(task.prompt[:8] for task in tasks)}",
        "seed": f"seed {asked.seed}",
        "backend": f"through {model.backend}",
        "precision": model.precision,
        "layout": model.layout,
        "label": one.label,
    }


def _every(values: Iterable[object]) -> str:
    return "/".join(dict.fromkeys(map(str, values)))
