"""Steps of shapes: what a rank of `fake_world.py` computes, and what autograd keeps of it for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from megatron.core import parallel_state

from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch, make_batch, volume_of
from megatron_aquila.engine.context import Context, Exchange
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.fake_world import Built, BuiltBytes, build, bytes_of, fake_rank, storages
from megatron_aquila.engine.model import attends_by_document, build_model
from megatron_aquila.engine.optimizer import set_learning_rate
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.step import Loss, apply_update, clear_gradients, model_inputs, run_schedule
from megatron_aquila.errors import AquilaError
from megatron_aquila.kernels.preference import preference_loss
from megatron_aquila.layout import check_layout
from megatron_aquila.losses.language_modelling import negative_log_likelihood
from megatron_aquila.shapes import ModelShape

_MORE_MICRO_BATCHES = 1  # than fill the pipeline: one forward follows a backward


def dry_step(run: RunConfig, world_size: int, rank: int) -> BuiltBytes:
    """One optimizer step of rank `rank` of a world of `world_size`, in shapes: the micro-batches through the pipeline,
    the reduction of gradients, clipping and the update.

    The micro-batches are synthetic, of `data.sequence_length`, and no more than fill the pipeline and a few. Neither
    data nor tokenizer nor weights are read.

    Returns:
        What the rank held before it.

    Raises:
        ConfigError: the run cannot be laid out so.
        Exception: whatever the step would raise.
    """
    # With fp16 a 1 read from a tensor would mean an overflow, and no update.
    with fake_rank(run, world_size, rank, number=0.0 if run.training.precision == "fp16" else 1.0) as layout:
        built = build(run, run.model.resolve())
        held = bytes_of(built)
        _step(run, built, layout)
        return held


def _step(run: RunConfig, built: Built, layout: Layout) -> None:
    batch, loss, metrics = synthetic_batch(run)
    count = len(layout.deal(range(run.training.global_batch_size), run.training.micro_batch_size))
    fill = layout.pipeline_size * layout.virtual_size
    multiple = layout.micro_batch_multiple
    count = min(count, -(-(fill + _MORE_MICRO_BATCHES) // multiple) * multiple)
    set_learning_rate(built.optimizer, run.optimizer.lr)
    clear_gradients(built.chunks, built.optimizer)
    run_schedule(
        built.chunks, [batch] * count, loss, metric_names=metrics, device=choose_device("cpu"), forward_only=False
    )
    update = apply_update(built.optimizer)
    if not update.applied:
        raise AquilaError("the dry step made no update, as if its gradients had not been finite")


def synthetic_batch(run: RunConfig) -> tuple[MicroBatch, Loss, tuple[str, ...]]:
    """A full micro-batch of the stage's form, one sample a sequence (a pair in its two halves), with the stage's loss
    and the names of its metrics; for a stage of someone else, the loss of language modelling."""
    rows, length = run.training.micro_batch_size, run.data.sequence_length
    tokens, labels = (torch.zeros(rows * length, dtype=torch.int64) for _ in range(2))
    if run.stage != "dpo":
        bounds = list(range(0, rows * length + 1, length))
        return make_batch(tokens, labels, bounds, volume_of(rows, bounds)), _language_modelling, ()

    from megatron_aquila.stages.dpo import METRICS, loss_settings

    settings = loss_settings(run)
    bounds = sorted({*range(0, rows * length + 1, length), *range(length // 2, rows * length, length)})
    extra = {"sequences": torch.tensor(bounds)}
    reference = torch.zeros(2 * rows, dtype=torch.float64) if settings.needs_reference else None

    def loss(logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        result = preference_loss(logps, batch.labels, batch.extra["sequences"], reference, settings)
        return result.loss, torch.tensor(rows), {name: result.total(ours) for name, ours in METRICS.items()}

    return make_batch(tokens, labels, bounds, volume_of(rows, bounds), extra), loss, tuple(METRICS)


def _language_modelling(
    logps: torch.Tensor, batch: MicroBatch
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    total, count = negative_log_likelihood(logps, batch.labels, IGNORE_INDEX)
    return total, count, {}


def saved_activations(run: RunConfig, shape: ModelShape, world_size: int, rank: int) -> list[int]:
    """Bytes that autograd keeps of the forward pass of one micro-batch, for each model chunk of the rank.

    Every storage is counted once and whole, parameters not at all, what a chunk was sent included. The output layer's
    logits are kept beside autograd (`kernels/linear.py`) and are not counted; nor is the loss.
    """
    with fake_rank(run, world_size, rank):
        return _saved_by_chunk(run, shape)


def _saved_by_chunk(run: RunConfig, shape: ModelShape) -> list[int]:
    device = choose_device("cpu")
    chunks, config = build_model(run, shape, device)
    batch, _, _ = synthetic_batch(run)
    part, packed = model_inputs(batch, Context.here(), device, own_attention=attends_by_document(chunks))
    tokens = part.tokens.shape[1]
    if config.sequence_parallel:
        tokens //= config.tensor_model_parallel_size
    found = []
    for number, chunk in enumerate(chunks):
        received = None
        if not parallel_state.is_pipeline_first_stage(
            ignore_virtual=False, vp_stage=number if len(chunks) > 1 else None
        ):
            received = torch.empty(tokens, 1, config.hidden_size, dtype=config.params_dtype, requires_grad=True)
        chunk.set_input_tensor(received)
        with _saved_by_autograd() as saved:
            chunk(part.tokens, part.positions, None, labels=part.labels, packed_seq_params=packed)
        kept = storages(saved)
        for address in storages(chunk.parameters()):
            kept.pop(address, None)
        found.append(sum(storage.nbytes() for storage in kept.values()))
    return found


def check_build(run: RunConfig, world_size: int) -> tuple[list[str], dict[int, BuiltBytes]]:
    """Build the first, a middle and the last pipeline stage of the run and take a step of shapes on each.

    Returns:
        Problems, a sentence each, and what each rank holds that could be built, by rank.
    """
    problems = check_layout(run, world_size)
    if problems:
        return problems, {}
    if run.training.fp8:  # Transformer Engine's, which has no layers for a CPU
        run = run.model_copy(update={"training": run.training.model_copy(update={"fp8": None})})
    shape, found = run.model.resolve(), {}
    stage = world_size // run.parallel.pipeline_parallel  # Megatron counts pipeline stages last
    for pipeline_rank in sorted({0, run.parallel.pipeline_parallel // 2, run.parallel.pipeline_parallel - 1}):
        rank = pipeline_rank * stage
        try:
            found[rank] = dry_step(run, world_size, rank)
        except (AquilaError, AssertionError, RuntimeError, TypeError, ValueError) as error:
            problems.append(f"rank {rank} of {world_size} would fail: {type(error).__name__}: {error}")
            continue
        found[rank] = replace(found[rank], saved_activations=sum(saved_activations(run, shape, world_size, rank)))
    return problems, found


@contextmanager
def _saved_by_autograd() -> Iterator[list[torch.Tensor]]:
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    def keep_beside_exchange(exchange: Exchange, tensor: torch.Tensor) -> Any:
        packed = pack(exchange, tensor)
        return keep(packed) if isinstance(packed, torch.Tensor) else packed

    pack = Exchange._pack  # the innermost hooks alone are asked
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        mock.patch.object(Exchange, "_pack", keep_beside_exchange),
    ):
        yield saved
