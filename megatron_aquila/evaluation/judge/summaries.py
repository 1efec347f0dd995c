"""Outcomes → the summary, with what its reader is to be warned of. Pure."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from megatron_aquila.evaluation.judge import pair_figures, rubric_figures
from megatron_aquila.evaluation.judge.agreement import Others, pair_agreement, rubric_agreement
from megatron_aquila.evaluation.judge.canaries import tallied
from megatron_aquila.evaluation.judge.config import JudgeConfig, PairConfig
from megatron_aquila.evaluation.judge.outcome import Outcome, counted, served
from megatron_aquila.evaluation.judge.pair import PairOutcome
from megatron_aquila.evaluation.judge.ranks import rank_correlation
from megatron_aquila.evaluation.judge.reading import AnswerFile, Drawn
from megatron_aquila.evaluation.judge.rubric import RubricOutcome
from megatron_aquila.evaluation.judge.summary import (
    Canaries,
    Counted,
    JudgeFacts,
    PairSummary,
    Position,
    RubricSummary,
    Summary,
)
from megatron_aquila.evaluation.statistics import ALPHA

# What is worth a warning; ours throughout.
_LEAST_COVERAGE = 0.95
_LEAST_CANARIES = 0.9
_FEW = 30  # answers of a round


def of_pairs(
    config: PairConfig,
    answers: AnswerFile,
    against: AnswerFile | None,
    drawn: Drawn,
    prompts: Mapping[str, str],
    outcomes: Sequence[PairOutcome],
) -> PairSummary:
    """The summary of pairs. `outcomes`: canaries included."""
    real = [outcome for outcome in outcomes if not outcome.item.canary]
    verdicts = [outcome.verdict() for outcome in real]
    valid = pair_figures.judged(verdicts)
    counts = counted(answers, drawn, real)
    known = tallied(
        [
            (outcome.item.canary, outcome.verdict().outcome == "win" if outcome.valid else None)
            for outcome in outcomes
            if outcome.item.canary
        ]
    )
    position = pair_figures.position(valid)
    warnings = [*_warnings(config, counts, known), *_position_warnings(position)]
    if against is not None and against.source.sha256 == answers.source.sha256:
        warnings.append("both files hold the same bytes: what differs here is the judge's own doing")
    if drawn.unmatched:
        warnings.append(f"{drawn.unmatched:,} answers of {config.against} have no counterpart and are not compared")
    return PairSummary(
        judge=_facts(config, prompts, outcomes),
        answers=answers.source,
        against=None if against is None else against.source,
        counted=counts,
        strict=pair_figures.strict_outcomes(valid),
        lax=pair_figures.lax_outcomes(valid),
        matrix=pair_figures.matrix(verdicts),
        position=position,
        length=pair_figures.length(valid),
        languages={
            lang: pair_figures.strict_outcomes([each for each in valid if each.lang == lang])
            for lang in sorted({each.lang for each in valid})
        },
        canaries=known,
        warnings=tuple(warnings),
    )


def of_ratings(
    config: JudgeConfig,
    answers: AnswerFile,
    drawn: Drawn,
    prompts: Mapping[str, str],
    outcomes: Sequence[RubricOutcome],
) -> RubricSummary:
    """The summary of ratings. `outcomes`: canaries included, each two of a known pair beside each other."""
    real = [outcome for outcome in outcomes if not outcome.item.canary]
    ratings = [rating for outcome in real if (rating := outcome.rating()) is not None]
    counts = counted(answers, drawn, real)
    known = tallied(_rubric_canaries([outcome for outcome in outcomes if outcome.item.canary]))
    rounds = rubric_figures.rounds(ratings)
    warnings = _warnings(config, counts, known)
    if few := [str(each.round) for each in rounds if each.n < _FEW]:
        warnings.append(f"fewer than {_FEW} answers were judged in round {', '.join(few)}: their means say little")
    return RubricSummary(
        judge=_facts(config, prompts, outcomes),
        answers=answers.source,
        counted=counts,
        over_turns=rubric_figures.over_turns(ratings),
        over_dialogues=rubric_figures.over_dialogues(ratings),
        criteria=rubric_figures.criteria(ratings),
        scores=rubric_figures.scores(ratings),
        rounds=rounds,
        languages={
            lang: rubric_figures.over_turns([each for each in ratings if each.lang == lang])
            for lang in sorted({each.lang for each in ratings})
        },
        length_correlation=rank_correlation([each.characters for each in ratings], [each.mean for each in ratings]),
        canaries=known,
        warnings=tuple(warnings),
    )


def with_agreement(summary: Summary, outcomes: Sequence[Outcome], others: Others) -> Summary:
    """The summary with how far others agree."""
    if isinstance(summary, PairSummary):
        ours = {
            (each.item.id, each.item.round): each.verdict().outcome
            for each in outcomes
            if isinstance(each, PairOutcome) and each.valid and not each.item.canary
        }
        return summary.model_copy(update={"agreement": pair_agreement(ours, others)})
    scores = {
        (each.item.id, each.item.round): rating.scores
        for each in outcomes
        if isinstance(each, RubricOutcome) and not each.item.canary and (rating := each.rating()) is not None
    }
    return summary.model_copy(update={"agreement": rubric_agreement(scores, others)})


def _facts(config: JudgeConfig, prompts: Mapping[str, str], outcomes: Sequence[Outcome]) -> JudgeFacts:
    model = config.model
    return JudgeFacts(
        model=model.model,
        served=served(outcomes),
        temperature=model.temperature,
        top_p=model.top_p,
        seed=model.seed,
        max_tokens=model.max_tokens,
        retries=config.retries,
        prompts=dict(sorted(prompts.items())),
    )


def _rubric_canaries(outcomes: Sequence[RubricOutcome]) -> list[tuple[str, bool | None]]:
    """Whether the reference is rated a point above the worse answer, on average over the criteria."""
    results: list[tuple[str, bool | None]] = []
    for good, bad in zip(outcomes[::2], outcomes[1::2]):
        ratings = good.rating(), bad.rating()
        if ratings[0] is None or ratings[1] is None:
            results.append((good.item.canary, None))
        else:
            gap = fmean(ratings[0].scores.values()) - fmean(ratings[1].scores.values())
            results.append((good.item.canary, gap >= 1))
    return results


def _warnings(config: JudgeConfig, counts: Counted, canaries: Canaries | None) -> list[str]:
    found = []
    if counts.coverage is not None and counts.coverage < _LEAST_COVERAGE:
        found.append(
            f"only {counts.coverage:.1%} of {counts.items:,} items have a verdict ({counts.invalid:,} invalid, "
            f"{sum(counts.failed.values()):,} unanswered): what is missing may not be like the rest"
        )
    if canaries is not None and canaries.passed < _LEAST_CANARIES * canaries.n:
        found.append(
            f"the judge knew the better answer of only {canaries.passed} of {canaries.n} known pairs: do not trust it"
        )
    if config.canaries and (canaries is None or canaries.n < config.canaries):
        had = canaries.n if canaries is not None else 0
        found.append(f"{config.canaries} known pairs were asked for and the references give {had}")
    if counts.suspicious_items:
        found.append(
            f"{counts.suspicious_items:,} items hold words that are meant for a judge: look at them in verdicts.jsonl"
        )
    return found


def _position_warnings(position: Position) -> list[str]:
    if position.flips_sign_test is None or position.flips_sign_test >= ALPHA:
        return []
    place = "first" if position.flips_to_first > position.flips_to_second else "second"
    return [
        f"the judge leans to the {place} answer: where the orders disagree it took the first one "
        f"{position.flips_to_first:,} times and the second one {position.flips_to_second:,} times "
        f"(p = {position.flips_sign_test:.2g})"
    ]
