"""The parameter tensors that a rank holds, in the order in which the model lists them: sizes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape, padded_vocab_size


@dataclass(frozen=True)
class Tensor:
    """A parameter as one tensor-parallel rank holds it."""

    name: str
    shape: tuple[int, ...]
    layer: int | None = None  # index in the chunk; None: embedding, final norm, output
    shared: bool = False  # an embedding held by the first and the last pipeline stage

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Elements of one row: of all axes but the first."""
        return math.prod(self.shape[1:])


def chunks_of(
    shape: ModelShape, sizes: Sizes, vocab_divisible_by: int, pipeline_rank: int
) -> tuple[tuple[Tensor, ...], ...]:
    """The tensors of each model chunk of a pipeline rank. All its tensor- and data-parallel ranks hold the like."""
    chunks = []
    for virtual in range(sizes.virtual):
        first = pipeline_rank == 0 and virtual == 0
        last = pipeline_rank == sizes.pipeline - 1 and virtual == sizes.virtual - 1
        chunks.append(_chunk(shape, sizes, vocab_divisible_by, first, last))
    return tuple(chunks)


def _chunk(shape: ModelShape, sizes: Sizes, vocab_divisible_by: int, first: bool, last: bool) -> tuple[Tensor, ...]:
    h, tensor = shape.hidden_size, sizes.tensor
    vocabulary = padded_vocab_size(shape.vocab_size, vocab_divisible_by, tensor) // tensor
    shared = shape.tie_embeddings and sizes.pipeline > 1
    found = [Tensor("embedding", (vocabulary, h), shared=shared)] if first else []
    for layer in range(shape.num_layers // (sizes.pipeline * sizes.virtual)):
        found += _layer(shape, tensor, layer)
    if last:
        found.append(Tensor("final_norm", (h,)))
        if not (shape.tie_embeddings and first):
            found.append(Tensor("output", (vocabulary, h), shared=shared))
    return tuple(found)


def _layer(shape: ModelShape, tensor: int, layer: int) -> list[Tensor]:
    """In the order of `named_parameters()`: Megatron's attention registers its projection before q, k and v."""
    h = shape.hidden_size
    q = shape.num_attention_heads * shape.head_dim // tensor
    qkv = q + 2 * shape.num_query_groups * shape.head_dim // tensor
    ffn = shape.ffn_hidden_size // tensor
    found = [
        Tensor("input_norm", (h,), layer),
        Tensor("proj", (h, q), layer),
        Tensor("qkv", (qkv, h), layer),
        Tensor("qkv_bias", (qkv,), layer),
        Tensor("mlp_norm", (h,), layer),
        Tensor("fc1", (2 * ffn, h), layer),
        Tensor("fc2", (h, ffn), layer),
    ]
    return [one for one in found if shape.qkv_bias or one.name != "qkv_bias"]
