"""Two models on the same questions: what one has right and the other has not, and whether that is more than chance.

Differences are the other model's score less the first one's. Both must have been asked the same items in the same
words: anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from rich import box
from rich.table import Table
from rich.text import Text

from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation import statistics
from megatron_aquila.evaluation.results import Evaluation, Interval, Item, ModelFacts, TaskResult, read, read_items
from megatron_aquila.evaluation.statistics import Verdict

_SHOWN_IDS = 3
_WIDE = 120  # characters of the whole table
_WIDE_ONLY = ("n", "p", "visible")


class ComparisonError(AquilaError):
    """Two evaluations that do not score the same items alike."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Record):
    """One task, or one average of a group. Scores lie between 0 and 1."""

    name: str
    kind: Literal["task", "macro", "micro"]
    group: str | None
    n: int
    clusters: int
    first: float
    other: float
    difference: float
    interval: Interval = Field(description="95 %, paired bootstrap over clusters")
    standard_error: float | None = Field(description="of the difference, clustered; None for a single cluster")
    gained: int = Field(description="items that only the other has right")
    lost: int = Field(description="items that only the first has right")
    p: float = Field(description="exact McNemar; by clusters where items share them; z for a macro average")
    adjusted: float = Field(default=1.0, description="p after Holm's correction over all rows of all models compared")
    detectable: float = Field(description="least true difference that these items show, at 5 % and 80 % power")
    correlation: float | None = Field(description="of both models' answers; None where a model is constant, or macro")
    verdict: Verdict = Field(default="not distinguishable", description="of the other model, beside the first")


class Against(_Record):
    """Another model, row by row beside the first."""

    model: ModelFacts
    path: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = Field(description="what differed without being refused")


class Comparison(_Record):
    first: ModelFacts
    path: str
    others: tuple[Against, ...]
    alpha: float = statistics.ALPHA
    power: float = statistics.POWER
    resamples: int = statistics.RESAMPLES
    seed: int = 0


def compare(first: Path, *others: Path, seed: int = 0) -> Comparison:
    """Each of `others` beside `first`, on the tasks that both have; groups where both have all the same tasks.

    Args:
        first, others: directories of evaluations (`results.py`).
        seed: of the bootstrap.

    Raises:
        ComparisonError: a task's data, prompt, shots, way of asking or items differ, or no task is in both.
        ResultsError: a directory is not an evaluation.
    """
    if not others:
        raise ComparisonError("a comparison needs two evaluations or more: name another one")
    before = read(first)
    compared = [_against(first, before, path, seed) for path in others]
    adjusted = iter(statistics.holm([row.p for against in compared for row in against.rows]))
    return Comparison(
        first=before.model,
        path=str(first),
        others=tuple(
            against.model_copy(update={"rows": tuple(_judged(row, next(adjusted)) for row in against.rows)})
            for against in compared
        ),
        seed=seed,
    )


def _judged(row: Row, adjusted: float) -> Row:
    return row.model_copy(update={"adjusted": adjusted, "verdict": statistics.verdict(row.interval, adjusted)})


def _against(first: Path, before: Evaluation, other: Path, seed: int) -> Against:
    after = read(other)
    common = [task for task in before.tasks if task in after.tasks]
    if not common:
        raise ComparisonError(
            f"{first} and {other} have no task in common ({_names(before.tasks)}; {_names(after.tasks)}): evaluate "
            "both with the same tasks"
        )
    notes = [
        f"{path} alone has {_names(alone)}"
        for path, alone in ((first, _without(before.tasks, common)), (other, _without(after.tasks, common)))
        if alone
    ]
    if before.model.chat_template != after.model.chat_template:
        notes.append("the questions were put in different chat templates")
    pairs = {}
    for task in common:
        _require_the_same(task, (first, before), (other, after))
        pairs[task] = _Pair(read_items(first, task), read_items(other, task), task, (first, other))
    rows = []
    shown: set[str] = set()
    for task, pair in pairs.items():
        group = before.tasks[task].group
        if group in before.groups and group in after.groups and group not in shown:
            shown.add(group)
            members = before.groups[group].tasks
            if set(members) == set(after.groups[group].tasks):
                rows.append(_macro(group, [pairs[member] for member in members], seed))
                rows.append(_row(group, "micro", group, _pooled([pairs[member] for member in members]), seed))
            else:
                notes.append(f"{group} has other tasks in {first} than in {other}: no average")
        rows.append(_row(task, "task", group, pair, seed))
    return Against(model=after.model, path=str(other), rows=tuple(rows), notes=tuple(notes))


def _require_the_same(task: str, first: tuple[Path, Evaluation], other: tuple[Path, Evaluation]) -> None:
    (path_a, all_a), (path_b, all_b) = first, other
    a, b = all_a.tasks[task], all_b.tasks[task]
    asked = {"data": "questions", "prompt": "prompts", "kind": "ways of asking", "shots": "numbers of examples"}
    for key, meaning in asked.items():
        if (x := getattr(a, key)) != (y := getattr(b, key)):
            raise ComparisonError(
                f"{task} was scored with different {meaning}: {key} is {_short(x)} in {path_a} and {_short(y)} in "
                f"{path_b}; evaluate both models with the same tasks and data"
            )
    if a.shots and all_a.seed != all_b.seed:
        raise ComparisonError(
            f"{task} was asked after different examples: the seed is {all_a.seed} in {path_a} and {all_b.seed} in "
            f"{path_b}; evaluate both models with the same seed"
        )


