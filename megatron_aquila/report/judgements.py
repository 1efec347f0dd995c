"""Judgements of dialogues: wins, ties and losses, what the order and the length of answers did, and rubric scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.pages.charts import bar
from data_tools.pages.html import Column, Markup, count, join, percent, tag
from megatron_aquila.evaluation.judge import summary
from megatron_aquila.evaluation.judge.summary import CRITERIA, Mean, Outcomes, PairSummary, RubricSummary, Summary
from megatron_aquila.report.charts import Chart, Line, grid
from megatron_aquila.report.curves import Curve
from megatron_aquila.report.runs import Run
from megatron_aquila.report.words import figure, p_value, verdict_word, warnings, wide_table, with_interval

_OUTCOMES = (("win", "kept"), ("tie", "part-other"), ("loss", "lost"))


@dataclass(frozen=True)
class Judged:
    """A judgement and what the page calls it."""

    name: str
    summary: Summary


def find_judged(runs: Sequence[Run], names: Mapping[Path, str], more: Iterable[Path]) -> list[Judged]:
    """The judgements of the runs in their order, then those of `more`; each once.

    Raises: JudgeError.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for run in runs:
        for path in summary.find(run.path):
            found.setdefault(path.resolve(), (f"{names[run.path]}, {path.name}", path))
    for path in more:
        if (path / summary.FILE).is_file():
            found.setdefault(path.resolve(), (path.name, path))
    return [Judged(name, summary.read(path)) for name, path in found.values()]


def judge_section(judged: Sequence[Judged]) -> Markup:
    """Pairs, then rubrics; nothing without judgements."""
    pairs = [(one.name, one.summary) for one in judged if isinstance(one.summary, PairSummary)]
    rubrics = [(one.name, one.summary) for one in judged if isinstance(one.summary, RubricSummary)]
    return join([_pairs(pairs), _rubrics(rubrics), _warnings(judged)])


def _pairs(pairs: Sequence[tuple[str, PairSummary]]) -> Markup:
    if not pairs:
        return Markup()
    rows, cells, places = [], [], []
    for name, found in pairs:
        title = f"{name}: {found.answers.name} against {found.against.name if found.against else 'the references'}"
        rows += [_outcome_row(title, found.strict)]
        rows += [
            _outcome_row(f"· {language}", one) for language, one in found.languages.items() if len(found.languages) > 1
        ]
        for rule, one in (("strict", found.strict), ("lax", found.lax)):
            shares = [_share(one, kind) for kind, _ in _OUTCOMES]
            net = join(["–"])
            if one.net_win is not None:
                net = figure(f"{100 * one.net_win:+.1f}", f"± {100 * (one.net_win_error or 0):.1f}")
            half = "–" if one.half_ties is None else percent(one.half_ties)
            cells.append(
                (
                    f"{name}, {rule}",
                    count(one.n),
                    *shares,
                    half,
                    net,
                    p_value(one.sign_test),
                    verdict_word(one.verdict),
                )
            )
        place, counted, length = found.position, found.counted, found.length
        places.append(
            (
                name,
                with_interval(place.consistency, place.consistency_interval),
                with_interval(place.first_preference, place.first_preference_interval),
                "–" if counted.coverage is None else percent(counted.coverage),
                count(counted.invalid),
                count(counted.suspicious_items),
                "–" if length.difference is None else f"{length.difference:+,.0f}",
                with_interval(length.longer_wins, length.longer_wins_interval),
                _known(found),
            )
        )
    legend = tag(
        "p", *(tag("span", tag("i", class_=colour), word) for word, colour in _OUTCOMES), class_="legend outcomes"
    )
    note = "A win or a loss only where both orders of the two answers agree, else a tie (the paper's strict rule)."
    bias = [
        Column("what the order and length do"),
        Column("consistent"),
        Column("prefers the first"),
        Column("coverage"),
    ]
    bias += [Column("invalid"), Column("suspicious"), Column("longer by, characters"), Column("longer wins")]
    bias += [Column("known pairs")]
    rules = [Column("rule"), Column("n"), Column("win"), Column("tie"), Column("loss"), Column("win + ½ tie")]
    return join(
        [
            tag("h3", "In pairs"),
            tag("p", note, class_="note"),
            tag("ol", *rows, class_="bars outcomes"),
            legend,
            wide_table(
                [*rules, Column("net win ± SE, points"), Column("sign test p"), Column("verdict", numeric=False)], cells
            ),
            wide_table(bias, places),
        ]
    )


