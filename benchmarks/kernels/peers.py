"""Other ways to what the kernels compute, each as one function.

Axes: N tokens, V vocabulary, H hidden. A token peer takes logits `[N, V]` and targets `[N]`, a linear peer hidden
states `[N, H]`, weight `[V, H]` and targets `[N]`; both give `[N]` log-probabilities, or losses, their negative, where
`losses` says so. A peer may use up the logits that it is given. Packages are imported at a peer's first call, which
fails where one is missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchmarks.kernels.measure import AGAIN, OURS, Absent
from megatron_aquila.kernels import IGNORE_INDEX
from megatron_aquila.kernels.linear import linear_logps
from megatron_aquila.kernels.token_logps import vocab_parallel_logps

OURS_KEPT = "ours, logits kept"
CROSS_ENTROPY = "F.cross_entropy"
COMPILED = "log_softmax + gather, compiled"
LINEAR_CROSS_ENTROPY = "F.linear + F.cross_entropy"
LINEAR_COMPILED = f"{LINEAR_CROSS_ENTROPY}, compiled"
NOT_COMPILED = Absent("not compiled at this shape: compiling takes longer than all that is timed")


@dataclass(frozen=True)
class Peer:
    """A function to time. `products` is how often a linear peer forms the logits, 0 where it is not known."""

    call: Callable[..., torch.Tensor]
    losses: bool = True
    products: int = 0


Peers = dict[str, Peer]


@contextmanager
def one_rank_world(device: torch.device) -> Iterator[None]:
    """A process group of one and Megatron's parallel groups, which Megatron's own functions ask for."""
    from megatron.core import parallel_state

    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
        yield
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def token_peers(device: torch.device, *, gradient: bool, compiled: bool) -> Peers:
    """Ours and the others for logits; with `gradient`, ours puts it in the logits' place."""
    ours = Peer(partial(_ours, inplace=gradient), losses=False)
    peers: Peers = {OURS: ours}
    if gradient:
        peers[OURS_KEPT] = Peer(partial(_ours, inplace=False), losses=False)
    peers[CROSS_ENTROPY] = Peer(_cross_entropy)
    peers[f"{CROSS_ENTROPY} of .float()"] = Peer(lambda logits, targets: _cross_entropy(logits.float(), targets))
    peers["log_softmax + gather"] = Peer(_gathered, losses=False)
    peers[AGAIN] = ours  # amid the others: what runs before a variant leaves its mark on the caches
    if compiled:
        peers[COMPILED] = _compiled(_gathered, losses=False)
    peers["Megatron-core"] = _peer("megatron.core.tensor_parallel", "vocab_parallel_cross_entropy", _megatron)
    if device.type == "cuda":
        peers |= _gpu_token_peers()
    return peers


def _gpu_token_peers() -> Peers:
    return {
        "Megatron-core, fused": _peer(
            "megatron.core.fusions.fused_cross_entropy",
            "fused_vocab_parallel_cross_entropy",
            _megatron_fused,
        ),
        "Transformer Engine": _peer(
            "transformer_engine.pytorch.cross_entropy",
            "parallel_cross_entropy",
            # label_smoothing, reduce_loss, dist_process_group: releases differ in the names, not in the order.
            lambda function, x, y: function(x.unsqueeze(1), y.unsqueeze(1), 0.0, False, None).view(-1),
        ),
        "FlashAttention, in place": _peer(
            "flash_attn.ops.triton.cross_entropy",
            "cross_entropy_loss",
            lambda function, x, y: function(x, y, ignore_index=IGNORE_INDEX, inplace_backward=True)[0],
        ),
        "Liger": _peer(
            "liger_kernel.transformers.functional",
            "liger_cross_entropy",
            lambda function, x, y: function(x, y, ignore_index=IGNORE_INDEX, reduction="none"),
        ),
        "Liger, vocabulary-parallel": _peer(
            "liger_kernel.transformers.vocab_parallel_cross_entropy",
            "LigerVocabParallelCrossEntropy",
            lambda module, x, y: module(IGNORE_INDEX)(x.unsqueeze(1), y.unsqueeze(1)).view(-1),
        ),
    }


