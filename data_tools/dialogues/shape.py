"""The shape step: what is no usable dialogue goes, and what can be put in order is.

In order is: system messages first, then user and assistant in turn, the assistant last. An exchange is a user message
and the answer after it. Lengths are in characters without the white space at the ends; a blank message has none.
Limits on the least length bear on the longest question and the longest answer, for "您好" and "不客气" are ordinary
beside them. Needs the language step before it; without it a dialogue takes the limits of `other`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.rule_thresholds import Family, Limit
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.dialogues.shape_answers import (
    Advertising,
    assistant_phrase,
    folded,
    is_cut_off,
    refusal,
    script,
    without_links,
)
from data_tools.records import Message, Messages

_LANGUAGES = ("zh", "en", "other")


class Lengths(Family):
    """Characters of questions and answers. The paper gives no value: ours, by the sample of Toyhom's dialogues (zh) and
    GenMedGPT-5k (en), of which 7,637 of 7,644 and 5,451 of 5,452 keep within them.
    """

    least_question: Limit = Field(default=Limit(zh=4, en=10, other=4))
    """Of the longest question: below it stand "无" and a hospital's name; "癫痫什么症状？" has 7."""
    most_question: Limit = Field(default=Limit(zh=2_000, en=6_000, other=6_000))
    """Of every question; the samples have at most 255 and 357. With the longest answer some 4,096 tokens."""
    least_answer: Limit = Field(default=Limit(zh=6, en=20, other=6))
    """Of the longest answer: "Asthma." is none. The shortest of the samples else are 37 and 23."""
    most_answer: Limit = Field(default=Limit(zh=4_000, en=12_000, other=12_000))
    """Of every answer; the samples have at most 742 and 951."""


class ShapeConfig(StepConfig):
    """What a dialogue has to be. Of examination questions (meta.kind is "options"), whose answer can be one letter,
    neither the least length of an answer is asked nor whether it repeats one.
    """

    step: Literal["shape"] = "shape"
    join_same_role: bool = True
    """Messages of one role in a row become one, a line end between them, as MedDialog's are joined; else the dialogue
    is dropped as "bad-order"."""
    cut_dangling: bool = True
    """Cut questions at the end that nobody answered; else the dialogue is dropped as "bad-order"."""
    lengths: Lengths = Lengths()
    """Dropped as "short-question", "long-question", "short-answer", "long-answer"."""
    most_exchanges: int = Field(32, ge=1)
    """Above it: "too-many-exchanges". Ours: the longest of the 1,000 dialogues of CMtMedQA's test has 10."""
    repeated_answer: int | None = Field(10, ge=1)
    """An answer of so many letters or more that stood before in the dialogue: "repeated-answer". Ours: "不客气" may be
    said twice. null: never."""
    answer_is_question: bool = True
    """An answer that says its question again and nothing else: "answer-is-question"."""
    refusals: bool = True
    """An answer that begins by refusing ("很抱歉，我无法…", "I'm sorry, but I can't help"): "refusal". Written by
    language models, in ChatMed_Consult for one."""
    assistant_phrases: bool = True
    """An answer that says it is a program's ("作为一个AI语言模型", "As an AI language model"): "assistant-phrase"."""
    links: bool = True
    """An answer that is a link and little else (below `least_answer`), as Huatuo-26M's consultations are:
    "only-links"."""
    most_advertising: int | None = Field(1, ge=0)
    """Different selling phrases in the answers, one of them a way to pay or to get in touch (加微信, 货到付款, "order
    now"); above it: "advertising-answer". Ours. null: never."""
    cut_off: bool = False
    """The last answer ends without an end mark: "cut-off-answer". Off: 9 % of Toyhom's sample do, and many of them are
    whole."""
    same_language: bool = False
    """A Chinese question with an English answer, or the other way round: "languages-differ". Off: translations ask for
    that."""

    def build(self, resources: Resources | None = None) -> "ShapeStep":
        return ShapeStep(self)


