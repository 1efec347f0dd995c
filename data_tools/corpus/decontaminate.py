"""Documents that hold evaluation questions: found by n-grams of words (en) or characters (zh) after folding.

Every document is looked through for questions of both languages, so that the language step need not have run. Of a
question are looked for: its text (long: enough of its n-grams close together; short: the whole of it), its options (all
of them close together, in any order), and, where they are long, its answers and explanation.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig

Part = Literal["question", "options", "answer", "explanation"]
_LONG_PARTS: tuple[Part, ...] = ("answer", "explanation")  # looked for only where they have an n-gram


class UnitLimits(BaseModel):
    """What counts as found, in tokens of one unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ngram: Annotated[int, Field(ge=2, le=100)]
    """Tokens in an n-gram. 13 as in GPT-3 (Brown et al. 2020, appendix C)."""
    short: Annotated[int, Field(ge=2, le=100)]
    """A text of fewer tokens than an n-gram, but at least these, is looked for whole. A question that is shorter still
    is looked for together with its options."""
    options: Annotated[int, Field(ge=2)]
    """Options with fewer tokens than this together are no evidence ("1, 2, 3, 4")."""
    start: Annotated[int, Field(ge=1, le=20)]
    """Options are found by the first tokens of one of them, which must have this many."""
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Least share of a text's n-grams."""


