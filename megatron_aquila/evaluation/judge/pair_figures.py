"""Verdicts in both orders → wins, ties and losses, and how far the judge itself made them. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from megatron_aquila.evaluation.judge.ranks import rank_correlation
from megatron_aquila.evaluation.judge.summary import Length, LengthQuarter, Outcomes, Position
from megatron_aquila.evaluation.judge.verdicts import ORDERS, OUTCOMES, Outcome, Place, Side, lax, side, strict
from megatron_aquila.evaluation.statistics import (
    bootstrap_mean,
    clustered_standard_error,
    goodman,
    net_win,
    sign_flip_exact,
    sign_test,
    verdict,
    wilson,
)

_SCORES = {"win": 1, "tie": 0, "loss": -1}
_SIDES = ("answer", "tie", "against", "invalid")


@dataclass(frozen=True)
class PairVerdict:
    """One item. places: with the answer first, then with it second; None: no valid verdict. characters: of the answer
    and of the other one. failed: a question got no answer.
    """

    id: str
    lang: str
    places: tuple[Place | None, Place | None]
    characters: tuple[int, int]
    failed: bool = False

    @property
    def sides(self) -> tuple[Side | None, Side | None]:
        """Which answer each order is for."""
        one, other = (None if place is None else side(place, order) for place, order in zip(self.places, ORDERS))
        return one, other

    @property
    def outcome(self) -> Outcome:
        """By the strict rule. Only for a valid one."""
        return strict(_valid(self))

    @property
    def longer(self) -> int:
        """Characters of the answer less those of the other one."""
        return self.characters[0] - self.characters[1]


def judged(verdicts: Sequence[PairVerdict]) -> list[PairVerdict]:
    """Those with a valid verdict in both orders; the others count in nothing but coverage."""
    return [each for each in verdicts if None not in each.places]


def strict_outcomes(verdicts: Sequence[PairVerdict]) -> Outcomes:
    """Of valid verdicts, by the paper's rule."""
    return _outcomes([each.outcome for each in verdicts], [each.id for each in verdicts])


def lax_outcomes(verdicts: Sequence[PairVerdict]) -> Outcomes:
    """Of valid verdicts, the two orders added up."""
    return _outcomes([lax(_valid(each)) for each in verdicts], [each.id for each in verdicts])


def _outcomes(outcomes: Sequence[Outcome], dialogues: Sequence[str]) -> Outcomes:
    counts = Counter(outcomes)
    win, tie, loss = (counts[name] for name in OUTCOMES)
    n = len(outcomes)
    if not n:
        none = dict.fromkeys(
            ("shares", "intervals", "net_win", "net_win_error", "net_win_interval", "sign_test", "verdict", "half_ties")
        )
        return Outcomes(win=0, tie=0, loss=0, n=0, **none)
    net = net_win(win, tie, loss)
    error, interval, p = net.standard_error, net.interval, sign_test(win, loss)
    if len(set(dialogues)) < n:  # rounds of one dialogue depend on each other
        scores = [_SCORES[outcome] for outcome in outcomes]
        error = clustered_standard_error(scores, dialogues)
        interval = bootstrap_mean(scores, dialogues).interval
        p = sign_flip_exact([score < 0 for score in scores], [score > 0 for score in scores], dialogues)
    return Outcomes(
        win=win,
        tie=tie,
        loss=loss,
        n=n,
        shares={name: counts[name] / n for name in OUTCOMES},
        intervals=dict(zip(OUTCOMES, goodman([win, tie, loss]))),
        net_win=net.value,
        net_win_error=None if math.isnan(error) else error,
        net_win_interval=interval,
        sign_test=p,
        verdict=verdict(interval, p),
        half_ties=(win + tie / 2) / n,
    )


def matrix(verdicts: Sequence[PairVerdict]) -> dict[str, dict[str, int]]:
    """Side with the answer first → side with it second → items that got an answer in both."""
    counts = Counter(
        tuple("invalid" if found is None else found for found in each.sides) for each in verdicts if not each.failed
    )
    return {one: {other: counts[one, other] for other in _SIDES} for one in _SIDES}


def position(verdicts: Sequence[PairVerdict]) -> Position:
    """Of valid verdicts: what the order did."""
    same = sum(each.sides[0] == each.sides[1] for each in verdicts)
    places = Counter(place for each in verdicts for place in each.places)
    decisive = places["first"] + places["second"]
    both = Counter(each.places for each in verdicts)
    to_first, to_second = both["first", "first"], both["second", "second"]
    return Position(
        consistency=same / len(verdicts) if verdicts else None,
        consistency_interval=wilson(same, len(verdicts)) if verdicts else None,
        first_preference=places["first"] / decisive if decisive else None,
        first_preference_interval=wilson(places["first"], decisive) if decisive else None,
        flips_to_first=to_first,
        flips_to_second=to_second,
        flips_sign_test=sign_test(to_first, to_second) if to_first + to_second else None,
    )


def length(verdicts: Sequence[PairVerdict]) -> Length:
    """Of valid verdicts by the strict rule: what length did. That the better answers are longer is no bias by itself;
    read it beside the languages and a second judge.
    """
    n = len(verdicts)
    decisive = [each for each in verdicts if each.outcome != "tie" and each.longer]
    longer = sum((each.longer > 0) == (each.outcome == "win") for each in decisive)
    means = [sum(each.characters[k] for each in verdicts) / n if n else None for k in (0, 1)]
    return Length(
        answer_characters=means[0],
        against_characters=means[1],
        difference=sum(each.longer for each in verdicts) / n if n else None,
        correlation=rank_correlation([each.longer for each in verdicts], [_SCORES[each.outcome] for each in verdicts]),
        longer_wins=longer / len(decisive) if decisive else None,
        longer_wins_interval=wilson(longer, len(decisive)) if decisive else None,
        longer_wins_n=len(decisive),
        quarters=_quarters(verdicts),
    )


def _quarters(verdicts: Sequence[PairVerdict]) -> tuple[LengthQuarter, ...]:
    ordered = sorted(verdicts, key=lambda each: each.longer)
    bounds = [len(ordered) * quarter // 4 for quarter in range(5)]
    quarters = []
    for part in (ordered[begin:end] for begin, end in pairwise(bounds) if end > begin):
        counts = Counter(each.outcome for each in part)
        quarters.append(
            LengthQuarter(
                least=part[0].longer,
                most=part[-1].longer,
                n=len(part),
                win=counts["win"],
                tie=counts["tie"],
                loss=counts["loss"],
            )
        )
    return tuple(quarters)


def _valid(found: PairVerdict) -> tuple[Side, Side]:
    one, other = found.sides
    assert one is not None
    assert other is not None
    return one, other
