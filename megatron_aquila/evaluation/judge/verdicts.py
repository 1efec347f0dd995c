"""What the judge said, read strictly and never guessed. Pure.

The paper's label line ("Assistant 1 is better than Assistant 2") could stand in any text that the judge quotes; the
JSON line with the fence's code cannot.
"""

from collections.abc import Mapping
from typing import Literal

from data_tools.preferences.verdicts import CODE_KEY
from data_tools.prompts import VerdictError, read_fields
from megatron_aquila.evaluation.judge.summary import CRITERIA

RATING_KEY = "rating"

Place = Literal["first", "second", "tie"]
Side = Literal["answer", "against", "tie"]
Order = Literal["answer-first", "against-first"]
Outcome = Literal["win", "tie", "loss"]  # of the answer
ORDERS: tuple[Order, Order] = ("answer-first", "against-first")
OUTCOMES: tuple[Outcome, Outcome, Outcome] = ("win", "tie", "loss")

_PLACES: Mapping[str, Place] = {"first": "first", "second": "second", "tie": "tie"}
_SIDES: Mapping[Order, Mapping[Place, Side]] = {
    "answer-first": {"first": "answer", "second": "against", "tie": "tie"},
    "against-first": {"first": "against", "second": "answer", "tie": "tie"},
}
_SCORES: Mapping[Side, int] = {"answer": 1, "tie": 0, "against": -1}


def read_pair(answer: str, code: str) -> Place:
    """The place in a verdict {"comparison": code, "better": …}.

    Raises:
        VerdictError: `unknown-verdict` (neither first, second nor tie), or as in `read_fields`.
    """
    value = read_fields(answer, code, ("better",), key=CODE_KEY)["better"]
    place = _PLACES.get(value) if isinstance(value, str) else None
    if place is None:
        raise VerdictError("unknown-verdict", f"better must be first, second or tie, it is {value!r:.60}")
    return place


def read_rubric(answer: str, code: str) -> dict[str, int]:
    """The scores in a verdict {"rating": code, "fluency": …, …}, by the names of `CRITERIA`.

    Raises:
        VerdictError: `not-an-integer` (3.0 and "3" are none), `out-of-range` (1 to 5), or as in `read_fields`.
    """
    scores: dict[str, int] = {}
    for name, value in read_fields(answer, code, CRITERIA, key=RATING_KEY).items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise VerdictError("not-an-integer", f"{name} must be a whole number, it is {value!r:.60}")
        if not 1 <= value <= 5:
            raise VerdictError("out-of-range", f"{name} must be from 1 to 5, it is {value!r:.60}")
        scores[name] = value
    return scores


def side(place: Place, order: Order) -> Side:
    """Which answer a verdict in `order` is for."""
    return _SIDES[order][place]


def strict(sides: tuple[Side, Side]) -> Outcome:
    """The paper's rule (technical report, 3.2): a win or a loss only where both orders agree, else a tie."""
    one, other = sides
    return "tie" if one != other or one == "tie" else "win" if one == "answer" else "loss"


def lax(sides: tuple[Side, Side]) -> Outcome:
    """HuatuoGPT-II's rule: the two orders are added up, so that a win and a tie are a win (its
    `evaluation/eval_huatuo_inst.py`).
    """
    total = sum(_SCORES[each] for each in sides)
    return "win" if total > 0 else "loss" if total < 0 else "tie"
