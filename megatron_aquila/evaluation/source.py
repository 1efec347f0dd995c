"""What a path holds that is to be evaluated, as far as it is known before any weight is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from data_tools.tokenizers import Tokenizer, load_tokenizer
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.errors import AquilaError, ConfigError
from megatron_aquila.evaluation.chat_format import ChatFormat, TemplateFormat, format_of_directory
from megatron_aquila.huggingface import chat_template_of, is_huggingface, tokenizer_of
from megatron_aquila.shapes import ModelShape, read_hf_shape

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
class ModelSource:
    """path: the checkpoint that a run led to, or the directory. step: of a checkpoint. chat: None for a model that
    learned plain text. stop_ids: tokens at which an answer ends."""

    path: Path
    kind: Literal["checkpoint", "huggingface"]
    step: int | None
    shape: ModelShape
    tokenizer: Tokenizer
    chat: ChatFormat | None
    stop_ids: frozenset[int]


def find_source(path: Path) -> ModelSource:
    """What a run, a checkpoint or a Hugging Face directory holds; no process group is needed.

    Of a run the best checkpoint where it keeps one, else the newest sound one.

    Raises:
        OpeningError: nothing is there. CheckpointError, HuggingFaceError, ConfigError, TokenizerError: it is no model.
    """
    if is_huggingface(path):
        shape, tokenizer = read_hf_shape(path), load_tokenizer(path)
        chat = format_of_directory(path, tokenizer)
        return ModelSource(path, "huggingface", None, shape, tokenizer, chat, _stops(path, shape, chat))
    if not path.exists():
        raise OpeningError(f"{path} does not exist: give a run, a checkpoint, or a Hugging Face directory")
    found = open_checkpoint(path, "sizes")  # rank 0 verifies the files when the weights are opened
    shape = ModelShape.model_validate(found.state["shape"])
    tokenizer = load_tokenizer(tokenizer_of(found))
    template = chat_template_of(found)
    chat = None if template is None else TemplateFormat(template, tokenizer)
    return ModelSource(found.path, "checkpoint", found.step, shape, tokenizer, chat, _stops(None, shape, chat))


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


def as_run(source: ModelSource, settings: ModelSettings) -> RunConfig:
    """What the engine is built from. It trains nothing: batch, length and schedule are there for the form.

    Raises:
        ConfigError: the model cannot be divided so.
    """
    parallel = settings.parallel
    content = {
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
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        problems = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise ConfigError(f"{source.path}: " + "\n".join(problems)) from error
