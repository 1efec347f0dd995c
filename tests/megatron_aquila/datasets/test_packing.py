"""Packs against best-fit decreasing done one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest

from megatron_aquila.datasets.packing import pack


def room_left_by_hand(lengths: list[int], capacity: int) -> list[int]:
    """Room left in each pack: the longest sample first, each into the fullest pack that still takes it."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@pytest.mark.parametrize("seed", range(60))
def test_best_fit(seed: int) -> None:
    generator = np.random.default_rng(seed)
    capacity = int(generator.integers(1, 60))
    lengths = generator.integers(1, capacity + 1, int(generator.integers(0, 90)))
    packs = pack(lengths, capacity, seed)
    assert sorted(packs.samples.tolist()) == list(range(len(lengths))), "every sample is in one pack"
    rooms = sorted(capacity - int(lengths[packs[index]].sum()) for index in range(len(packs)))
    assert rooms == room_left_by_hand(lengths.tolist(), capacity)
    assert packs.fill == pytest.approx(1 - sum(rooms) / (capacity * len(packs)) if len(packs) else 1.0)


def test_many_samples_of_dialogue_lengths() -> None:
    generator = np.random.default_rng(0)
    lengths = np.minimum(np.exp(generator.normal(5.5, 0.8, 320_000)).astype(int) + 8, 2048)
    packs = pack(lengths, 2048, seed=1)
    totals = np.add.reduceat(lengths[packs.samples], packs.bounds[:-1])
    assert totals.max() <= 2048 and packs.fill > 0.99


def test_seed_decides() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    first, again, other = (pack(lengths, 128, seed) for seed in (3, 3, 4))
    assert np.array_equal(first.samples, again.samples) and np.array_equal(first.bounds, again.bounds)
    assert not np.array_equal(first.samples, other.samples)
    assert len(first) == len(other)
    spread = np.array([lengths[first[index]].max() for index in range(len(first))])
    assert abs(np.corrcoef(np.arange(len(first)), spread)[0, 1]) < 0.3, "long samples do not come first"


def test_lengths_that_fit_no_pack_are_named() -> None:
    with pytest.raises(ValueError, match="sample 2 has 11 tokens; a pack takes 1 to 10"):
        pack([3, 10, 11], 10, 0)
    with pytest.raises(ValueError, match="sample 1 has 0 tokens"):
        pack([3, 0], 10, 0)
