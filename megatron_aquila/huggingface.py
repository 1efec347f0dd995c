"""In from and out to Hugging Face's Llama layout, without a conversion step.

In: `HuggingFaceReader` serves slices of global tensors straight from safetensors, so that each rank reads what it
holds and nothing else. Out: `export` writes a `LlamaForCausalLM` directory from a checkpoint of any layout, tensor
by tensor; it needs neither Megatron nor a process group.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data_tools.chat import ChatEncoder, ChatTemplate, get_template
from data_tools.tokenizers import Tokenizer, load_tokenizer
from megatron_aquila.checkpoint import Checkpoint, open_checkpoint
from megatron_aquila.errors import AquilaError
from megatron_aquila.global_tensors import TensorReader, global_shapes, huggingface_rows
from megatron_aquila.shapes import ModelShape, read_hf_shape, shape_to_hf

SHARD_BYTES = 5 * 10**9
_INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"
_PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


class HuggingFaceError(AquilaError):
    """A Hugging Face directory does not hold the model that its config.json describes, or cannot be written."""


class HuggingFaceReader:
    """Slices of global tensors from a Hugging Face directory of safetensors.

    Raises:
        HuggingFaceError: a tensor is missing or has another shape, or `o_proj` has a bias that is not zero
            (transformers' Llama puts one there under `attention_bias`; Megatron has none).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shape = read_hf_shape(directory)
        self._files = _weight_map(directory)
        self._open: dict[str, Any] = {}
        for name, expected in global_shapes(self.shape).items():
            self._check(name, expected)
        for layer in range(self.shape.num_layers):
            bias = f"model.layers.{layer}.self_attn.o_proj.bias"
            if bias in self._files and self._slice(bias)[:].any():
                raise HuggingFaceError(f"{directory}: {bias} is not zero, and this engine has no bias there")

    def read(self, key: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
        """The block of global tensor `key` that starts at `offset`, in the dtype of the file."""
        first, last = offset[0], offset[0] + shape[0]
        columns = tuple(slice(start, start + length) for start, length in zip(offset[1:], shape[1:]))
        parts, row = [], 0
        for source in huggingface_rows(key, self.shape):
            top, bottom = max(first, row), min(last, row + source.count)
            if top < bottom:
                rows = slice(source.first + top - row, source.first + bottom - row)
                parts.append(self._slice(source.name)[(rows, *columns)])
            row += source.count
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _slice(self, name: str) -> Any:
        file = self._files[name]
        if file not in self._open:
            try:
                self._open[file] = safe_open(self.directory / file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise HuggingFaceError(f"{self.directory / file} cannot be read: {error}") from error
        return self._open[file].get_slice(name)

    def _check(self, name: str, expected: tuple[int, ...]) -> None:
        rows: dict[str, int] = {}
        for source in huggingface_rows(name, self.shape):
            rows[source.name] = rows.get(source.name, 0) + source.count
        for source_name, count in rows.items():
            if source_name not in self._files:
                raise HuggingFaceError(f"{self.directory} has no tensor {source_name}, which config.json implies")
            found, wanted = tuple(self._slice(source_name).get_shape()), (count, *expected[1:])
            if found != wanted:
                raise HuggingFaceError(
                    f"{self.directory}: {source_name} is {list(found)}, but config.json implies {list(wanted)}"
                )


def pickled_refusal(directory: Path) -> str | None:
    """What to say of a directory whose only weights are pickled; None of any other."""
    if any(directory.glob(f"*{_SUFFIX}")):
        return None
    for path in sorted(directory.iterdir()):
        if path.suffix in _PICKLED_SUFFIXES:
            return (
                f"{directory} has {path.name}, which is pickled: to read it could run what somebody put into it, so it "
                "is never read. Take the safetensors of the same model; or, on a machine that holds nothing of value, "
                "make them with transformers: AutoModelForCausalLM.from_pretrained(IN).save_pretrained(OUT)"
            )
    return None


def is_huggingface(directory: Path) -> bool:
    return (directory / "config.json").is_file()


def _weight_map(directory: Path) -> dict[str, str]:
    """Tensor name → file name."""
    index = directory / _INDEX
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if strange := [name for name in weight_map.values() if Path(name).name != name or Path(name).suffix != _SUFFIX]:
            raise HuggingFaceError(
                f"{index} names {strange[0]!r}: the files of a model are *{_SUFFIX} beside their index"
            )
        return weight_map
    single = directory / "model.safetensors"
    if single.is_file():
        try:
            with safe_open(single, framework="pt") as file:
                return dict.fromkeys(file.keys(), single.name)
        except SafetensorError as error:
            raise HuggingFaceError(f"{single} cannot be read: {error}") from error
    if refusal := pickled_refusal(directory):
        raise HuggingFaceError(refusal)
    raise HuggingFaceError(f"{directory} has no weights: it needs model.safetensors or {_INDEX} with its shards")


def export(run: Path, output: Path) -> Path:
    """Write the newest sound checkpoint of `run` (or the checkpoint `run`) as a `LlamaForCausalLM` directory.

    Raises:
        CheckpointError: there is no sound checkpoint.
        HuggingFaceError: as `export_checkpoint`.
    """
    return export_checkpoint(open_checkpoint(run), output)


def export_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write an open checkpoint as `write_model` does, with its run's tokenizer and chat template.

    Raises:
        HuggingFaceError: `output` exists and is not empty, the run's tokenizer is gone, or its chat template is
            not one of this version.
    """
    shape = ModelShape.model_validate(checkpoint.state["shape"])
    tokenizer = load_tokenizer(tokenizer_of(checkpoint))
    template = chat_template_of(checkpoint)
    reader = checkpoint.reader()
    return write_model(output, shape, reader, "model.", tokenizer, chat_template=template, dtype=dtype, finish=finish)


def write_model(
    output: Path,
    shape: ModelShape,
    reader: TensorReader,
    prefix: str,
    tokenizer: Tokenizer,
    *,
    chat_template: ChatTemplate | None = None,
    dtype: torch.dtype | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Path:
    """Write global tensors as sharded safetensors, with `config.json`, `generation_config.json` and the tokenizer.
    The directory loads in transformers without remote code; it appears whole or not at all.

    A chat template goes into `chat_template.jinja`, where transformers 5 puts it and from where vLLM has it through
    transformers, and its stop tokens end a generation. A layout that closes with text (aquila-chat) has none: who
    generates with it gives `stop_strings`.

    Args:
        dtype: what tensors are cast to; None: each stays as it is.
        finish: adds to the directory, or checks it, before it gets its name.

    Raises:
        HuggingFaceError: `output` exists and is not empty.
        TokenizerError: the tokenizer lacks a control token of the template.
    """
    stop_ids = ChatEncoder(chat_template, tokenizer).stop_ids if chat_template is not None else []
    if output.exists() and any(output.iterdir()):
        raise HuggingFaceError(f"{output} exists and is not empty: give another --output, or remove it")
    partial = output.with_name(f".tmp-{output.name}-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        written = _write_tensors(partial, shape, reader, prefix, dtype)
        _write_json(partial / "config.json", {**shape_to_hf(shape), "dtype": str(written).removeprefix("torch.")})
        _write_json(partial / "generation_config.json", _generation_config(shape, stop_ids))
        tokenizer.save_pretrained(partial)
        if chat_template is not None:
            (partial / "chat_template.jinja").write_text(chat_template.jinja(), encoding="utf-8")
        if finish is not None:
            finish(partial)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def _generation_config(shape: ModelShape, stop_ids: list[int]) -> dict[str, Any]:
    special = {f"{name}_token_id": getattr(shape, f"{name}_id") for name in ("bos", "eos", "pad")}
    generation: dict[str, Any] = {key: value for key, value in special.items() if value is not None}
    ends = list(dict.fromkeys([*([] if shape.eos_id is None else [shape.eos_id]), *stop_ids]))
    if set(stop_ids) <= {shape.eos_id}:
        return {"_from_model_config": True, **generation}
    return {**generation, "eos_token_id": ends}  # more than config.json says


def chat_template_of(checkpoint: Checkpoint) -> ChatTemplate | None:
    """The template that the run was trained with; None for a run on plain text."""
    name = checkpoint.state.get("chat_template")
    if name is None:
        return None
    try:
        return get_template(name)
    except ValueError as error:
        raise HuggingFaceError(f"{checkpoint.path}: {error}") from error


def tokenizer_of(checkpoint: Checkpoint) -> Path:
    """The run's own copy of its tokenizer, which lies beside its checkpoints."""
    copy = checkpoint.path.resolve().parents[1] / "tokenizer"
    if not copy.is_dir():
        raise HuggingFaceError(f"{copy} is missing: an export needs the tokenizer that the run was trained with")
    return copy


def _huggingface_tensors(shape: ModelShape, reader: TensorReader, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the export, one global tensor in memory at a time."""
    for name, size in global_shapes(shape).items():
        whole = reader.read(prefix + name, (0,) * len(size), size)
        parts: dict[str, list[torch.Tensor]] = {}
        row = 0
        for source in huggingface_rows(name, shape):
            parts.setdefault(source.name, []).append(whole[row : row + source.count])
            row += source.count
        for target, pieces in parts.items():
            yield target, torch.cat(pieces)
        if shape.qkv_bias and name.endswith("linear_proj.weight"):
            layer = name.split(".")[2]
            # transformers' Llama has this bias whenever it has those of q, k and v
            yield f"model.layers.{layer}.self_attn.o_proj.bias", whole.new_zeros(size[0])


def _write_tensors(
    directory: Path, shape: ModelShape, reader: TensorReader, prefix: str, dtype: torch.dtype | None
) -> torch.dtype:
    total = shape.parameters() + (shape.num_layers * shape.hidden_size if shape.qkv_bias else 0)
    shards: list[list[str]] = []
    pending: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal pending, size
        shards.append(list(pending))
        save_file(pending, directory / f"shard-{len(shards)}", metadata={"format": "pt"})
        pending, size = {}, 0

    for name, stored in _huggingface_tensors(shape, reader, prefix):
        tensor = stored.to(dtype or stored.dtype)
        if pending and size + tensor.nbytes > SHARD_BYTES:
            flush()
        pending[name] = tensor.contiguous()
        size += tensor.nbytes
    flush()

    if len(shards) == 1:
        (directory / "shard-1").rename(directory / "model.safetensors")
        return tensor.dtype
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (directory / f"shard-{number}").rename(directory / file)
        weight_map.update(dict.fromkeys(names, file))
    metadata = {"total_parameters": total, "total_size": total * tensor.dtype.itemsize}
    _write_json(directory / _INDEX, {"metadata": metadata, "weight_map": weight_map})
    return tensor.dtype


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
