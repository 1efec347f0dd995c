"""Figures of a task beside its accuracy, from its items alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from megatron_aquila.evaluation.results import Item
from megatron_aquila.evaluation.tasks.catalog import Task


def task_metrics(task: Task, items: Sequence[Item]) -> dict[str, float]:
    """What the task's definition asks for under `metrics`; {} where there is no item."""
    if not items:
        return {}
    found: dict[str, float] = {}
    if "macro_f1" in task.metrics:
        found["macro_f1"] = macro_f1(items)
    if "cmb" in task.metrics:
        found |= examination_accuracies(items)
    return found


def macro_f1(items: Sequence[Item]) -> float:
    """Unweighted mean of F1 over the labels that are right somewhere or were said: PubMedQA's second metric
    (evaluation.py: scikit-learn's f1_score with average="macro"). An invalid item is said to be of no label.
    """
    labels = sorted({item.answer[0] for item in items} | {item.said[0] for item in items if item.said})
    scores = []
    for label in labels:
        said = [item.said is not None and item.said[0] == label for item in items]
        true = [item.answer[0] == label for item in items]
        both = sum(s and t for s, t in zip(said, true))
        scores.append(2 * both / (sum(said) + sum(true)))
    return sum(scores) / len(scores)


def examination_accuracies(items: Sequence[Item]) -> dict[str, float]:
    """CMB-Exam's own figures (score.py): accuracy of each examination (exam_type/exam_class), their mean in each type,
    and the mean of the types; beside them the accuracy of questions with one right letter and with several.
    """
    by_class: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        by_class[item.subject or ""].append(item.right)
    by_type: dict[str, list[float]] = defaultdict(list)
    for name, right in by_class.items():
        by_type[name.split("/")[0]].append(sum(right) / len(right))
    types = {f"type/{name}": sum(found) / len(found) for name, found in by_type.items()}
    single = [item.right for item in items if len(item.answer) == 1]
    several = [item.right for item in items if len(item.answer) > 1]
    counted = {"single_answer": single, "several_answers": several}
    return {
        "mean_of_types": sum(types.values()) / len(types),
        **{name: sum(found) / len(found) for name, found in counted.items() if found},
        **types,
    }
