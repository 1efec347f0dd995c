"""What a run computes: samples, tokens, steps, FLOPs; from the recipe, and from the indexed data where they exist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from data_tools.manifest import manifest_path, read_manifest
from megatron_aquila.config import RunConfig
from megatron_aquila.kernels import REFERENCE_FREE
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape

SAMPLES = {"sft": "dialogues", "dpo": "pairs"}


@dataclass(frozen=True)
class Samples:
    """The training samples of sft and dpo. None: not known."""

    count: int | None
    tokens: float | None  # a sample, on average; of a pair, both answers


@dataclass(frozen=True)
class Workload:
    """An optimizer step, and how many of them.

    attended: mean length of a document, which attention stays within. sequences: rows that are computed a step, of
    `sequence_length` tokens each. notes: what had to be assumed, a sentence each.
    """

    sample_name: str
    samples: int  # a step
    sequences: float
    tokens: float  # a step, padding left out
    attended: float
    steps: int | None
    reference_tokens: float  # of the reference pass, which is forward only
    notes: tuple[str, ...]

    @property
    def total_tokens(self) -> float | None:
        return None if self.steps is None else self.steps * self.tokens

    def flops(self, shape: ModelShape) -> float | None:
        """Of the whole run in NVIDIA's convention: 6 (P − E) + 12 L a s̄ a token, s̄ the mean length attended to, and a
        third of that in the reference pass. Attention counts as full, recomputation not at all."""
        if self.total_tokens is None:
            return None
        return (self.total_tokens + self.reference_tokens / 3) * shape.flops_per_token(self.attended)

    def micro_batches(self, run: RunConfig, sizes: Sizes) -> int:
        """Of a step, on one replica."""
        count = max(1, math.ceil(self.sequences / (run.training.micro_batch_size * sizes.data)))
        multiple = sizes.pipeline if sizes.virtual > 1 else 1
        return -(-count // multiple) * multiple


def workload(run: RunConfig, given: Samples) -> Workload:
    """What `run` computes; `given` goes before what the data's manifests say."""
    if run.stage not in SAMPLES:
        return _of_text(run)
    found = _indexed(run)
    count = found.count if given.count is None else given.count
    mean = found.tokens if given.tokens is None else given.tokens
    return _of_samples(run, count, mean)


def _of_text(run: RunConfig) -> Workload:
    length, batch = run.data.sequence_length, run.training.global_batch_size
    notes = []
    if run.data.reset_attention:
        notes.append(
            f"Attention is counted over {length:,} tokens, as if every document were as long as a sequence; it is less "
            "where documents are shorter."
        )
    return Workload("sequences", batch, batch, batch * length, length, run.total_steps, 0, tuple(notes))


def _of_samples(run: RunConfig, count: int | None, mean: float | None) -> Workload:
    training, length, name = run.training, run.data.sequence_length, SAMPLES[run.stage]
    notes = []
    if mean is None:
        mean = length
        notes.append(
            f"How long the {name} are is not known before data.train is indexed: each is taken to fill a sequence of "
            f"{length:,} tokens, the worst case. --sample-tokens gives their mean length."
        )
    batch = training.global_batch_size
    sequences = batch * mean / length if run.data.packing else float(batch)
    steps = training.steps
    if training.epochs is not None:
        if count is None:
            notes.append(
                f"How many {name} there are is not known before data.train is indexed, so neither are steps and time. "
                "--samples gives their number."
            )
        else:
            steps = math.ceil(count / batch) * training.epochs
    reference = 0.0
    if run.stage == "dpo" and run.preference.loss not in REFERENCE_FREE and count is not None:
        reference = count * mean
    attended = mean / 2 if run.stage == "dpo" else mean
    return Workload(name, batch, sequences, batch * mean, attended, steps, reference, tuple(notes))


def _indexed(run: RunConfig) -> Samples:
    """Training samples and their mean length, by the manifests of `data.train`; unknown if one is missing."""
    counts = []
    for corpus in run.data.train:
        manifest = read_manifest(manifest_path(Path(corpus.path)))
        if manifest is None:
            return Samples(None, None)
        counts.append(manifest["counts"])
    samples, tokens = (sum(each[key] for each in counts) for key in ("documents", "tokens"))
    if not samples:
        return Samples(None, None)
    shares = run.data.split
    share = 1.0 if run.data.valid is not None else shares[0] / sum(shares)
    return Samples(round(samples * share), tokens / samples)
