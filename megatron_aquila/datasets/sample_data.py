"""The dialogues or pairs of a run: found, checked, divided, packed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from data_tools.tokenizers import Tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.artefacts import checked_manifest, content_digest
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.datasets.samples import PackedSamples, Sample, Samples, collate, split
from megatron_aquila.errors import ConfigError
from megatron_aquila.shapes import ModelShape


class SampleData:
    """Training and validation packs of one kind of sample.

    Raises:
        ConfigError: a dataset is missing, does not fit, was rendered with another chat template than the others, or
            holds samples that do not fit into a pack or into the model.
    """

    def __init__(self, run: RunConfig, tokenizer: Tokenizer, shape: ModelShape, kind: str) -> None:
        self._run, self._tokenizer, self._kind = run, tokenizer, kind
        corpora = [*run.data.train, *(run.data.valid or ())]
        weighted = next((corpus for corpus in corpora if corpus.weight != 1.0), None)
        if weighted is not None:
            raise ConfigError(
                f"{weighted.path}: weight {weighted.weight:g} has no meaning here: an epoch has every sample once"
            )
        manifests = [checked_manifest(corpus.path, tokenizer, kind) for corpus in corpora]
        templates = {manifest["template"]["digest"]: manifest["template"] for manifest in manifests}
        if len(templates) > 1:
            names = ", ".join(sorted({template["name"] for template in templates.values()}))
            raise ConfigError(f"data.train and data.valid were rendered with different chat templates: {names}")
        self.template: dict[str, str] = next(iter(templates.values()))
        self.max_lengths = sorted({manifest["options"]["max_length"] or 0 for manifest in manifests})
        self.contents = [content_digest(manifest) for manifest in manifests]

        self.samples = Samples([corpus.path for corpus in corpora])
        train = self.samples.datasets(0, len(run.data.train))
        if run.data.valid is None:
            train, valid = split(train, run.data.split, run.seed)
        else:
            valid = self.samples.datasets(len(run.data.train), len(corpora))
        training = run.training
        self.train = self._packed(train, "training", steps=training.steps, epochs=training.epochs)
        self.valid = self._packed(valid, "validation", epochs=1) if run.evaluation.every else None
        self._check_lengths(shape)

    def _packed(self, members: Any, part: str, **length: int | None) -> PackedSamples:
        run = self._run
        if len(members) == 0:
            raise ConfigError(f"there are no {self._kind} for {part}: see data.train, data.valid and data.split")
        lengths = self.samples.lengths[members]
        too_long = int((lengths > run.data.sequence_length).sum())
        if too_long:
            advice = (
                "index with a smaller --max-length (of each of a pair's two sequences)"
                if self._kind == "pairs"
                else "index with --max-length"
            )
            raise ConfigError(
                f"{too_long} of {len(members)} {self._kind} are longer than data.sequence_length "
                f"{run.data.sequence_length} (the longest has {lengths.max()} tokens): raise it, or {advice}"
            )
        return PackedSamples(
            self.samples,
            members,
            capacity=run.data.sequence_length,
            batch=run.training.global_batch_size,
            seed=run.seed,
            packing=run.data.packing,
            **length,
        )

    def _check_lengths(self, shape: ModelShape) -> None:
        batch, per_pack = self._run.training.global_batch_size, self.train.samples_per_pack
        if per_pack > batch:
            raise ConfigError(
                f"packs of {self._run.data.sequence_length} tokens hold {per_pack:.1f} {self._kind} on average, more "
                f"than training.global_batch_size {batch}: lower data.sequence_length, or set data.packing=false"
            )
        if self.train.longest > shape.max_position_embeddings:
            raise ConfigError(
                f"the longest of the {self._kind} has a sequence of {self.train.longest} tokens, more than the model's "
                f"max_position_embeddings {shape.max_position_embeddings}: index with --max-length"
            )

    def digest(self) -> dict[str, Any]:
        """Of all that decides which samples a step has."""
        data = self._run.data
        return {
            "contents": self.contents,
            "valid": data.valid is not None,
            "split": data.split,
            "sequence_length": data.sequence_length,
            "packing": data.packing,
            "seed": self._run.seed,
            "global_batch_size": self._run.training.global_batch_size,
        }

    def collate(self, packs: list[list[Sample]]) -> MicroBatch:
        run = self._run
        return collate(
            packs, capacity=run.data.sequence_length, count=run.training.micro_batch_size, padding=self.padding
        )

    @property
    def padding(self) -> int:
        """Any id will do: it is attended to by nothing and has no label."""
        return self._tokenizer.eod_id if self._tokenizer.pad_id is None else self._tokenizer.pad_id

    def describe(self) -> str:
        """One line for the head of a run."""
        train, valid = self.train, self.valid
        held_out = f", {len(valid.members):,} held out" if valid else ""
        return (
            f"{len(train.members):,} {self._kind}{held_out}; {train.steps_per_epoch:,} steps an epoch, "
            f"{train.samples_per_pack:.2f} {self._kind} a pack of {train.capacity:,} tokens, fill {train.fill:.1%}"
        )


def digest_of(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
