"""Greedy diversity: a dialogue stays unless it is too similar to one that stays before it. Exact, and far from
comparing all with all.

The walk is Deita's (hkust-nlp/deita, `IterativeFilter.filter`, arXiv 2312.15685 §3.3): in the order of the scores, keep
the first; drop what has a cosine *above* the threshold with any kept one; stop at the budget. What decides here is the
cosine of the vectors as they are stored, in float64, so that neither blocks nor the order of a float32 sum can change a
pick; a vector of zeros is similar to none, as there (0/0 > threshold is false).

Three filters stand before that cosine, and each lets every pair through that is above the threshold, since for unit
vectors cos > t is |x - y|^2 < 2 - 2t, and no map that shrinks distances can move a pair out of that reach:

1. Kept vectors lie in cells. A cell is passed over by a vector that is further from its centre than the radius and the
   reach together (triangle inequality).
2. Short vectors: the M first principal coordinates and the length of what they leave out. A product of matrices of
   M + 3 columns, not D, bounds the cosine from above.
3. float32 cosines settle all but those nearer to the threshold than their rounding error.

N: dialogues. D: numbers of a vector. M: principal coordinates. B: vectors of a block. C: cells. K: kept ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.dialogues.short_vectors import Cells, Near, Short, Shortening, float32_error

KEPT, TOO_SIMILAR, OVER_BUDGET = 0, 1, 2
_BLOCK, _LARGEST_BLOCK, _BLOCK_BYTES = 2048, 8192, 64 << 20
_BYTES_PER_CHUNK = 32 << 20
_DENSE = 100  # a pair that is gathered takes the time of so many in a product of matrices
_NOBODY = np.iinfo(np.int64).max

Array = npt.NDArray[Any]
Progress = Callable[[int], None]


class Vectors(Protocol):
    """N vectors of D numbers by their place, in memory or on disk; of any length, zeros for none."""

    def __len__(self) -> int: ...

    @property
    def dimensions(self) -> int: ...

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors [n, D] at `places`, in that order."""


