"""What became of an item, for the file of verdicts and for the counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data_tools.llm import Failure
from data_tools.preferences.judge import Asked
from megatron_aquila.evaluation.judge.reading import AnswerFile, Drawn, Item
from megatron_aquila.evaluation.judge.summary import Counted
from megatron_aquila.evaluation.judge.suspicious import suspicions


@dataclass(frozen=True)
class Outcome:
    """An item and what the judge said to each question about it."""

    item: Item
    asked: tuple[Asked[Any], ...]

    @property
    def failure(self) -> Failure | None:
        """Why a question got no answer."""
        return next((each.failure for each in self.asked if each.failure is not None), None)

    @property
    def valid(self) -> bool:
        """Whether every question got a valid verdict."""
        return all(each.verdict is not None for each in self.asked)

    @cached_property
    def suspicious(self) -> dict[str, tuple[str, ...]]:
        """What speaks to the judge, by the text that does."""
        item = self.item
        texts = {
            "answer": item.answer,
            "against": item.other,
            "conversation": "\n".join(message["content"] for message in item.conversation),
        }
        return {name: found for name, text in texts.items() if (found := suspicions(text))}

    def row(self) -> dict[str, Any]:
        """What a line of the file of verdicts has in any case."""
        item, failure = self.item, self.failure
        return {
            "id": item.id,
            "round": item.round,
            "lang": item.lang,
            "canary": item.canary or None,
            "failure": failure and failure.reason,
            "finished": item.finished,
            "suspicious": self.suspicious,
        }


def counted(file: AnswerFile, drawn: Drawn, outcomes: Sequence[Outcome]) -> Counted:
    """What became of the rows; `outcomes` without canaries."""
    failed = Counter(outcome.failure.reason for outcome in outcomes if outcome.failure is not None)
    judged = sum(outcome.valid for outcome in outcomes)
    flags: Counter[str] = Counter()
    flagged = 0
    for outcome in outcomes:
        found = {name for names in outcome.suspicious.values() for name in names}
        flags.update(found)
        flagged += bool(found)
    return Counted(
        rows=len(file.rows),
        drawn=drawn.rows,
        skipped=by_name(drawn.skipped),
        items=len(outcomes),
        judged=judged,
        invalid=len(outcomes) - judged - failed.total(),
        failed=by_name(failed),
        invalid_answers=by_name(_invalid(outcomes)),
        coverage=judged / len(outcomes) if outcomes else None,
        suspicious=by_name(flags),
        suspicious_items=flagged,
        unfinished=sum(not outcome.item.finished for outcome in outcomes),
    )


def served(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The names that the server gave itself."""
    names = {said["model"] for outcome in outcomes for each in outcome.asked for said in each.said if "model" in said}
    return tuple(sorted(names))


def by_name(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts in the order of their names."""
    return dict(sorted(counts.items()))


def _invalid(outcomes: Sequence[Outcome]) -> Counter[str]:
    said = (said for outcome in outcomes for each in outcome.asked for said in each.said)
    return Counter(each["invalid"] for each in said if each.get("invalid"))
