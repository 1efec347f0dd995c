"""The code points of many texts at once, for tests that numpy makes on a whole batch in one pass.

A text is a run of one array, followed by one newline; C: code points of all texts of a group and their newlines.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

GROUP_CHARACTERS = 1 << 20  # bounds the arrays, whatever the batch; a longer text is a group of its own


@dataclass(frozen=True, slots=True)
class CodePoints:
    """places: the T texts' places in the list they come from. codes_C: uint8 where all are ASCII, else uint32.
    starts_T: int64, where each text begins.
    """

    places: list[int]
    codes_C: npt.NDArray[Any]
    starts_T: npt.NDArray[np.int64]

    def holding(self, marks_C: npt.NDArray[np.bool_]) -> list[int]:
        """The places of the texts with at least one mark; `marks_C` may be shorter than C at its end."""
        hits = np.flatnonzero(marks_C)
        if not len(hits):
            return []
        texts = np.searchsorted(self.starts_T, hits, side="right") - 1
        return [self.places[text] for text in np.unique(texts).tolist()]

    def sums(self, values_C: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The sum of the values over each text, its newline included: [T], int64."""
        return np.add.reduceat(values_C, self.starts_T, dtype=np.int64)


def code_points(texts: Sequence[str], places: Iterable[int] | None = None) -> Iterator[CodePoints]:
    """The texts (or those at `places`) in groups, ASCII texts apart from the rest. Lone surrogates pass through."""
    ascii_places: list[int] = []
    other_places: list[int] = []
    for place in range(len(texts)) if places is None else places:
        (ascii_places if texts[place].isascii() else other_places).append(place)
    for kind, encoding, dtype in ((ascii_places, "ascii", np.uint8), (other_places, "utf-32-le", np.uint32)):
        for group in _groups(texts, kind):
            joined = "\n".join([texts[place] for place in group] + [""])
            lengths = np.fromiter((len(texts[place]) + 1 for place in group), np.int64, len(group))
            codes_C = np.frombuffer(joined.encode(encoding, "surrogatepass"), dtype)
            yield CodePoints(group, codes_C, np.cumsum(lengths) - lengths)


def _groups(texts: Sequence[str], places: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    characters = 0
    for place in places:
        if group and characters + len(texts[place]) > GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(place)
        characters += len(texts[place])
    if group:
        yield group
