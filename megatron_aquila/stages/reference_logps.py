"""The reference model's log-probs of all answers: computed once, kept on disk, never mistaken for others.

One forward-only pass of the reference weights, before training, takes the place of a second model in memory. It may
run with longer packs or on another layout than the training (`aquila reference`). The result is keyed by everything it
depends on: weights, tokenizer, chat template, data, truncation, dtype. A cache of another key is refused, field by
field. Values are float64 sums over an answer's tokens, `[samples, 2]`: chosen, rejected; NaN where not yet computed,
so that an interrupted pass goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data_tools.publish import atomic_path
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.datasets.packing import IntArray, pack
from megatron_aquila.datasets.sample_data import SampleData
from megatron_aquila.datasets.samples import collate
from megatron_aquila.errors import ConfigError
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss
from megatron_aquila.stages import Start

_MICRO_BATCHES_PER_SAVE = 64  # of a rank


class ReferenceCache:
    """A folder with `key.json` and `logps.npy`.

    Raises:
        ConfigError: it holds the log-probs of something else; the message names what differs.
    """

    def __init__(self, directory: Path, key: dict[str, Any], samples: int) -> None:
        self.directory, self.key = directory, key
        self.values: npt.NDArray[np.float64] = np.full((samples, 2), np.nan)
        written = directory / "key.json"
        if not written.exists():
            return
        found = json.loads(written.read_text(encoding="utf-8"))
        differing = [name for name in {**found, **key} if found.get(name) != key.get(name)]
        if differing:
            what = "; ".join(f"{name} is {found.get(name)}, not {key.get(name)}" for name in sorted(differing))
            raise ConfigError(
                f"{directory} holds reference log-probs of something else ({what}): remove it, or give another "
                "preference.reference_cache"
            )
        if (directory / "logps.npy").exists():
            values = np.load(directory / "logps.npy", allow_pickle=False)
            if values.shape == self.values.shape:
                self.values = values

    def missing(self, members: IntArray) -> IntArray:
        """Those of the samples that are not computed yet."""
        return members[np.isnan(self.values[members]).any(axis=1)]

    def save(self) -> None:
        """Publish key and values, the values as a whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.directory / "key.json").exists():
            with atomic_path(self.directory / "key.json") as temporary:
                temporary.write_text(json.dumps(self.key, indent=1) + "\n", encoding="utf-8")
        with atomic_path(self.directory / "logps.npy") as temporary, temporary.open("wb") as file:
            np.save(file, self.values, allow_pickle=False)

    def of(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-probs `[2P]` float64 of the samples `[P]`: chosen and rejected in turn."""
        return torch.from_numpy(self.values[samples.numpy()].reshape(-1))


def compute_reference(run: RunConfig, data: SampleData, tokenizer_digest: str, start: Start) -> ReferenceCache:
    """The complete cache of a run's training and validation pairs. Every rank calls it; rank 0 writes.

    Raises:
        ConfigError: the folder holds another cache, or a log-prob is not finite.
    """
    preference = run.preference
    weights = preference.reference_weights
    key = {
        "weights": start.fingerprint(weights),
        "tokenizer": tokenizer_digest,
        "template": data.template["digest"],
        "data": data.contents,
        "max_length": data.max_lengths,
        "dtype": run.training.precision,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    directory = preference.reference_cache or run.cache_directory / f"reference-{name}"
    cache = ReferenceCache(directory, key, len(data.samples))
    members = data.train.members if data.valid is None else np.union1d(data.train.members, data.valid.members)
    missing = cache.missing(members)
    if len(missing) == 0:
        return cache
    if start.layout.is_main:
        print(f"reference log-probs of {len(missing):,} of {len(members):,} pairs: {directory}", flush=True)

    capacity = preference.reference_sequence_length or run.data.sequence_length
    packs = pack(data.samples.lengths[missing], capacity, run.seed)
    micro_batch_size = run.training.micro_batch_size
    stride = _MICRO_BATCHES_PER_SAVE * micro_batch_size * start.layout.data_size
    for first in range(0, len(packs), stride):
        last = min(first + stride, len(packs))
        batches = [
            collate(
                [[data.samples[int(missing[place])] for place in packs[index]] for index in rows],
                capacity=capacity,
                count=micro_batch_size,
                padding=data.padding,
            )
            for rows in start.layout.deal(range(first, last), micro_batch_size)
        ]
        for numbers, values in _score(start, weights, batches):
            cache.values[numbers] = values
        _refuse_not_finite(cache, missing[packs.samples[packs.bounds[first] : packs.bounds[last]]])
        if start.layout.is_main:
            cache.save()
    return cache


def _score(start: Start, weights: Path | None, batches: Sequence[MicroBatch]) -> list[tuple[Any, Any]]:
    """`(samples [P], log-probs [P, 2])` of the micro-batches of all ranks, on every rank."""
    found: list[tuple[Any, Any]] = []
    anything = PreferenceLoss()

    def record(logps: torch.Tensor, batch: MicroBatch) -> None:
        bounds = batch.extra["sequences"]
        # The sums of training's own kernel: a policy that is its reference has margins of exactly 0.
        zeros = torch.zeros(len(bounds) - 1, dtype=torch.float64, device=bounds.device)
        sums = preference_loss(logps, batch.labels, bounds, zeros, anything).sequences[:, 0]
        found.append((batch.extra["samples"].cpu().numpy(), sums.view(-1, 2).cpu().numpy()))

    start.forward(weights, batches, record)
    return [pair for pairs in start.layout.gather(found) for pair in pairs]


def _refuse_not_finite(cache: ReferenceCache, scored: IntArray) -> None:
    bad = scored[~np.isfinite(cache.values[scored]).all(axis=1)]
    if len(bad):
        raise ConfigError(
            f"the reference model gives {len(bad)} pairs a log-prob that is not finite, the first is pair {bad[0]}: "
            "are its weights whole, and does training.precision hold them?"
        )
