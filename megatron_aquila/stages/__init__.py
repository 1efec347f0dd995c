"""The stages of training, each a dataset, a collate and a loss. They register by entry point.

The group is `megatron_aquila.stages`; a package of a third party adds a stage by declaring one there.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from data_tools.tokenizers import Tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.errors import ConfigError
from megatron_aquila.shapes import ModelShape

if TYPE_CHECKING:
    from megatron_aquila.engine.parallel import Layout

logger = logging.getLogger(__name__)


class Dataset(Protocol):
    """Rows, and which of them make an optimizer step, whatever the layout."""

    @property
    def steps(self) -> int: ...

    def step(self, number: int) -> Sequence[Any]:
        """The rows of step `number`, from 0, of all replicas together."""

    def __getitem__(self, row: Any) -> Any: ...

    def samples(self, row: Any) -> Sequence[tuple[int, ...]]:
        """The names of the samples in `row`, which no other sample of the run has, whatever the layout."""


class Start(Protocol):
    """What the trainer offers a stage before training begins."""

    layout: Layout

    def fingerprint(self, weights: Path | None) -> str:
        """Identifies the weights at `weights`, or those that training starts from."""

    def forward(
        self,
        weights: Path | None,
        batches: Sequence[MicroBatch],
        record: Callable[[torch.Tensor, MicroBatch], None],
    ) -> None:
        """Run `batches` through the model with these weights, without dropout; `record` gets the log-probs
        `[1, T]` of each on the ranks of the last pipeline stage. Every rank calls it.
        """


class Stage(ABC):
    """What the trainer knows of a stage; a new one derives from this, and cannot be made before it is whole.

    `metric_names` are the further sums that `loss` returns, beside the loss itself; they are reported divided by
    the same count. `sample_name` is the plural of what a batch counts. `chat_template` names the template that
    the samples were rendered with.
    """

    metric_names: tuple[str, ...] = ()
    sample_name: str = "sequences"
    chat_template: str | None = None
    tokenizer: Tokenizer
    shape: ModelShape

    @abstractmethod
    def __init__(self, run: RunConfig) -> None:
        """Sets `tokenizer` and `shape`."""

    @abstractmethod
    def datasets(self) -> tuple[Dataset, Dataset | None]:
        """Training and validation rows. Called on every rank at once; may communicate."""

    def prepare(self, start: Start) -> None:  # noqa: B027 - few stages need it
        """Work to do with the model before training; called after `datasets`, on every rank at once."""

    @abstractmethod
    def digest(self) -> str:
        """Identifies the data and their order: a run resumes only on the same. Called after `prepare`."""

    @abstractmethod
    def collate(self, rows: list[Any]) -> MicroBatch:
        """One micro-batch of a length that is the same for all of the run. It may get fewer rows than
        `micro_batch_size`, or none, where `Dataset.step` gives rows that do not divide.
        """

    @abstractmethod
    def loss(
        self, logps: torch.Tensor, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """From log p(label) `[1, T]`: the sum of the loss, its integer count, and sums of `metric_names`."""

    def check_start(self, means: dict[str, float]) -> str | None:
        """What is wrong with the first batch's loss and metrics, before any update and without dropout, if anything is.

        Called only where `checks_start`.
        """
        return None

    checks_start: bool = False

    def describe(self) -> str | None:
        """A line about the data, for the head of a run."""
        return None


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
