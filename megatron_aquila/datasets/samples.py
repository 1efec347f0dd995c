"""Dialogues and pairs as they lie in indexed datasets, and the packs of them that an epoch is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_tools.indexed import IndexedReader
from data_tools.manifest import loss_mask_prefix
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch, Volume, make_batch
from megatron_aquila.datasets.packing import IntArray, Packs, one_each, pack


@dataclass(frozen=True)
class Sample:
    """A dialogue (one sequence) or a pair (two: chosen, rejected).

    number: its place among all samples of the run. sequences: `(tokens [n], mask [n])`, mask 1 where a token is
    trained on.
    """

    number: int
    sequences: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]


class Samples:
    """The samples of several indexed datasets, one after another."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self._tokens = [IndexedReader(prefix) for prefix in prefixes]
        self._masks = [IndexedReader(loss_mask_prefix(prefix)) for prefix in prefixes]
        self._starts = np.cumsum([0, *(reader.documents for reader in self._tokens)])
        # tokens of each sample, and of its longest sequence
        self.lengths: IntArray = np.concatenate([_per_document(np.add, reader) for reader in self._tokens])
        self.longest: IntArray = np.concatenate([_per_document(np.maximum, reader) for reader in self._tokens])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Sample:
        dataset = int(np.searchsorted(self._starts, number, side="right")) - 1
        place = number - int(self._starts[dataset])
        tokens, masks = self._tokens[dataset].document(place), self._masks[dataset].document(place)
        return Sample(number, list(zip(tokens, masks)))

    def datasets(self, first: int, last: int) -> IntArray:
        """The numbers of the samples that datasets `first … last - 1` hold."""
        return np.arange(self._starts[first], self._starts[last])


def _per_document(fold: np.ufunc, reader: IndexedReader) -> IntArray:
    if not reader.documents:
        return np.zeros(0, np.int64)
    folded: IntArray = fold.reduceat(reader.lengths.astype(np.int64), reader.document_indices[:-1])
    return folded


def split(members: IntArray, shares: Sequence[float], seed: int) -> tuple[IntArray, IntArray]:
    """The training and validation parts of `members` by `shares` (training, validation, left out), at random."""
    shuffled = np.random.default_rng([seed, 0]).permutation(members)
    whole = sum(shares)
    held_out = round(len(members) * shares[1] / whole)
    left_out = round(len(members) * shares[2] / whole)
    return np.sort(shuffled[held_out + left_out :]), np.sort(shuffled[:held_out])


class PackedSamples:
    """Samples in packs of `capacity` tokens, epoch after epoch; each epoch holds every sample exactly once.

    An optimizer step is as many packs as hold about `batch` samples: the packs whose last sample is number b of the
    epoch, `batch`·k < b ≤ `batch`·(k + 1). Which samples a step has follows from the data, `seed` and these numbers
    alone, not from the layout; where the run stands is the number of the step. The last step of an epoch has what is
    left. Without `packing` a pack holds one sample, and a step exactly `batch` of them.

    steps: of the run: `epochs`, or as many as are asked for, epoch after epoch.
    """

    def __init__(
        self,
        samples: Samples,
        members: IntArray,
        *,
        capacity: int,
        batch: int,
        seed: int,
        packing: bool,
        steps: int | None = None,
        epochs: int | None = None,
    ) -> None:
        self._samples, self.members, self.capacity, self._batch = samples, members, capacity, batch
        self._lengths = samples.lengths[members]
        self._pack = pack if packing else one_each
        self._seed = seed
        self.epoch = lru_cache(maxsize=2)(self._epoch)
        packs = self.epoch(0)
        self.fill = packs.fill
        self.samples_per_pack = len(members) / len(packs)
        self.steps_per_epoch = min(-(-len(members) // batch), len(packs))
        self.steps = self.steps_per_epoch * (epochs or 0) if steps is None else steps

    def _epoch(self, number: int) -> Packs:
        return self._pack(self._lengths, self.capacity, [self._seed, 1, number])

    def step(self, number: int) -> list[tuple[int, int]]:
        """The packs of step `number`, as (epoch, pack)."""
        epoch, place = divmod(number, self.steps_per_epoch)
        bounds = self._step_bounds(epoch)
        return [(epoch, index) for index in range(bounds[place], bounds[place + 1])]

    def _step_bounds(self, epoch: int) -> list[int]:
        packs, steps = self.epoch(epoch), self.steps_per_epoch
        ends = packs.bounds[1:]
        bounds = np.searchsorted(ends, self._batch * np.arange(steps + 1), side="right")
        bounds[-1] = len(packs)
        # A step has at least one pack, where packs hold nearly as many samples as a step.
        least = np.arange(steps + 1)
        bounds = np.minimum(np.maximum.accumulate(bounds - least) + least, len(packs) - steps + least)
        return [int(bound) for bound in bounds]

    def __getitem__(self, row: tuple[int, int]) -> list[Sample]:
        epoch, index = row
        return [self._samples[int(self.members[place])] for place in self.epoch(epoch)[index]]

    def samples(self, row: tuple[int, int]) -> list[tuple[int, ...]]:
        """The samples of a pack as (epoch, number among all samples)."""
        epoch, index = row
        return [(epoch, int(self.members[place])) for place in self.epoch(epoch)[index]]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self._samples.longest[self.members].max(initial=0))


def collate(packs: Sequence[Sequence[Sample]], *, capacity: int, count: int, padding: int) -> MicroBatch:
    """One micro-batch of `count` packs of `capacity` tokens; those that `packs` lacks are padding throughout.

    `extra` gets `sequences`, the bounds `[S + 1]` int64 of the sequences with the padding after each, and `samples`,
    the numbers of the samples.
    """
    tokens_T = torch.full((count * capacity,), padding, dtype=torch.int64)
    labels_T = torch.full_like(tokens_T, IGNORE_INDEX)
    bounds, starts, numbers = [0], [], []
    total = attended = 0
    for index in range(count):
        place = index * capacity
        for sample in packs[index] if index < len(packs) else ():
            numbers.append(sample.number)
            for tokens, mask in sample.sequences:
                end = place + len(tokens)
                ids = torch.from_numpy(tokens.astype(np.int64))
                tokens_T[place:end] = ids
                labels_T[place : end - 1] = ids[1:].masked_fill(torch.from_numpy(mask[1:] == 0), IGNORE_INDEX)
                starts.append(place)
                bounds.append(end)
                total, attended, place = total + len(tokens), attended + len(tokens) ** 2, end
        if place < (index + 1) * capacity:
            bounds.append((index + 1) * capacity)
    extra = {
        "sequences": torch.tensor([*starts, count * capacity], dtype=torch.int64),
        "samples": torch.tensor(numbers, dtype=torch.int64),
    }
    return make_batch(tokens_T, labels_T, bounds, Volume(len(numbers), total, attended), extra)
