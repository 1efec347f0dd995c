"""Floating-point tensors that have a shape and a dtype, and take no memory: a model of any size is built in a laptop.

torch's `FakeTensorMode` does it. Integers stay real here: they are indices, bounds and coordinates, which Python reads
and branches on, and they are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

_aten, _prim = torch.ops.aten, torch.ops.prim
_VIEWS = {_aten.detach.default, _aten.view.default, _aten.slice.Tensor, _aten.alias.default}
_COALESCED = {
    torch.ops.c10d.allgather_into_tensor_coalesced_.default,
    torch.ops.c10d.reduce_scatter_tensor_coalesced_.default,
    torch.ops.c10d.allreduce_coalesced_.default,
}


class ShapesOnly(FakeTensorMode):
    """While it is active, floating-point results are fake, and integers that come of integers are real.

    A fake number that Python reads (`item`, `tolist`) is `number`, a fake truth is False.
    """

    def __init__(self, number: float = 1.0) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.number = number

    def dispatch(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            if func is _prim.device.default:
                return args[0].fake_device
            if func in _VIEWS:  # as `FakeTensorMode` does it, without looking for other tensors and a cached answer
                with in_kernel_invocation_manager(self):
                    view = func(*args, **kwargs)
                return FakeTensor(self, view, args[0].fake_device)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if self._is_of_integers(func, args, kwargs, tensors):
                return func(*args, **kwargs)
        elif func in _COALESCED:  # torch has no fakes of these (2.13); a group that exchanges nothing needs no tensors
            return func(*([torch.empty(0)] if isinstance(part, list) else part for part in args), **kwargs)
        elif func is _aten._local_scalar_dense.default:
            dtype = tensors[0].dtype
            return self.number if dtype.is_floating_point else False if dtype is torch.bool else int(self.number)
        return super().dispatch(func, types, args, kwargs)

    @staticmethod
    def _is_of_integers(
        func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[torch.Tensor]
    ) -> bool:
        dtype = kwargs.get("dtype")
        if dtype is not None and dtype.is_floating_point:
            return False
        if tensors:
            return not any(tensor.is_floating_point() for tensor in tensors)
        if dtype is not None:
            return True
        # of what makes tensors without being told a dtype, only these make integers
        whole = not any(isinstance(argument, float) for argument in args)
        return func.namespace == "aten" and (
            func._opname in ("randint", "randperm") or (func._opname in ("arange", "full") and whole)
        )


class _ReadsNumbers(TorchFunctionMode):
    """`torch.tensor` of a list of tensors reads them without being dispatched: here they count as `number`."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.tensor and args and isinstance(args[0], list):
            args = (tree_map(lambda value: self.number if isinstance(value, FakeTensor) else value, args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only(number: float = 1.0) -> Iterator[None]:
    """`ShapesOnly` for what runs within, where modules may also be moved and cast."""

    def keep(old: torch.Tensor, new: torch.Tensor) -> None:
        if old.shape != new.shape or old.dtype != new.dtype:
            raise NotImplementedError("fake weights cannot be cast: build them in the dtype that they shall have")

    # `Module.to` and the like exchange fake parameters for equal ones, and fail where torch keeps a weak reference to
    # one (2.13). Ours are where they should be, in their dtype: nothing is to be exchanged.
    with mock.patch.object(torch.utils, "swap_tensors", keep), ShapesOnly(number), _ReadsNumbers(number):
        yield
