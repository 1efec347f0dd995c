"""Multiple-choice questions to an assistant of the synthetic clinic: four lettered options and an answer."""

import random
from typing import NamedTuple

from data_tools.clinic.asking import Ask
from data_tools.clinic.questions import LETTERS
from data_tools.clinic.world import VALUES, Language


class Choice(NamedTuple):
    """A question with its options: `right` is the letter of the right one."""

    question: str
    options: dict[str, str]
    right: str


def choice_question(ask: Ask, rng: random.Random) -> Choice:
    """The question with four options, one a line, the right one under a random letter."""
    right = rng.choice(LETTERS)
    values = [value.in_language(ask.lang) for value in VALUES[ask.attribute]]
    wrong = iter(rng.sample([value for value in values if value != ask.value], len(LETTERS) - 1))
    options = {letter: ask.value if letter == right else next(wrong) for letter in LETTERS}
    lines = [ask.question, *(f"{letter}. {option}" for letter, option in options.items())]
    return Choice("\n".join(lines), options, right)


def choice_answer(lang: Language, letter: str, option: str) -> str:
    """The value first, then its letter: it is known before it is looked up among the options."""
    return f"答案：{option}（选{letter}）。" if lang == "zh" else f"Answer: {option} (option {letter})."
