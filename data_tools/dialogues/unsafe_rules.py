"""Rules of what stands together in one sentence, in whatever order: who, what, and that it is asked for.

They find what the terms (`unsafe_words.py`) and the fixed requests (`unsafe_patterns.py`) do not: a wish put in free
words. Each has words of care by which it is none: patients and doctors use the same words. C: characters of the texts
of a group.
"""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from data_tools.dialogues.phrase_finder import simple_characters, text_groups

_LAST = 0xFFFF  # code points from here on are one, in the table of ends
_ENDS = np.zeros(_LAST + 1, bool)
_ENDS[[ord(sign) for sign in "。！？!?；;\n"]] = True
_FULL_STOP, _SPACE = ord("."), ord(" ")
_FULL_WIDTH = 0xFEE0  # from an ASCII character to its full-width form
_LAST_ASCII = 0x7F
_LONGEST = 4  # characters of a trigger's beginning by which it is looked up
_BITS = 16
_FACTOR = np.uint32(0x9E3779B1)


@dataclass(frozen=True)
class Rule:
    """A sentence, in simple characters, that holds a word of `triggers`, each pattern of `all_of`, nothing of `but`.

    triggers: parted by "|", without which no sentence is looked at. They begin with a letter or Chinese character; one
    in Latin letters stands at a word's beginning.
    """

    triggers: str
    all_of: tuple[str, ...]
    but: str = ""

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], ...], re.Pattern[str] | None]:
        return tuple(map(re.compile, self.all_of)), re.compile(self.but) if self.but else None

    def finds(self, sentence: str) -> bool:
        """Whether a sentence with a trigger, in simple characters, is unsafe."""
        patterns, but = self._compiled
        return all(pattern.search(sentence) for pattern in patterns) and not (but and but.search(sentence))


class RuleFinder:
    """Which of `rules` hold for which texts; built once a process.

    Upper case, full width and traditional characters are read as lower case, ASCII and simplified ones. numpy looks
    each place of the texts up in tables of the triggers' beginnings, so that only the few sentences with a trigger are
    read by the patterns.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._by_start: dict[str, dict[str, list[str]]] = {}
        self._tables = {length: np.zeros(1 << _BITS, bool) for length in range(1, _LONGEST + 1)}
        for name, rule in rules.items():
            for trigger in rule.triggers.split("|"):
                start = trigger[: _LONGEST if trigger.isascii() else 2]
                self._by_start.setdefault(start, {}).setdefault(trigger, []).append(name)
                hashes = _hashes(_codes(start), np.zeros(1, np.intp))
                self._tables[len(start)][hashes[len(start) - 1]] = True

    def __call__(self, texts: Sequence[str]) -> dict[int, list[str]]:
        """By place of a text the names of the rules that hold for it, in the rules' order."""
        found: dict[int, set[str]] = {}
        for first, group in text_groups(texts):
            starts = np.cumsum([0, *(len(text) + 1 for text in group)])
            joined = "\n".join([*group, ""])
            codes_C = _codes(joined.lower()) if joined.isascii() else _simple()[_codes(joined)]
            for at, name in self._find(codes_C):
                found.setdefault(first + int(np.searchsorted(starts, at, side="right")) - 1, set()).add(name)
        return {place: [name for name in self._rules if name in names] for place, names in found.items()}

    def _find(self, codes_C: npt.NDArray[np.uint32]) -> list[tuple[int, str]]:
        """Where a sentence begins for which a rule holds, and the rule's name."""
        text = codes_C.tobytes().decode("utf-32-le", "surrogatepass")
        letters_C = (codes_C >= ord("a")) & (codes_C <= ord("z"))
        begins_C = letters_C | (codes_C > _LAST_ASCII)
        begins_C[1:] &= ~(letters_C[1:] & letters_C[:-1])
        places = np.flatnonzero(begins_C)
        marked = np.zeros(len(places), bool)
        for length, hashes in enumerate(_hashes(codes_C, places), 1):
            marked |= self._tables[length][hashes]
        places = places[marked]
        ends = _sentence_ends(codes_C)
        asked: dict[tuple[int, str], None] = {}
        for at, sentence in zip(places.tolist(), np.searchsorted(ends, places).tolist(), strict=True):
            for length in range(1, _LONGEST + 1):
                for trigger, names in self._by_start.get(text[at : at + length], {}).items():
                    if text.startswith(trigger, at):
                        asked.update(((sentence, name), None) for name in names)
        found = []
        for sentence, name in asked:
            start = int(ends[sentence - 1]) + 1 if sentence else 0
            if self._rules[name].finds(text[start : int(ends[sentence])]):
                found.append((start, name))
        return found


@cache
def _simple() -> npt.NDArray[np.uint32]:
    """For each code point the one that the rules are written in."""
    table = simple_characters().copy()
    for small, large in zip(string.ascii_lowercase, string.ascii_uppercase, strict=True):
        for sign in (large, chr(ord(large) + _FULL_WIDTH), chr(ord(small) + _FULL_WIDTH)):
            table[ord(sign)] = ord(small)
    return table


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _hashes(codes_C: npt.NDArray[np.uint32], places: npt.NDArray[np.intp]) -> list[npt.NDArray[np.uint32]]:
    """Of the 1, 2, … _LONGEST characters from each of `places` on: below 2**_BITS. Line ends follow the last one."""
    codes_C = np.concatenate([codes_C, np.full(_LONGEST, ord("\n"), np.uint32)])
    hashes = [codes_C[places] * _FACTOR]
    for offset in range(1, _LONGEST):
        hashes.append((hashes[-1] + codes_C[offset:][places]) * _FACTOR)
    return [values >> np.uint32(32 - _BITS) for values in hashes]


def _sentence_ends(codes_C: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """The places of the characters that end a sentence, the last character (a line's end) among them. A full stop does
    where a blank or a line's end follows.
    """
    ends_C = _ENDS[np.minimum(codes_C, _LAST)]
    ends_C[:-1] |= (codes_C[:-1] == _FULL_STOP) & ((codes_C[1:] == _SPACE) | (codes_C[1:] == ord("\n")))
    return np.flatnonzero(ends_C)
