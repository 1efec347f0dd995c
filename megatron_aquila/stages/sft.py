"""Supervised fine-tuning: next-token loss on the assistant's part of dialogues."""

from __future__ import annotations

import torch

from data_tools.tokenizers import load_tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch
from megatron_aquila.datasets.sample_data import SampleData, digest_of
from megatron_aquila.datasets.samples import PackedSamples, Sample
from megatron_aquila.losses.language_modelling import negative_log_likelihood
from megatron_aquila.stages import Stage, shape_for_tokenizer


class SupervisedFineTuning(Stage):
    """Packs of whole dialogues, as `aquila data index --kind dialogues` has rendered them.

    Assistant text and the token that closes it are trained on; a step's loss is the mean over those tokens of all its
    dialogues, however they are packed.
    """

    sample_name = "dialogues"

    def __init__(self, run: RunConfig) -> None:
        self.tokenizer = load_tokenizer(run.data.tokenizer)
        self.shape = shape_for_tokenizer(run, self.tokenizer)
        self._data = SampleData(run, self.tokenizer, self.shape, "dialogues")
        self.chat_template = self._data.template["name"]

    def datasets(self) -> tuple[PackedSamples, PackedSamples | None]:
        return self._data.train, self._data.valid

    def digest(self) -> str:
        return digest_of(self._data.digest())

    def collate(self, rows: list[list[Sample]]) -> MicroBatch:
        return self._data.collate(rows)

    def loss(
        self, logps: torch.Tensor, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        total, count = negative_log_likelihood(logps, batch.labels, IGNORE_INDEX)
        return total, count, {}

    def describe(self) -> str:
        return self._data.describe()
