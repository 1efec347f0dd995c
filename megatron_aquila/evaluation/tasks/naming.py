"""Answers in words: right if they name the one value that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence


def names_the_answer(said: str, answer: str, values: Sequence[str]) -> bool:
    """Whether a text names `answer` and no other one of `values`; capitals do not matter.

    What else it says does not matter either: neither wording nor politeness is scored. A list of guesses is wrong. A
    value inside a longer Latin word is not named: "liver" is not in "delivered".
    """

    def named(value: str) -> bool:
        return re.search(rf"(?<![a-z]){re.escape(value.lower())}(?![a-z])", said.lower()) is not None

    return named(answer) and not any(named(value) for value in values if value.lower() != answer.lower())