class DecontaminateConfig(StepConfig):
    """Against which questions, and what is done with a document that holds one."""

    step: Literal["decontaminate"] = "decontaminate"
    questions: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files, directories or patterns of questions: {"id", "question", "options", "answer", "explanation", "source"}."""
    action: Literal["drop", "flag"] = "drop"
    """`flag` keeps the document and notes the match under `contamination`."""
    words: UnitLimits = UnitLimits(ngram=13, short=5, options=8, start=2)
    """Of questions that are not mostly Chinese."""
    characters: UnitLimits = UnitLimits(ngram=13, short=6, options=16, start=3)
    """Of Chinese questions. 13 characters are some 8 words."""
    parts: tuple[Part, ...] = ("question", "options", "answer")
    """What of an item is looked for. Answers and explanations only where they have the tokens of an n-gram."""
    options_alone: bool = True
    """Options are evidence without their question. False for examination questions among dialogues, where one list of
    options serves several questions (CMB's B1 type) and one stem several lists ("下列叙述正确的是"): options are then
    looked for with their question only, if that is too short or if several items have it."""
    common: Annotated[int, Field(ge=1)] = 8
    """An n-gram of more questions than this ("which of the following is the most likely …") is no evidence. A question
    of nothing else is looked for whole."""

    def build(self, resources: Resources) -> "Decontaminate":
        return Decontaminate(self)

    def files(self) -> tuple[Path, ...]:
        from data_tools.inputs import resolve_inputs

        return tuple(resolve_inputs(self.questions))


@dataclass(frozen=True)
class QuestionItem:
    """A question as it is looked for: its `question` and, where there are such, its `answer` and `explanation`."""

    id: str
    source: str
    texts: Mapping[str, str]
    options: tuple[str, ...]


class Pattern(NamedTuple):
    """What the index looks for: which part of which item, counted in what."""

    item: int
    part: Part
    unit: int


class Found(NamedTuple):
    """A pattern in a text: the text's place, share of n-grams, first and end index into the text."""

    text: int
    pattern: Pattern
    ratio: float
    span: tuple[int, int]


class QuestionIndex:
    """`items`, indexed. unindexed: places of those that are too short to tell from ordinary text."""

    def __init__(self, config: DecontaminateConfig, items: Sequence[QuestionItem]) -> None:
        from data_tools import _text
        from data_tools.corpus.folding import folding

        self.config = config
        lengths = [(unit.ngram, unit.short, unit.start, unit.ratio) for unit in (config.characters, config.words)]
        self._index = _text.NgramIndex(folding(), characters=lengths[0], words=lengths[1], common=config.common)
        self.patterns: list[Pattern] = []
        self.unindexed: list[int] = []
        asked = Counter(item.texts["question"] for item in items if item.options)
        for number, item in enumerate(items):
            self._add(number, item, shared=not config.options_alone and asked[item.texts["question"]] > 1)
        self._index.finish()

    def _add(self, number: int, item: QuestionItem, shared: bool) -> None:
        """`shared`: the question alone is no evidence."""
        from data_tools.corpus.folding import CHARACTERS, UNIT_NAMES, unit_of

        unit = unit_of(" ".join((item.texts["question"], *item.options)))
        limits = getattr(self.config, UNIT_NAMES[unit])
        before = len(self.patterns)

        def note(pattern: int, part: Part) -> bool:
            if pattern >= 0:
                assert pattern == len(self.patterns)
                self.patterns.append(Pattern(number, part, unit))
            return pattern >= 0

        found = False
        shared = shared and bool(item.options) and "options" in self.config.parts
        if "question" in self.config.parts and not shared:
            found = note(self._index.add_text(item.texts["question"], unit), "question")
        if "options" in self.config.parts and item.options and (self.config.options_alone or not found):
            texts = list(item.options) if found else [item.texts["question"], *item.options]
            note(self._index.add_texts(texts, unit, limits.options if found else limits.short), "options")
        for part in _LONG_PARTS:
            text = item.texts.get(part, "")
            # Characters bound tokens from above, so most short ones are passed over without counting.
            enough = len(text) if unit == CHARACTERS else len(text.split())
            if part in self.config.parts and enough >= limits.ngram:
                note(self._index.add_text(text, unit), part)
        if len(self.patterns) == before:
            self.unindexed.append(number)

    def best(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Of each text [N] the place in `patterns` of its best match or -1, the ratio, and the span [N, 2]."""
        return self._index.scan(texts)

    def all(self, texts: list[str]) -> Iterator[Found]:
        """Every pattern that a text holds, by text and place in `patterns`: items of equal texts are all found."""
        places, patterns, ratios, spans = self._index.scan_all(texts)
        for place, pattern, ratio, (first, end) in zip(
            places.tolist(), patterns.tolist(), ratios.tolist(), spans.tolist()
        ):
            yield Found(place, self.patterns[pattern], ratio, (first, end))


class Decontaminate:
    """Reads the questions and indexes them; once a process.

    items: questions read. unindexed: ids of those that are too short to tell from ordinary text.
    """

    name: ClassVar[str] = "decontaminate"

    def __init__(self, config: DecontaminateConfig) -> None:
        self.config = config
        limits = {"": (config.words.ratio, config.characters.ratio)}
        self.scales: Mapping[str, Scale] = {"contamination ratio": Scale(0, 1, limits=limits)}
        self._items = _read(config.files())
        self._index = QuestionIndex(config, self._items)
        self.items = len(self._items)
        self.unindexed = [self._items[number].id for number in self._index.unindexed]
        looked_for = self.items - len(self.unindexed)
        self.facts: Mapping[str, int] = {"questions": looked_for, "questions too short": len(self.unindexed)}

    def __call__(self, batch: Batch) -> Outcome:
        patterns, ratios, spans = self._index.best(batch.texts)
        drops: list[Drop | None] = [None] * len(batch)
        notes: list[Mapping[str, Any] | None] = [None] * len(batch)
        counts: Counter[str] = Counter()
        from data_tools.corpus.folding import UNIT_NAMES

        for place in np.flatnonzero(patterns >= 0).tolist():
            number, part, unit = self._index.patterns[patterns[place]]
            item = self._items[number]
            if ratios[place] < getattr(self.config, UNIT_NAMES[unit]).ratio:
                continue
            detail = {
                "item": item.id,
                "source": item.source,
                "part": part,
                "unit": UNIT_NAMES[unit],
                "span": spans[place].tolist(),
                "ratio": round(float(ratios[place]), 4),
            }
            counts[f"contaminated by {item.source or 'a question'}"] += 1
            if self.config.action == "drop":
                drops[place] = Drop("contaminated", detail)
            else:
                notes[place] = {"contamination": detail}
        measured = np.where(patterns >= 0, ratios, np.nan)
        return Outcome(drops=drops, notes=notes, counts=counts, measures={"contamination ratio": measured})


def _read(paths: tuple[Path, ...]) -> list[QuestionItem]:
    """The items of question files; of those with equal texts the first.

    Raises:
        InputError: a record that is no question, or a file that is damaged.
    """
    from data_tools.files import FileReader, ReadOptions, Record
    from data_tools.inputs import InputError

    items: dict[tuple[Any, ...], QuestionItem] = {}
    for path in paths:
        reader = FileReader(path, ReadOptions())
        for found in reader:
            if not isinstance(found, Record):
                raise InputError(f"{path}, line {found.line}: {found.reason} ({found.detail}); correct the question")
            try:
                item = question_item(found.value, f"{path.name}:{found.line}")
            except ValueError as error:
                raise InputError(f"{path}, line {found.line}: {error}; correct the question or take it out") from error
            items.setdefault((tuple(item.texts.items()), item.options), item)
        if reader.damage:
            raise InputError(f"{path} cannot be read to its end: {reader.damage}")
    return list(items.values())


def question_item(value: object, name: str) -> QuestionItem:
    """A parsed question; `name` is the id of one that has none.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError("a question is an object with 'id' and 'question'")
    question = value.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("'question' must be a string that is not blank")
    options = value.get("options") or {}
    if not isinstance(options, dict) or not all(isinstance(option, str) for option in options.values()):
        raise ValueError("'options' must map letters to strings")
    answers = value.get("answer") or []
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError("'answer' must be a list of option letters or texts")
    texts = {"question": question, "answer": "\n".join(str(options.get(answer, answer)) for answer in answers)}
    explanation = value.get("explanation")
    if isinstance(explanation, str):
        texts["explanation"] = explanation
    strings: list[str] = [*texts.values(), *options.values(), str(value.get("id", "")), str(value.get("source", ""))]
    if any("\ud800" <= character <= "\udfff" for text in strings for character in text):
        raise ValueError("a text holds half of a surrogate pair")
    return QuestionItem(str(value.get("id") or name), str(value.get("source") or ""), texts, tuple(options.values()))
