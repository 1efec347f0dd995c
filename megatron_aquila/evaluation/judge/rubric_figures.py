"""Ratings → means over answers, dialogues and rounds, with intervals. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from megatron_aquila.evaluation.judge.summary import CRITERIA, Mean, Round
from megatron_aquila.evaluation.statistics import bootstrap_mean


@dataclass(frozen=True)
class Rating:
    """One answer's scores, 1 to 5, by the names of `CRITERIA`. characters: of the answer."""

    id: str
    round: int
    lang: str
    scores: Mapping[str, int]
    characters: int

    @property
    def mean(self) -> float:
        """Of the four criteria."""
        return fmean(self.scores[name] for name in CRITERIA)


def mean(values: Sequence[float], dialogues: Sequence[str]) -> Mean:
    """With a bootstrap interval over whole dialogues, since the rounds of one depend on each other."""
    if not values:
        return Mean(value=None, interval=None, n=0)
    interval = bootstrap_mean(values, dialogues).interval if len(set(dialogues)) > 1 else None
    return Mean(value=fmean(values), interval=interval, n=len(values))


def over_turns(ratings: Sequence[Rating]) -> Mean:
    """Over all answers alike: the paper's average."""
    return mean([each.mean for each in ratings], [each.id for each in ratings])


def over_dialogues(ratings: Sequence[Rating]) -> Mean:
    """Over dialogues alike, however many rounds they have."""
    by_dialogue: dict[str, list[float]] = {}
    for each in ratings:
        by_dialogue.setdefault(each.id, []).append(each.mean)
    return mean([fmean(found) for found in by_dialogue.values()], list(by_dialogue))


def criteria(ratings: Sequence[Rating]) -> dict[str, Mean]:
    """Over all answers, by criterion."""
    dialogues = [each.id for each in ratings]
    return {name: mean([each.scores[name] for each in ratings], dialogues) for name in CRITERIA}


def scores(ratings: Sequence[Rating]) -> dict[str, dict[int, int]]:
    """Criterion → score → answers: a judge that gives everything a 4 shows here."""
    found = {name: Counter(each.scores[name] for each in ratings) for name in CRITERIA}
    return {name: {score: counts[score] for score in range(1, 6)} for name, counts in found.items()}


def rounds(ratings: Sequence[Rating]) -> tuple[Round, ...]:
    """The curve over the rounds; a late one is over the few dialogues that go so far."""
    found = []
    for number in sorted({each.round for each in ratings}):
        part = [each for each in ratings if each.round == number]
        found.append(Round(round=number, n=len(part), mean=over_turns(part), criteria=criteria(part)))
    return tuple(found)
