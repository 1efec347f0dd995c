"""What is trained on: rows of text, packs of dialogues, packs of pairs, of random ids; no file and no tokenizer.

Lengths are drawn from log-normal distributions with the medians given below, about those of medical dialogues; the
speed does not depend on what the ids say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.case import Stage
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch, make_batch, volume_of
from megatron_aquila.datasets.packing import pack
from megatron_aquila.datasets.samples import Sample, collate
from megatron_aquila.engine.step import Loss
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss
from megatron_aquila.losses.language_modelling import negative_log_likelihood

_SEED = 0
_PADDING = 0
# shares of `length`: a prompt and an answer, by their medians
_PROMPT, _ANSWER, _SPREAD = 1 / 32, 1 / 12, 0.6


@dataclass(frozen=True)
class Workload:
    """Micro-batches of `length` tokens each, and their loss; `reference_pass` says whether pairs need one."""

    batches: list[MicroBatch]
    loss: Loss
    reference_pass: bool = False


def workload(stage: Stage, *, length: int, vocab_size: int, micro_batches: int) -> Workload:
    """cpt: documents as long as the sequence, so that attention counts in full. sft, dpo: packs of whole samples."""
    rng = np.random.default_rng(_SEED)
    if stage == "cpt":
        return Workload([_row(rng, length, vocab_size) for _ in range(micro_batches)], _next_token)
    make = _dialogue if stage == "sft" else _pair
    samples = [make(rng, number, length, vocab_size) for number in range(micro_batches * 32)]
    lengths = np.array([sum(len(tokens) for tokens, _ in sample.sequences) for sample in samples])
    packs = pack(lengths, length, [_SEED])
    if len(packs) < micro_batches:
        raise ValueError(f"{len(samples)} samples fill {len(packs)} packs, and {micro_batches} are wanted")
    batches = [
        collate([[samples[int(place)] for place in packs[index]]], capacity=length, count=1, padding=_PADDING)
        for index in range(micro_batches)
    ]
    return Workload(batches, _next_token) if stage == "sft" else Workload(batches, _preference, reference_pass=True)


def with_reference(found: Workload, forward: Callable[[Loss], None]) -> Workload:
    """The same with the log-probs of its answers under the model that `forward` runs all batches through."""
    logps: list[torch.Tensor] = []

    def keep(token_logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        counted = (token_logps * (batch.labels != IGNORE_INDEX)).flatten().double()
        bounds = batch.extra["sequences"].tolist()
        logps.append(torch.stack([counted[start:end].sum() for start, end in pairwise(bounds)]).cpu())
        return token_logps.sum(), torch.ones((), dtype=torch.int64, device=token_logps.device), {}

    forward(keep)
    batches = [
        replace(batch, extra={**batch.extra, "reference": reference})
        for batch, reference in zip(found.batches, logps, strict=True)
    ]
    return replace(found, batches=batches)


def _next_token(logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    total, count = negative_log_likelihood(logps, batch.labels, IGNORE_INDEX)
    return total, count, {}


def _preference(logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    extra: dict[str, Any] = batch.extra
    result = preference_loss(logps, batch.labels, extra["sequences"], extra["reference"], PreferenceLoss())
    return result.loss, torch.tensor(len(extra["samples"]), device=logps.device), {}


def _row(rng: np.random.Generator, length: int, vocab_size: int) -> MicroBatch:
    tokens = torch.from_numpy(rng.integers(0, vocab_size, length + 1))
    return make_batch(tokens[:-1].clone(), tokens[1:].clone(), [0, length], volume_of(1, [0, length]))


def _sequence(rng: np.random.Generator, prompt: np.ndarray, length: int, vocab_size: int) -> tuple[Any, Any]:
    answer = _ids(rng, _ANSWER * length, length // 3, vocab_size)
    mask = np.concatenate([np.zeros(len(prompt), np.uint8), np.ones(len(answer), np.uint8)])
    return np.concatenate([prompt, answer]), mask


def _dialogue(rng: np.random.Generator, number: int, length: int, vocab_size: int) -> Sample:
    prompt = _ids(rng, _PROMPT * length, length // 6, vocab_size)
    return Sample(number, [_sequence(rng, prompt, length, vocab_size)])


def _pair(rng: np.random.Generator, number: int, length: int, vocab_size: int) -> Sample:
    prompt = _ids(rng, _PROMPT * length, length // 6, vocab_size)
    return Sample(number, [_sequence(rng, prompt, length, vocab_size) for _ in range(2)])


def _ids(rng: np.random.Generator, median: float, most: int, vocab_size: int) -> np.ndarray:
    count = int(np.clip(rng.lognormal(np.log(median), _SPREAD), 2, most))
    return rng.integers(0, vocab_size, count).astype(np.int32)
