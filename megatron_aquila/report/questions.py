"""Questions put while training: their scores over steps with intervals, and against the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from data_tools.pages.html import Column, Markup, count, join, percent, tag
from megatron_aquila.config_evaluation import QuestionSet
from megatron_aquila.evaluation.questions import ALPHA, FOLDER, Standing, standing, steps_of
from megatron_aquila.evaluation.results import ResultsError, read_item_file
from megatron_aquila.evaluation.statistics import wilson
from megatron_aquila.report.charts import Chart, Line, grid
from megatron_aquila.report.curves import ReportError
from megatron_aquila.report.runs import Run
from megatron_aquila.report.words import p_value, verdict_word, wide_table


def question_section(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    """A chart of every set (one run: of all sets), and what the last score is beside the first; nothing without any."""
    charts = _of_one(runs[0]) if len(runs) == 1 else _of_many(runs, names)
    drawn = grid(charts)
    if not drawn:
        return Markup()
    note = tag(
        "p",
        "Scored by log-likelihood. Accuracy with its 95\u00a0% interval (Wilson); level: the start"
        + ("; dashed: the probability of the right option." if len(runs) == 1 else "."),
        class_="note",
    )
    return join([tag("h3", "Questions while training"), note, drawn, _standings(runs, names)])


def standings_line(run: Run) -> Markup:
    """One line: each set at the start and at the end, and the verdict; nothing without questions at two steps."""
    kinds, parts = _kinds(run), []
    for name in _sets(run):
        found = _standing(run, name, kinds.get(name, "medical"))
        if found is not None and found.start is not None:
            ends = f"{name} {percent(found.start)} → {percent(found.accuracy)}, "
            parts.append(join([ends, verdict_word(found.verdict)]))
    return join(["Questions: ", join(parts, "; "), "."]) if parts else Markup()


def _of_one(run: Run) -> list[Chart]:
    """Medical sets, then general ones beside them: a model may gain the one and lose the other."""
    kinds = _kinds(run)
    found = sorted(_sets(run), key=lambda name: (kinds.get(name) == "general", name))
    charts = []
    for name in found:
        line = _accuracy(run, name, 0, "accuracy")
        more = run.curves.get(f"questions/{name}/probability")
        lines = [line] if more is None else [line, Line(more, 1, "probability of the right option")]
        level = line.curve.finite[0][1] if line.curve.finite else None
        note = kinds.get(name, "")
        charts.append(Chart(name, lines, note=note, shares=True, floor=0.0, ceiling=1.0, level=level, legend=False))
    return charts


def _of_many(runs: Sequence[Run], names: Mapping[Path, str]) -> list[Chart]:
    found = dict.fromkeys(name for run in runs for name in _sets(run))
    kinds = {name: kind for run in runs for name, kind in _kinds(run).items()}
    return [
        Chart(
            name,
            [_accuracy(run, name, i, names[run.path]) for i, run in enumerate(runs) if name in _sets(run)],
            note=kinds.get(name, ""),
            shares=True,
            floor=0.0,
            ceiling=1.0,
        )
        for name in found
    ]


def _accuracy(run: Run, name: str, series: int, title: str) -> Line:
    curve = run.curves[f"questions/{name}/accuracy"]
    sizes = {step: _size(path) for step, path in steps_of(run.path / FOLDER, name).items()}
    counted = [sizes.get(int(step), 0) for step in curve.steps]
    if not counted or not all(counted) or curve.lost:
        return Line(curve, series, title, "dots")
    ends = [wilson(round(value * n), n) for value, n in zip(curve.values, counted)]
    return Line(curve, series, title, "dots", band=([end.low for end in ends], [end.high for end in ends]))


def _standings(runs: Sequence[Run], names: Mapping[Path, str]) -> Markup:
    rows = []
    for run in runs:
        kinds = _kinds(run)
        for name in _sets(run):
            if (found := _standing(run, name, kinds.get(name, "medical"))) is None:
                continue
            title = name if len(runs) == 1 else f"{names[run.path]}: {name}"
            rows.append(
                (
                    title,
                    kinds.get(name, "–"),
                    count(found.n),
                    "–" if found.start is None else percent(found.start),
                    percent(found.accuracy),
                    p_value(found.p),
                    verdict_word(found.verdict),
                )
            )
    if not rows:
        return Markup()
    columns = [Column("set"), Column("kind", numeric=False), Column("n"), Column("start"), Column("end")]
    return wide_table([*columns, Column("exact p"), Column(f"verdict at {100 * ALPHA:g}\u00a0%", numeric=False)], rows)


def _standing(run: Run, name: str, kind: str) -> Standing | None:
    """The last items of a set against the first."""
    files = list(steps_of(run.path / FOLDER, name).values())
    if not files:
        return None
    try:
        settings = QuestionSet.model_validate({"name": name, "path": "-", "kind": kind})
        now, start = read_item_file(files[-1]), read_item_file(files[0]) if len(files) > 1 else None
    except (ResultsError, ValidationError, OSError) as error:
        raise ReportError(f"{run.path / FOLDER}: the items of {name} cannot be read: {error}") from error
    if start is not None and [item.id for item in start] != [item.id for item in now]:
        start = None  # the set was changed between: nothing to compare
    return standing(settings, now, start)


def _sets(run: Run) -> list[str]:
    prefix, suffix = "questions/", "/accuracy"
    return [
        n.removeprefix(prefix).removesuffix(suffix) for n in run.curves if n.startswith(prefix) and n.endswith(suffix)
    ]


def _kinds(run: Run) -> dict[str, str]:
    """medical or general, as the configuration says of each set."""
    evaluation = run.config.get("evaluation")
    sets = (evaluation.get("questions") if isinstance(evaluation, Mapping) else None) or ()
    return {
        str(one["name"]): str(one.get("kind", "medical")) for one in sets if isinstance(one, Mapping) and "name" in one
    }


def _size(path: Path) -> int:
    return path.read_bytes().count(b"\n")
