"""A model made ready to be asked: of a run, of a checkpoint of any layout, or of a Hugging Face directory.

It lies on a layout of its own. Nothing is converted: every rank reads the slices that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from data_tools.chat import ChatTemplate
from data_tools.tokenizers import Tokenizer
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.model import build_model
from megatron_aquila.engine.parallel import Layout, parallel_world
from megatron_aquila.engine.weights import load_weights
from megatron_aquila.evaluation.chat_format import ChatFormat, TemplateFormat
from megatron_aquila.evaluation.source import ModelSettings, as_run, find_source
from megatron_aquila.initial_weights import fingerprint, open_weights
from megatron_aquila.shapes import ModelShape

# Other ranks wait for what rank 0 asks next, which may write a table or think about statistics meanwhile.
_PATIENCE_MINUTES = 24 * 60


@dataclass(frozen=True)
class OpenedModel:
    """A model, and what must be known to talk to it.

    chunks: of this rank, in evaluation mode. digest: SHA-256, identifies the weights. step: of a checkpoint. path: the
    checkpoint that a run led to, or the directory. chat_template: None for one that learned plain text, and for one
    whose template is none of ours, for which `chat` stands in any case. stop_ids: tokens at which an answer ends.
    """

    chunks: list[torch.nn.Module]
    shape: ModelShape
    tokenizer: Tokenizer
    chat: ChatFormat | None
    layout: Layout
    device: torch.device
    digest: str
    step: int | None
    kind: Literal["checkpoint", "huggingface"]
    path: Path
    precision: str
    stop_ids: frozenset[int]

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self.chat.template if isinstance(self.chat, TemplateFormat) else None


@contextmanager
def open_model(path: Path, settings: ModelSettings) -> Iterator[OpenedModel]:
    """The model at `path`, in the world of processes that this one belongs to. Every rank calls it.

    Of a run the best checkpoint where it keeps one, else the newest sound one; its files are verified. The layers are
    ours on a GPU too, not Transformer Engine's: answers are written with our cache.

    Raises:
        CheckpointError, HuggingFaceError, ConfigError, TokenizerError: there is no such model, or it does not fit the
            layout.
    """
    source = find_source(path.resolve())
    run = as_run(source, settings)
    device = choose_device(settings.device)
    with parallel_world(run, device, timeout_minutes=_PATIENCE_MINUTES) as layout:
        # A run that goes on may have saved between one rank's look and another's.
        source = find_source(layout.broadcast(source.path))
        weights = open_weights(run, source.path, source.shape, layout)
        chunks, _ = build_model(run, source.shape, device, own_layers=True)
        load_weights(chunks, source.shape, layout, weights.reader, weights.prefix)
        for chunk in chunks:
            chunk.eval()
        yield OpenedModel(
            chunks=list(chunks),
            shape=source.shape,
            tokenizer=source.tokenizer,
            chat=source.chat,
            layout=layout,
            device=device,
            digest=fingerprint(run, source.path, source.shape, layout),
            step=source.step,
            kind=source.kind,
            path=source.path,
            precision=settings.precision,
            stop_ids=source.stop_ids,
        )
