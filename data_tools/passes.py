"""Forward passes of rows of tokens, shaped so that what a causal model makes of a row does not follow its neighbours.

R: rows of a pass; T: tokens of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SHORTEST = 16  # rows are padded to a multiple of it, longer ones to a multiple of a quarter of a power of two
_CPU_TOKENS = 512  # of a forward pass: more do not make a CPU faster

_Row = Sequence[int] | npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """`places` of the rows that stand first in `ids_RT`, int64 [R, T]; `lengths_R`, int64 [R]: theirs, and 1 for the
    empty rows after them.
    """

    places: list[int]
    ids_RT: npt.NDArray[np.int64]
    lengths_R: npt.NDArray[np.int64]


def passes(rows: Sequence[_Row], *, at_most: int, longest: int, device: str) -> Iterator[Pass]:
    """Each row once, in passes of `at_most` tokens (on a CPU, 512 where that is less) or of one row.

    Rows are padded at their right, where a causal model does not look, to one of few lengths of which none is above
    `longest`; passes of one length are filled up with empty rows to one number of rows. So the shape in which a row is
    computed is decided by its length alone. On a CPU a row that is alone in its pass is not padded.
    """
    on_cpu = device == "cpu"
    if on_cpu:
        at_most = min(at_most, _CPU_TOKENS)
    groups: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(rows):
        length = min(padded(len(row)), longest)
        size = max(1, at_most // length)
        groups.setdefault((len(row) if on_cpu and size == 1 else length, size), []).append(place)
    for (length, size), places in sorted(groups.items()):
        for start in range(0, len(places), size):
            taken = places[start : start + size]
            ids_RT = np.zeros((size, length), np.int64)
            lengths_R = np.ones(size, np.int64)
            for number, place in enumerate(taken):
                ids_RT[number, : len(rows[place])] = rows[place]
                lengths_R[number] = len(rows[place])
            yield Pass(taken, ids_RT, lengths_R)


def padded(length: int) -> int:
    """One of few lengths, at most a quarter more from 64 on: 16, 32, 48, … 128, 160, 192, 224, 256, 320, …"""
    step = max(_SHORTEST, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step