def linear_peers(device: torch.device, *, trained: bool, compiled: bool) -> Peers:
    """Ours and the others from hidden states. Without `trained` only the hidden states' gradient is wanted."""
    ours = Peer(partial(_ours_linear, mode="store" if trained else "frozen"), losses=False, products=1)
    peers: Peers = {OURS: ours}
    if trained:
        peers["ours, recompute"] = Peer(partial(_ours_linear, mode="recompute"), losses=False, products=2)
    peers[LINEAR_CROSS_ENTROPY] = Peer(_linear_cross_entropy, products=1)
    peers["F.linear_cross_entropy"] = Peer(partial(_torch_fused, chunked=False), products=1)
    peers["F.linear_cross_entropy, chunked"] = Peer(partial(_torch_fused, chunked=True), products=2)
    peers[AGAIN] = ours
    if compiled:
        peers[LINEAR_COMPILED] = _compiled(_linear_cross_entropy, products=1)
    if device.type == "cuda":
        for implementation in ("cce", "cce_exact"):
            peers[f"cut-cross-entropy, {implementation}"] = _peer(
                "cut_cross_entropy",
                "linear_cross_entropy",
                partial(_cut, implementation),
                products=2,
            )
        peers["Liger, fused linear"] = _peer(
            "liger_kernel.transformers.fused_linear_vocab_parallel_cross_entropy",
            "LigerFusedLinearVocabParallelCrossEntropy",
            lambda module, h, w, y: module(IGNORE_INDEX)(h.unsqueeze(1), w, y.unsqueeze(1)).view(-1),
            products=1,
        )
    return peers


def liger_dpo(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, beta: float, compiled: bool
) -> torch.Tensor:
    """Liger's mean DPO loss; hidden `[2P, T, H]` and targets `[2P, T]` have the chosen answers first."""
    # Without a reference model: its own would add the cost of one more product, where ours takes cached numbers.
    kind = load("liger_kernel.chunked_loss", "LigerFusedLinearDPOLoss")
    result = kind(ignore_index=IGNORE_INDEX, beta=beta, compiled=compiled, use_ref_model=False)(weight, hidden, targets)
    loss: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return loss


@cache
def load(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _peer(module: str, name: str, use: Callable[..., torch.Tensor], products: int = 0) -> Peer:
    """`use(function, *tensors)`, the function being `name` of an optional package."""
    return Peer(lambda *tensors: use(load(module, name), *tensors), products=products)


def _compiled(function: Callable[..., torch.Tensor], losses: bool = True, products: int = 0) -> Peer:
    """Compiled for one shape: a function seen with many of them would be run uncompiled without a word."""
    torch.compiler.reset()
    return Peer(torch.compile(function, dynamic=False, fullgraph=True), losses, products)


def _ours(logits: torch.Tensor, targets: torch.Tensor, *, inplace: bool) -> torch.Tensor:
    return vocab_parallel_logps(logits, targets, vocab_size=logits.shape[-1], inplace=inplace)


def _ours_linear(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, mode: Any) -> torch.Tensor:
    return linear_logps(hidden, weight, targets, vocab_size=weight.shape[0], mode=mode)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE_INDEX)


def _gathered(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    # As it is usually written: whoever calls multiplies by the mask.
    return logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)


def _linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return _cross_entropy(F.linear(hidden, weight), targets)


def _torch_fused(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, chunked: bool) -> torch.Tensor:
    if not chunked:
        return F.linear_cross_entropy(hidden, weight, targets, reduction="none")
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, reduction="none", options=options)


def _cut(
    implementation: str,
    function: Callable[..., torch.Tensor],
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    return function(hidden, weight, targets, ignore_index=IGNORE_INDEX, reduction="none", impl=implementation)


def _megatron(function: Callable[..., torch.Tensor], logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return function(logits.unsqueeze(1), targets.unsqueeze(1)).squeeze(1)


def _megatron_fused(function: Callable[..., torch.Tensor], logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from megatron.core import parallel_state

    group = parallel_state.get_tensor_model_parallel_group()
    return function(logits.unsqueeze(1), targets.unsqueeze(1), group).squeeze(1)
