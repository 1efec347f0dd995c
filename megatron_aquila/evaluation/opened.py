"""A model made ready to be asked: of a run, of a checkpoint of any layout, or of a Hugging Face directory.

It lies on a layout of its own. Nothing is converted: every rank reads the slices that it holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from data_tools.chat import ChatTemplate
from data_tools.tokenizers import Tokenizer, load_tokenizer
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.model import build_model
from megatron_aquila.engine.parallel import Layout, parallel_world
from megatron_aquila.engine.weights import load_weights
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.chat_format import ChatFormat, TemplateFormat, format_of_directory
from megatron_aquila.huggingface import _chat_template_of, _tokenizer_of, is_huggingface
from megatron_aquila.initial_weights import fingerprint, open_weights
from megatron_aquila.shapes import ModelShape, read_hf_shape

# Other ranks wait for what rank 0 asks next, which may write a table or think about statistics meanwhile.
_PATIENCE_MINUTES = 24 * 60
_PARTS = ("tensor_parallel", "pipeline_parallel", "virtual_pipeline", "data_parallel", "sequence_parallel")


class OpeningError(AquilaError):
    """There is no model where one was to be opened."""


class ModelSettings(Protocol):
    """How a model is laid out. `parallel.sharding` and the overlaps mean nothing here: there is no optimizer."""

    @property
    def parallel(self) -> ParallelConfig: ...

    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]: ...

    @property
    def device(self) -> Literal["auto", "cuda", "cpu"]: ...


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


@dataclass(frozen=True)
class _Source:
    path: Path
    kind: Literal["checkpoint", "huggingface"]
    step: int | None
    shape: ModelShape
    tokenizer: Tokenizer
    chat: ChatFormat | None
    stop_ids: frozenset[int]


@contextmanager
def open_model(path: Path, settings: ModelSettings) -> Iterator[OpenedModel]:
    """The model at `path`, in the world of processes that this one belongs to. Every rank calls it.

    Of a run the best checkpoint where it keeps one, else the newest sound one; its files are verified. The layers are
    ours on a GPU too, not Transformer Engine's: answers are written with our cache.

    Raises:
        CheckpointError, HuggingFaceError, ConfigError, TokenizerError: there is no such model, or it does not fit the
            layout.
    """
    source = _find(path.resolve())
    run = _as_run(source, settings)
    device = choose_device(settings.device)
    with parallel_world(run, device, timeout_minutes=_PATIENCE_MINUTES) as layout:
        # A run that goes on may have saved between one rank's look and another's.
        source = _find(layout.broadcast(source.path))
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


def _find(path: Path) -> _Source:
    if is_huggingface(path):
        shape, tokenizer = read_hf_shape(path), load_tokenizer(path)
        chat = format_of_directory(path, tokenizer)
        return _Source(path, "huggingface", None, shape, tokenizer, chat, _stops(path, shape, chat))
    if not path.exists():
        raise OpeningError(f"{path} does not exist: give a run, a checkpoint, or a Hugging Face directory")
    found = open_checkpoint(path, "sizes")  # rank 0 verifies the files when the weights are opened
    shape = ModelShape.model_validate(found.state["shape"])
    tokenizer = load_tokenizer(_tokenizer_of(found))
    template = _chat_template_of(found)
    chat = None if template is None else TemplateFormat(template, tokenizer)
    return _Source(found.path, "checkpoint", found.step, shape, tokenizer, chat, _stops(None, shape, chat))


def _stops(directory: Path | None, shape: ModelShape, chat: ChatFormat | None) -> frozenset[int]:
    """What ends an answer: the model's end token, the template's, and those of generation_config.json."""
    ends = set(chat.stop_ids if chat is not None else ())
    if shape.eos_id is not None:
        ends.add(shape.eos_id)
    named = None if directory is None else directory / "generation_config.json"
    if named is not None and named.is_file():
        eos = json.loads(named.read_text(encoding="utf-8")).get("eos_token_id")
        ends.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return frozenset(ends)


def _as_run(source: _Source, settings: ModelSettings) -> RunConfig:
    """What the engine is built from. It trains nothing: batch, length and schedule are there for the form."""
    parallel = settings.parallel
    return RunConfig.model_validate(
        {
            "name": "evaluation",
            "stage": "sft",
            "device": settings.device,
            "model": {"shape": source.shape.model_dump(), "weights": source.path},
            "data": {"train": [{"path": "none"}], "tokenizer": "none", "sequence_length": parallel.tensor_parallel},
            "parallel": {**parallel.model_dump(include=set(_PARTS)), "sharding": "none"},
            "training": {"steps": 1, "global_batch_size": 1, "precision": settings.precision},
            "optimizer": {"lr": 1.0, "schedule": {"kind": "constant"}},
            "checkpoint": {"every": 1},
            "evaluation": {"every": 0},
        }
    )
