"""Fully sharded data parallelism (ZeRO-3): Megatron-FSDP around our model.

Weights, gradients and Adam's state are divided among the data-parallel ranks; a layer's weights are gathered before
it computes and let go after it. What is ours here: process groups on any device, the output layer's weight gathered
where `AquilaModel` reads it, and the ranges of each parameter that this rank holds, so that a checkpoint is the same
blocks of global tensors as under every other sharding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.distributed.fsdp.mcore_fsdp_adapter import FullyShardedDataParallel
from megatron.core.distributed.fsdp.src.megatron_fsdp import FSDPDistributedIndex
from megatron.core.extensions.transformer_engine import HAVE_TE
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from megatron_aquila.engine.model import bare


class _Called(torch.nn.Module):
    """Megatron-FSDP 0.16 runs `forward` of what it wraps, past the hooks that it put there itself, and gradients come
    out wrong. With one module more, as `Float16Module` is for bf16, the model's hooks run."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> torch.Tensor:
        return self.module(*inputs, **kwargs)


class FullySharded(FullyShardedDataParallel):
    """A chunk of the model, fully sharded over its data-parallel ranks. Pipeline stages are not supported."""

    def __init__(self, config: TransformerConfig, chunk: torch.nn.Module, device: torch.device) -> None:
        self._device_type = device.type
        model = bare(chunk)
        super().__init__(
            config,
            DistributedDataParallelConfig(
                grad_reduce_in_fp32=True,
                use_distributed_optimizer=True,
                use_megatron_fsdp=True,
                data_parallel_sharding_strategy="optim_grads_params",
                # Always so when parameters are sharded; said here because the schedule asks this object.
                overlap_grad_reduce=True,
                overlap_param_gather=True,
                preserve_fp32_weights=config.params_dtype != torch.float32,
                check_for_nan_in_grad=False,
                # Two layers: the one at work and the next. What Megatron-FSDP 0.16 calls a cap of this is a floor of a
                # billion elements, gigabytes of gathered weights and of gradients that wait.
                suggested_communication_unit_size=2 * _elements(model.decoder.layers[0]),
            ),
            chunk if isinstance(chunk, Float16Module) else _Called(chunk),
            device=device,
        )
        # `AquilaModel` reads this weight without calling the layer, whose hook would gather it.
        if model.post_process and model.output_layer.weight is not None:
            model.decoder.register_forward_pre_hook(lambda *_: self._gather([model.output_layer.weight]))

    def _gather(self, parameters: list[torch.nn.Parameter]) -> None:
        self.module.all_gather_and_wait_parameters_ready(params=parameters)

    def release_weights(self) -> None:
        """Wait for gathers under way and let go of everything gathered. An optimizer step leaves one under way, for a
        forward that may not come: the process group must not end beneath it."""
        gathers = self.module.all_gather_pipeline
        for bucket in range(gathers.num_buckets):
            gathers.wait_bucket_ready(bucket, bwd=False, empty_ok=True)
        self.module.synchronize_param_gather()

    def _init_dist_index(self, pg_collection: Any) -> FSDPDistributedIndex:
        """As Megatron's, without its need of einops and on the CPU too."""
        data = parallel_state.get_data_parallel_group(with_context_parallel=True)
        tensor = parallel_state.get_tensor_model_parallel_group()
        ranks = torch.arange(dist.get_world_size()).view(data.size(), tensor.size())
        mesh = DeviceMesh.from_group(
            [data, tensor], self._device_type, mesh=ranks.tolist(), mesh_dim_names=("dp_cp", "tp")
        )
        self.tp_group = tensor
        return FSDPDistributedIndex(device_mesh=mesh, dp_shard_dim="dp_cp", tp_dim="tp")

    def _fix_tensor_parallel_attributes(self, module: torch.nn.Module) -> None:
        if HAVE_TE:  # it marks weights of Transformer Engine's layers, and fails without them (0.16.1)
            super()._fix_tensor_parallel_attributes(module)

    def sync_rng_states_across_tp_group(self) -> None:
        """Nothing: Megatron's gives every tensor-parallel rank the first one's dropout."""


def _elements(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@dataclass(frozen=True)
class HeldPart:
    """What this rank holds of one parameter: elements `start …` of the flattened local tensor."""

    start: int
    model: torch.Tensor  # flat, the values that the model computes with
    main: torch.nn.Parameter  # the same elements as the optimizer knows them: a DTensor, float32


def local_parameters(chunk: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Names in the bare model, and parameters with the shape that this tensor-parallel rank computes with.

    A fully sharded chunk shows its layers DTensors of another shape between the steps; these are the ones beneath.
    """
    if not isinstance(chunk, FullySharded):
        yield from bare(chunk).named_parameters()
        return
    for name, parameter in chunk.module.raw_param.items():
        yield name.removeprefix("module."), parameter


def held_parts(chunks: Sequence[torch.nn.Module]) -> dict[torch.nn.Parameter, HeldPart]:
    """The part of each of `local_parameters` that this rank holds; empty where chunks are not fully sharded."""
    held = {}
    for chunk in chunks:
        if not isinstance(chunk, FullySharded):
            continue
        buffer = chunk.param_and_grad_buffer
        for _, main in buffer.optimizer_named_parameters:
            parameter = main.orig_param
            weights = buffer.parameter_groups[buffer.param_to_param_group[parameter]].model_weight_buffer
            flat = weights.get_item(weights.param_idx[parameter], only_shard=True)
            held[parameter] = HeldPart(main.megatron_fsdp_slice.start, flat, main)
    return held


def to_local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's elements of a DTensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
