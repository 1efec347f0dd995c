"""Gradient buffers, Adam and its state as global tensors.

Megatron builds the optimizer in three forms, chosen by precision and by `parallel.sharding`. What a
checkpoint needs of all three is the same: for each parameter, the float32 values being optimised and Adam's two
moments. `OptimizerState` finds them and moves them to and from global tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from megatron.core.optimizer.optimizer import ChainedOptimizer
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_aquila.config import RunConfig
from megatron_aquila.engine.fsdp import FullySharded, held_parts, to_local
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.placement import Placement, place_parameters
from megatron_aquila.global_tensors import TensorReader
from megatron_aquila.shapes import ModelShape

DataParallel: TypeAlias = DistributedDataParallel | FullySharded


def wrap_data_parallel(
    run: RunConfig, config: TransformerConfig, chunks: Sequence[torch.nn.Module]
) -> list[DataParallel]:
    """Give every chunk contiguous float32 gradient buffers and wire their reduction into the schedule.

    With `parallel.sharding: full` the chunks' weights are divided among the data-parallel ranks here: load them before.
    """
    parallel = run.parallel
    config.finalize_model_grads_func = finalize_model_grads
    if parallel.sharding == "full":
        device = next(chunks[0].parameters()).device
        fully_sharded = FullySharded(config, chunks[0], device)  # `layout.py` lets no pipeline come here
        config.no_sync_func = fully_sharded.no_sync
        return [fully_sharded]
    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=parallel.sharding == "optimizer",
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        check_for_nan_in_grad=False,  # the trainer's policy decides, on the reduced norm
    )
    wrapped = [
        # Only the first chunk's reduction can overlap with a later chunk's backward.
        DistributedDataParallel(config, ddp_config, chunk, disable_bucketing=index > 0)
        for index, chunk in enumerate(chunks)
    ]

    def single_or_list(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else values

    if parallel.overlap_grad_reduce:
        config.no_sync_func = single_or_list([chunk.no_sync for chunk in wrapped])
        config.grad_sync_func = single_or_list([chunk.start_grad_sync for chunk in wrapped])
    if parallel.overlap_param_gather:
        config.param_sync_func = single_or_list([chunk.start_param_sync for chunk in wrapped])
    return wrapped


def build_optimizer(run: RunConfig, config: TransformerConfig, chunks: list[DataParallel]) -> MegatronOptimizer:
    """AdamW with global norm clipping; no weight decay on norms and biases. The trainer sets the learning rate."""
    settings = run.optimizer
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.betas[0],
            adam_beta2=settings.betas[1],
            adam_eps=settings.eps,
            clip_grad=settings.clip_grad,
            bf16=config.bf16,
            fp16=config.fp16,
            # The loss is a sum over tokens: 2^16 for its mean. Megatron's 2^32 would skip tens of steps to come down.
            initial_loss_scale=max(1.0, 2.0**16 / (run.training.micro_batch_size * run.data.sequence_length)),
            params_dtype=config.params_dtype,
            use_distributed_optimizer=run.parallel.sharding != "none",
            overlap_param_gather=run.parallel.overlap_param_gather,
        ),
        chunks,
        use_gloo_process_groups=False,
    )
    config.grad_scale_func = optimizer.scale_loss
    if run.parallel.sharding != "full":  # whose parameters are DTensors
        _fuse(optimizer)
    return optimizer


def _fuse(optimizer: MegatronOptimizer) -> None:
    """One pass over the weights instead of a dozen, where Megatron falls back to torch's AdamW; no temporaries."""
    for inner in chained(optimizer):
        if isinstance(inner.optimizer, torch.optim.AdamW):
            for group in inner.optimizer.param_groups:
                group["fused"] = True


def chained(optimizer: MegatronOptimizer) -> list[MegatronOptimizer]:
    return optimizer.chained_optimizers if isinstance(optimizer, ChainedOptimizer) else [optimizer]


