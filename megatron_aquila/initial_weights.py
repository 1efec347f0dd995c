"""The weights a run starts from, or compares with: found, checked against the model's shape, and named by content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.publish import sha256_file
from megatron_aquila import checkpoint
from megatron_aquila.config import RunConfig
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.weights import RandomWeights
from megatron_aquila.errors import ConfigError
from megatron_aquila.global_tensors import TensorReader
from megatron_aquila.huggingface import HuggingFaceReader, is_huggingface
from megatron_aquila.manifest import weights_digest
from megatron_aquila.shapes import ModelShape


@dataclass(frozen=True)
class Weights:
    """Global tensors under `prefix`."""

    reader: TensorReader
    prefix: str


def open_weights(run: RunConfig, path: Path | None, shape: ModelShape, layout: Layout) -> Weights:
    """The weights at `path`, a Hugging Face directory, a run or a checkpoint; None: random ones.

    Raises:
        ConfigError: they are of another shape. CheckpointError, HuggingFaceError: they cannot be read.
    """
    if path is None:
        return Weights(RandomWeights(shape, run.seed, run.model.init_std), "")
    if is_huggingface(path):
        reader = HuggingFaceReader(path)
        _require_same_shape(path, reader.shape, shape)
        return Weights(reader, "")
    return weights_of(_checkpoint(path, layout, run.checkpoint.verify), shape)


def weights_of(source: checkpoint.Checkpoint, shape: ModelShape) -> Weights:
    """The weights of an open checkpoint."""
    _require_same_shape(source.path, ModelShape.model_validate(source.state["shape"]), shape)
    return Weights(source.reader(), "model.")


def fingerprint(run: RunConfig, path: Path | None, shape: ModelShape, layout: Layout) -> str:
    """SHA-256 of what the weights at `path` are read from: for random ones, of what they are drawn from."""
    if path is None:
        drawn = f"random seed {run.seed} std {run.model.init_std} {shape.model_dump_json()}"
        return hashlib.sha256(drawn.encode()).hexdigest()
    if is_huggingface(path):
        files = sorted(path.glob("*.safetensors")) if layout.is_main else []
        mine = {file.name: sha256_file(file) for file in files}
    else:
        manifest = _checkpoint(path, layout, "sizes").manifest
        mine = {name: file["sha256"] for name, file in manifest["files"].items()}
    return layout.broadcast(weights_digest(digest for name, digest in mine.items() if name.endswith(".safetensors")))


def _checkpoint(path: Path, layout: Layout, verify: checkpoint.Verify) -> checkpoint.Checkpoint:
    chosen = checkpoint.open_checkpoint(path, verify).path if layout.is_main else None
    return checkpoint.open_checkpoint(layout.broadcast(chosen), "sizes")  # rank 0 has verified it


def _require_same_shape(where: Path, found: ModelShape, wanted: ModelShape) -> None:
    """Raise ConfigError naming each size that differs; token ids and the longest sequence may."""
    free = {"bos_id", "eos_id", "pad_id", "max_position_embeddings"}
    theirs: dict[str, Any] = found.model_dump(exclude=free)
    ours: dict[str, Any] = wanted.model_dump(exclude=free)
    differing = [f"{name} {theirs[name]} (not {ours[name]})" for name in ours if theirs[name] != ours[name]]
    if differing:
        raise ConfigError(f"{where} holds another model than model.shape says: {', '.join(differing)}")
