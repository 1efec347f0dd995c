"""Blends of indexed corpora, through Megatron's own dataset classes.

Megatron-core's `GPTDataset` lays documents end to end, cuts rows and shuffles them; `BlendedDataset` mixes corpora by
weight. Three of its traps are closed here: its index cache knows a corpus by path only, so that re-indexing under the
same name would train on the old cut (the cache folder is named by content instead); and its pad id would be searched
in the labels, so that pad == end-of-document unlearns the end (no pad id is given to it); and it unpickles what lies in
the cache (`index_cache.py` looks first).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from data_tools.tokenizers import Tokenizer
from megatron_aquila.config import Corpus, RunConfig
from megatron_aquila.datasets import index_cache
from megatron_aquila.datasets.artefacts import checked_manifest, content_digest
from megatron_aquila.errors import ConfigError

_NO_PAD = -1  # Megatron's default too: no token has this id


@dataclass(frozen=True)
class _TokenizerForMegatron:
    """What `GPTDataset` asks of a tokenizer."""

    digest: str
    eod: int
    vocab_size: int
    pad: int = _NO_PAD

    @property
    def unique_identifiers(self) -> dict[str, Any]:
        """Goes into the name of cached indices."""
        return {"digest": self.digest, "eod": self.eod}


class Rows:
    """A blend of Megatron's, whose step number s is rows s·B to (s + 1)·B − 1, B the global batch size."""

    def __init__(self, blend: Any, steps: int, global_batch_size: int) -> None:
        self._blend, self.steps, self._global_batch_size = blend, steps, global_batch_size

    def step(self, number: int) -> range:
        return range(number * self._global_batch_size, (number + 1) * self._global_batch_size)

    def __getitem__(self, row: int) -> Any:
        return self._blend[row]

    def samples(self, row: int) -> list[tuple[int, ...]]:
        """A row is one sample, named by its number in the run."""
        return [(row,)]


class Corpora:
    """The training and validation blends of a run.

    Raises:
        ConfigError: an indexed corpus is missing, was made with another tokenizer, or is too short.
    """

    def __init__(self, run: RunConfig, tokenizer: Tokenizer) -> None:
        self._run = run
        self._tokenizer = tokenizer
        self._train = _with_manifests(run.data.train, tokenizer)
        self._valid = _with_manifests(run.data.valid or (), tokenizer)
        self.digest = self._digest()

    def build(self) -> tuple[Rows, Rows | None]:
        """The training and validation rows (or None). Every rank calls it: rank 0 builds, the others load.

        Raises:
            IndexCacheError: the index cache holds what may not be opened.
        """
        cache = self._run.cache_directory / self.digest[:16]
        index_cache.check(cache, repair=not dist.is_initialized() or dist.get_rank() == 0)
        if dist.is_initialized():
            dist.barrier()  # what is cut off has gone before anyone takes it for whole

        from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

        run = self._run
        steps, batches = self._steps()
        batch_size = run.training.global_batch_size
        evaluates = batches > 0
        self._check_lengths(evaluates)

        train = _blend([corpus for corpus, _ in self._train])
        if run.data.valid is not None:
            mixture: dict[str, Any] = {"blend_per_split": [train, _blend([corpus for corpus, _ in self._valid]), None]}
        else:
            mixture = {"blend": train, "split": ",".join(str(part) for part in run.data.split)}
        config = GPTDatasetConfig(
            random_seed=run.seed,
            sequence_length=run.data.sequence_length,
            path_to_cache=str(cache),
            tokenizer=_TokenizerForMegatron(self._tokenizer.digest, self._tokenizer.eod_id, self._tokenizer.vocab_size),
            # Document bounds reach attention as cu_seqlens: no dense mask is built.
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
            **mixture,
        )
        logging.getLogger("megatron.core.datasets").setLevel(logging.WARNING)
        sizes = [steps * batch_size, batches * batch_size, 0]
        train_data, valid_data, _ = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()
        if dist.is_initialized():
            dist.barrier()
        return Rows(train_data, steps, batch_size), Rows(valid_data, batches, batch_size) if evaluates else None

    def _steps(self) -> tuple[int, int]:
        """Global batches of the run and of an evaluation; 0 where there is none."""
        run = self._run
        assert run.total_steps is not None and run.evaluation.batches is not None  # checked in layout.py
        return run.total_steps, run.evaluation.batches if run.evaluation.every else 0

    def _digest(self) -> str:
        """Of all that decides which tokens a sample holds, and in which order samples come."""
        run = self._run
        contents = [
            [(content_digest(manifest), corpus.weight) for corpus, manifest in blend]
            for blend in (self._train, self._valid)
        ]
        decides = {
            "corpora": contents,
            "split": run.data.split,
            "sequence_length": run.data.sequence_length,
            "seed": run.seed,
            "steps": self._steps(),
            "global_batch_size": run.training.global_batch_size,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _check_lengths(self, evaluates: bool) -> None:
        """Megatron fails inside its C++ helpers where a split holds less than one row."""
        run = self._run
        row = run.data.sequence_length + 1
        shares = [part / sum(run.data.split) for part in run.data.split]
        wanted = [("training", self._train, 1.0 if run.data.valid else shares[0])]
        if evaluates:
            wanted.append(
                ("validation", self._valid, 1.0) if run.data.valid else ("validation", self._train, shares[1])
            )
        for split, blend, share in wanted:
            for corpus, manifest in blend:
                tokens = int(manifest["counts"]["tokens"] * share)
                if tokens < row:
                    raise ConfigError(
                        f"{corpus.path}: its {split} share is about {tokens} tokens, less than one row of "
                        f"data.sequence_length + 1 = {row}"
                    )


def _with_manifests(corpora: Sequence[Corpus], tokenizer: Tokenizer) -> list[tuple[Corpus, dict[str, Any]]]:
    return [(corpus, checked_manifest(corpus.path, tokenizer, "documents")) for corpus in corpora]


def _blend(corpora: Sequence[Corpus]) -> tuple[list[str], list[float] | None]:
    """Prefixes and weights as Megatron takes them; one corpus alone needs no blend."""
    weights = [corpus.weight for corpus in corpora] if len(corpora) > 1 else None
    return [str(corpus.path) for corpus in corpora], weights