class ArrayVectors:
    """Vectors [N, D] of an array, which may be mapped."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    @property
    def dimensions(self) -> int:
        return int(self._array.shape[1])

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray(self._array[places], np.float32)


@dataclass(frozen=True)
class Walked:
    """What a walk says of the n dialogues it was given, in their order.

    outcome: u1 [n] of KEPT, TOO_SIMILAR, OVER_BUDGET. like: int64 [n], of those too similar the place of the first kept
    dialogue that they are too similar to, else -1. similarity: float64 [n], their cosine, else NaN.
    """

    outcome: npt.NDArray[np.uint8]
    like: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]


class DiversityWalk:
    """A walk over `vectors`, in one go or several: what stayed in one is compared with in the next.

    Args:
        threshold: a cosine in (0, 1); above it two dialogues are too similar.
        within_parts: compare a dialogue with those of its own part only.
        block: vectors that are looked at together, by their number if None; decides time and memory, no outcome.
        shorten: False compares whole vectors without cells, as a plain blocked walk does; None does where there are so
            few that nothing else is worth while. Decides time, no outcome.
    """

    def __init__(
        self,
        vectors: Vectors,
        threshold: float,
        *,
        within_parts: bool = False,
        block: int | None = None,
        shorten: bool | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold is a cosine between 0 and 1, not {threshold}")
        self.checked = 0  # pairs of whole vectors
        self._vectors = vectors
        self._threshold = threshold
        self._block = block or _block(vectors)
        self._error = float32_error(vectors.dimensions)
        self._shortening = Shortening(vectors, threshold, shorten)
        self._cells: dict[int, Cells] = {}  # by part; of all, where parts are not apart
        self._within_parts = within_parts
        self._near = Near()
        self._kept = np.empty(len(vectors), np.int64)  # places, in the order of keeping; the first `_count` hold
        self._count = 0

    @property
    def compared(self) -> int:
        """Pairs of short vectors that were compared so far."""
        return self._near.compared

    def __call__(
        self,
        places: npt.NDArray[np.int64],
        parts: npt.NDArray[np.int64],
        room: Sequence[int],
        total: int,
        on_progress: Progress = lambda done: None,
    ) -> Walked:
        """Walk along `places` (int64 [n]), the best first.

        Args:
            parts: int64 [n], the number of each one's part.
            room: how many may stay of each part; what comes after is over budget.
            total: how many may stay of all.
            on_progress: called with the dialogues done.
        """
        left = [min(limit, total) for limit in room]
        outcome = np.full(len(places), OVER_BUDGET, np.uint8)
        like = np.full(len(places), -1, np.int64)
        similarity = np.full(len(places), np.nan)
        end = self._count + total
        for start in range(0, len(places), self._block):
            of_block = parts[start : start + self._block]
            chosen = start + np.flatnonzero(np.asarray(left)[of_block] > 0)
            if self._count == end:
                break
            if len(chosen):
                found, first = self._walk_block(places[chosen], parts[chosen], left, end)
                outcome[chosen] = found
                similar = chosen[found == TOO_SIMILAR]
                like[similar] = self._kept[first[found == TOO_SIMILAR]]
                similarity[similar] = self._cosines(places[similar], like[similar])
            on_progress(min(start + self._block, len(places)))
        return Walked(outcome, like, similarity)

    def _walk_block(self, places: Array, parts: Array, left: list[int], end: int) -> tuple[Array, Array]:
        """Outcomes u1 [B], and the order of keeping of the first one that each is too similar to, int64 [B]."""
        unit_BD = unit(self._vectors.take(places))
        short = self._shortening(unit_BD)
        groups = parts if self._within_parts else np.zeros_like(parts)
        first = np.full(len(places), _NOBODY)
        for group in np.unique(groups).tolist():
            members = np.flatnonzero(groups == group)
            for rows, orders in self._cells_of(group).near(short.select(members)):
                rows = members[rows]
                above = self._similar(unit_BD, places, rows, orders)
                np.minimum.at(first, rows[above], orders[above])
        neighbours = self._neighbours(unit_BD, places, groups, np.flatnonzero(first == _NOBODY), short)
        outcome = np.full(len(places), OVER_BUDGET, np.uint8)
        stayed = []
        for row, part in enumerate(parts.tolist()):
            if not left[part] or self._count == end:
                continue
            if first[row] == _NOBODY and row in neighbours:
                first[row] = min((first[near] for near in neighbours[row] if outcome[near] == KEPT), default=_NOBODY)
            if first[row] < _NOBODY:
                outcome[row] = TOO_SIMILAR
                continue
            outcome[row], first[row] = KEPT, self._count
            self._kept[self._count] = places[row]
            self._count += 1
            stayed.append(row)
            left[part] -= 1
        kept = np.array(stayed, np.int64)
        for group in np.unique(groups[kept]).tolist():
            members = kept[groups[kept] == group]
            self._cells_of(group).add(short.select(members), first[members])
        return outcome, first

    def _cells_of(self, group: int) -> Cells:
        if group not in self._cells:
            self._cells[group] = Cells(self._shortening, self._near)
        return self._cells[group]

    def _neighbours(
        self, unit_BD: Array, places: Array, groups: Array, rows: Array, short: Short
    ) -> dict[int, list[int]]:
        """Of each of `rows` the earlier ones that it is too similar to."""
        left, right = self._near(short.query[rows], short.key[rows], short.floor)
        left, right = rows[left], rows[right]
        earlier = (right < left) & (groups[left] == groups[right])
        left, right = left[earlier], right[earlier]
        above = self._above(unit_BD, unit_BD, places, places, left, right)
        found: dict[int, list[int]] = {}
        for row, other in zip(left[above].tolist(), right[above].tolist()):
            found.setdefault(row, []).append(other)
        return found

    def _similar(self, unit_BD: Array, places: Array, rows: Array, orders: Array) -> Array:
        """Which of the pairs (row of the block, order of a kept one) are above the threshold, bool [pairs]."""
        wanted, right = np.unique(orders, return_inverse=True)
        others = self._kept[wanted]
        return self._above(unit_BD, unit(self._vectors.take(others)), places, others, rows, right)

    def _above(self, unit_AD: Array, unit_OD: Array, places: Array, others: Array, left: Array, right: Array) -> Array:
        """Which of the pairs (left, right) of rows have a cosine above the threshold, bool [pairs]."""
        self.checked += len(left)
        cosines = _cosines32(unit_AD, unit_OD, left, right)
        above = cosines > self._threshold
        close = np.flatnonzero(np.abs(cosines - self._threshold) <= self._error)
        if len(close):
            above[close] = self._cosines(places[left[close]], others[right[close]]) > self._threshold
        return above

    def _cosines(self, left: Array, right: Array) -> npt.NDArray[np.float64]:
        """The cosine of each pair of places, as it is defined: float64 [pairs]."""
        out = np.empty(len(left))
        size = max(1, _BYTES_PER_CHUNK // (32 * self._vectors.dimensions))
        for start in range(0, len(left), size):
            here = slice(start, start + size)
            known, places = np.unique(np.concatenate([left[here], right[here]]), return_inverse=True)
            whole = self._vectors.take(known).astype(np.float64)
            out[here] = cosine(whole[places[: len(left[here])]], whole[places[len(left[here]) :]])
        return out


def _block(vectors: Vectors) -> int:
    """More of many, so that fewer products of matrices are made, of a size that float64 copies stay small."""
    wanted = min(max(len(vectors) // 64, _BLOCK), _LARGEST_BLOCK)
    return max(64, min(wanted, _BLOCK_BYTES // (8 * vectors.dimensions)))


def cosine(left_ND: Array, right_ND: Array) -> npt.NDArray[np.float64]:
    """The cosine of N pairs of vectors in float64, each sum along its own row; 0 with a vector of zeros."""
    left, right = np.ascontiguousarray(left_ND, np.float64), np.ascontiguousarray(right_ND, np.float64)
    product = np.add.reduce(left * right, axis=1)
    lengths = np.sqrt(np.add.reduce(left * left, axis=1)) * np.sqrt(np.add.reduce(right * right, axis=1))
    return np.divide(product, lengths, out=np.zeros(len(left)), where=lengths > 0)


def unit(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Vectors of length 1 (to float32's rounding); zeros stay zeros."""
    whole = vectors_ND.astype(np.float64)
    lengths = np.sqrt(np.add.reduce(whole * whole, axis=1, keepdims=True))
    return np.divide(whole, lengths, out=np.zeros_like(whole), where=lengths > 0).astype(np.float32)


def _cosines32(unit_AD: Array, unit_OD: Array, left: Array, right: Array) -> npt.NDArray[np.float32]:
    """The product of each pair of rows in float32, by products of matrices where enough of them are asked for."""
    out = np.empty(len(left), np.float32)
    rows, row = np.unique(left, return_inverse=True)
    if len(left) * _DENSE < len(rows) * len(unit_OD):
        for start in range(0, len(left), size := max(1, _BYTES_PER_CHUNK // (8 * unit_AD.shape[1]))):
            some = slice(start, start + size)
            out[some] = np.einsum("nd,nd->n", unit_AD[left[some]], unit_OD[right[some]])
        return out
    for start in range(0, len(rows), size := max(1, _BYTES_PER_CHUNK // (4 * len(unit_OD) + 1))):
        here = np.flatnonzero((row >= start) & (row < start + size))
        out[here] = (unit_AD[rows[start : start + size]] @ unit_OD.T)[row[here] - start, right[here]]
    return out
