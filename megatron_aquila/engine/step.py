"""One step of training or evaluation through Megatron's pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.engine.attention import packed_sequences

# per-token log-probs [1, T] and the micro-batch → (sum of the loss, integer count, sums of further metrics)
Loss = Callable[[torch.Tensor, MicroBatch], tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]]


def run_schedule(
    chunks: Sequence[torch.nn.Module],
    micro_batches: Sequence[MicroBatch],
    loss: Loss,
    *,
    metric_names: Sequence[str],
    tokens_per_micro_batch: int,
    device: torch.device,
    forward_only: bool,
) -> dict[str, float]:
    """Run the micro-batches through the pipeline and return the global mean of the loss and of each metric.

    Sums and counts travel apart and are divided once, after the sum over micro-batches and data-parallel ranks:
    the result and the gradient do not depend on how the batch was cut. All ranks get the figures.
    """
    sums: dict[str, torch.Tensor] = {}

    def record(values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().double()
            sums[name] = sums[name] + value if name in sums else value

    def forward_step(iterator: Iterator[MicroBatch], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(iterator).to(device)
        output = model(
            batch.tokens,
            batch.positions,
            None,
            labels=batch.labels,
            packed_seq_params=packed_sequences(batch.cu_seqlens, device),
        )

        def loss_func(logps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
            total, number, metrics = loss(logps, batch)
            record({"loss": total, "count": number, **metrics})
            # The schedule scales the loss in place; a view or an alias of it would be scaled too.
            return total.clone(), number.to(torch.int), {}

        return output, loss_func

    iterators = [iter(micro_batches) for _ in chunks]
    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iterators if len(chunks) > 1 else iterators[0],
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(micro_batches),
        seq_length=tokens_per_micro_batch,
        micro_batch_size=1,
        forward_only=forward_only,
    )
    return _mean_over_world(sums, ("count", "loss", *metric_names), device)


def _mean_over_world(sums: dict[str, torch.Tensor], names: Sequence[str], device: torch.device) -> dict[str, float]:
    """Add the sums over the data-parallel ranks, give them to every pipeline stage, divide by the count."""
    values = torch.zeros(len(names), dtype=torch.float64, device=device)
    if sums:  # this rank holds the last stage
        values = torch.stack([sums[name] for name in names])
        dist.all_reduce(values, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    pipeline = parallel_state.get_pipeline_model_parallel_group()
    if dist.get_world_size(pipeline) > 1:
        dist.broadcast(values, src=parallel_state.get_pipeline_model_parallel_last_rank(), group=pipeline)
    totals = dict(zip(names, values.tolist()))
    count = totals.pop("count")
    return {name: total / count if count else 0.0 for name, total in totals.items()} | {"count": count}


@dataclass(frozen=True)
class Update:
    """What an optimizer step reports. `applied` is false where fp16 overflowed and the step was skipped."""

    applied: bool
    grad_norm: float


def apply_update(optimizer: MegatronOptimizer) -> Update:
    """Clip the accumulated gradients and update the weights."""
    applied, grad_norm, _ = optimizer.step()
    return Update(bool(applied), float(grad_norm) if grad_norm is not None else 0.0)


def clear_gradients(chunks: Sequence[Any], optimizer: MegatronOptimizer) -> None:
    for chunk in chunks:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
