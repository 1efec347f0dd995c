"""Causal attention within each document of a pack, in one call for all of them.

On a GPU two libraries offer it: torch itself (`torch.nn.attention.varlen`, from 2.11 on with all that is needed here)
and the package flash-attn. Both are the same algorithm, FlashAttention 2 (arXiv 2307.08691): nothing of size length² is
kept, and no token of another document is looked at. Where neither can be used, `engine/attention.py` calls torch's
scaled dot product once a document. Which it is follows from `choose`, and is said at the start of a run.

Axes: T tokens of a pack, S those of its keys, H query heads, G key/value heads, D head, N documents.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

_LARGEST_HEAD = 256
# On cards of compute capability 8.6 and 8.9 the backward of wider heads wants more shared memory than there is.
_LARGEST_HEAD_OF_SMALL_CARDS = 192


@dataclass(frozen=True)
class Bounds:
    """`cu_seqlens` `[N + 1]` int32 on the device of what lies between them, and the tokens of the longest."""

    cu_seqlens: torch.Tensor
    longest: int


def bounds(lengths: Sequence[int], device: torch.device) -> Bounds:
    """Of documents of these lengths, end to end."""
    cu_seqlens = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    if device.type == "cuda":  # from pageable memory the copy would wait for the device
        cu_seqlens = cu_seqlens.pin_memory().to(device, non_blocking=True)
    return Bounds(cu_seqlens, max(lengths))


class Kernel(Protocol):
    """`query [T, H, D]`, `key` and `value [S, G, D]` → `[T, H, D]`; `dropout` a probability. Differentiable.

    queries, keys: where the documents lie in `query`, and in `key` and `value`; a document's queries are its last
    tokens, or all.
    """

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        queries: Bounds,
        keys: Bounds,
        *,
        scale: float | None,
        dropout: float,
        deterministic: bool,
    ) -> torch.Tensor: ...


def torch_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Bounds,
    keys: Bounds,
    *,
    scale: float | None,
    dropout: float,
    deterministic: bool,
) -> torch.Tensor:
    """torch's own. It has no dropout; its backward is deterministic where torch is asked to be."""
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise ValueError("torch's varlen attention has no dropout")
    if deterministic and not torch.are_deterministic_algorithms_enabled():
        raise ValueError("torch's varlen attention is deterministic under torch.use_deterministic_algorithms only")
    out = varlen_attn(
        query,
        key,
        value,
        queries.cu_seqlens,
        keys.cu_seqlens,
        queries.longest,
        keys.longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, torch.Tensor)
    return out


def flash_attn_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Bounds,
    keys: Bounds,
    *,
    scale: float | None,
    dropout: float,
    deterministic: bool,
) -> torch.Tensor:
    """The package flash-attn, from 2.4.1 on, which has dropout too."""
    from flash_attn import flash_attn_varlen_func

    out: torch.Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        queries.cu_seqlens,
        keys.cu_seqlens,
        queries.longest,
        keys.longest,
        dropout_p=dropout,
        softmax_scale=scale,
        causal=True,
        deterministic=deterministic,
    )
    return out


KERNELS: dict[str, Kernel] = {"torch varlen": torch_varlen, "flash-attn": flash_attn_varlen}


@dataclass(frozen=True)
class Choice:
    """Which kernel, by its name in `KERNELS`, or None for one call a document; and why not a faster one."""

    name: str | None
    reason: str = ""

    @property
    def kernel(self) -> Kernel | None:
        return None if self.name is None else KERNELS[self.name]

    def __str__(self) -> str:
        found = f"{self.name}, one call a pack" if self.name else "one call a document"
        return f"{found} ({self.reason})" if self.reason else found


def choose(
    *,
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
    head_dim: int,
    dropout: float,
    available: frozenset[str],
) -> Choice:
    """The kernel for packs of this dtype and head on a GPU of this compute capability (None: on the CPU).

    dropout: of attention probabilities. available: names of `KERNELS` that could be called here.
    """
    if capability is None:
        return Choice(None)
    if capability < (8, 0):
        return Choice(None, f"FlashAttention 2 needs compute capability 8.0, this GPU has {_dotted(capability)}")
    if dtype not in (torch.bfloat16, torch.float16):
        return Choice(None, "FlashAttention 2 computes in bf16 and fp16 only")
    largest = _LARGEST_HEAD_OF_SMALL_CARDS if capability in ((8, 6), (8, 9)) else _LARGEST_HEAD
    if head_dim % 8 or head_dim > largest:
        return Choice(None, f"FlashAttention 2 needs a head_dim that is a multiple of 8 and at most {largest}")
    if "torch varlen" in available and not dropout:
        return Choice("torch varlen")
    if "flash-attn" in available:
        return Choice("flash-attn")
    if "torch varlen" in available:
        return Choice(None, "torch's varlen attention has no dropout: install flash-attn, or attention_dropout=0")
    return Choice(None, "torch 2.11 or later, or flash-attn, would do it for the whole pack at once")


def available() -> frozenset[str]:
    """The kernels that are installed here, by their names in `KERNELS`."""
    found = set()
    if _torch_has_varlen():
        found.add("torch varlen")
    if importlib.util.find_spec("flash_attn") is not None:
        found.add("flash-attn")
    return frozenset(found)


def chosen_here(dtype: torch.dtype, head_dim: int, dropout: float) -> Choice:
    """`choose` for the device that the model is being built on."""
    device = torch.device(torch.cuda.current_device())
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return choose(capability=capability, dtype=dtype, head_dim=head_dim, dropout=dropout, available=available())


def _torch_has_varlen() -> bool:
    """Whether this torch has the function with the arguments that we give, and was built with its kernel."""
    if not torch.backends.cuda.is_flash_attention_available():
        return False
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return False
    from torch.nn.attention.varlen import varlen_attn

    return {"scale", "window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
