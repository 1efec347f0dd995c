"""Which samples share a pack: best-fit decreasing over the lengths alone.

Deterministic in the seed; 320,000 samples take a fraction of a second. Samples are taken by length, so what is done
for one is done for all of its length at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packs:
    """Samples by pack: pack i holds `samples[bounds[i] : bounds[i + 1]]`."""

    samples: IntArray
    bounds: IntArray
    fill: float  # share of the packs' tokens that samples take up

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, pack: int) -> IntArray:
        return self.samples[self.bounds[pack] : self.bounds[pack + 1]]


def pack(lengths: Sequence[int] | IntArray, capacity: int, seed: int | Sequence[int]) -> Packs:
    """Put every sample into one pack of at most `capacity` tokens.

    Best-fit decreasing: the longest sample first, each into the fullest pack that still has room. Which of the
    samples of a length go where, the order of the packs and the order within a pack follow from `seed`.

    Raises:
        ValueError: a sample is longer than a pack, or has no tokens.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and (lengths.max() > capacity or lengths.min() < 1):
        wrong = int(np.flatnonzero((lengths > capacity) | (lengths < 1))[0])
        raise ValueError(f"sample {wrong} has {lengths[wrong]} tokens; a pack takes 1 to {capacity}")
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(lengths))
    longest_first = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    pack_of, count = _best_fit(lengths[longest_first], capacity)
    # Packs in random order, samples in random order within a pack.
    rank = generator.permutation(count)[pack_of]
    order = np.lexsort((generator.random(len(lengths)), rank))
    bounds = np.concatenate(([0], np.bincount(rank, minlength=count).cumsum())).astype(np.int64)
    return Packs(longest_first[order], bounds, float(lengths.sum() / (count * capacity)) if count else 1.0)


def one_each(lengths: Sequence[int] | IntArray, capacity: int, seed: int | Sequence[int]) -> Packs:
    """Every sample in a pack of its own, in an order that follows from `seed`."""
    count = len(lengths)
    order = np.random.default_rng(seed).permutation(count)
    return Packs(order, np.arange(count + 1), float(np.sum(lengths) / (count * capacity)) if count else 1.0)


def _best_fit(lengths: IntArray, capacity: int) -> tuple[IntArray, int]:
    """The pack of each sample, lengths descending, and the number of packs."""
    pack_of = np.empty(len(lengths), dtype=np.int64)
    open_packs: list[list[IntArray]] = [[] for _ in range(capacity + 1)]  # by room left
    room = np.zeros(capacity + 1, dtype=np.int64)  # packs with this much room left
    count = 0
    distinct, first = np.unique(-lengths, return_index=True)
    for length, start, stop in zip(-distinct, first, [*first[1:], len(lengths)]):
        while start < stop:
            fitting = np.flatnonzero(room[length:])
            if len(fitting) == 0:  # as many new packs as the rest of this length needs
                each = capacity // length
                new = -(-(stop - start) // each)
                open_packs[capacity].append(np.arange(count, count + new))
                room[capacity] += new
                count += new
                continue
            left = int(length + fitting[0])
            packs = np.concatenate(open_packs[left])
            each = left // length
            filled = min(len(packs), (stop - start) // each)  # these take `each` samples, one more takes the rest
            taken = filled * each
            pack_of[start : start + taken] = np.repeat(packs[:filled], each)
            _move(open_packs, room, packs[:filled], int(left - each * length))
            start += taken
            if filled < len(packs) and start < stop:
                rest = min(each, stop - start)
                pack_of[start : start + rest] = packs[filled]
                _move(open_packs, room, packs[filled : filled + 1], int(left - rest * length))
                start += rest
                filled += 1
            open_packs[left] = [packs[filled:]]
            room[left] = len(packs) - filled
    return pack_of, count


def _move(open_packs: list[list[IntArray]], room: IntArray, packs: IntArray, left: int) -> None:
    open_packs[left].append(packs)
    room[left] += len(packs)
