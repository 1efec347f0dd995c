"""One step of training or evaluation through Megatron's pipeline schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.engine.attention import packed_sequences
from megatron_aquila.engine.context import Context
from megatron_aquila.engine.model import attends_by_document
from megatron_aquila.engine.optimizer import chained

# per-token log-probs [1, T] and the micro-batch → (sum of the loss, integer count, sums of further metrics)
Loss = Callable[[torch.Tensor, MicroBatch], tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class StepReport:
    """What a global batch gave: `means` of the loss and the metrics over `count`, and its volume, padding left out."""

    means: dict[str, float]
    count: float
    samples: float
    tokens: float
    attended: float  # Σ length² over the documents


def run_schedule(
    chunks: Sequence[torch.nn.Module],
    micro_batches: Sequence[MicroBatch],
    loss: Loss,
    *,
    metric_names: Sequence[str],
    device: torch.device,
    forward_only: bool,
) -> StepReport:
    """Run the micro-batches through the pipeline; the global mean of the loss and of each metric, on all ranks.

    Sums and counts travel apart and are divided once, after the sum over micro-batches and data-parallel ranks:
    the result and the gradient do not depend on how the batch was cut. `forward_only` is without gradients and
    without dropout; weights that are spread over the ranks must have been gathered.
    """
    sums: dict[str, torch.Tensor] = {}
    context = Context.here()
    own_attention = attends_by_document(chunks)

    def record(values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().double()
            sums[name] = sums[name] + value if name in sums else value

    def forward_step(iterator: Iterator[MicroBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(iterator)
        part, packed = model_inputs(batch, context, device, own_attention=own_attention)
        batch = batch.to(device) if context.size > 1 else part
        output = model(part.tokens, part.positions, None, labels=part.labels, packed_seq_params=packed)

        def loss_func(logps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
            if context.size > 1:
                logps = context.whole(logps)
            total, number, metrics = loss(logps, batch)
            if context.rank:  # all compute the same loss, and Megatron adds up what they count
                number, metrics = torch.zeros_like(number), {name: 0 * value for name, value in metrics.items()}
            record({"loss": 0 * total if context.rank else total, "count": number, **metrics})
            # The schedule scales the loss in place; a view or an alias of it would be scaled too.
            return total.clone(), number.to(torch.int), {}

        return output, loss_func

    iterators = [iter(micro_batches) for _ in chunks]
    with _inference(chunks) if forward_only else nullcontext():
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iterators if len(chunks) > 1 else iterators[0],
            model=list(chunks) if len(chunks) > 1 else chunks[0],
            num_microbatches=len(micro_batches),
            seq_length=micro_batches[0].tokens.shape[1],
            micro_batch_size=1,
            forward_only=forward_only,
        )
    volumes = [batch.volume for batch in micro_batches] if context.rank == 0 else []
    host = [
        sum(volume.samples for volume in volumes),
        sum(volume.tokens for volume in volumes),
        sum(volume.attended for volume in volumes),
    ]
    return _report(sums, ("count", "loss", *metric_names), host, device)


def model_inputs(
    batch: MicroBatch, context: Context, device: torch.device, *, own_attention: bool
) -> tuple[MicroBatch, PackedSeqParams]:
    """This rank's part of a micro-batch, on `device`, and what the model is told of it. With context parallelism the
    part has other tokens than those of the batch.

    own_attention: whether the layers' attention is ours (`model.attends_by_document`).
    """
    if context.size > 1:
        part = context.part(batch).to(device)
        return part, context.pack(part)
    part = batch.to(device)
    positions = part.positions[0] if own_attention else None
    return part, packed_sequences(part.cu_seqlens, part.labelled, device, positions)


@contextmanager
def _inference(chunks: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Without gradients and without dropout; afterwards the chunks are in training mode."""
    for chunk in chunks:
        chunk.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for chunk in chunks:
            chunk.train()


def _report(
    sums: dict[str, torch.Tensor], names: Sequence[str], host: Sequence[int], device: torch.device
) -> StepReport:
    """Add the sums over the data-parallel ranks, give them to every pipeline stage, divide by the count."""
    values = torch.zeros(len(names) + len(host), dtype=torch.float64, device=device)
    if sums:  # this rank holds the last stage
        on_host = torch.tensor(host, dtype=torch.float64).to(device)
        values = torch.cat([torch.stack([sums[name] for name in names]), on_host])
        dist.all_reduce(values, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        tensor = parallel_state.get_tensor_model_parallel_group()
        if tensor.size() > 1:  # they are equal, but where a device fails: a NaN on one rank must be one on all
            dist.all_reduce(values, group=tensor)
            values /= tensor.size()
    pipeline = parallel_state.get_pipeline_model_parallel_group()
    if dist.get_world_size(pipeline) > 1:
        dist.broadcast(values, src=parallel_state.get_pipeline_model_parallel_last_rank(), group=pipeline)
    count, *totals = values.tolist()
    means = {name: total / count if count else 0.0 for name, total in zip(names[1:], totals)}
    return StepReport(means, count, *totals[len(means) :])


@dataclass(frozen=True)
class Update:
    """What an optimizer step reports. `applied` is false where nothing was updated: fp16 overflowed, and the loss
    scaler takes a smaller scale next time, or the global norm of the gradients is not finite.
    """

    applied: bool
    grad_norm: float


def apply_update(optimizer: MegatronOptimizer) -> Update:
    """Clip the accumulated gradients and update the weights, if the gradients are finite.

    The steps are those of Megatron's `ChainedOptimizer.step`, which would update the weights with the clipped NaN of a
    norm that is not finite.
    """
    if optimizer.prepare_grads():
        return Update(False, 0.0)
    norm = float(optimizer.get_grad_norm())
    if not math.isfinite(norm):
        return Update(False, norm)
    for inner in chained(optimizer):
        parameters = inner.get_parameters()
        if parameters and inner.config.clip_grad > 0.0:
            clip_grad_by_total_norm_fp32(parameters, inner.config.clip_grad, norm)
    return Update(bool(optimizer.step_with_ready_grads()), norm)


def clear_gradients(chunks: Sequence[Any], optimizer: MegatronOptimizer) -> None:
    for chunk in chunks:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
