"""Where phrases of a list stand in many texts, however they are written: upper or lower case, full width, traditional
characters, digits for letters (p0rn), signs or blanks between the characters (色*情, p o r n).

The texts of a batch fold to one stream of letters and digits (`corpus/folding.py`); numpy looks every place up in a
table of the phrases' beginnings, and only the few places that may begin one are looked at by themselves.
C: folded characters of a group of texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_tools.corpus.code_points import GROUP_CHARACTERS

_LETTERS = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t"}
_BLANKS = frozenset(" \t\u3000\u00a0\u200b\u200c\u200d\u2060\ufeff")
_BETWEEN = _BLANKS | frozenset("*._-~·•|/+#^=`'\"\\￥%&")  # no sentence ends there, and no text: the texts' end is \n
_MOST_BETWEEN = 2
_PLURAL = frozenset("sSｓＳ")
_SHORT, _LONG = 2, 4  # characters by which a phrase's beginning is looked up
_BITS = 16
_FACTORS = np.array([0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35], np.uint32)


class Found(NamedTuple):
    """`phrase` (its number in the list) stands at characters [start, end) of the text at `place`."""

    place: int
    phrase: int
    start: int
    end: int


@dataclass(frozen=True)
class _Phrase:
    """`breaks`: after how many characters a word of a phrase in Latin letters ends; None in a Chinese one."""

    number: int
    signs: str
    breaks: frozenset[int] | None


class PhraseFinder:
    """Finds `phrases`; built once a process.

    A phrase in Latin letters stands as whole words (a plural's s may follow), its blanks being one blank or sign, or
    with a sign or blank between all of its letters. In one with Chinese characters signs may stand anywhere.

    Raises:
        ValueError: a phrase of fewer than two letters; names it.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self._by_start: dict[str, list[_Phrase]] = {}
        self._tables = {length: np.zeros(1 << _BITS, bool) for length in (_SHORT, _LONG)}
        for number, text in enumerate(phrases):
            codes_C, _ = _folded(text)
            signs = _decoded(codes_C)
            if len(signs) < _SHORT:
                raise ValueError(f"the phrase {text!r} is too short to be looked for: it needs two letters or more")
            length = _LONG if len(signs) >= _LONG else _SHORT
            ends = np.cumsum([len(_folded(word)[0]) for word in text.split()])
            breaks = frozenset(ends[:-1].tolist()) if all(map(_is_latin, signs)) else None
            self._by_start.setdefault(signs[:length], []).append(_Phrase(number, signs, breaks))
            self._tables[length][_hashes(codes_C[:length])[length]] = True

    def __call__(self, texts: Sequence[str]) -> list[Found]:
        """All places of all phrases, text by text and from left to right."""
        return [found for first, group in text_groups(texts) for found in self._find(first, group)]

    def _find(self, first: int, texts: Sequence[str]) -> Iterator[Found]:
        joined = "\n".join([*texts, ""])
        codes_C, origins_C = _folded(joined)
        if len(codes_C) < _SHORT:
            return
        hashes = _hashes(codes_C)
        marks_C = self._tables[_SHORT][hashes[_SHORT]]
        long_C = self._tables[_LONG][hashes[_LONG]]
        marks_C[: len(long_C)] |= long_C
        starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
        stream = ""
        for at in np.flatnonzero(marks_C).tolist():
            stream = stream or _decoded(codes_C)
            for length in (_SHORT, _LONG):
                for phrase in self._by_start.get(stream[at : at + length], ()):
                    end = at + len(phrase.signs)
                    if stream.startswith(phrase.signs, at) and _stands(joined, origins_C[at:end].tolist(), phrase):
                        start, last = int(origins_C[at]), int(origins_C[end - 1])
                        text = int(np.searchsorted(starts, start, side="right")) - 1
                        offset = int(starts[text])
                        yield Found(first + text, phrase.number, start - offset, last + 1 - offset)


def _stands(text: str, places: list[int], phrase: _Phrase) -> bool:
    """Whether the characters of `text` at `places` are the phrase, and not what folding alone brings together."""
    gaps = {number: text[one + 1 : other] for number, (one, other) in enumerate(pairwise(places), 1) if other > one + 1}
    if not all(
        _BETWEEN.issuperset(gap) and (len(gap) <= _MOST_BETWEEN or _BLANKS.issuperset(gap)) for gap in gaps.values()
    ):
        return False
    if phrase.breaks is None:
        around = (
            (phrase.signs[0], text[places[0] - 1 : places[0]]),
            (phrase.signs[-1], text[places[-1] + 1 : places[-1] + 2]),
        )
        return not any(_is_latin(sign) and _is_latin(next_to) and next_to.isalpha() for sign, next_to in around)
    if 2 * sum(text[place].isalpha() for place in places) < len(places):
        return False  # a number
    end = places[-1] + 1
    if text[end : end + 1] in _PLURAL and len(gaps) < len(places) - 1:
        end += 1
    if _in_word(text[places[0] - 1 : places[0]]) or _in_word(text[end : end + 1]):
        return False
    if not all(len(gap) == 1 or _BLANKS.issuperset(gap) for gap in gaps.values()):
        return False
    return gaps.keys() == phrase.breaks or len(gaps) == len(places) - 1


def _in_word(sign: str) -> bool:
    return sign.isalnum() and _is_latin(sign)


def _is_latin(sign: str) -> bool:
    return sign < "\u0250" or "\uff00" <= sign < "\uff5b"


def _folded(text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Letters and digits, folded, simplified and digits made letters [C], and the index in `text` of each [C]."""
    from data_tools import _text
    from data_tools.corpus.folding import folding

    for sign, letter in (("@", "a"), ("$", "s")):
        text = text.replace(sign, letter)
    codes_C, origins_C, _ = _text.fold(folding(), text)
    return _letters()[codes_C], origins_C


@cache
def _letters() -> npt.NDArray[np.uint32]:
    """For each code point what it stands for: a letter for some digits, the simplified form of a traditional one."""
    table = simple_characters().copy()
    for digit, letter in _LETTERS.items():
        table[ord(digit)] = ord(letter)
    return table


@cache
def simple_characters() -> npt.NDArray[np.uint32]:
    """For each code point itself, or the simplified form of a traditional character."""
    from data_tools.corpus.normalise import simplified

    table = np.arange(0x110000, dtype=np.uint32)
    han = list(map(chr, range(0x3400, 0xA000)))
    for character, other in zip(han, simplified("\n".join(han)).split("\n"), strict=True):
        if len(other) == 1:
            table[ord(character)] = ord(other)
    return table


def _hashes(codes_C: npt.NDArray[np.uint32]) -> dict[int, npt.NDArray[np.uint32]]:
    """Of the two and of the four characters from each place on: [C - 1] and [C - 3], below 2**_BITS."""
    pairs_C = codes_C[:-1] * _FACTORS[0] + codes_C[1:] * _FACTORS[1]
    fours_C = pairs_C[:-2] * _FACTORS[2] + pairs_C[2:]
    return {_SHORT: pairs_C >> (32 - _BITS), _LONG: fours_C >> (32 - _BITS)}


def _decoded(codes_C: npt.NDArray[np.uint32]) -> str:
    return codes_C.tobytes().decode("utf-32-le", "surrogatepass")


def text_groups(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Texts of some GROUP_CHARACTERS together, which bounds the arrays, and the place of the first of them."""
    start, characters = 0, 0
    for place, text in enumerate(texts):
        if characters and characters + len(text) > GROUP_CHARACTERS:
            yield start, texts[start:place]
            start, characters = place, 0
        characters += len(text)
    if start < len(texts):
        yield start, texts[start:]
