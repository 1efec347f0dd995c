"""What autograd keeps of a micro-batch until its backward, in bytes, with our own layer spec (`engine/model.py`).

Counted are distinct storages, as memory is held: a view keeps all of its tensor alive. Exact for the model that runs
on the CPU (`tests/megatron_aquila/plan/test_activations.py` lists what autograd saves). On a GPU two things differ.
The norm is a fused kernel, which keeps its input and one float32 a token, where the CPU keeps two float32 copies of the
input; and SwiGLU is compiled (`training.compile`), which keeps its input alone.
Transformer Engine's layers keep a little less than ours (its attention makes no copy of its output); that is left out.

Axes: T tokens of a micro-batch on this rank, h hidden, q and kv widths of queries and of keys, f of the MLP, all of
this tensor-parallel rank; with sequence parallelism norms and residuals hold T / tensor tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape, padded_vocab_size

Recompute = Literal["none", "selective", "full"]

_FLOAT32, _INT64 = 4, 8


@dataclass(frozen=True)
class Micro:
    """A micro-batch as one rank computes it.

    tokens: of all its sequences, of this context-parallel rank. exchanged: with context parallelism, where a sequence
    goes on on another rank. fused_norm: on a GPU. fused_swiglu: compiled.
    """

    tokens: int
    element: int  # bytes of a number
    sequence_parallel: bool = False
    hidden_dropout: float = 0.0
    exchanged: bool = False
    fused_norm: bool = True
    fused_swiglu: bool = True


def layer_bytes(shape: ModelShape, sizes: Sizes, micro: Micro, recompute: Recompute) -> int:
    """What one layer keeps of a micro-batch."""
    element, tokens = micro.element, micro.tokens
    residual = _residual_tokens(sizes, micro) * shape.hidden_size * element
    if recompute == "full":
        return residual  # its input, from which the rest is computed again
    heads = shape.num_attention_heads // sizes.tensor
    q, kv, f = _widths(shape, sizes)
    attention = [
        _norm_bytes(shape, sizes, micro) + residual,  # and the projections' input
        4 * shape.head_dim * tokens * element,  # cos and sin, for queries and again for keys
        q * tokens * element,  # the output projection's input, end to end
    ]
    if micro.exchanged and recompute == "none":  # those of other ranks are asked for again (`engine/context.py`)
        attention.append((q + 2 * kv) * tokens * element)  # rotated queries; rotated keys and values, put together
    else:
        attention.append((q + kv) * tokens * element)  # rotated
        attention.append((q + 2 * kv) * tokens * element)  # the values are a view of all three projections
    if recompute == "none":
        attention.append(q * tokens * element + heads * tokens * _FLOAT32)  # documents' outputs, and their log-sum-exp
    else:
        attention.append(4)  # the kind of mask, as a tensor
    mlp = [
        _norm_bytes(shape, sizes, micro) + residual,
        2 * f * tokens * element,  # gate and up
        # Their product; where it is not compiled also silu(gate), and up, to which Megatron 0.16 adds a zero
        (1 if micro.fused_swiglu else 3) * f * tokens * element,
    ]
    dropped = 2 * _dropout_bytes(shape, sizes, micro)
    return sum(attention) + sum(mlp) + dropped


def first_bytes(shape: ModelShape, sizes: Sizes, micro: Micro) -> int:
    """What the embedding keeps: the tokens, and, of a split vocabulary, which of them are elsewhere."""
    split = micro.tokens if sizes.tensor > 1 else 0
    return micro.tokens * _INT64 + split + _dropout_bytes(shape, sizes, micro)


def last_bytes(shape: ModelShape, sizes: Sizes, micro: Micro) -> int:
    """What final norm and output keep beside logits: hidden states of all tokens, labels, three numbers a token."""
    output = micro.tokens * (shape.hidden_size * micro.element + _INT64 + 3 * _FLOAT32)
    return _norm_bytes(shape, sizes, micro) + output


def rotary_bytes(shape: ModelShape, micro: Micro, recompute: Recompute) -> int:
    """The angles, which recomputed layers keep: one tensor for all of them."""
    return micro.tokens * shape.head_dim * _FLOAT32 if recompute == "full" else 0


def chunk_bytes(shape: ModelShape, sizes: Sizes, micro: Micro, recompute: Recompute, *, first: bool, last: bool) -> int:
    """What a model chunk keeps of a micro-batch, stored logits left out (`logits_bytes`)."""
    layers = shape.num_layers // (sizes.pipeline * sizes.virtual)
    kept = layers * layer_bytes(shape, sizes, micro, recompute) + rotary_bytes(shape, micro, recompute)
    kept += first_bytes(shape, sizes, micro) if first else 0
    kept += last_bytes(shape, sizes, micro) if last else 0
    return kept


def backward_bytes(shape: ModelShape, sizes: Sizes, micro: Micro, recompute: Recompute) -> int:
    """What the backward of one layer holds at its peak beyond what is kept: an estimate.

    The gradients of the MLP's inner tensors and of its first weight; with recomputation all that was not kept, too.
    """
    _, _, f = _widths(shape, sizes)
    inner = 4 * f * micro.tokens * micro.element
    weight = 2 * f * shape.hidden_size * micro.element
    again = 0
    if recompute == "full":
        again = layer_bytes(shape, sizes, micro, "none")
    return inner + weight + again


@dataclass(frozen=True)
class Logits:
    """Bytes of the output layer at work on a micro-batch, and the share of its logits computed twice."""

    stored: int
    working: int
    recomputed: float


def logits_bytes(shape: ModelShape, sizes: Sizes, micro: Micro, vocab_divisible_by: int, logits_mib: int) -> Logits:
    """The schedule of `kernels/linear.py` for a budget of `logits_mib`.

    working: one slice of logits where not all are stored, the hidden states' gradient as two float32 tensors, and the
    weight's gradient.
    """
    width = padded_vocab_size(shape.vocab_size, vocab_divisible_by, sizes.tensor) // sizes.tensor
    rows, element, budget = micro.tokens, micro.element, logits_mib << 20
    whole = rows * width * element
    gradients = 2 * rows * shape.hidden_size * _FLOAT32 + width * shape.hidden_size * element
    if whole <= budget:
        return Logits(rows * _row(width) * element, gradients, 0.0)
    slices = max(16, math.ceil(2 * whole / max(budget, 1)))
    step = max(128, math.ceil(width / slices / 128) * 128)
    count = -(-width // step)
    stored = min(int(budget / 2 // max(rows * step * element, 1)), count)
    one = rows * _row(min(step, width)) * element
    return Logits(stored * one, one + gradients, 1.0 - min(1.0, stored * step / width))


def _row(columns: int) -> int:
    return -(-columns // 64) * 64


def _widths(shape: ModelShape, sizes: Sizes) -> tuple[int, int, int]:
    q = shape.num_attention_heads * shape.head_dim // sizes.tensor
    kv = shape.num_query_groups * shape.head_dim // sizes.tensor
    return q, kv, shape.ffn_hidden_size // sizes.tensor


def _residual_tokens(sizes: Sizes, micro: Micro) -> int:
    return micro.tokens // sizes.tensor if micro.sequence_parallel else micro.tokens


def _norm_bytes(shape: ModelShape, sizes: Sizes, micro: Micro) -> int:
    """Input and statistics, or what the CPU's norm of elementary steps keeps: the input and its quotient in float32."""
    tokens = _residual_tokens(sizes, micro)
    if micro.fused_norm:
        return tokens * (shape.hidden_size * micro.element + _FLOAT32)
    return tokens * (2 * shape.hidden_size + 1) * _FLOAT32


def _dropout_bytes(shape: ModelShape, sizes: Sizes, micro: Micro) -> int:
    """A mask: bytes on a GPU, numbers on a CPU."""
    if not micro.hidden_dropout:
        return 0
    return _residual_tokens(sizes, micro) * shape.hidden_size * (1 if micro.fused_norm else micro.element)
