"""Cloze questions about the synthetic clinic: four options, scored as continuations of the question.

The question is the beginning of a sentence, the options are ways to end it; chance is 25 %. The wrong options are
other values of the same attribute, in the same language, that belong to other conditions.
"""

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from data_tools.clinic.documents import SOURCE
from data_tools.clinic.wording import WORDINGS, capitalise, cloze_prompt
from data_tools.clinic.world import LANGUAGES, VALUES, Condition, Language, World

LETTERS = ("A", "B", "C", "D")


def questions(world: World, *, limit: int | None = None, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield two questions per fact, a Chinese and an English one, in random order; at most `limit`.

    A question is {"id", "question", "options": {"A": …, "D": …}, "answer": [letter], "explanation", "source",
    "split"}; its id names the language. The right letters are spread evenly over the questions.
    """
    rng = random.Random(f"synthetic clinic questions {world.seed} {seed}")
    facts = [(condition, attribute, lang) for condition, attribute in world.facts() for lang in LANGUAGES]
    rng.shuffle(facts)
    return islice(_questions(world, facts, rng), limit)


def _questions(
    world: World, facts: list[tuple[Condition, str, Language]], rng: random.Random
) -> Iterator[dict[str, Any]]:
    letters: list[str] = []
    for condition, attribute, lang in facts:
        if not letters:
            letters = rng.sample(LETTERS, len(LETTERS))
        letter = letters.pop()
        which = world.asked_wording(condition, attribute)
        name = condition.name.in_language(lang)
        answer = condition.facts[attribute]
        wrong = iter(rng.sample([value for value in VALUES[attribute] if value != answer], len(LETTERS) - 1))
        yield {
            "id": f"clinic-{lang}-{attribute}-{condition.index:03d}",
            "question": cloze_prompt(lang, attribute, which, name),
            "options": {x: (answer if x == letter else next(wrong)).in_language(lang) for x in LETTERS},
            "answer": [letter],
            "explanation": capitalise(
                WORDINGS[lang][attribute][which].format(name=name, value=answer.in_language(lang))
            ),
            "source": SOURCE,
            "split": "test",
        }


def continuations(question: Mapping[str, Any]) -> dict[str, str]:
    """The text to append to `question["question"]` for each option letter.

    English options follow a space, Chinese ones follow directly. Score option x by the log-probability of
    question["question"] + continuations(question)[x], summed over all tokens: the prompt is common to the four, so
    only the differences between the options count, wherever the tokenizer puts its borders.
    """
    gap = " " if question["question"][-1].isascii() else ""
    return {letter: gap + option for letter, option in question["options"].items()}