def set_learning_rate(optimizer: MegatronOptimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_mult", 1.0)


def gather_parameters(chunks: Sequence[DataParallel]) -> None:
    """Complete the weights after an update, before they are evaluated or saved.

    With `overlap_param_gather` a rank holds new values of its own part only until the next training step's forward
    gathers the rest; an evaluation or a checkpoint before that would see a mixture of two steps. Fully sharded weights
    are gathered by every forward, and saved from where they lie.
    """
    for chunk in chunks:
        if isinstance(chunk, FullySharded):
            chunk.release_weights()
        elif chunk.ddp_config.overlap_param_gather:
            chunk.start_param_sync(force_sync=True)


def release(chunks: Sequence[DataParallel], optimizer: MegatronOptimizer) -> None:
    """Let go of weights, gradients and optimizer state, so that deleting the last reference frees them.

    All ranks call it; nothing can be done with the objects afterwards. Autograd's hooks hold Megatron's wrappers, and
    these the hooks, in a circle through C++ that no collection finds: emptied wrappers hold nothing.
    """
    gather_parameters(chunks)  # the process group must not end beneath an exchange under way
    for chunk in chunks:
        if isinstance(chunk, FullySharded):
            chunk.module.__dict__.clear()
        chunk.__dict__.clear()
    for inner in chained(optimizer):
        inner.optimizer.__dict__.clear()
        inner.__dict__.clear()


class OptimizerState:
    """The optimised values and Adam moments of this rank, as blocks of global tensors.

    `main` (the float32 values) exists apart from the weights only where the model is bf16 or fp16.
    """

    def __init__(
        self,
        optimizer: MegatronOptimizer,
        chunks: Sequence[torch.nn.Module],
        shape: ModelShape,
        layout: Layout,
    ) -> None:
        self._optimizers = chained(optimizer)
        self._placed = place_parameters(chunks, shape, layout)
        self._held = held_parts(chunks)
        self._layout = layout

    def blocks(self) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...], torch.Tensor]]:
        """`(name, global shape, offset, block)` of everything this rank has to write."""
        for parameter, placement, flat_main, start, state in self._owned(create=False):
            if not placement.writes or (not self._sharded(parameter) and self._layout.copy_rank > 0):
                continue
            for kind, flat in self._tensors(parameter, flat_main, state):
                for view, offset in placement.views(flat, start):
                    yield f"optimizer.{kind}.{placement.name}", placement.global_shape, offset, view

    @torch.no_grad()
    def load(self, reader: TensorReader, step: int) -> None:
        """Take moments and float32 values from `reader`; `step` is the count of updates made so far.

        Before the first update (fp16 may skip some) there are no moments, and the weights hold all there is.
        """
        if step == 0:
            return
        for parameter, placement, flat_main, start, state in self._owned(create=True):
            for kind, flat in self._tensors(parameter, flat_main, state):
                for view, offset in placement.views(flat, start):
                    key = f"optimizer.{kind}.{placement.name}"
                    view.copy_(reader.read(key, offset, tuple(view.shape)))
            if isinstance(state.get("step"), torch.Tensor):  # torch's AdamW counts per parameter
                state["step"].fill_(step)
        for optimizer in self._optimizers:
            for group in optimizer.optimizer.param_groups:
                if "step" in group or not self._counts_per_parameter():  # Apex's and TE's count per group
                    group["step"] = step

    def scaler(self) -> dict[str, float] | None:
        """The state of the fp16 loss scaler, or None where there is none."""
        scaler = getattr(self._optimizers[0], "grad_scaler", None)
        if scaler is None:
            return None
        state = scaler.state_dict()
        return {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in state.items()}

    def load_scaler(self, state: dict[str, float] | None) -> None:
        scaler = getattr(self._optimizers[0], "grad_scaler", None)
        if scaler is not None and state is not None:
            scaler.load_state_dict({**state, "scale": torch.tensor([state["scale"]])})

    def _counts_per_parameter(self) -> bool:
        return isinstance(self._optimizers[0].optimizer, torch.optim.AdamW)

    @staticmethod
    def _tensors(
        parameter: torch.nn.Parameter, flat_main: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        if parameter.dtype != torch.float32:
            yield "main", flat_main
        yield "exp_avg", to_local(state["exp_avg"]).view(-1)
        yield "exp_avg_sq", to_local(state["exp_avg_sq"]).view(-1)

    def _sharded(self, parameter: torch.nn.Parameter) -> bool:
        return isinstance(self._owner(parameter), DistributedOptimizer)

    def _owner(self, parameter: torch.nn.Parameter) -> MegatronOptimizer | None:
        for optimizer in self._optimizers:
            if isinstance(optimizer, DistributedOptimizer) and not self._held:
                if parameter in optimizer.model_param_group_index_map:
                    return optimizer
            else:
                return optimizer
        return None

    def _owned(
        self, create: bool
    ) -> Iterator[tuple[torch.nn.Parameter, Placement, torch.Tensor, int, dict[str, torch.Tensor]]]:
        """`(parameter, placement, flat float32 values, first element held, Adam state)` of what this rank updates."""
        for parameter, placement in self._placed:
            owner = self._owner(parameter)
            if owner is None:  # another data-parallel rank updates all of it
                continue
            start = 0
            if parameter in self._held:
                main, start = self._held[parameter].main, self._held[parameter].start
            elif isinstance(owner, DistributedOptimizer):
                group, order = owner.model_param_group_index_map[parameter]
                main = owner.optimizer.param_groups[group]["params"][order]
                start = owner._get_model_param_range_map(parameter)["param"].start
            else:
                main = getattr(parameter, "main_param", parameter)
            state = owner.optimizer.state[main]
            if not state and create:
                state["exp_avg"] = torch.zeros_like(main)
                state["exp_avg_sq"] = torch.zeros_like(main)
                if self._counts_per_parameter():
                    state["step"] = torch.zeros((), device=main.device)
            if state:
                yield parameter, placement, to_local(main.data).view(-1), start, state
