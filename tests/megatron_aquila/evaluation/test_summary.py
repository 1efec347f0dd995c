"""Figures out of items, by hand, and the table at the width of a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import binomtest

from megatron_aquila.evaluation.results import Evaluation, Item, ModelFacts, TaskResult
from megatron_aquila.evaluation.summary import groups_of, print_summary, task_result
from megatron_aquila.evaluation.tasks import catalog


def _items(right: int, n: int, *, invalid: int = 0, clusters: int | None = None) -> list[Item]:
    """The first `right` are right, the last `invalid` no answers; each cluster holds neighbours."""
    return [
        Item(
            id=str(number),
            cluster=str(number if clusters is None else number * clusters // n),
            right=number < right,
            invalid=number >= n - invalid,
            answer=("A",),
            said=None if number >= n - invalid else ("A",) if number < right else ("B",),
        )
        for number in range(n)
    ]


def _task(items: list[Item], group: str | None = None, **changes: Any) -> TaskResult:
    facts: dict[str, Any] = {"shots": 3, "kind": "log-likelihood", "data": "", "prompt": "", "metrics": {}}
    return task_result(items, group=group, **{**facts, **changes})


def _evaluation(tasks: dict[str, TaskResult], **changes: Any) -> Evaluation:
    facts = ModelFacts(
        name="my-model-chat-dpo-2026",
        path="p",
        kind="checkpoint",
        digest="d",
        step=1,
        backend="aquila",
        layout="",
        precision="bf16",
        chat_template=None,
    )
    given: dict[str, Any] = {"suite": None, "seed": 0, "versions": {}, "began": "", "seconds": 0.0}
    return Evaluation(**{"model": facts, "tasks": tasks, "groups": groups_of(tasks), **given, **changes})


def _shown(evaluation: Evaluation, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    print_summary(evaluation, console)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in written.splitlines()]


def test_a_task_by_hand() -> None:
    found = _task(_items(3, 8, invalid=2, clusters=4))
    wilson = binomtest(3, 8).proportion_ci(0.95, "wilson")
    assert (found.n, found.right, found.invalid, found.clusters, found.accuracy) == (8, 3, 2, 4, 0.375)
    assert (found.interval.low, found.interval.high) == pytest.approx((wilson.low, wilson.high))
    # Sums of deviations of the clusters from 3/8: 1.25, 0.25, -0.75, -0.75; their squares add up to 2.75 (Miller,
    # arXiv 2411.00640, eq. 4), and G/(G-1) stands for few clusters.
    assert found.standard_error == pytest.approx((2.75 * 4 / 3) ** 0.5 / 8)
    assert _task(_items(3, 8, clusters=1)).standard_error is None


def test_a_group_by_hand() -> None:
    tasks = {"g_a": _task(_items(1, 4), "g"), "g_b": _task(_items(9, 12), "g"), "alone": _task(_items(1, 2), "other")}
    groups = groups_of(tasks)
    assert list(groups) == ["g"]  # one task is no average
    assert (groups["g"].tasks, groups["g"].n) == (("g_a", "g_b"), 16)
    assert (groups["g"].macro.value, groups["g"].micro.value) == ((1 / 4 + 9 / 12) / 2, 10 / 16)
    assert groups["g"].macro.interval.low < 0.5 < groups["g"].macro.interval.high


def test_every_task_of_the_suites_has_a_line_at_80_columns() -> None:
    asked = catalog.expand(["paper-cpt", "paper-chat", "aqm_cmmlu", "aqm_cmmlu_nospace"])
    tasks = {
        task.name: _task(
            _items(40, 100, invalid=1),
            task.group,
            shots=0 if task.name == "aqm_cmb_exam" else 3,
            warnings=task.warnings,
        )
        for task in asked
    }
    lines = _shown(_evaluation(tasks, dialogues={"aqm_cmb_clin": 208}))
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("Intervals"))]
    assert max(map(len, table)) <= 80 and not any("…" in line for line in lines)
    figures = [line.split() for line in table if "40.0 %" in line]
    assert len(figures) == len(asked) + 2 * 4  # and macro and micro of each group
    assert ["professional_medicine", "100", "40.0", "%", "30.9–49.8", "1", "3"] in figures
    assert "aqm_cmb_clin: 208 answers, for `aquila judge`" in lines
    assert any(line.startswith("aqm_ceval: 113 questions") for line in lines)  # once for its tasks


def test_a_long_name_is_broken_and_not_cut() -> None:
    name = "questions_of_the_user_" * 6
    lines = _shown(_evaluation({name: _task(_items(1, 2))}))
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.strip().startswith("questions_of"))
    assert "".join(line.split()[0] for line in lines[start:] if line.split()).startswith(name)
    assert lines[start].split()[1:] == ["2", "50.0", "%", "9.5–90.5"]
    assert any(line.startswith("3 examples before each question.") for line in lines)  # and no column says so


def test_dialogues_alone_have_no_table() -> None:
    assert _shown(_evaluation({}, dialogues={"said": 3})) == ["said: 3 answers, for `aquila judge`"]
