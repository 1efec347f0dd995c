"""A model card's tables of results. Shares are shown in per cent, each with its interval and what it is over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from megatron_aquila.evaluation.contamination import Contamination
from megatron_aquila.evaluation.judge.summary import Mean, PairSummary, RubricSummary, Summary
from megatron_aquila.evaluation.results import Average, Evaluation, Interval, TaskResult
from megatron_aquila.release.markdown import Markdown, code, table, text

READING = """\
Intervals are of 95 %: Wilson's for the share of right answers of a task, which hold for small `n` too. An answer that
could not be read counts as wrong. Two figures whose intervals overlap widely are not evidence of a difference between
models; a paired comparison over the same questions tells (`aquila eval compare`)."""


def share(value: float | None) -> Markdown:
    return Markdown("" if value is None else f"{100 * value:.1f} %")


def between(interval: Interval | None) -> Markdown:
    return Markdown("" if interval is None else f"{100 * interval.low:.1f} – {100 * interval.high:.1f}")


def number(value: int | float) -> Markdown:
    return Markdown(f"{value:,}")


def evaluation_section(name: str, evaluation: Evaluation) -> str:
    """One evaluation: how it was asked, a row a task, a row a group, warnings."""
    model = evaluation.model
    asked = "as plain text" if model.chat_template is None else f"in the chat template {code(model.chat_template)}"
    suite = "" if evaluation.suite is None else f"Suite {code(evaluation.suite)}. "
    parts = [
        f"### {code(name)}",
        f"{suite}Questions were put {asked}; {code(model.backend)}, {code(model.precision)}; weights "
        f"{code(model.digest[:16])}; seed {evaluation.seed}.",
    ]
    if evaluation.tasks:
        headings = ("task", "n", "accuracy", "95 % interval", "unreadable", "shots", "scored by", "further")
        rows = [_task_row(task, result) for task, result in evaluation.tasks.items()]
        parts.append(table(headings, rows, right=(1, 2, 3, 4, 5)))
    if evaluation.groups:
        columns = ("group", "tasks", "n", "macro average", "95 % interval", "micro average", "95 % interval")
        averages = [
            (code(group), number(len(r.tasks)), number(r.n), *_average(r.macro), *_average(r.micro))
            for group, r in evaluation.groups.items()
        ]
        parts.append(table(columns, averages, right=range(1, 7)))
        parts.append("Macro averages weigh tasks alike, micro averages weigh questions alike.")
    warnings = [(task, warning) for task, result in evaluation.tasks.items() for warning in result.warnings]
    if warnings:
        parts.append("\n".join(f"- {code(task)}: {text(warning)}" for task, warning in warnings))
    return "\n\n".join(parts)


def _task_row(name: str, result: TaskResult) -> tuple[object, ...]:
    further = ", ".join(f"{text(key)} {value:.3f}" for key, value in result.metrics.items())
    figures = (number(result.n), share(result.accuracy), between(result.interval), number(result.invalid))
    return (code(name), *figures, number(result.shots), result.kind, Markdown(further))


def _average(average: Average) -> tuple[Markdown, Markdown]:
    return share(average.value), between(average.interval)


def judgement_section(name: str, summary: Summary) -> str:
    """A judgement: who judged, the figures, and what speaks against trusting them."""
    counted = summary.counted
    judged = f"{counted.judged:,} of {counted.items:,} answers have a valid verdict"
    who = f"The judge is the language model {code(summary.judge.model)}; {judged}. A language model's verdicts are no "
    parts = [f"### {code(name)}", f"{who}clinical judgement."]
    parts += _pair(summary) if isinstance(summary, PairSummary) else _rubric(summary)
    if summary.warnings:
        parts.append("\n".join(f"- {text(warning)}" for warning in summary.warnings))
    return "\n\n".join(parts)


def _pair(summary: PairSummary) -> list[str]:
    against = "the reference answers of the set" if summary.against is None else code(summary.against.name)
    rows = []
    rules = (("strict: both orders agree", summary.strict), ("lax: the two orders added up", summary.lax))
    for rule, outcomes in rules:
        cells: list[object] = [rule, number(outcomes.n)]
        for key in ("win", "tie", "loss"):
            shares, intervals = outcomes.shares or {}, outcomes.intervals or {}
            cells.append(Markdown(f"{share(shares.get(key))} ({between(intervals.get(key))})" if shares else ""))
        cells.append(outcomes.verdict or "")
        rows.append(cells)
    position = summary.position
    bias = (
        f"Both orders agree on {share(position.consistency) or 'none'} of the items; of decisive verdicts "
        f"{share(position.first_preference) or 'none'} are for the answer that stood first (50 % would show no "
        "preference of place)."
    )
    asked = f"Answers of {code(summary.answers.name)} against {against}:"
    return [asked, table(("rule", "n", "win", "tie", "loss", "the answers are"), rows, right=range(1, 5)), bias]


def _rubric(summary: RubricSummary) -> list[str]:
    rows: Iterable[tuple[object, ...]] = [
        ("all answers, mean of the criteria", *_mean(summary.over_turns)),
        ("dialogues, mean of their answers", *_mean(summary.over_dialogues)),
        *((criterion, *_mean(mean)) for criterion, mean in summary.criteria.items()),
    ]
    return ["Scores from 1 to 5:", table(("", "mean", "95 % interval", "n"), rows, right=(1, 2, 3))]


def _mean(mean: Mean) -> tuple[Markdown, Markdown, Markdown]:
    value = "" if mean.value is None else f"{mean.value:.2f}"
    interval = "" if mean.interval is None else f"{mean.interval.low:.2f} – {mean.interval.high:.2f}"
    return Markdown(value), Markdown(interval), number(mean.n)


def contamination_section(name: str, report: Contamination) -> str:
    """How many of a task's questions occur in the training data that was searched."""
    searched = ", ".join(f"{code(PurePath(one.path).name)} ({code(one.digest[:16])})" for one in report.training)
    rows = [
        (code(task), number(found.n), number(found.flagged), share(found.share), between(found.interval))
        for task, found in report.tasks.items()
    ]
    return f"### {code(name)}: test questions in the training data\n\nSearched were {searched}.\n\n" + table(
        ("task", "questions", "found", "share", "95 % interval"), rows, right=range(1, 5)
    )


def model_index(name: str, evaluations: Iterable[Evaluation]) -> list[dict[str, Any]]:
    """The Hub's `model-index`: accuracy of each task, between 0 and 1. Of a task measured twice, both stand there."""
    found = []
    for evaluation in evaluations:
        for task, result in evaluation.tasks.items():
            metrics = [
                {
                    "type": "accuracy",
                    "value": round(result.accuracy, 4),
                    "name": f"accuracy, {result.shots} shots, {result.kind}",
                }
            ]
            metrics += [{"type": key, "value": round(value, 4)} for key, value in result.metrics.items()]
            found.append(
                {
                    "task": {"type": "text-generation", "name": "Medical question answering"},
                    "dataset": {"type": task, "name": task},
                    "metrics": metrics,
                }
            )
    return [{"name": name, "results": found}] if found else []
