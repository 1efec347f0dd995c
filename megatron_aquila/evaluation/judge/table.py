"""A judgement as tables for the terminal: a function of the summary alone."""

from collections.abc import Iterator, Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from megatron_aquila.evaluation.judge.summary import (
    CRITERIA,
    Mean,
    Outcomes,
    PairSummary,
    RubricSummary,
    Summary,
)
from megatron_aquila.evaluation.judge.verdicts import OUTCOMES
from megatron_aquila.evaluation.results import Interval


def table(summary: Summary) -> RenderableType:
    """Headline, what the judge itself did to it, and warnings."""
    parts = _pair(summary) if isinstance(summary, PairSummary) else _rubric(summary)
    return Group(*parts, *(Text(warning, style="yellow") for warning in summary.warnings))


def _pair(summary: PairSummary) -> Iterator[RenderableType]:
    against = summary.against.name if summary.against is not None else "the references"
    title = f"{summary.answers.name} against {against}, judged by {_judge(summary)}"
    head = _table(title, "rule", "n", *OUTCOMES, "net win", "p")
    for name, found in (("strict", summary.strict), ("lax", summary.lax)):
        head.add_row(name, *_outcomes(found))
    for lang, found in summary.languages.items():
        if len(summary.languages) > 1:
            head.add_row(f"strict, {lang}", *_outcomes(found))
    yield head
    position, length = summary.position, summary.length
    facts = {
        "strict (both orders agree)": summary.strict.verdict or "-",
        "win + tie/2, strict": _share(summary.strict.half_ties),
        "items on which the orders agree": _within(position.consistency, position.consistency_interval),
        "verdicts for the first answer": _within(position.first_preference, position.first_preference_interval),
        "orders disagree": f"first {position.flips_to_first:,}, second {position.flips_to_second:,}",
        "longer answer wins": f"{_within(length.longer_wins, length.longer_wins_interval)} of {length.longer_wins_n:,}",
        "length and outcome": f"rank correlation {_number(length.correlation)}",
        "mean characters": f"{_number(length.answer_characters, 0)} against {_number(length.against_characters, 0)}",
    }
    yield _facts({**facts, **_common(summary)})


def _rubric(summary: RubricSummary) -> Iterator[RenderableType]:
    title = f"{summary.answers.name}, 1 to 5, judged by {_judge(summary)}"
    head = _table(title, "answers", "n", *CRITERIA, "mean")
    for each in summary.rounds:
        criteria = (_number(each.criteria[name].value, 2) for name in CRITERIA)
        head.add_row(f"round {each.round}", f"{each.n:,}", *criteria, _mean(each.mean))
    head.add_section()
    every = [summary.criteria[name] for name in CRITERIA]
    head.add_row("all", f"{summary.over_turns.n:,}", *map(_mean, every), _mean(summary.over_turns))
    head.add_row("dialogues", f"{summary.over_dialogues.n:,}", *[""] * len(CRITERIA), _mean(summary.over_dialogues))
    if len(summary.languages) > 1:
        for lang, found in summary.languages.items():
            head.add_row(lang, f"{found.n:,}", *[""] * len(CRITERIA), _mean(found))
    yield head
    facts = {"length and score": f"rank correlation {_number(summary.length_correlation)}"}
    yield _facts({**facts, **_common(summary)})


def _common(summary: Summary) -> dict[str, str]:
    counts, canaries, agreement, judge = summary.counted, summary.canaries, summary.agreement, summary.judge
    facts = {
        "prompts": ", ".join(judge.prompts),
        "verdicts": f"{counts.judged:,} of {counts.items:,} items ({_share(counts.coverage)}), "
        f"{counts.invalid:,} invalid{_reasons(counts.failed)}",
        "answers that were no verdict": f"{sum(counts.invalid_answers.values()):,}{_reasons(counts.invalid_answers)}",
        "not asked about": f"{sum(counts.skipped.values()):,} of {counts.drawn:,} answers{_reasons(counts.skipped)}",
        "speak to the judge": f"{counts.suspicious_items:,} items{_reasons(counts.suspicious)}",
    }
    if counts.unfinished:
        facts["cut off at their longest"] = f"{counts.unfinished:,} answers"
    if canaries is not None:
        kinds = ", ".join(f"{kind} {passed}/{n}" for kind, (passed, n) in canaries.kinds.items())
        facts["known pairs"] = f"{canaries.passed} of {canaries.n} right ({kinds})"
    if agreement is not None:
        kappa = f"kappa {_number(agreement.kappa)}, the same in {_share(agreement.same)} of {agreement.n:,} items"
        weighted = ", ".join(f"{name} {_number(value)}" for name, value in agreement.criteria.items())
        facts[f"with {agreement.file}"] = f"{kappa}{f'; weighted {weighted}' if weighted else ''}"
    return facts


def _table(title: str, first: str, *columns: str) -> Table:
    made = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, header_style="dim", collapse_padding=True
    )
    made.add_column(first, no_wrap=True)
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    return made


def _facts(facts: Mapping[str, str]) -> Table:
    made = Table(box=None, show_header=False, padding=(0, 2))
    made.add_column(style="dim")
    made.add_column()
    for name, value in facts.items():
        made.add_row(Text(name), Text(value))
    return made


def _judge(summary: Summary) -> str:
    judge = summary.judge
    served = f" (served as {', '.join(judge.served)})" if judge.served and judge.served != (judge.model,) else ""
    return f"{judge.model}{served}"


def _outcomes(found: Outcomes) -> list[str]:
    if found.shares is None or found.intervals is None:
        return [f"{found.n:,}", *["-"] * 5]
    shares = [f"{_share(found.shares[name])}\n{_percent(found.intervals[name])}" for name in OUTCOMES]
    error = f"\n± {100 * found.net_win_error:.1f}" if found.net_win_error is not None else ""
    net = "-" if found.net_win is None else f"{100 * found.net_win:+.1f}{error}"
    p = "-" if found.sign_test is None else f"{found.sign_test:.2g}"
    return [f"{found.n:,}", *shares, net, p]


def _within(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return _share(value)
    return f"{_share(value)}, {_percent(interval)}"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


def _mean(mean: Mean) -> str:
    if mean.value is None or mean.interval is None:
        return _number(mean.value, 2)
    return f"{mean.value:.2f}\n{mean.interval.low:.2f}–{mean.interval.high:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count:,}' for name, count in counts.items())})" if counts else ""
