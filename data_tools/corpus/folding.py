"""What n-grams are made of: letters and digits without case, width, marks, punctuation and white space.

A table over code points, so that C++ folds a text in one pass and knows where each folded character came from. It is
made from Python's own Unicode data: compatibility decomposition (NFKD), case folding, decomposition again; of it
letters and numbers stay, marks and format characters vanish, and all else (punctuation, symbols, space, control
characters) vanishes and ends a word. Since marks vanish, equal strings under NFC, NFD, NFKC or NFKD fold alike.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from data_tools import _text

CHARACTERS, WORDS, GUESS = 0, 1, 2  # `Unit` of csrc/text/ngram_tokens.h
UNIT_NAMES = {CHARACTERS: "characters", WORDS: "words"}
_UNITS = {"zh": CHARACTERS, "en": WORDS}

_CODE_POINTS = 0x110000
_BOUNDARY, _IGNORED, _EXPANSION = 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000
_VANISHING = {"Mn", "Me", "Cf"}
_KEPT = {"Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No", "Mc"}
# These fold to themselves, as far as Unicode has got with them: ideographs, which have neither case nor width.
_IDEOGRAPHS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, 0x2F800), (0x30000, 0x323B0))
_HANGUL = (0xAC00, 0xD7A4)
_LOOKED_UP = (
    (0, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xF900, 0x20000), (0x2F800, 0x2FA20)
)  # fmt: skip
_BLOCK = 64


def units(langs: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The unit of n-grams for each language [N]: characters for zh, words for en; else C++ guesses by the text:
    characters where at least 3 in 10 are Chinese.
    """
    return np.fromiter((_UNITS.get(lang, GUESS) for lang in langs), np.uint8, len(langs))


def unit_of(text: str) -> int:
    """CHARACTERS where at least 3 in 10 of the folded characters are Chinese, else WORDS: the guess of C++."""
    characters, _, _ = _text.fold(folding(), text)
    han = ((characters >= 0x3040) & (characters <= 0x9FFF)) | ((characters >= 0x20000) & (characters <= 0x323AF))
    return CHARACTERS if 10 * int(han.sum()) >= 3 * len(characters) else WORDS


@cache
def folding() -> _text.Folding:
    """The table; made once a process."""
    return _text.Folding(*_table())


def _table() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """entries: one for each code point; pool: lengths and characters of those that fold to several."""
    entries = np.full(_CODE_POINTS, _BOUNDARY, np.uint32)
    pool = _spell_hangul(entries)
    for start, end in _IDEOGRAPHS:
        entries[start:end] = np.arange(start, end)
    for start, end in _LOOKED_UP:
        for first in range(start, end, _BLOCK):
            codes = range(first, min(first + _BLOCK, end))
            block = "".join(map(chr, codes))
            # Two calls tell for most blocks that nothing in them decomposes or has case.
            plain = block == _decomposed(block) == block.casefold()
            entries[codes.start : codes.stop] = [
                _plain_entry(c)
                if plain or (not unicodedata.decomposition(c) and c == c.casefold())
                else _entry(c, pool)
                for c in block
            ]
    entries[0xE0000:0xE1000] = _IGNORED  # tags and variation selectors
    return entries, np.array(pool, np.uint32)


def _spell_hangul(entries: npt.NDArray[np.uint32]) -> list[int]:
    """Enters the syllables, which decompose by rule (Unicode 3.12), and returns the pool that they begin."""
    syllables = np.arange(_HANGUL[1] - _HANGUL[0])
    tail = syllables % 28
    spelt = np.stack([0x1100 + syllables // 588, 0x1161 + syllables % 588 // 28, 0x11A7 + tail], axis=1)
    pool = np.concatenate([2 + (tail > 0)[:, None], spelt], axis=1)
    entries[_HANGUL[0] : _HANGUL[1]] = _EXPANSION | (4 * syllables)
    return list(map(int, pool.ravel()))


def _plain_entry(character: str) -> int:
    """Of a character that has neither decomposition nor case."""
    category = unicodedata.category(character)
    if category == "Nd":
        return ord("0") + unicodedata.decimal(character)
    if category in _KEPT:
        return ord(character)
    return _IGNORED if category in _VANISHING else _BOUNDARY


def _entry(character: str, pool: list[int]) -> int:
    folded = [_folded(part) for part in _decomposed(_decomposed(character).casefold())]
    kept = [ord(part) for part in folded if part]
    if len(kept) == 1:
        return kept[0]
    if not kept:
        return _IGNORED if unicodedata.category(character) in _VANISHING else _BOUNDARY
    pool += [len(kept), *kept]
    return _EXPANSION | (len(pool) - len(kept) - 1)


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFKD", text)


def _folded(character: str) -> str:
    """A letter or number (a decimal digit of any script as ASCII), or nothing."""
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return character if category in _KEPT else ""
