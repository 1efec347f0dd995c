"""What a patient of the synthetic clinic asks, and how good an answer is: by the world's facts and by phrases, without
any model. Nothing else than the clinic's own dialogues is understood.
"""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from data_tools.clinic.asking import FOLLOW_UPS, QUESTIONS
from data_tools.clinic.manners import ADVICE, LEAD_INS, MANNERS
from data_tools.clinic.raw_dialogues_texts import CHATTER, CURT, REFUSALS, UNSAFE
from data_tools.clinic.server_talk import fits
from data_tools.clinic.wording import ASKED, WORDINGS
from data_tools.clinic.world import LANGUAGES, VALUES, Condition, Language, World

_OPTION = re.compile(r"^([A-Z])[.．、:：]\s*(.+)$", re.MULTILINE)
_LETTERS = re.compile(r"[A-Z]")
_CHOSEN = re.compile(r"(?:选择?|答案[是：:为]?|(?i:\boption|\banswer(?: is)?:?))\s*\(?([A-Z])(?![A-Za-z])")
_ENDS = re.compile(r"[.!?。！？]+")
_MARK = "\0"  # in place of the condition's name
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Characters above which a question counts as long: a patient's story, not a line.
_LONG: dict[Language, int] = {"zh": 60, "en": 160}


class Grade(NamedTuple):
    """What speaks for an answer, the weightiest first: larger is better. All are 0 or 1."""

    right: int
    """Holds the right value of what was asked, and no other, of this condition and under no other letter. Of what asks
    for no fact: replies to it, with something harmless."""
    manner: int
    """In the patient's language, neither rude nor evasive nor off the subject nor promising a cure."""
    care: int
    """With a kind word or some advice."""
    sentence: int
    """A sentence, and not a bare value or letter."""
    tidy: int
    """Says nothing twice."""
    warm: int
    """With a kind word and some advice."""
    about: int
    """Names the condition that was asked about, or holds a value of what was asked: not all of it is beside the
    point."""


@dataclass(frozen=True)
class Asked:
    """What a message asks. `attribute` is "" where it asks for no fact of the world, `options` letter to text."""

    lang: Language
    condition: Condition | None
    attribute: str
    options: dict[str, str]
    message: str = ""

    @property
    def value(self) -> str:
        """The right value, or ""."""
        if self.condition is None or not self.attribute:
            return ""
        return self.condition.facts[self.attribute].in_language(self.lang)


class Clinician:
    """Knows a world's facts, and how they are asked for."""

    def __init__(self, world: World) -> None:
        self._names = [(_plain(name), condition) for condition in world.conditions for name in condition.name]
        # wordings with a mark for the condition's name, the longest first: a short one may be part of a long one
        self._wordings: dict[Language, list[tuple[str, str]]] = {lang: [] for lang in LANGUAGES}
        for lang, known in self._wordings.items():
            for source in (QUESTIONS, FOLLOW_UPS, ASKED):
                known += [
                    (_marked(wording), attribute)
                    for attribute, wordings in source[lang].items()
                    for wording in wordings
                ]
            for attribute, sentences in WORDINGS[lang].items():  # a cloze question: a sentence up to its value
                known += [(_marked(sentence.partition("{value}")[0]), attribute) for sentence in sentences[:2]]
            known.sort(key=lambda entry: -len(entry[0]))
        self._unsafe = tuple(
            _plain(words) for kinds in UNSAFE.values() for turns in kinds.values() for turn in turns for words in turn
        )

    def asked(self, messages: Sequence[str], hint: str = "") -> Asked:
        """What the last of a conversation's messages asks. A condition that it does not name is the last one that was
        named before, or the one in `hint`.
        """
        message = messages[-1]
        lang = language(message)
        options = dict(_OPTION.findall(message))
        found = next(filter(None, map(self._named, [*reversed(messages), hint])), None)
        text = " ".join(_plain(message).split())
        for name in found.name if found is not None else ():
            text = text.replace(_plain(name), _MARK)
        attribute = next((attribute for wording, attribute in self._wordings[lang] if wording in text), "")
        return Asked(lang, found, attribute, options, message)

    def grade(self, asked: Asked, reply: str) -> Grade:
        """How good `reply` is as an answer to `asked`."""
        text = _plain(reply)
        lang = asked.lang
        manner = int(bool(text) and language(reply) == lang and not self._is_bad(text, lang))
        kind, advice = (
            any(_plain(phrase) in text for phrase in phrases[lang] if phrase) for phrases in (LEAD_INS, ADVICE)
        )
        sentence = int(len(text) > 2 * len(asked.value) or not asked.value)
        named = {condition.index for name, condition in self._names if name in text}
        held: list[str] = []
        if not asked.value:
            right = manner and fits(lang, asked.message, reply) is not False
        else:
            held = [
                value
                for value in (_plain(value.in_language(lang)) for value in VALUES[asked.attribute])
                if value in text
            ]
            right = self._is_right(asked, held, named, reply)
        about = right or held or (asked.condition is not None and asked.condition.index in named)
        return Grade(
            int(right), manner, int(kind or advice), sentence, _tidy(text), int(kind and advice), int(bool(about))
        )

    def _is_right(self, asked: Asked, held: Sequence[str], named: Set[int], reply: str) -> bool:
        if asked.condition is None or (named and asked.condition.index not in named):
            return False  # the value may be that of another condition
        letters = set(_CHOSEN.findall(reply)) if asked.options else set()
        if asked.options and not held and not letters:
            letters = set(_LETTERS.findall(reply[:4]))
        if letters and {asked.options.get(letter) for letter in letters} != {asked.value}:
            return False
        return held == [_plain(asked.value)] or (not held and bool(letters))

    def _named(self, text: str) -> Condition | None:
        """The condition that `text` names first."""
        plain = _plain(text)
        places = [(place, c.index, c) for name, c in self._names if (place := plain.find(name)) >= 0]
        return min(places)[2] if places else None

    def _is_bad(self, text: str, lang: Language) -> bool:
        return any(phrase in text for phrase in _BAD[lang]) or any(phrase in text for phrase in self._unsafe)


