"""Continued pre-training: next-token loss over blends of indexed corpora."""

from __future__ import annotations

from typing import Any

import torch

from data_tools.tokenizers import load_tokenizer
from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch, document_bounds, make_batch, volume_of
from megatron_aquila.datasets.corpus import Corpora
from megatron_aquila.losses.language_modelling import negative_log_likelihood
from megatron_aquila.stages import Stage, shape_for_tokenizer


class ContinuedPretraining(Stage):
    """Rows of `data.sequence_length` tokens, documents packed end to end.

    With `data.reset_attention` (the default) a document's loss depends on that document alone: attention and
    positions restart after every end-of-document token, and that token is not asked to predict what comes next.
    Without it, attention runs across documents as in Megatron's default.
    """

    def __init__(self, run: RunConfig) -> None:
        self.tokenizer = load_tokenizer(run.data.tokenizer)
        self.shape = shape_for_tokenizer(run, self.tokenizer)
        self._corpora = Corpora(run, self.tokenizer)
        self._end_of_document = self.tokenizer.eod_id if run.data.reset_attention else None

    def datasets(self) -> tuple[Any, Any]:
        return self._corpora.build()

    def digest(self) -> str:
        return self._corpora.digest

    def collate(self, rows: list[Any]) -> MicroBatch:
        tokens = torch.stack([row["tokens"] for row in rows])
        labels = torch.stack([row["labels"] for row in rows])
        if self._end_of_document is not None:
            labels = labels.masked_fill(tokens == self._end_of_document, IGNORE_INDEX)
        cu_seqlens = document_bounds(tokens, self._end_of_document)
        return make_batch(tokens.reshape(-1), labels.reshape(-1), cu_seqlens, volume_of(len(rows), cu_seqlens))

    def loss(
        self, logps: torch.Tensor, batch: MicroBatch
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        total, count = negative_log_likelihood(logps, batch.labels, IGNORE_INDEX)
        return total, count, {}
