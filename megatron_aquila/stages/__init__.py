"""The stages of training, each a dataset, a collate and a loss. They register by entry point.

The group is `megatron_aquila.stages`; a package of a third party adds a stage by declaring one there.
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Any, Protocol

import torch

from data_tools.tokenizers import Tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.errors import ConfigError
from megatron_aquila.shapes import ModelShape

logger = logging.getLogger(__name__)


class Dataset(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Stage(Protocol):
    """What the trainer knows of a stage.

    `metric_names` are the further sums that `loss` returns, beside the loss itself; they are reported divided by
    the same count.
    """

    metric_names: tuple[str, ...]
    tokenizer: Tokenizer
    shape: ModelShape

    def __init__(self, run: RunConfig) -> None: ...

    def datasets(self) -> tuple[Dataset, Dataset | None]:
        """Training and validation samples. Called on every rank at once; may communicate."""

    def digest(self) -> str:
        """Identifies the data and their order: a run resumes only on the same."""

    def collate(self, samples: list[Any]) -> MicroBatch:
        """One micro-batch of a length that is the same for all samples of the run."""

    def loss(
        self, logps: torch.Tensor, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """From log p(label) `[1, T]`: the sum of the loss, its integer count, and sums of `metric_names`."""


def load_stage(name: str) -> type[Stage]:
    """The stage registered under `name`.

    Raises:
        ConfigError: there is none; the message lists what there is.
    """
    known = {entry.name: entry for entry in entry_points(group="megatron_aquila.stages")}
    if name not in known:
        raise ConfigError(f"stage {name!r} is not registered; there are: {', '.join(sorted(known))}")
    stage: type[Stage] = known[name].load()
    return stage


def shape_for_tokenizer(run: RunConfig, tokenizer: Tokenizer) -> ModelShape:
    """The model's shape, with the token ids that its configuration leaves open taken from the tokenizer.

    Raises:
        ConfigError: the tokenizer has ids that the model's embedding has not.
    """
    shape = run.model.resolve()
    if tokenizer.vocab_size > shape.vocab_size:
        raise ConfigError(
            f"data.tokenizer ({tokenizer.name}) has {tokenizer.vocab_size} ids, but the model's vocabulary has "
            f"{shape.vocab_size}: set model.vocab_size={tokenizer.vocab_size}, or take the model's own tokenizer"
        )
    if tokenizer.pad_id is not None and tokenizer.pad_id == tokenizer.eod_id:
        logger.warning(
            "data.tokenizer (%s) uses id %d for padding and for the end of a document; no label is masked by its "
            "id here, so the end is learned, but other programs may mask it: give it a padding id of its own",
            tokenizer.name,
            tokenizer.pad_id,
        )
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    absent = {key: value for key, value in ids.items() if getattr(shape, key) is None}
    return shape.model_copy(update=absent)
