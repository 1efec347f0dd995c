"""The kernels as torch operators, `torch.ops.aquila.*`: functions of tensors, with fakes, without autograd.

Axes: N tokens, V columns of this rank's vocabulary shard, S = 2P sequences, P pairs. `csrc/include/aquila/api.h` has
the contract of each. Statistics are float32 (float64 for float64 logits). What the kernels work on in place is
declared so, and autograd's version counters know of it. Sums over sequences and pairs are float64 throughout.
"""

from __future__ import annotations

from typing import Any

import torch

from megatron_aquila import _kernels

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
SEQUENCE_COLUMNS = ("logps", "reward", "length")
PAIR_COLUMNS = ("loss", "logit", "margin")
TOTALS = (
    "loss",
    "chosen_reward",
    "rejected_reward",
    "margin",
    "accuracy",
    "chosen_logps",
    "rejected_logps",
    "tokens",
)

_library = torch.library.Library("aquila", "DEF")
_library.define("token_stats(Tensor logits, Tensor targets, int columns, int first_column, int ignore_index) -> Tensor")
_library.define("merge_stats(Tensor parts, Tensor targets, int vocab_size, int ignore_index, bool finish) -> Tensor")
_library.define("token_state(Tensor logits, Tensor targets, int vocab_size, int ignore_index) -> Tensor")
_library.define(
    "token_gradient(Tensor logits, Tensor targets, Tensor state, Tensor grad, Tensor? scale, int columns,"
    " int first_column, int ignore_index) -> Tensor"
)
_library.define(
    "token_gradient_(Tensor(a!) logits, Tensor targets, Tensor state, Tensor grad, Tensor? scale, int columns,"
    " int first_column, int ignore_index) -> ()"
)
_library.define(
    "preference(Tensor logps, Tensor targets, Tensor cu_seqlens, Tensor? reference, int loss, float beta,"
    " float label_smoothing, float margin, float sft_weight, bool length_normalised, int ignore_index)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """What the bindings call `device` and `queue`: −1 and threads, or a CUDA device and its stream."""
    if tensor.is_cuda:
        index = tensor.get_device()
        return index, torch.cuda.current_stream(index).cuda_stream
    return -1, torch.get_num_threads()


def _logits(logits: torch.Tensor, targets: torch.Tensor, columns: int, first_column: int) -> tuple[int, ...]:
    """The bindings' arguments for a matrix of logits."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits [N, V] and targets [N], got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if logits.dtype not in _DTYPES:
        raise TypeError(f"no kernel for logits of {logits.dtype}")
    if not 0 <= columns <= logits.shape[1]:
        raise ValueError(f"columns={columns}, but the logits have {logits.shape[1]}")
    if logits.shape[1] > 1 and logits.stride(1) != 1:
        raise ValueError("the columns of a row of logits must be adjacent")
    rows, width = logits.shape
    return logits.data_ptr(), logits.stride(0), rows, columns, width, first_column, _DTYPES[logits.dtype]


def _targets(targets: torch.Tensor, ignore_index: int) -> tuple[int, int, int]:
    if targets.dtype != torch.int64:
        raise TypeError(f"targets are {targets.dtype}, expected torch.int64")
    return targets.data_ptr(), targets.stride(0), ignore_index


def first_wrong_target(targets: torch.Tensor, vocab_size: int, ignore_index: int) -> int | None:
    """The first of the targets on the CPU that is neither a token id nor `ignore_index`."""
    row = _kernels.first_wrong_target(targets.shape[0], *_targets(targets, ignore_index), vocab_size)
    return None if row < 0 else int(targets[row])


def _same_device(first: torch.Tensor, *others: torch.Tensor | None) -> None:
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(f"tensors on {first.device} and {other.device}")


def _require(tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} {shape}")


def _empty_stats(logits: torch.Tensor, *_: object) -> torch.Tensor:
    return logits.new_empty((3, logits.shape[0]), dtype=statistics_dtype(logits.dtype))


def _token_stats(
    logits: torch.Tensor, targets: torch.Tensor, columns: int, first_column: int, ignore_index: int
) -> torch.Tensor:
    _same_device(logits, targets)
    arguments = _logits(logits, targets, columns, first_column)
    stats = _empty_stats(logits)
    _kernels.token_stats(*_place(logits), *arguments, *_targets(targets, ignore_index), stats.data_ptr())
    return stats


def _merge(
    parts: torch.Tensor, targets: torch.Tensor, vocab_size: int, ignore_index: int, finish: bool, out: torch.Tensor
) -> None:
    _same_device(parts, targets)
    count, _, rows = parts.shape
    _require(targets, (rows,), torch.int64, "targets")
    _kernels.merge_stats(
        *_place(parts),
        parts.data_ptr(),
        count,
        rows,
        _DTYPES[parts.dtype],
        *_targets(targets, ignore_index),
        vocab_size,
        finish,
        out.data_ptr(),
    )


def _merge_stats(
    parts: torch.Tensor, targets: torch.Tensor, vocab_size: int, ignore_index: int, finish: bool
) -> torch.Tensor:
    if parts.dim() != 3 or parts.shape[1] != 3:
        raise ValueError(f"expected statistics [parts, 3, N], got {tuple(parts.shape)}")
    parts = parts.contiguous()
    out = torch.empty_like(parts[0])
    _merge(parts, targets, vocab_size, ignore_index, finish, out)
    return out


def _token_state(logits: torch.Tensor, targets: torch.Tensor, vocab_size: int, ignore_index: int) -> torch.Tensor:
    """Statistics of logits that are not split, finished in their place."""
    state = _token_stats(logits, targets, vocab_size, 0, ignore_index)
    _merge(state.unsqueeze(0), targets, vocab_size, ignore_index, True, state)
    return state


def _gradient(
    out: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    state: torch.Tensor,
    grad: torch.Tensor,
    scale: torch.Tensor | None,
    columns: int,
    first_column: int,
    ignore_index: int,
) -> None:
    _same_device(logits, targets, state, grad, scale)
    dtype, rows = statistics_dtype(logits.dtype), logits.shape[0]
    arguments = _logits(logits, targets, columns, first_column)
    if state.dim() != 2 or state.shape[0] < 2 or not state.is_contiguous():
        raise ValueError(f"state must be the contiguous (m, 1/s, …) [2 or 3, N], got {tuple(state.shape)}")
    _require(state[0], (rows,), dtype, "state")
    _require(grad, (rows,), dtype, "grad")
    if scale is not None:
        _require(scale.view(-1), (1,), dtype, "scale")
    _kernels.token_gradient(
        *_place(logits),
        *arguments,
        *_targets(targets, ignore_index),
        state.data_ptr(),
        grad.data_ptr(),
        grad.stride(0),
        0 if scale is None else scale.data_ptr(),
        out.data_ptr(),
        out.stride(0),
    )


def _token_gradient(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    _gradient(out, logits, *arguments)
    return out


def _token_gradient_(logits: torch.Tensor, *arguments: Any) -> None:
    _gradient(logits, logits, *arguments)
    torch.autograd.graph.increment_version(logits)


# The ticket by which the last block of a launch knows itself; each launch leaves it at zero. Kernels of one stream
# run one after another, so a stream needs one.
_tickets: dict[tuple[int, int], torch.Tensor] = {}


def _ticket(device: int, stream: int) -> int:
    if device < 0:
        return 0
    if (device, stream) not in _tickets:
        _tickets[device, stream] = torch.zeros(1, dtype=torch.int32, device=torch.device("cuda", device))
    return _tickets[device, stream].data_ptr()


def _preference(
    logps: torch.Tensor,
    targets: torch.Tensor,
    cu_seqlens: torch.Tensor,
    reference: torch.Tensor | None,
    loss: int,
    beta: float,
    label_smoothing: float,
    margin: float,
    sft_weight: float,
    length_normalised: bool,
    ignore_index: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    _same_device(logps, targets, cu_seqlens, reference)
    pairs, odd = divmod(cu_seqlens.numel() - 1, 2)
    if cu_seqlens.dim() != 1 or odd or pairs < 0:
        raise ValueError(f"cu_seqlens bounds {cu_seqlens.numel() - 1} sequences, expected chosen and rejected in turn")
    dtype = logps.dtype
    _require(logps, (logps.numel(),), statistics_dtype(dtype), "logps")
    _require(targets, (logps.numel(),), torch.int64, "targets")
    _require(cu_seqlens, (2 * pairs + 1,), torch.int64, "cu_seqlens")
    if reference is not None:
        _require(reference, (2 * pairs,), torch.float64, "reference")
        reference = reference.contiguous()
    cu_seqlens = cu_seqlens.contiguous()
    results = _empty_preference(logps, pairs)
    device, queue = _place(logps)
    _kernels.preference(
        device,
        queue,
        logps.data_ptr(),
        logps.stride(0),
        logps.numel(),
        *_targets(targets, ignore_index),
        cu_seqlens.data_ptr(),
        pairs,
        0 if reference is None else reference.data_ptr(),
        loss,
        beta,
        label_smoothing,
        margin,
        sft_weight,
        length_normalised,
        _DTYPES[dtype],
        *(result.data_ptr() for result in results),
        _ticket(device, queue),
    )
    return results


def _empty_preference(logps: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        logps.new_empty(logps.shape),
        logps.new_empty(2 * pairs, len(SEQUENCE_COLUMNS), dtype=torch.float64),
        logps.new_empty(pairs, len(PAIR_COLUMNS), dtype=torch.float64),
        logps.new_empty(len(TOTALS), dtype=torch.float64),
    )


for _name, _implementation in {
    "token_stats": _token_stats,
    "merge_stats": _merge_stats,
    "token_state": _token_state,
    "token_gradient": _token_gradient,
    "token_gradient_": _token_gradient_,
    "preference": _preference,
}.items():
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _implementation, _key)


for _name in ("token_stats", "token_state"):
    torch.library.register_fake(f"aquila::{_name}", _empty_stats, lib=_library)


@torch.library.register_fake("aquila::merge_stats", lib=_library)
def _(parts: torch.Tensor, targets: torch.Tensor, vocab_size: int, ignore_index: int, finish: bool) -> torch.Tensor:
    return parts.new_empty(parts.shape[1:])


@torch.library.register_fake("aquila::token_gradient", lib=_library)
def _(logits: torch.Tensor, *_: object) -> torch.Tensor:
    return logits.new_empty(logits.shape)


@torch.library.register_fake("aquila::token_gradient_", lib=_library)
def _(logits: torch.Tensor, *_: object) -> None: ...


@torch.library.register_fake("aquila::preference", lib=_library)
def _(
    logps: torch.Tensor, targets: torch.Tensor, cu_seqlens: torch.Tensor, *_: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return _empty_preference(logps, (cu_seqlens.shape[0] - 1) // 2)


token_stats = torch.ops.aquila.token_stats
merge_stats = torch.ops.aquila.merge_stats
token_state = torch.ops.aquila.token_state
token_gradient = torch.ops.aquila.token_gradient
token_gradient_ = torch.ops.aquila.token_gradient_
preference = torch.ops.aquila.preference