class _Pair:
    """Both models' items of one task or of several, in one order."""

    def __init__(self, a: Sequence[Item], b: Sequence[Item], task: str, paths: tuple[Path, Path]) -> None:
        ids_a, ids_b = [item.id for item in a], [item.id for item in b]
        if ids_a != ids_b:
            odd = sorted(set(ids_a) ^ set(ids_b))
            what = f"{_names(odd)} in one only" if odd else "the same ids in another order, or repeated"
            raise ComparisonError(
                f"{task} has different items in {paths[0]} ({len(a):,}) and {paths[1]} ({len(b):,}): {what}; evaluate "
                "both models on all of the same questions"
            )
        self.a, self.b = [item.right for item in a], [item.right for item in b]
        self.clusters: list[tuple[str, str]] = [(task, item.cluster) for item in a]


def _pooled(pairs: Sequence[_Pair]) -> _Pair:
    whole = _Pair([], [], "", (Path(), Path()))
    for pair in pairs:
        whole.a += pair.a
        whole.b += pair.b
        whole.clusters += pair.clusters
    return whole


def _row(name: str, kind: Literal["task", "micro"], group: str | None, pair: _Pair, seed: int) -> Row:
    found = statistics.paired_bootstrap(pair.a, pair.b, pair.clusters, seed=seed)
    related = statistics.correlation(pair.a, pair.b)
    return Row(
        name=name,
        kind=kind,
        group=group,
        n=len(pair.a),
        clusters=len(set(pair.clusters)),
        first=sum(pair.a) / len(pair.a),
        other=sum(pair.b) / len(pair.b),
        difference=found.value,
        interval=found.interval,
        standard_error=None if math.isnan(found.standard_error) else found.standard_error,
        p=statistics.sign_flip_exact(pair.a, pair.b, pair.clusters),
        detectable=statistics.detectable(statistics.paired_error(pair.a, pair.b, pair.clusters)),
        correlation=None if math.isnan(related) else related,
        gained=sum(b and not a for a, b in zip(pair.a, pair.b)),
        lost=sum(a and not b for a, b in zip(pair.a, pair.b)),
    )


def _macro(group: str, pairs: Sequence[_Pair], seed: int) -> Row:
    found = statistics.paired_bootstrap_macro([(pair.a, pair.b, pair.clusters) for pair in pairs], seed=seed)
    # The errors that are never 0: with a few items all gained, z would be sure of what three answers say.
    errors = [statistics.paired_error(pair.a, pair.b, pair.clusters) for pair in pairs]
    error = math.hypot(*errors) / len(errors)
    return Row(
        name=group,
        kind="macro",
        group=group,
        n=sum(len(pair.a) for pair in pairs),
        clusters=sum(len(set(pair.clusters)) for pair in pairs),
        first=sum(sum(pair.a) / len(pair.a) for pair in pairs) / len(pairs),
        other=sum(sum(pair.b) / len(pair.b) for pair in pairs) / len(pairs),
        difference=found.value,
        interval=found.interval,
        standard_error=None if math.isnan(found.standard_error) else found.standard_error,
        p=statistics.z_test(found.value, error),
        detectable=statistics.detectable(error),
        correlation=None,
        gained=sum(b and not a for pair in pairs for a, b in zip(pair.a, pair.b)),
        lost=sum(a and not b for pair in pairs for a, b in zip(pair.a, pair.b)),
    )


def tables(comparison: Comparison, width: int = _WIDE) -> list[Table]:
    """One for each model beside the first; percentages and percentage points. What does not fit a narrow `width` (in
    characters) is left out."""
    return [_table(comparison, against, wide=width >= _WIDE) for against in comparison.others]


def _table(comparison: Comparison, against: Against, *, wide: bool) -> Table:
    made = Table(
        title=f"{against.model.name} beside {comparison.first.name}",
        caption="Accuracies in per cent, differences in points; interval: paired bootstrap, 95 %; p: McNemar (macro: z"
        + (
            "), then after Holm over the whole comparison; visible: the least true difference found four times in five."
            if wide
            else "), after Holm over the whole comparison."
        ),
        collapse_padding=not wide,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    made.add_column("", overflow="fold")
    headings = ("n", "first", "other", "diff.", "95 %", "p", "Holm", "visible")
    shown = [place for place, heading in enumerate(headings) if wide or heading not in _WIDE_ONLY]
    for place in shown:
        made.add_column(headings[place], justify="right", no_wrap=True)
    made.add_column("verdict")
    for row in against.rows:
        average = row.kind != "task"
        name = f"{row.name}, {row.kind}" if average else f"{'  ' if row.group else ''}{row.name}"
        cells = (
            f"{row.n:,}",
            f"{100 * row.first:.1f}",
            f"{100 * row.other:.1f}",
            f"{100 * row.difference:+.1f}",
            f"{100 * row.interval.low:+.1f} to {100 * row.interval.high:+.1f}",
            probability(row.p),
            probability(row.adjusted),
            f"{100 * row.detectable:.1f}",
        )
        made.add_row(
            Text(name, style="bold" if average else ""),
            *(cells[place] for place in shown),
            Text(row.verdict, style={"better": "green", "worse": "red"}.get(row.verdict, "dim")),
        )
    return made


def probability(p: float) -> str:
    """A p-value with two digits that matter: 0.003, 0.13; what is below 0.001 is said so."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.095 else f"{p:.2f}"


def _names(names: Sequence[str] | Mapping[str, TaskResult]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN_IDS:,} more" if len(shown) > _SHOWN_IDS else ""
    return ", ".join(shown[:_SHOWN_IDS]) + more


def _without(tasks: Mapping[str, TaskResult], common: Sequence[str]) -> list[str]:
    return [task for task in tasks if task not in common]


def _short(value: object) -> str:
    return f"{value:.12}" if isinstance(value, str) else str(value)