class ShapeStep:
    """Drops by `ShapeConfig`, the first failing in the order of this file, and replaces messages that were put in
    order. Measures: mean characters of questions and of answers, and exchanges.
    """

    name: ClassVar[str] = "shape"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: ShapeConfig) -> None:
        self.config = config
        self._advertising = None if config.most_advertising is None else Advertising()
        lengths = config.lengths
        self.scales: Mapping[str, Scale] = {
            "question characters": Scale(1, 1e5, True, limits=_drawn(lengths.least_question, lengths.most_question)),
            "answer characters": Scale(1, 1e5, True, limits=_drawn(lengths.least_answer, lengths.most_answer)),
            "exchanges": Scale(0, 40, limits={"": (float(config.most_exchanges),)}),
        }

    def __call__(self, batch: Batch) -> Outcome:
        count = len(batch)
        drops: list[Drop | None] = [None] * count
        changed: list[Messages | None] = [None] * count
        repairs: dict[int, Counter[str]] = {}
        counts: Counter[str] = Counter()
        sizes = np.full((3, count), np.nan)
        for place, (messages, lang) in enumerate(zip(batch.messages, batch.langs)):
            done: Counter[str] = Counter()
            ordered = self._ordered(messages, done)
            drop = _bad_order(ordered)
            if drop is None:
                asked = [message["content"].strip() for message in ordered if message["role"] == "user"]
                answers = [message["content"].strip() for message in ordered if message["role"] == "assistant"]
                sizes[:, place] = sum(map(len, asked)) / len(asked), sum(map(len, answers)) / len(answers), len(asked)
                options = batch.metas[place].get("kind") == "options"
                drop = self._bad_lengths(asked, answers, lang if lang in _LANGUAGES else "other", options)
                drop = drop or self._bad_answer(asked, answers, options)
            drops[place] = drop
            if drop is None and done:
                changed[place] = tuple(ordered)
                repairs[place] = done
        if self._advertising is not None:
            self._drop_advertising(batch, drops)
        for place, done in repairs.items():
            if drops[place] is None:
                counts.update(done)
            else:
                changed[place] = None
        names = ("question characters", "answer characters", "exchanges")
        return Outcome(drops=drops, messages=changed, counts=counts, measures=dict(zip(names, sizes)))

    def _drop_advertising(self, batch: Batch, drops: list[Drop | None]) -> None:
        assert self._advertising is not None
        assert self.config.most_advertising is not None
        answers = [
            "\n".join(message["content"] for message in messages if message["role"] == "assistant")
            for messages in batch.messages
        ]
        for place, phrases in self._advertising(answers).items():
            if drops[place] is None and len(phrases) > self.config.most_advertising:
                drops[place] = Drop("advertising-answer", {"value": phrases, "limit": self.config.most_advertising})

    def _ordered(self, messages: Messages, done: Counter[str]) -> Sequence[Message]:
        """The messages, joined and cut as far as the configuration allows; `done` is told what was."""
        ordered = list(messages)
        if self.config.join_same_role and any(one["role"] == two["role"] for one, two in pairwise(ordered)):
            ordered = [_joined(list(run)) for _, run in groupby(messages, lambda message: message["role"])]
            done["joined messages"] = len(messages) - len(ordered)
        if self.config.cut_dangling:
            while ordered and ordered[-1]["role"] == "user":
                ordered.pop()
                done["cut questions without an answer"] += 1
        return ordered

    def _bad_lengths(self, asked: Sequence[str], answers: Sequence[str], lang: str, options: bool) -> Drop | None:
        for reason, texts in (("empty-question", asked), ("empty-answer", answers)):
            if not all(texts):
                return Drop(reason, {"exchange": [bool(text) for text in texts].index(False) + 1})
        if len(asked) > self.config.most_exchanges:
            return Drop("too-many-exchanges", {"value": len(asked), "limit": self.config.most_exchanges})
        lengths = self.config.lengths
        if not lengths.enabled:
            return None
        least_answer = None if options else getattr(lengths.least_answer, lang)
        for reason, value, least in (
            ("short-question", max(map(len, asked)), getattr(lengths.least_question, lang)),
            ("short-answer", max(map(len, answers)), least_answer),
        ):
            if least is not None and value < least:
                return Drop(reason, {"value": value, "limit": least, "language": lang})
        for reason, value, most in (
            ("long-question", max(map(len, asked)), getattr(lengths.most_question, lang)),
            ("long-answer", max(map(len, answers)), getattr(lengths.most_answer, lang)),
        ):
            if most is not None and value > most:
                return Drop(reason, {"value": value, "limit": most, "language": lang})
        if self.config.links and any("://" in answer or "www." in answer for answer in answers):
            value = max(len(without_links(answer)) for answer in answers)
            if value < (least_answer or 1):
                return Drop("only-links", {"value": value, "limit": least_answer or 1, "language": lang})
        return None

    def _bad_answer(self, asked: Sequence[str], answers: Sequence[str], options: bool) -> Drop | None:
        config = self.config
        if config.answer_is_question:
            for number, (question, answer) in enumerate(zip(asked, answers), 1):
                # Folding shortens: texts of very different length need none.
                alike = len(question) < 3 * len(answer) and len(answer) < 3 * len(question)
                if alike and folded(question) == folded(answer) != "":
                    return Drop("answer-is-question", {"exchange": number})
        if config.repeated_answer is not None and len(answers) > 1 and not options:
            seen: dict[str, int] = {}
            for number, answer in enumerate(answers, 1):
                text = folded(answer)
                if len(text) >= config.repeated_answer and seen.setdefault(text, number) != number:
                    return Drop("repeated-answer", {"exchange": number, "first": seen[text]})
        for number, answer in enumerate(answers, 1):  # their words may be private: the evidence is a place
            if config.assistant_phrases and (span := assistant_phrase(answer)):
                return Drop("assistant-phrase", {"span": list(span), "exchange": number})
            if config.refusals and (span := refusal(answer)):
                return Drop("refusal", {"span": list(span), "exchange": number})
        if config.cut_off and not options and is_cut_off(answers[-1]):
            return Drop("cut-off-answer", {"exchange": len(answers)})
        if config.same_language:
            for number, scripts in enumerate(zip(map(script, asked), map(script, answers)), 1):
                if None not in scripts and scripts[0] != scripts[1]:
                    return Drop("languages-differ", {"value": list(scripts), "exchange": number})
        return None