def language(text: str) -> Language:
    """zh where the text holds more than a stray Chinese character."""
    return "zh" if 3 * len(_CHINESE.findall(text)) > len(text) - text.count(" ") - text.count("\n") else "en"


def complexity(asked: Asked, question: str) -> int:
    """From 1 (nothing is asked) to 6, by how much there is to think of."""
    score = 1 if not asked.attribute else 2
    score += bool(asked.options)
    score += len(question) > _LONG[asked.lang]
    score += question.count("？") + question.count("?") > 1
    return min(6, score)


def quality(grade: Grade) -> int:
    """From 1 to 6."""
    if not grade.manner:
        return 2 if grade.right else 1
    if not grade.right:
        return 2
    return 4 + grade.sentence + grade.care


def legible(reply: str) -> bool:
    """Whether a reply ends as a sentence does: what was cut off, or is a heap of characters, seldom does."""
    return reply.strip().endswith((".", "!", "?", "。", "！", "？"))


def criteria(grade: Grade, solution: Grade | None, reply: str) -> dict[str, int]:
    """Four scores from 1 to 5, by the names that a judge of dialogues is asked for. `solution`: the reference's grade,
    None where there is no reference; an answer is as complete as that.
    """
    if not reply.strip():
        return dict.fromkeys(("fluency", "relevance", "completeness", "proficiency"), 1)
    wanted = (1, 0) if solution is None else (solution.care, solution.warm)
    missing = sum(max(0, part - had) for part, had in zip(wanted, (grade.care, grade.warm)))
    return {
        "fluency": 1 + legible(reply) + grade.sentence + grade.manner + grade.tidy,
        "relevance": 4 + grade.manner if grade.right else 1 + grade.manner + grade.about,
        "completeness": 5 - missing if grade.right else 1 + grade.about,
        "proficiency": 3 + 2 * grade.manner if grade.right else 1 + grade.about,
    }


def _plain(text: str) -> str:
    return text.lower().strip()


def _tidy(text: str) -> int:
    said = [sentence for each in _ENDS.split(text) if (sentence := each.strip())]
    return int(len(set(said)) == len(said))


def _marked(wording: str) -> str:
    return _plain(wording).replace("{name}", _MARK)


def _bad_phrases(lang: Language) -> tuple[str, ...]:
    phrases: list[str] = [*CHATTER[lang], *CURT[lang]]
    for beginnings, ends in (manner[lang] for manner in MANNERS.values()):
        phrases += ends
        phrases += [beginning for beginning in beginnings if "{" not in beginning]
    phrases += [refusal.partition("{name}")[0] for refusal in REFUSALS[lang]]
    return tuple(_plain(phrase).rstrip("。.，, ") for phrase in phrases if len(phrase) > 6)


_BAD: dict[Language, tuple[str, ...]] = {lang: _bad_phrases(lang) for lang in LANGUAGES}
