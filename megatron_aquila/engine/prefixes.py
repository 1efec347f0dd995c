"""Which documents of a sorted list are worth computing on one common prefix, as questions after the same examples are.

Documents that begin alike stand side by side when they are sorted, and where two such ranges overlap one holds the
other. So the ranges are a tree, taken from its leaves: of what is in a range, those join its common prefix for which
that leaves fewer tokens to compute than the longer prefix that they have found already.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SHORTEST = 16  # tokens of a prefix; what begins with a shorter one in common is as quick by itself

IntArray = npt.NDArray[np.int64]
Group = tuple[int, list[int]]  # tokens in common, documents by number


def shared_prefixes(documents: Sequence[IntArray]) -> list[Group]:
    """`(tokens of the prefix, documents by number)`: groups of two or more, no document in two of them.

    Args:
        documents: distinct token sequences in ascending or descending order, none the beginning of another. So each
            goes on after the prefix of its group.
    """
    common = [_common(one, other) for one, other in pairwise(documents)]
    open_ranges: list[tuple[int, list[Group]]] = [(0, [])]
    for number, following in enumerate([*common, 0]):
        found: list[Group] = [(len(documents[number]), [number])]
        while open_ranges[-1][0] > following:
            depth, groups = open_ranges.pop()
            found = _joined(depth, groups + found)
        if open_ranges[-1][0] < following:
            open_ranges.append((following, []))
        open_ranges[-1][1].extend(found)
    return [group for group in open_ranges[0][1] if len(group[1]) > 1]


def _common(one: IntArray, other: IntArray) -> int:
    shorter = min(len(one), len(other))
    differing = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differing[0]) if len(differing) else shorter


def _joined(depth: int, groups: list[Group]) -> list[Group]:
    """The groups, a document by itself being one too, of a range whose first `depth` tokens are the same."""
    joining = [group for group in groups if depth * len(group[1]) >= _saved(group)]
    members = [number for _, numbers in joining for number in numbers]
    if depth < SHORTEST or _saved((depth, members)) <= sum(map(_saved, joining)):
        return groups
    return [group for group in groups if depth * len(group[1]) < _saved(group)] + [(depth, members)]


def _saved(group: Group) -> int:
    """Tokens that need not be computed."""
    return group[0] * (len(group[1]) - 1)
