"""CPU meanings for the CUDA calls that megatron-core 0.16 makes without asking.

Megatron-core names the device `cuda` in some hundred places (buffers, loss counters, grad norms, RNG forks).
`activate()` gives those calls a CPU meaning for the life of this process, so that the very same engine, with
its tensor, pipeline and data parallelism, runs over gloo on a machine without a GPU:

- a `TorchFunctionMode` sends `device="cuda"` to the CPU, makes `.cuda()` the identity, and lets
  `Tensor.type()` answer with the CUDA names that Megatron's optimizers compare against;
- `torch.cuda` streams, events and synchronisation, which order work that on a CPU is already in order, do nothing;
- Megatron's RNG tracker forks the CPU generator.

It is switched on by `engine.device.choose_device` only, where CPU was asked for or there is no CUDA.
Upstream: no issue plans CPU support; the calls patched here are those of 0.16.1 (`grep -rn cuda megatron/core`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")

# What `Tensor.type()` must answer: optimizer.py, distrib_optimizer.py and clip_grads.py compare with these.
_CUDA_TYPE_NAMES = {
    "torch.FloatTensor": "torch.cuda.FloatTensor",
    "torch.HalfTensor": "torch.cuda.HalfTensor",
    "torch.BFloat16Tensor": "torch.cuda.BFloat16Tensor",
}


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


class _CudaMeansCpu(TorchFunctionMode):
    """Rewrites the device arguments of every torch call made while it is active."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            name = func(*args)
            return _CUDA_TYPE_NAMES.get(name, name)
        if "device" in kwargs and _is_cuda(kwargs["device"]):
            kwargs = {**kwargs, "device": CPU}
        if kwargs.get("pin_memory"):  # pinning needs a CUDA driver
            kwargs = {**kwargs, "pin_memory": False}
        if func is torch.Tensor.to and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], CPU, *args[2:])
        return func(*args, **kwargs)


class _Stream:
    """A CUDA stream where all work is done in program order: nothing to wait for."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self, event: Any = None) -> _Event:
        return event or _Event()


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def wait(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...


class _CurrentDevice(str):
    """The CPU wherever torch takes a device; and a number in `f"cuda:{...}"`, which Megatron-FSDP makes to compare."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        return "0"


@contextlib.contextmanager
def _stream_context(_: Any) -> Iterator[None]:
    yield


_active: _CudaMeansCpu | None = None


def activate() -> None:
    """Give CUDA calls their CPU meaning in this process. Calling it again changes nothing.

    Raises:
        RuntimeError: the process already uses a CUDA device.
    """
    global _active
    if _active is not None:
        return
    if torch.cuda.is_initialized():
        raise RuntimeError("cannot run the engine on the CPU in a process that already uses a CUDA device")

    # Megatron's import brings in torch's compiler, which must see torch.cuda as it is.
    from megatron.core.tensor_parallel import random as megatron_random

    # One function for each name: the compiler's table of torch functions refuses an object that it meets twice.
    cuda: Any = torch.cuda
    cuda.current_device = lambda: _CurrentDevice("cpu")
    cuda.set_device = lambda *_: None
    cuda.synchronize = lambda *_: None
    cuda.empty_cache = lambda: None
    cuda.Stream = _Stream
    cuda.Event = _Event
    cuda.stream = _stream_context
    cuda.current_stream = lambda *_: _Stream()
    cuda.default_stream = lambda *_: _Stream()
    cuda.manual_seed = lambda seed: torch.manual_seed(seed)
    for module in (cuda, cuda.random):
        module.get_rng_state = lambda *_, **__: torch.get_rng_state()
        module.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)

    def set_rng_state(new_state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
        torch.set_rng_state(new_state)

    megatron_random._set_cuda_rng_state = set_rng_state

    # It warns that the model is not on the current device, `cuda:0`.
    fsdp = logging.getLogger("megatron.core.distributed.fsdp.src.megatron_fsdp.megatron_fsdp")
    fsdp.addFilter(lambda record: "instead of the current device" not in record.getMessage())

    _active = _CudaMeansCpu()
    _active.__enter__()