def _outcome_row(name: str, found: Outcomes) -> Markup:
    parts = [(colour, getattr(found, kind), f"{kind}: {count(getattr(found, kind))}") for kind, colour in _OUTCOMES]
    said = " / ".join(percent(getattr(found, kind), found.n) for kind, _ in _OUTCOMES)
    shares = [
        tag("span", f"{kind} ", tag("b", percent(getattr(found, kind), found.n)), class_="number")
        for kind, _ in _OUTCOMES
    ]
    return tag(
        "li",
        tag("span", name, class_="name"),
        tag("span", bar(parts, found.n, f"{name}: {said} win, tie, loss")),
        tag("span", *shares, class_="shares"),
        tag("span", f"of {count(found.n)}", class_="number note"),
    )


def _known(found: Summary) -> str:
    """In how many pairs of which the better answer is known the judge saw it."""
    return "–" if found.canaries is None else f"{count(found.canaries.passed)} of {count(found.canaries.n)}"


def _share(found: Outcomes, kind: str) -> Markup:
    shares, intervals = dict(found.shares or {}), dict(found.intervals or {})
    return with_interval(shares.get(kind), intervals.get(kind))  # type: ignore[call-overload]


def _rubrics(rubrics: Sequence[tuple[str, RubricSummary]]) -> Markup:
    if not rubrics:
        return Markup()
    cells = [
        (
            name,
            _mean(found.over_turns),
            _mean(found.over_dialogues),
            *(_mean(found.criteria.get(criterion)) for criterion in CRITERIA),
            f"{count(found.counted.invalid)}, {count(found.counted.suspicious_items)}",
            _known(found),
        )
        for name, found in rubrics
    ]
    headings = ("judgement", "over answers", "over dialogues", *CRITERIA, "invalid, suspicious", "known pairs")
    rounds = sorted({one.round for _, found in rubrics for one in found.rounds})
    thin = [
        (f"round {number}", *(_round(found, number) for _, found in rubrics)) for number in rounds if len(rounds) > 1
    ]
    parts = [
        tag("h3", "By four criteria"),
        tag("p", "From 1 to 5, with 95\u00a0% intervals by dialogue.", class_="note"),
    ]
    parts.append(wide_table([Column(heading) for heading in headings], cells))
    if thin:
        lines = [_line(name, found, index) for index, (name, found) in enumerate(rubrics)]
        chart = Chart(
            "mean score by round",
            lines,
            note="late rounds have few answers",
            x_name="round",
            x_from_zero=False,
            wide=True,
            floor=1.0,
            ceiling=5.0,
            holds=(1.0, 5.0),
        )
        parts += [grid([chart]), wide_table([Column("by round"), *(Column(name) for name, _ in rubrics)], thin)]
    return join(parts)


def _line(name: str, found: RubricSummary, series: int) -> Line:
    kept = [one for one in found.rounds if one.mean.value is not None]
    values = [one.mean.value or 0.0 for one in kept]
    ends = [(one.mean.interval.low, one.mean.interval.high) for one in kept if one.mean.interval is not None]
    band = ([low for low, _ in ends], [high for _, high in ends]) if len(ends) == len(kept) else None
    return Line(Curve([float(one.round) for one in kept], values), series, name, "dots", band=band)


def _round(found: RubricSummary, number: int) -> Markup:
    one = next((one for one in found.rounds if one.round == number), None)
    return join(["–"]) if one is None else _mean(one.mean, f"n {count(one.n)}")


def _mean(mean: Mean | None, *notes: str) -> Markup:
    if mean is None or mean.value is None:
        return join(["–"])
    reach = "" if mean.interval is None else f"{mean.interval.low:.2f}–{mean.interval.high:.2f}"
    return figure(f"{mean.value:.2f}", reach, *notes)


def _warnings(judged: Sequence[Judged]) -> Markup:
    return warnings([(text, one.name, "") for one in judged for text in one.summary.warnings])
