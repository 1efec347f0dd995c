"""One rank of any world, alone: process groups that exchange nothing, tensors that hold nothing.

Megatron's groups, our model, its gradient buffers and its optimizer are the real ones, built for the rank that is asked
for; what they would take is then counted, and a step can be run through them, which computes shapes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from megatron.core.distributed.fsdp.src.megatron_fsdp import param_and_grad_buffer
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_aquila.config import RunConfig
from megatron_aquila.engine import attention
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.fake_tensors import shapes_only
from megatron_aquila.engine.fsdp import FullySharded, to_local
from megatron_aquila.engine.model import build_model
from megatron_aquila.engine.optimizer import DataParallel, build_optimizer, chained, wrap_data_parallel
from megatron_aquila.engine.parallel import Layout, parallel_groups
from megatron_aquila.layout import require_layout
from megatron_aquila.shapes import ModelShape


@contextmanager
def fake_rank(run: RunConfig, world_size: int, rank: int, *, number: float = 1.0) -> Iterator[Layout]:
    """Be rank `rank` of a world of `world_size`, alone in this process and on the CPU; leave it at exit.

    As `parallel_world`; but what is communicated stays what it was, floating-point tensors have no elements, and what
    Python reads of them is `number`. Random states are afterwards what they were.

    Raises:
        ConfigError: the run cannot be laid out on that many processes.
        ValueError: there is no such rank, or this process is part of a world already.
    """
    require_layout(run, world_size)
    if not 0 <= rank < world_size:
        raise ValueError(f"a world of {world_size} has no rank {rank}")
    if dist.is_initialized():
        raise ValueError("this process is part of a world already: leave it first")
    choose_device("cpu")
    tracker = get_cuda_rng_tracker()
    random_state, tracked = torch.get_rng_state(), tracker.get_states()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        with (
            mock.patch.object(dist, "all_gather_object", _all_alike),
            # Megatron-FSDP asks whether the parts of all ranks make the whole: the others' are not here.
            mock.patch.object(param_and_grad_buffer, "validate_uneven_dtensor", lambda _: None),
            # torch's is a tensor of a class of its own, which fake tensors cannot be (2.13).
            mock.patch.object(attention, "causal_lower_right", _mask),
            shapes_only(number),
            parallel_groups(run) as layout,
        ):
            yield layout
    finally:
        torch.set_rng_state(random_state)
        tracker.set_states(tracked)


def _all_alike(objects: list[Any], mine: Any, group: dist.ProcessGroup | None = None) -> None:
    objects[:] = [mine] * len(objects)


def _mask(queries: int, keys: int) -> torch.Tensor:
    return torch.empty(queries, keys, dtype=torch.bool)


@dataclass(frozen=True)
class Built:
    """What the trainer builds on a rank before it loads anything."""

    chunks: list[DataParallel]
    optimizer: MegatronOptimizer
    parameters: int  # elements, vocabulary padding included


def build(run: RunConfig, shape: ModelShape) -> Built:
    """Model, gradient buffers and optimizer of this rank, as the trainer builds them."""
    chunks, config = build_model(run, shape, choose_device("cpu"))
    parameters = sum(parameter.numel() for chunk in chunks for parameter in chunk.parameters())
    wrapped = wrap_data_parallel(run, config, chunks)
    return Built(wrapped, build_optimizer(run, config, wrapped), parameters)


@dataclass(frozen=True)
class BuiltBytes:
    """Bytes that a rank holds throughout training; padding of buffers included.

    weights: in the model's dtype. gradients: the main gradients, float32. optimizer: float32 values, where they exist
    apart from the weights, and Adam's two moments; its step counters are not counted. parameters: elements that this
    rank computes with, vocabulary padding included. saved_activations: of one micro-batch, as `fake_step.py` counts.
    """

    weights: int
    gradients: int
    optimizer: int
    parameters: int
    saved_activations: int | None = None


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages beneath `tensors`, each counted once."""
    return sum(storage.nbytes() for storage in storages(tensors).values())


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """The storages beneath `tensors`, each once, by its address."""
    return {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}


def bytes_of(built: Built) -> BuiltBytes:
    """What `built` holds; call it before the first step, in which Adam makes its moments."""
    weights, gradients = _weights(built.chunks), _gradients(built.chunks)
    main = [
        to_local(value.data)
        for inner in chained(built.optimizer)
        for group in inner.optimizer.param_groups
        for value in group["params"]
    ]
    apart = storages(main).keys() - storages(weights).keys()
    moments = 2 * sum(value.numel() * value.element_size() for value in main)
    return BuiltBytes(
        weights=storage_bytes(weights),
        gradients=storage_bytes(gradients),
        optimizer=sum(storages(main)[address].nbytes() for address in apart) + moments,
        parameters=built.parameters,
    )


def _weights(chunks: Sequence[DataParallel]) -> list[torch.Tensor]:
    """Fully sharded, a rank's part of the weights: what `parameters` shows then are the values of the optimizer."""
    return [
        weights
        for chunk in chunks
        for weights in (
            [group.model_weight_buffer.data for group in chunk.param_and_grad_buffer.parameter_groups]
            if isinstance(chunk, FullySharded)
            else chunk.parameters()
        )
    ]


def _gradients(chunks: Sequence[DataParallel]) -> list[torch.Tensor]:
    return [
        gradients
        for chunk in chunks
        for gradients in (
            [group.main_grad_buffer.data for group in chunk.param_and_grad_buffer.parameter_groups]
            if isinstance(chunk, FullySharded)
            else [buffer.grad_data for buffer in chunk.buffers]
        )
    ]


def built_bytes(run: RunConfig, shape: ModelShape, world_size: int, rank: int) -> BuiltBytes:
    """What rank `rank` of `world_size` holds; raises as `fake_rank`."""
    with fake_rank(run, world_size, rank):
        return bytes_of(build(run, shape))
