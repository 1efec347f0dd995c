"""Preference pairs of the synthetic clinic for DPO, in the two kinds of Aquila-Med.

Objective: a multiple-choice question, answered by the right option or by a wrong one. Subjective: a patient's
question, answered with the fact and some care, or in a worse manner (`manners`).
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

from data_tools.clinic.asking import Ask, answer, asks_held_out, asks_in_training
from data_tools.clinic.choices import choice_answer, choice_question
from data_tools.clinic.documents import SOURCE
from data_tools.clinic.manners import ADVICE, LEAD_INS, MANNERS, WRONG_LANGUAGE
from data_tools.clinic.wording import capitalise
from data_tools.clinic.world import LANGUAGES, Language, World

PairSplit = Literal["train", "valid"]

_OBJECTIVE_SHARE = 0.29  # 3,708 of 12,727 in Aquila-Med


def preference_pairs(
    world: World, *, split: PairSplit = "train", count: int | None = None, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield `count` pairs (None: without end), in turn in Chinese and in English.

    A pair is {"id", "prompt": [the user's message], "chosen": [the assistant's], "rejected": [the assistant's],
    "kind", "lang", "source", "meta"}; meta holds synthetic (True), split, held_out, and manner: what is wrong with
    the rejected answer.

    Training pairs put the questions that dialogues put (`asks_in_training`); the others are for `valid`, whose meta
    says in held_out what is new in the question: its `wording` with this fact, or the `fact`. The held-out pairs also
    use phrases that training does not. Rejected answers are built to be as long as chosen ones, in all, so that length
    tells nothing.
    Raises ValueError on a split that does not exist.
    """
    if split not in ("train", "valid"):
        raise ValueError(f"split={split!r} does not exist: pairs are 'train' or 'valid'.")
    rng = random.Random(f"synthetic clinic pairs {world.seed} {split} {seed}")
    return islice(_endless(world, split, rng), count)


def _endless(world: World, split: PairSplit, rng: random.Random) -> Iterator[dict[str, Any]]:
    writer = _Writer(split, rng)
    asks: dict[Language, list[tuple[Ask, str]]] = {
        lang: [(ask, "") for ask in asks_in_training(world, lang)] if split == "train" else asks_held_out(world, lang)
        for lang in LANGUAGES
    }
    waiting: dict[Language, list[tuple[Ask, str]]] = {lang: [] for lang in LANGUAGES}
    number = 0
    while True:
        for lang in LANGUAGES:
            if not waiting[lang]:
                waiting[lang] = rng.sample(asks[lang], len(asks[lang]))
            ask, held_out = waiting[lang].pop()
            objective = int((number // 2 + 1) * _OBJECTIVE_SHARE) > int(number // 2 * _OBJECTIVE_SHARE)
            prompt, chosen, rejected, manner = writer.objective(ask) if objective else writer.subjective(ask)
            yield {
                "id": f"clinic-pair-{split}-{number:07d}",
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "kind": "objective" if objective else "subjective",
                "lang": lang,
                "source": SOURCE,
                "meta": {"synthetic": True, "split": split, "held_out": held_out, "manner": manner},
            }
            number += 1


class _Writer:
    """Writes (prompt, chosen, rejected, manner)."""

    def __init__(self, split: PairSplit, rng: random.Random) -> None:
        self._split = split
        self._rng = rng

    def objective(self, ask: Ask) -> tuple[str, str, str, str]:
        question = choice_question(ask, self._rng)
        wrong = self._rng.choice([letter for letter in question.options if letter != question.right])
        return (
            question.question,
            choice_answer(ask.lang, question.right, ask.value),
            choice_answer(ask.lang, wrong, question.options[wrong]),
            "wrong option",
        )

    def subjective(self, ask: Ask) -> tuple[str, str, str, str]:
        chosen = self._good(ask, ask.lang)
        manner = self._rng.choice([*MANNERS, WRONG_LANGUAGE])
        if manner == WRONG_LANGUAGE:
            return ask.question, chosen, self._good(ask, "en" if ask.lang == "zh" else "zh"), manner
        return ask.question, chosen, self._bad(ask, manner), manner

    def _good(self, ask: Ask, lang: Language) -> str:
        gap = "" if lang == "zh" else " "
        sentence = answer(ask.condition, ask.attribute, lang)
        return f"{self._phrase(LEAD_INS[lang])}{sentence}{gap}{self._phrase(ADVICE[lang])}"

    def _bad(self, ask: Ask, manner: str) -> str:
        beginnings, ends = (self._known(phrases) for phrases in MANNERS[manner][ask.lang])
        beginning = self._rng.choice(beginnings)
        # A beginning that names the condition and one end are as long as a good answer; others take one end or two.
        picked = self._rng.sample(ends, 1 if "{" in beginning else self._rng.randint(1, 2))
        name = ask.condition.name.in_language(ask.lang)
        first = beginning.format(answer=ask.answer, name=name) + picked[0]
        return ("" if ask.lang == "zh" else " ").join(map(capitalise, (first, *picked[1:])))

    def _phrase(self, phrases: Sequence[str]) -> str:
        return self._rng.choice(self._known(phrases))

    def _known(self, phrases: Sequence[str]) -> Sequence[str]:
        """The phrases of this split."""
        return phrases if self._split == "valid" else phrases[:-1]