def _joined(messages: Sequence[Message]) -> Message:
    """Messages of one role as one; of one message itself."""
    if len(messages) == 1:
        return messages[0]
    parts = [message["content"] for message in messages if message["content"].strip()]
    return {**messages[0], "content": "\n".join(parts)}


def _bad_order(messages: Sequence[Message]) -> Drop | None:
    """Whether anything but system messages, then user and assistant in turn, stands there; an assistant is last."""
    roles = [message["role"] for message in messages]
    start = 0
    while start < len(roles) and roles[start] == "system":
        start += 1
    for place in range(start, len(roles)):
        wanted = ("user", "assistant")[(place - start) % 2]
        if roles[place] != wanted:
            return Drop("bad-order", {"value": roles[place], "limit": wanted, "message": place + 1})
    if start == len(roles) or roles[-1] != "assistant":
        return Drop("bad-order", {"value": "no answer at the end", "limit": "assistant", "message": len(roles)})
    return None


def _drawn(least: Limit, most: Limit) -> dict[str, tuple[float, ...]]:
    drawn: dict[str, Any] = {}
    for lang in _LANGUAGES:
        drawn[lang] = tuple(float(value) for value in (getattr(least, lang), getattr(most, lang)) if value is not None)
    return {lang: limits for lang, limits in drawn.items() if limits}
