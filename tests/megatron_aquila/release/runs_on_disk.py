"""Runs as training leaves them, without training: real checkpoints of small models, whose weights a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from data_tools.tokenizer_training import train_from_texts
from megatron_aquila import checkpoint
from megatron_aquila.config_loader import config_hash
from megatron_aquila.global_tensors import global_shapes
from megatron_aquila.huggingface import HuggingFaceReader
from megatron_aquila.shapes import ModelShape
from megatron_aquila.shards import Shard, shard_path, write_shards
from tests.megatron_aquila.engine.runs import tiny_run

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>")
SHAPE = ModelShape(
    hidden_size=64,
    num_layers=2,
    num_attention_heads=4,
    num_query_groups=2,
    ffn_hidden_size=96,
    vocab_size=320,
    max_position_embeddings=128,
    bos_id=1,
    eos_id=2,
    pad_id=3,
)
TEXTS = ["fever and cough", "发热 咳嗽", "the patient rests", "什么是高血压？ What is hypertension?"] * 20


def byte_id(byte: int) -> int:
    """The id of a byte in the tokenizer that `make_run` gives: after four special and the control tokens."""
    return 4 + len(CONTROL_TOKENS) + byte


def random_tensors(shape: ModelShape = SHAPE, seed: int = 0) -> dict[str, Tensor]:
    """All global tensors, fp32, such that logits differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) * 0.3 for name, size in global_shapes(shape).items()}


def scripted_tensors(answer: list[int], start: int, shape: ModelShape = SHAPE) -> dict[str, Tensor]:
    """A model that says `answer` after the token `start`, and then ends; after other tokens it says anything.

    No layer adds anything, so the logits are those of the last token's embedding; each row of the output layer is the
    sum of the embeddings that it follows. No token of the chain may come twice.
    """
    chain = [start, *answer]
    if len(set(chain)) < len(chain):
        raise ValueError("a token comes twice")
    follows = dict(zip(chain, [*answer, shape.eos_id]))
    tensors = {name: torch.zeros(size) for name, size in global_shapes(shape).items()}
    generator = torch.Generator().manual_seed(0)
    embedding = torch.nn.functional.normalize(torch.randn(shape.vocab_size, shape.hidden_size, generator=generator))
    output = torch.zeros_like(embedding)
    for token, follower in follows.items():
        output[follower] += embedding[token]
    for name, tensor in tensors.items():
        if "norm" in name:
            tensor.fill_(1.0)
    tensors["embedding.word_embeddings.weight"] = embedding
    tensors["output_layer.weight"] = 20 * output
    return tensors


def tensors_of(directory: Path) -> dict[str, Tensor]:
    """The global tensors of a Hugging Face directory."""
    reader = HuggingFaceReader(directory)
    return {name: reader.read(name, (0,) * len(size), size) for name, size in global_shapes(reader.shape).items()}


def make_run(
    run: Path,
    tensors: Mapping[str, Tensor],
    *,
    step: int = 10,
    shape: ModelShape = SHAPE,
    chat_template: str | None = None,
    **changes: Any,
) -> Path:
    """A run with a checkpoint at `step`, and a tokenizer; `changes` are those of `tiny_run`. Called again, it adds a
    checkpoint.
    """
    if not (run / "tokenizer").exists():
        run.mkdir(parents=True, exist_ok=True)
        train_from_texts(TEXTS, run / "tokenizer", vocab_size=shape.vocab_size, control_tokens=CONTROL_TOKENS)
    config = tiny_run(**{"name": run.name, "output": str(run), **changes})
    state = {
        "step": step,
        "samples": 8.0 * step,
        "tokens": 256.0 * step,
        "shape": json.loads(shape.model_dump_json()),
        "chat_template": chat_template,
        "tokenizer": "0" * 64,
        "config": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "config_hash": config_hash(config),
        "layout": "TP1×PP1×DP1",
    }
    write = partial(_write, tensors)
    communicator = checkpoint.SingleProcess()
    checkpoint.save(run / checkpoint.FOLDER, step, write, state=state, keep=None, communicator=communicator)
    return run


def _write(tensors: Mapping[str, Tensor], directory: Path) -> None:
    shards = (Shard(f"model.{name}", tuple(value.shape), (0,) * value.ndim, value) for name, value in tensors.items())
    write_shards(shard_path(directory, 0), shards)


def fingerprint_of(checkpoint: str) -> str:
    """What evaluations call the weights of a checkpoint; for a rank."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.initial_weights import fingerprint

    run = tiny_run()
    with parallel_world(run, choose_device("cpu")) as layout:
        return fingerprint(run, Path(checkpoint), SHAPE, layout)
