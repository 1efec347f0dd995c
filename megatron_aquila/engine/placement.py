"""Where each local parameter lies in the model's global tensors.

A checkpoint, a Hugging Face directory and a random initialisation are all *global tensors* under global names
(`decoder.layers.7.mlp.linear_fc1.weight`, real vocabulary, layers numbered through the whole model). A rank holds
blocks of them. This file says which, so that one piece of code loads any source into any layout, and what one
layout wrote another can read, optimizer state included: even the flat ranges that the distributed optimizer
gives each data-parallel rank are cut here into rectangles of the global tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from megatron_aquila.engine.fsdp import local_parameters
from megatron_aquila.engine.model import bare
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.global_tensors import global_shapes
from megatron_aquila.shapes import ModelShape

# Transformer Engine keeps the norm inside the linear layer that follows it.
_FUSED_NORMS = {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "pre_mlp_layernorm.weight",
}
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Block:
    """A rectangle of a local tensor and where its corner lies in the global one."""

    local: tuple[int, ...]
    extent: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """One parameter of this rank: its global name and shape, and the blocks it holds of it.

    Rows that only pad the vocabulary lie in no block. `writes` is true on one of the ranks that hold the same
    blocks, data-parallel replicas aside.
    """

    name: str
    global_shape: tuple[int, ...]
    local_shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    writes: bool

    def views(self, flat: torch.Tensor, start: int = 0) -> Iterator[tuple[torch.Tensor, tuple[int, ...]]]:
        """The parts of `flat`, which holds elements `start …` of the flattened local tensor, block by block.

        Yields `(view, offset)`: a view into `flat` with the block's dimensions, and its place in the global tensor.
        """
        columns = self.local_shape[1] if len(self.local_shape) == 2 else 1
        for row, column, height, width in _rectangles(start, start + flat.numel(), columns):
            base = row * columns + column - start
            rectangle = flat[base : base + height * width].view(height, width)
            for block in self.blocks:
                top, bottom = max(row, block.local[0]), min(row + height, block.local[0] + block.extent[0])
                if top >= bottom:
                    continue
                view = rectangle[top - row : bottom - row]
                offset = block.offset[0] + top - block.local[0]
                if len(self.local_shape) == 2:  # a block spans all columns of the local tensor
                    yield view, (offset, block.offset[1] + column)
                else:
                    yield view.squeeze(1), (offset,)


def _rectangles(start: int, stop: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut elements `start … stop` of a row-major matrix into at most three (row, column, height, width)."""
    while start < stop:
        row, column = divmod(start, columns)
        if column or stop - start < columns:
            width = min(columns - column, stop - start)
            yield row, column, 1, width
            start += width
        else:
            height = (stop - start) // columns
            yield row, 0, height, columns
            start += height * columns


def place_parameters(
    chunks: Sequence[torch.nn.Module], shape: ModelShape, layout: Layout
) -> list[tuple[torch.nn.Parameter, Placement]]:
    """Every parameter of this rank with its placement, in a fixed order."""
    placed = []
    for chunk in chunks:
        layer_numbers = [layer.layer_number for layer in bare(chunk).decoder.layers]
        for local_name, parameter in local_parameters(chunk):
            name = global_name(local_name, layer_numbers, shape)
            placed.append((parameter, _place(name, tuple(parameter.shape), shape, layout)))
    return placed


def global_name(local_name: str, layer_numbers: Sequence[int], shape: ModelShape) -> str:
    """The name of a parameter in the whole model; `layer_numbers` are Megatron's, from 1, of the local layers."""
    if local_name == "output_layer.weight" and shape.tie_embeddings:
        return "embedding.word_embeddings.weight"
    match = _LAYER.fullmatch(local_name)
    if match is None:
        return local_name
    index, rest = int(match.group(1)), match.group(2)
    return f"decoder.layers.{layer_numbers[index] - 1}.{_FUSED_NORMS.get(rest, rest)}"


def _place(name: str, local: tuple[int, ...], shape: ModelShape, layout: Layout) -> Placement:
    whole = global_shapes(shape)[name]
    rank, size = layout.tensor_rank, layout.tensor_size
    writes = True
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        blocks = [Block((0, 0), local, (0, rank * local[1]))]
    elif name.endswith("linear_fc1.weight"):
        half, width = local[0] // 2, local[1]
        blocks = [
            Block((0, 0), (half, width), (rank * half, 0)),
            Block((half, 0), (half, width), (whole[0] // 2 + rank * half, 0)),
        ]
    elif name.endswith("layernorm.weight"):
        blocks = [Block((0,), local, (0,))]
        writes = rank == 0
    else:  # split by rows: qkv by query groups, embedding and output by the padded vocabulary
        first = rank * local[0]
        rows = min(local[0], max(whole[0] - first, 0))
        rest = (0,) * (len(local) - 1)
        blocks = [Block((0, *rest), (rows, *local[1:]), (first, *rest))] if rows else []
    held = sum(torch.Size(block.extent).numel() for block in blocks)
    expected = torch.Size(whole).numel() / (size if not name.endswith("layernorm.weight") else 1)
    if "word_embeddings" not in name and "output_layer" not in name and held != expected:
        raise AssertionError(f"{name}: this rank holds {held} elements of {whole}, expected {expected:.0f}")
    return Placement(name, whole, local, tuple(blocks), writes)
