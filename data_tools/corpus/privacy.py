"""Private values replaced by typed tags: `电话13800138000` becomes `电话[手机号]`.

Tags are Chinese in a text that holds Han characters and English in another, or of one language always (`tags`). Only
counts by type leave this step, never a value. Kept: doses, laboratory values, dates, genes, ICD codes, DOI, PMID, trial
and approval numbers (国药准字H20044121), hotlines that are free of charge (400, 800), addresses of institutions.
The forms stand in `privacy_rules.py`. Needs no step before it; full-width digits are found after normalisation only.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.code_points import CodePoints, code_points
from data_tools.corpus.privacy_rules import (
    FIRST_OF_NAMES,
    FORMS,
    PROTECTED,
    PROVINCES_ON_PLATES,
    TAGS,
    Form,
    Span,
    Trigger,
    Type,
)
from data_tools.corpus.step_config import Resources, StepConfig

_LEAST_DIGITS, _WITHIN = 5, 16  # digits within so many characters: every form with trigger "digits" holds them
_HAN = re.compile("[㐀-鿿]")


class PrivacyConfig(StepConfig):
    """What is private, and how it is written in the text."""

    step: Literal["privacy"] = "privacy"
    types: tuple[Type, ...] = Field(tuple(type for type in TAGS if type != "link"), min_length=1)
    """Masked types. "link" (every URL, as IndustryCorpus removes them) is off: a link is no private value."""
    tags: Literal["text", "zh", "en"] = "text"
    """Language of the tags: that of the text, or always one."""
    most_values: int | None = Field(None, ge=0)
    """A document with more values than this is a list of people and is dropped as "private-values"."""

    def build(self, resources: Resources | None = None) -> "PrivacyStep":
        return PrivacyStep(self)


class PrivacyStep:
    """Masks the private values of every document, and notes under `privacy` how many of each type; masking again
    changes nothing.
    """

    name: ClassVar[str] = "privacy"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: PrivacyConfig) -> None:
        self.config = config
        limits = {} if config.most_values is None else {"": (float(config.most_values),)}
        self.scales: Mapping[str, Scale] = {"private values": Scale(0, 20, bins=20, limits=limits)}
        self._forms: dict[Trigger, list[Form]] = {}
        for form in FORMS:
            if form.type in config.types:
                self._forms.setdefault(form.trigger, []).append(form)

    def __call__(self, batch: Batch) -> Outcome:
        count, most = len(batch), self.config.most_values
        drops: list[Drop | None] = [None] * count
        texts: list[str | None] = [None] * count
        notes: list[Mapping[str, Any] | None] = [None] * count
        counts: Counter[str] = Counter()
        found = np.zeros(count)
        digits, labels, names = _candidates(batch.texts)
        for place, text in enumerate(batch.texts):
            # Each test is far cheaper than the forms that it saves.
            triggers: list[Trigger] = ["digits"] if place in digits else []
            if "@" in text:
                triggers.append("@")
            if "://" in text:
                triggers.append("://")
            if place in labels:
                triggers.append("en")
            if not text.isascii():
                if place in names:
                    triggers.append("zh")
                if place in digits and _HAN.search(text):
                    triggers.append("han digits")
                if "址" in text:
                    triggers.append("址")
                if "微信" in text or "hat" in text or "weixin" in text:
                    triggers.append("微信")
            if not triggers:
                continue
            masked, types = self.masked(text, triggers)
            if not types:
                continue
            values = found[place] = types.total()
            counts.update({f"masked {type}": number for type, number in types.items()})
            if most is not None and values > most:
                drops[place] = Drop("private-values", {"value": int(values), "limit": most})
            else:
                texts[place] = masked
                notes[place] = {"privacy": dict(sorted(types.items()))}
        return Outcome(drops=drops, texts=texts, notes=notes, counts=counts, measures={"private values": found})

    def masked(self, text: str, triggers: list[Trigger] | None = None) -> tuple[str, Counter[Type]]:
        """The text with tags in place of private values, and how many of each type.

        triggers: which forms are looked for; None: all.
        """
        if triggers is None:
            triggers = [trigger for trigger in self._forms if trigger != "han digits" or _HAN.search(text)]
        forms = [form for trigger in triggers for form in self._forms.get(trigger, ())]
        language = 0 if self.config.tags == "zh" or (self.config.tags == "text" and _HAN.search(text)) else 1
        types: Counter[Type] = Counter()
        # A mask can part two values that were one run of signs; a tag itself fits no form, so that this ends.
        while spans := _spans(text, forms):
            parts, last = [], 0
            for span in spans:
                parts += [text[last : span.start], TAGS[span.type][language]]
                types[span.type] += 1
                last = span.end
            text = "".join([*parts, text[last:]])
        return text, types


def _spans(text: str, forms: list[Form]) -> list[Span]:
    """What to mask, in order and apart: of two that overlap the one whose form stands first in `FORMS` is whole, and an
    address ends before it.
    """
    found = [span for form in forms for span in form.spans(text)]
    if not found:
        return []
    protected = [match.span() for match in PROTECTED.finditer(text)]
    order = list(TAGS)
    taken: list[Span] = []
    for span in sorted(found, key=lambda span: (order.index(span.type) if span.type != "link" else -1, span.start)):
        if span.type != "link" and any(start < span.end and span.start < end for start, end in protected):
            continue
        rivals = [other for other in taken if other.start < span.end and span.start < other.end]
        if rivals:
            first = min(other.start for other in rivals)
            if span.type != "address" or first - span.start < 4:
                continue
            span = span._replace(end=first)
        taken.append(span)
    return sorted(taken)


def _candidates(texts: list[str]) -> tuple[set[int], set[int], set[int]]:
    """The places of texts with digits enough for a number; with an English label or title of a name; and with a Chinese
    one, or the beginning of a plate.
    """
    digits: set[int] = set()
    labels: set[int] = set()
    names: set[int] = set()
    for group in code_points(texts):
        digits.update(group.holding(_crowded(group)))
        labels.update(group.holding(_labelled(group.codes_C)))
        if group.codes_C.dtype != np.uint8:
            names.update(group.holding(_named(group.codes_C)))
    return digits, labels, names


def _crowded(group: CodePoints) -> npt.NDArray[np.bool_]:
    """Where at least `_LEAST_DIGITS` of the next `_WITHIN` characters are digits (of the next text, too: a false alarm
    at a border costs time, and changes nothing).
    """
    count_C = ((group.codes_C - group.codes_C.dtype.type(48)) < 10).view(np.uint8)
    width = 1
    while width < _WITHIN:
        longer_C = count_C.copy()
        longer_C[:-width] += count_C[width:]
        count_C, width = longer_C, width * 2
    return count_C >= _LEAST_DIGITS


def _labelled(codes_C: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where "Dr", "Mr", "Ms", "of" stand before a blank, a stop or "s", or "me:" and "ss:" of a name and an address."""
    codes_C = np.concatenate([codes_C, np.zeros(2, codes_C.dtype)])
    first_C, second_C, third_C = codes_C[:-2], codes_C[1:-1], codes_C[2:]
    r_C = (second_C == ord("r")) & ((first_C == ord("D")) | (first_C == ord("M")))
    s_C = (second_C == ord("s")) & (first_C == ord("M"))
    of_C = (second_C == ord("o")) & (first_C == ord("r")) & (third_C == ord("f"))
    title_C = (r_C | s_C) & ((third_C == ord(" ")) | (third_C == ord(".")) | (third_C == ord("s")))
    ends_C = ((first_C | 32) == (second_C | 32)) & ((second_C | 32) == ord("s"))
    ends_C |= ((first_C | 32) == ord("m")) & ((second_C | 32) == ord("e"))
    return title_C | (of_C & _before(codes_C, ord("P"))) | (ends_C & (third_C == ord(":")))


