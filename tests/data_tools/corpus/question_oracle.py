"""A slow and plain matcher of evaluation questions, written from the step's description alone."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache

from data_tools.corpus.decontaminate import UnitLimits


def _is_han(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))


@cache
def _folded(character: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return [str(unicodedata.decimal(part, part)) for part in folded if unicodedata.category(part)[0] in "LN"]


def _decimal(text: str, place: int) -> bool:
    """Whether the mark there belongs to a number: 22q13.3, 1,000."""
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    return text[place] in ".,．，" and len(around) == 2 and all(map(str.isdecimal, around))


def tokens(text: str, unit: str) -> list[tuple[str, int, int]]:
    """Of each token: its folded characters, and its first and end place in `text`."""
    found: list[tuple[str, int, int]] = []
    in_word = False
    for place, character in enumerate(text):
        kept = _folded(character)
        if not kept:
            in_word &= unicodedata.category(character) in ("Mn", "Me", "Cf") or _decimal(text, place)
        for part in kept:
            alone = unit == "characters" or _is_han(part)
            if in_word and not alone:
                word, first, _ = found[-1]
                found[-1] = (word + part, first, place + 1)
            else:
                found.append((part, place, place + 1))
            in_word = not alone
    return found


def unit_of(text: str) -> str:
    kept = tokens(text, "characters")
    return "characters" if 10 * sum(_is_han(part) for part, _, _ in kept) >= 3 * len(kept) else "words"


@dataclass
class Pattern:
    item: str
    unit: str
    words: list[str]
    evidence: dict[tuple[str, ...], int]  # n-gram: where it stands in the question; empty: looked for whole


class Oracle:
    """Questions only; a text is found whole, or by n-grams of no more than `common` questions."""

    def __init__(self, questions: dict[str, str], limits: dict[str, UnitLimits], common: int) -> None:
        self.limits = limits
        self.patterns = []
        for item, text in questions.items():
            unit = unit_of(text)
            words = [word for word, _, _ in tokens(text, unit)]
            if len(words) >= limits[unit].short:
                self.patterns.append(Pattern(item, unit, words, {}))
        counts = {
            unit: Counter(
                gram
                for pattern in self.patterns
                if pattern.unit == unit
                for gram in set(_ngrams(pattern.words, limits[unit].ngram))
            )
            for unit in limits
        }
        for pattern in self.patterns:
            for offset, gram in enumerate(_ngrams(pattern.words, limits[pattern.unit].ngram)):
                if counts[pattern.unit][gram] <= common:
                    pattern.evidence.setdefault(gram, offset)

    def find(self, text: str) -> tuple[str, list[int], float] | None:
        """Item, span and share of the best match that is enough."""
        best: tuple[str, list[int], float] | None = None
        seen = {unit: tokens(text, unit) for unit in self.limits}
        words = {unit: [word for word, _, _ in of] for unit, of in seen.items()}
        places = {unit: _places(_ngrams(words[unit], self.limits[unit].ngram)) for unit in self.limits}
        for pattern in self.patterns:
            if pattern.evidence:
                match = _by_ngrams(pattern, places[pattern.unit], self.limits[pattern.unit].ngram)
            else:
                match = _whole(pattern, words[pattern.unit])
            if match is None or match[0] < self.limits[pattern.unit].ratio or (best and match[0] <= best[2]):
                continue
            share, first, last = match
            best = pattern.item, [seen[pattern.unit][first][1], seen[pattern.unit][last][2]], share
        return best


def _ngrams(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _places(grams: list[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    places: dict[tuple[str, ...], list[int]] = {}
    for place, gram in enumerate(grams):
        places.setdefault(gram, []).append(place)
    return places


def _whole(pattern: Pattern, words: list[str]) -> tuple[float, int, int] | None:
    text, sought = f" {' '.join(words)} ", f" {' '.join(pattern.words)} "
    if (at := text.find(sought)) < 0:
        return None
    start = text.count(" ", 0, at)
    return 1.0, start, start + len(pattern.words) - 1


def _by_ngrams(
    pattern: Pattern, places: dict[tuple[str, ...], list[int]], length: int
) -> tuple[float, int, int] | None:
    """The most n-grams that begin within twice the question's length."""
    hits = sorted((place, offset) for gram, offset in pattern.evidence.items() for place in places.get(gram, ()))
    best: tuple[float, int, int] | None = None
    for place, _ in hits:
        near = [hit for hit in hits if place - 2 * len(pattern.words) <= hit[0] <= place]
        share = len({offset for _, offset in near}) / len(pattern.evidence)
        if best is None or share > best[0]:
            best = share, near[0][0], place + length - 1
    return best
