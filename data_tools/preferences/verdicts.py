"""What a judge said of two answers, read strictly, and what two of its verdicts amount to. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data_tools.prompts import VerdictError, read_fields

ASPECTS = ("fluency", "relevance", "completeness", "proficiency")
"""Aquila-Med's four: Fluency, Relevance, Completeness, Proficiency in medicine (technical report 2.3.1)."""
OVERALL = "overall"
CODE_KEY = "comparison"

Place = Literal["first", "second", "tie"]
Side = Literal["original", "new", "tie"]
Order = Literal["original-first", "new-first"]
ORDERS: tuple[Order, Order] = ("original-first", "new-first")

_PLACES: Mapping[str, Place] = {"first": "first", "second": "second", "tie": "tie"}
_SIDES: Mapping[Order, Mapping[Place, Side]] = {
    "original-first": {"first": "original", "second": "new", "tie": "tie"},
    "new-first": {"first": "new", "second": "original", "tie": "tie"},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One valid verdict on two answers in one order. `aspects`: by the names of `ASPECTS`."""

    aspects: Mapping[str, Place]
    overall: Place

    def sides(self, order: Order) -> dict[str, Side]:
        """Which answer each aspect, and "overall", is for."""
        sides = _SIDES[order]
        return {**{name: sides[place] for name, place in self.aspects.items()}, OVERALL: sides[self.overall]}


def read_comparison(answer: str, code: str) -> Verdict:
    """The verdict {"comparison": code, "fluency": …, …, "overall": …} of a judge's answer; the overall one is asked
    for, never made out of the aspects, and never guessed.

    Raises:
        VerdictError: `unknown-verdict` (neither first, second nor tie); `contradictory`, also where the overall
            verdict has not one aspect on its side: a win that no aspect shares, or a tie though all four are for
            the same answer; and as in `read_fields`.
    """
    values = read_fields(answer, code, (*ASPECTS, OVERALL), key=CODE_KEY)
    places: dict[str, Place] = {}
    for name, value in values.items():
        place = _PLACES.get(value) if isinstance(value, str) else None
        if place is None:
            raise VerdictError("unknown-verdict", f"{name} must be first, second or tie, it is {value!r:.60}")
        places[name] = place
    overall = places.pop(OVERALL)
    said = set(places.values())
    if overall not in said and (overall != "tie" or len(said) == 1):
        aspects = ", ".join(f"{name} {place}" for name, place in places.items())
        raise VerdictError("contradictory", f"overall {overall} contradicts every aspect: {aspects}")
    return Verdict(places, overall)


def agreed(sides: Mapping[Order, Side], *, strict: bool) -> tuple[Side | None, str]:
    """The answer that won in both orders and "", or None and why there is none: `judge-ties` (both), `judge-half-ties`
    (one tie and one win, where `strict`; else the win counts), `judge-disagrees` (each order for another answer).

    Aquila-Med takes a win only where both orders agree (6.4 of its evaluation); for pairs it names no rule.
    """
    one, other = (sides[order] for order in ORDERS)
    if one == other:
        return (None, "judge-ties") if one == "tie" else (one, "")
    if "tie" not in (one, other):
        return None, "judge-disagrees"
    if strict:
        return None, "judge-half-ties"
    return (other if one == "tie" else one), ""
