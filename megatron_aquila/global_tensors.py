"""The tensors of a whole model under our names, and how Hugging Face's Llama cuts the same numbers.

Global tensors are Megatron's, unsplit: real vocabulary, layers numbered through the model, query/key/value
interleaved by query group, gate stacked on up. Each is a row-wise arrangement of Hugging Face tensors, so one table
serves reading a slice of either in terms of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from megatron_aquila.shapes import ModelShape

if TYPE_CHECKING:
    import torch


class TensorReader(Protocol):
    """Any slice of a named global tensor: a checkpoint, a Hugging Face directory, a random initialisation."""

    def read(self, key: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor: ...


def global_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all global tensors of a model."""
    h, f = shape.hidden_size, shape.ffn_hidden_size
    heads = shape.num_attention_heads * shape.head_dim
    qkv = heads + 2 * shape.num_query_groups * shape.head_dim
    tensors: dict[str, tuple[int, ...]] = {"embedding.word_embeddings.weight": (shape.vocab_size, h)}
    for layer in range(shape.num_layers):
        prefix = f"decoder.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = (h,)
        tensors[prefix + "self_attention.linear_qkv.weight"] = (qkv, h)
        if shape.qkv_bias:
            tensors[prefix + "self_attention.linear_qkv.bias"] = (qkv,)
        tensors[prefix + "self_attention.linear_proj.weight"] = (h, heads)
        tensors[prefix + "pre_mlp_layernorm.weight"] = (h,)
        tensors[prefix + "mlp.linear_fc1.weight"] = (2 * f, h)  # the gate's rows, then the up projection's
        tensors[prefix + "mlp.linear_fc2.weight"] = (h, f)
    tensors["decoder.final_layernorm.weight"] = (h,)
    if not shape.tie_embeddings:
        tensors["output_layer.weight"] = (shape.vocab_size, h)
    return tensors


@dataclass(frozen=True)
class Rows:
    """`count` rows of the Hugging Face tensor `name` from row `first`."""

    name: str
    first: int
    count: int


_TOP = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
}
_IN_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
}


def huggingface_rows(name: str, shape: ModelShape) -> list[Rows]:
    """The rows of global tensor `name`, top to bottom, as rows of Hugging Face tensors."""
    if name in _TOP:
        return [Rows(_TOP[name], 0, global_shapes(shape)[name][0])]
    layer, _, rest = name.removeprefix("decoder.layers.").partition(".")
    prefix = f"model.layers.{layer}."
    if rest in _IN_LAYER:
        return [Rows(prefix + _IN_LAYER[rest], 0, shape.hidden_size)]
    if rest == "mlp.linear_fc1.weight":
        return [Rows(f"{prefix}mlp.{part}_proj.weight", 0, shape.ffn_hidden_size) for part in ("gate", "up")]
    if not rest.startswith("self_attention.linear_qkv."):
        raise KeyError(f"{name} is not a tensor of this model")
    kind = rest.rpartition(".")[2]
    head = shape.head_dim
    queries = shape.num_attention_heads // shape.num_query_groups * head
    rows = []
    for group in range(shape.num_query_groups):
        rows += [
            Rows(f"{prefix}self_attn.q_proj.{kind}", group * queries, queries),
            Rows(f"{prefix}self_attn.k_proj.{kind}", group * head, head),
            Rows(f"{prefix}self_attn.v_proj.{kind}", group * head, head),
        ]
    return rows
