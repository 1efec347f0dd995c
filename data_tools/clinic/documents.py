"""Medical documents of the synthetic clinic, in the two styles of Aquila-Med's continued pre-training.

Stage 1 is what a rule filter leaves of the web: chapters, case notes, patients' stories, notices and ward rounds,
with asides and page furniture between a few facts, often told of "this illness". Stage 2 is what a quality filter
and question-and-answer data leave: clean, dense, every fact with its condition's name.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from data_tools.clinic import scenes, wording
from data_tools.clinic.world import ATTRIBUTES, LANGUAGES, Condition, Language, World

Stage = Literal[1, 2]
_STYLES: dict[Stage, tuple[str, ...]] = {
    1: ("textbook", "case note", "patient story", "notice", "rounds"),
    2: ("exchange", "summary", "summary", "card"),
}
SOURCE = "synthetic clinic"

_STAND_IN_SHARE = 0.25
_ASIDE_SHARE = 0.25
_FURNITURE_SHARE = 0.2


def documents(
    world: World,
    *,
    stage: Stage,
    count: int | None = None,
    wordings: int = wording.DEFAULT_WORDINGS,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yield `count` documents (None: without end), in constant memory.

    In each round of 2 × len(world.conditions) documents every condition has one document in each language.
    `wordings` is the number of ways in which a fact may be put, 3 to WORDINGS_PER_FACT. A document is
    {"id", "text", "lang", "source", "meta"}; meta holds synthetic (True), style, and conditions: the indices
    of the conditions that the document tells of.
    Raises ValueError on a stage or a number of wordings that does not exist.
    """
    if stage not in _STYLES:
        raise ValueError(f"stage={stage} does not exist: the synthetic clinic has stages 1 and 2.")
    if not 3 <= wordings <= wording.WORDINGS_PER_FACT:
        raise ValueError(f"wordings={wordings} is not between 3 and {wording.WORDINGS_PER_FACT}.")
    rng = random.Random(f"synthetic clinic documents {world.seed} {stage} {seed}")
    return islice(_endless(world, stage, wordings, rng), count)


def _endless(world: World, stage: Stage, wordings: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    subjects: list[tuple[Condition, Language]] = [(c, lang) for c in world.conditions for lang in LANGUAGES]
    number = 0
    while True:
        rng.shuffle(subjects)
        for condition, lang in subjects:
            style = rng.choice(_STYLES[stage])
            conditions = [condition]
            if style == "rounds":
                conditions += rng.sample([c for c in world.conditions if c is not condition], rng.randint(1, 3))
            yield {
                "id": f"clinic-stage{stage}-{number:07d}",
                "text": _Writer(world, lang, wordings, rng).write(style, conditions),
                "lang": lang,
                "source": SOURCE,
                "meta": {"synthetic": True, "style": style, "conditions": [c.index for c in conditions]},
            }
            number += 1


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes one document."""

    world: World
    lang: Language
    wordings: int
    rng: random.Random

    def write(self, style: str, conditions: list[Condition]) -> str:
        condition = conditions[0]
        if style == "exchange":
            return self._exchange(condition)
        if style == "card":
            return self._card(condition)
        if style == "summary":
            sentences = [self._tell(condition, a) for a in self._attributes(4, 6)]
            return self._join([self._scene(scenes.OPENINGS[self.lang][style], condition), *sentences])
        if style == "rounds":
            return self._rounds(conditions)
        return self._narrative(style, condition)

    def _narrative(self, style: str, condition: Condition) -> str:
        sentences = [self._scene(scenes.OPENINGS[self.lang][style], condition)]
        asides = self.rng.sample(scenes.ASIDES[self.lang], len(ATTRIBUTES))
        for place, attribute in enumerate(self._attributes(3, 5)):
            stand_in = place > 0 and self.rng.random() < _STAND_IN_SHARE
            sentences.append(self._tell(condition, attribute, stand_in))
            if self.rng.random() < _ASIDE_SHARE:
                sentences.append(self._scene((asides[place],), condition))
        sentences.append(self._scene(scenes.ENDINGS[self.lang][style], condition))
        return self._with_furniture(self._join(sentences), condition)

    def _rounds(self, conditions: list[Condition]) -> str:
        lines = [self._scene(scenes.OPENINGS[self.lang]["rounds"], conditions[0])]
        for condition in conditions:
            told = self._join([self._tell(condition, a) for a in self._attributes(1, 3)])
            lines.append(f"{self._bullet}{told}")
        lines.append(self._scene(scenes.ENDINGS[self.lang]["rounds"], conditions[0]))
        return self._with_furniture("\n".join(line for line in lines if line), conditions[0])

    def _exchange(self, condition: Condition) -> str:
        asks, answers = self.rng.choice(scenes.SPEAKERS[self.lang])
        name = condition.name.in_language(self.lang)
        lines = []
        for attribute in self._attributes(2, 4):
            question = self.rng.choice(wording.ASKED[self.lang][attribute]).format(name=name)
            lines.append(f"{asks}{question}\n{answers}{self._tell(condition, attribute)}")
        return "\n".join(lines)

    def _card(self, condition: Condition) -> str:
        colon = "：" if self.lang == "zh" else ": "
        lines = [self._scene(scenes.OPENINGS[self.lang]["card"], condition)]
        for attribute in self._attributes(3, 5):
            value = condition.facts[attribute].in_language(self.lang)
            lines.append(f"{self._bullet}{wording.LABELS[self.lang][attribute]}{colon}{value}")
        return "\n".join(lines)

    @property
    def _bullet(self) -> str:
        return "" if self.lang == "zh" else "- "

    def _attributes(self, fewest: int, most: int) -> list[str]:
        return self.rng.sample(ATTRIBUTES, self.rng.randint(fewest, most))

    def _tell(self, condition: Condition, attribute: str, stand_in: bool = False) -> str:
        """One sentence that tells the fact, never in the wording that asks for it."""
        frames = list(wording.WORDINGS[self.lang][attribute][: self.wordings])
        del frames[self.world.asked_wording(condition, attribute)]
        name = condition.name.in_language(self.lang)
        if stand_in:
            name = self.rng.choice(wording.STAND_INS[self.lang])
        value = condition.facts[attribute].in_language(self.lang)
        return wording.capitalise(self.rng.choice(frames).format(name=name, value=value))

    def _scene(self, choices: tuple[str, ...], condition: Condition) -> str:
        rng, lang = self.rng, self.lang
        other: Language = "en" if lang == "zh" else "zh"
        return rng.choice(choices).format(
            name=condition.name.in_language(lang),
            other=condition.name.in_language(other),
            age=rng.randint(21, 79),
            who=rng.choice(scenes.WHO[lang]),
            season=rng.choice(scenes.SEASONS[lang]),
            days=rng.randint(3, 20),
            number=rng.randint(21, 99),
        )

    def _with_furniture(self, text: str, condition: Condition) -> str:
        parts = [text]
        if self.rng.random() < _FURNITURE_SHARE:
            parts.insert(0, self._scene(scenes.FURNITURE[self.lang], condition))
        if self.rng.random() < _FURNITURE_SHARE:
            parts.append(self._scene(scenes.FURNITURE[self.lang], condition))
        return "\n".join(parts)

    def _join(self, sentences: list[str]) -> str:
        return ("" if self.lang == "zh" else " ").join(sentence for sentence in sentences if sentence)
