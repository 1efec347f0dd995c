"""A recipe of the judge, run: answers read, questions asked, verdicts and summary published.

Answers of the judge are recorded as they come, so that a run that was killed asks nothing twice; what it publishes is
made anew out of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from data_tools.llm import Estimate, LanguageModel
from data_tools.publish import BusyError, StorageError, atomic_path, exclusive, remove_leftovers
from megatron_aquila.evaluation.judge import summaries
from megatron_aquila.evaluation.judge.agreement import Others, read_others
from megatron_aquila.evaluation.judge.asking import asked_about
from megatron_aquila.evaluation.judge.canaries import pair_canaries, rubric_canaries
from megatron_aquila.evaluation.judge.config import JudgeConfig, PairConfig
from megatron_aquila.evaluation.judge.outcome import Outcome
from megatron_aquila.evaluation.judge.pair import PairJudge, PairOutcome
from megatron_aquila.evaluation.judge.reading import AnswerFile, Drawn, Item, pair_items, read_answers, rubric_items
from megatron_aquila.evaluation.judge.rubric import RubricJudge, RubricOutcome
from megatron_aquila.evaluation.judge.summary import (
    FILE,
    VERDICTS,
    JudgeError,
    PairSummary,
    RubricSummary,
    Summary,
    write,
)

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is to be judged. canaries: mixed in; for a rubric two for each known pair."""

    answers: AnswerFile
    against: AnswerFile | None
    drawn: Drawn
    canaries: tuple[Item, ...]
    judge: PairJudge | RubricJudge

    @property
    def items(self) -> list[Item]:
        """All that is asked about."""
        return [*self.drawn.items, *self.canaries]


def plan(config: JudgeConfig) -> Plan:
    """Read the answers and draw from them, without a call.

    Raises:
        JudgeError: a file cannot be read, or leaves nothing to judge.
    """
    answers = read_answers(config.answers, config.name)
    judge: PairJudge | RubricJudge
    try:
        kind = PairJudge if isinstance(config, PairConfig) else RubricJudge
        judge = kind(config.prompt, config.retries)
    except FileNotFoundError as error:
        raise JudgeError(f"prompt: there is no version {config.prompt} of the judge's prompt; 1 is there") from error
    against = None
    if isinstance(config, PairConfig):
        against = None if config.against is None else read_answers(config.against, config.against_name)
        drawn = pair_items(answers, against, config.limit, config.seed)
        canaries = pair_canaries(drawn.items, config.canaries, config.seed)
    else:
        drawn = rubric_items(answers, config.limit, config.seed)
        canaries = rubric_canaries(drawn.items, config.canaries, config.seed)
    if not drawn.items:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(drawn.skipped.items()))
        raise JudgeError(f"{config.answers} leaves nothing to judge: of {drawn.rows:,} answers {reasons}")
    return Plan(answers, against, drawn, tuple(canaries), judge)


def estimate(config: JudgeConfig, planned: Plan) -> Estimate:
    """The dry run: calls, tokens and cost, without a call and without the repetitions that invalid verdicts cost."""
    judge = planned.judge
    return LanguageModel(config.model).estimate(request for item in planned.items for request in judge.requests(item))


def run(
    config: JudgeConfig,
    *,
    agreement: Path | None = None,
    model: LanguageModel | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Summary:
    """Judge, and publish `judge.json` and `verdicts.jsonl` in the recipe's output.

    Args:
        agreement: a file of verdicts by others, see `agreement.read_others`.
        model: the recipe's, given to keep its account.

    Raises:
        JudgeError: as in `plan`; too many items without an answer; a bad file of verdicts; another run writes the same
            output; output or cache cannot be written.
        LanguageModelError, NotRecordedError, StorageError: as in `LanguageModel.ask`.
    """
    planned = plan(config)
    others = (
        None if agreement is None else read_others(agreement, "pair" if isinstance(config, PairConfig) else "rubric")
    )
    try:
        return _published(config, planned, others, model or LanguageModel(config.model), on_progress)
    except BusyError as error:
        raise JudgeError(str(error)) from error
    except StorageError:
        raise
    except OSError as error:
        raise JudgeError(
            f"{error.filename or config.output}: {(error.strerror or str(error)).lower()}: output and model.cache must "
            "be directories that can be written to"
        ) from error


def _published(
    config: JudgeConfig, planned: Plan, others: Others | None, model: LanguageModel, on_progress: OnProgress
) -> Summary:
    config.output.mkdir(parents=True, exist_ok=True)
    with exclusive(config.output, config.output):
        for name in (VERDICTS, FILE):
            remove_leftovers(config.output / name)
        outcomes = []
        with atomic_path(config.output / VERDICTS) as temporary:
            with temporary.open("wb") as file:
                for outcome in asked_about(planned.items, model, planned.judge.outcome):
                    outcomes.append(outcome)
                    file.write(orjson.dumps(outcome.row()) + b"\n")
                    on_progress(len(outcomes), len(planned.items))
            _check(config, outcomes)
            summary = _summary(config, planned, outcomes)
            if others is not None:
                summary = summaries.with_agreement(summary, outcomes, others)
            (config.output / FILE).unlink(missing_ok=True)  # an earlier one never stands beside these verdicts
        write(config.output, summary)
    return summary


def _check(config: JudgeConfig, outcomes: Sequence[Outcome]) -> None:
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    if len(failures) > config.max_failed_fraction * len(outcomes):
        first = failures[0]
        kept = "" if config.model.mode == "off" else "; what it answered is recorded: mend that, and run again"
        raise JudgeError(
            f"{len(failures):,} of {len(outcomes):,} items got no answer from the judge, the first one because of "
            f"{first.reason}{f' ({first.detail})' if first.detail else ''}{kept}"
        )


def _summary(config: JudgeConfig, planned: Plan, outcomes: Sequence[Outcome]) -> PairSummary | RubricSummary:
    if isinstance(config, PairConfig):
        pairs = [outcome for outcome in outcomes if isinstance(outcome, PairOutcome)]
        return summaries.of_pairs(
            config, planned.answers, planned.against, planned.drawn, planned.judge.prompts(), pairs
        )
    ratings = [outcome for outcome in outcomes if isinstance(outcome, RubricOutcome)]
    return summaries.of_ratings(config, planned.answers, planned.drawn, planned.judge.prompts(), ratings)