def _before(codes_C: npt.NDArray[Any], sign: int) -> npt.NDArray[np.bool_]:
    """Where the character before is `sign`; [C - 2]."""
    before_C = np.zeros(len(codes_C) - 2, bool)
    before_C[1:] = codes_C[:-3] == sign
    return before_C


_SURNAME, _TITLE, _LABEL_END, _GAP, _PROVINCE, _LETTER = 1, 2, 4, 8, 16, 32


@cache
def _name_table() -> npt.NDArray[np.uint8]:
    table = np.zeros(0x110000, np.uint8)
    for signs, bit in (
        (FIRST_OF_NAMES, _SURNAME),
        ("主副住医大教护院药博老", _TITLE), ("名人者儿妇属告", _LABEL_END), (" \t:：", _GAP),
        (PROVINCES_ON_PLATES, _PROVINCE), ("ABCDEFGHJKLMNPQRSTUVWXYZ", _LETTER),
    ):  # fmt: skip
        for sign in signs:
            table[ord(sign)] |= bit
    return table


def _named(codes_C: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Where a surname stands up to four characters before a title or behind a label, a label before a colon, or the
    sign of a province before a letter.
    """
    bits_C = np.concatenate([_name_table()[codes_C], np.zeros(4, np.uint8)])
    here_C, count = bits_C[:-4], len(codes_C)
    after_C = bits_C[1 : count + 1] | bits_C[2 : count + 2] | bits_C[3 : count + 3] | bits_C[4:]
    next_C = bits_C[1 : count + 1]
    marks_C = (here_C & _SURNAME != 0) & (after_C & _TITLE != 0)
    marks_C |= (here_C & _LABEL_END != 0) & ((after_C & _SURNAME != 0) | (next_C & _GAP != 0))
    marks_C |= (here_C & _PROVINCE != 0) & (next_C & _LETTER != 0)
    return marks_C
