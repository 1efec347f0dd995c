"""The most memory that a rank of each pipeline stage needs at once.

Weights, gradients and optimizer are exact (`memory.py`), activations are what autograd keeps (`activations.py`) times
the micro-batches in flight. The rest is estimated, each constant below with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_aquila.config import RunConfig
from megatron_aquila.plan.activations import (
    Micro,
    backward_bytes,
    first_bytes,
    last_bytes,
    layer_bytes,
    logits_bytes,
    rotary_bytes,
)
from megatron_aquila.plan.buffers import fsdp_buckets
from megatron_aquila.plan.memory import ELEMENT, rank_bytes
from megatron_aquila.plan.parameters import chunks_of
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape

GIB = 1 << 30
# A CUDA context with the kernels of torch, cuBLAS and ours; cuBLAS keeps a workspace of 32 MiB a stream on Hopper.
CONTEXT_BYTES = int(0.75 * GIB)
# NCCL's buffers of one communicator that moves tensors: 4 MiB a channel, direction and protocol.
COMMUNICATOR_BYTES = int(0.25 * GIB)
# What the allocator of torch cannot use: free pieces too small for what is asked.
RESERVE = 0.05


@dataclass(frozen=True)
class StageBytes:
    """Bytes of the worst rank of one pipeline stage.

    logits and backward are not held at once: the larger of them counts.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    backward: int
    communication: int
    context: int

    @property
    def total(self) -> int:
        exact = self.weights + self.gradients + self.optimizer
        return exact + self.activations + max(self.logits, self.backward) + self.communication + self.context


def micro_batch(run: RunConfig, sizes: Sizes) -> Micro:
    """The micro-batch that a rank of this run computes, on a GPU."""
    rows = run.training.micro_batch_size
    tokens = rows * run.data.sequence_length // sizes.context
    return Micro(
        tokens=tokens,
        element=ELEMENT[run.training.precision],
        sequence_parallel=run.parallel.sequence_parallel,
        hidden_dropout=run.model.hidden_dropout,
        exchanged=sizes.context > 1 and rows % (2 * sizes.context) != 0,  # else each of a rank's parts is whole rows
        fused_swiglu=run.training.compile is not False,  # null: where there is triton, as beside every CUDA build
    )


def in_flight(sizes: Sizes, stage: int, micro_batches: int) -> int:
    """Micro-batches, of one model chunk each, that a stage keeps activations of: 1F1B, or interleaved."""
    ahead = sizes.pipeline - stage - 1
    if sizes.virtual > 1:
        ahead = 2 * ahead + (sizes.virtual - 1) * sizes.pipeline
    return min(micro_batches * sizes.virtual, ahead + 1)


def stage_bytes(run: RunConfig, shape: ModelShape, sizes: Sizes, stage: int, micro_batches: int) -> StageBytes:
    """What the worst rank of a pipeline stage holds at its peak. `micro_batches`: of a step, on one replica."""
    micro = micro_batch(run, sizes)
    recompute = run.training.recompute
    held = rank_bytes(run, shape, sizes.world, stage, data_rank=None)
    layers = shape.num_layers // (sizes.pipeline * sizes.virtual)
    flying = in_flight(sizes, stage, micro_batches)
    activations = flying * layers * layer_bytes(shape, sizes, micro, recompute) + rotary_bytes(shape, micro, recompute)
    if stage == 0:
        activations += -(-flying // sizes.virtual) * first_bytes(shape, sizes, micro)
    logits = 0
    if stage == sizes.pipeline - 1:
        activations += last_bytes(shape, sizes, micro)
        output = logits_bytes(shape, sizes, micro, run.model.vocab_divisible_by, run.training.logits_mib)
        logits = output.stored + output.working
    return StageBytes(
        weights=held.weights,
        gradients=held.gradients,
        optimizer=held.optimizer,
        activations=activations,
        logits=logits,
        backward=backward_bytes(shape, sizes, micro, recompute),
        communication=_communication(run, shape, sizes, micro, stage),
        context=CONTEXT_BYTES,
    )


def available(memory: int) -> int:
    """Bytes of a GPU of `memory` bytes that a plan may fill."""
    return int(memory * (1 - RESERVE))


def _communication(run: RunConfig, shape: ModelShape, sizes: Sizes, micro: Micro, stage: int) -> int:
    communicators = sum(size > 1 for size in (sizes.tensor, sizes.pipeline, sizes.context, sizes.data))
    total = communicators * COMMUNICATOR_BYTES
    hidden = micro.tokens * shape.hidden_size * micro.element
    if micro.sequence_parallel:
        total += 2 * hidden  # all ranks' tokens for the product at work, and its gradient
    if sizes.pipeline > 1:
        total += 2 * hidden // (sizes.tensor if micro.sequence_parallel else 1)  # one coming in, one going out
    if micro.exchanged:  # keys and values that all ranks sent, those that this one looks at, and their gradient
        key_values = 2 * shape.num_query_groups * shape.head_dim // sizes.tensor
        total += 3 * micro.tokens * sizes.context * key_values * micro.element
    if run.parallel.sharding == "full":
        total += _gathered(run, shape, sizes, micro, stage)
    return total


def _gathered(run: RunConfig, shape: ModelShape, sizes: Sizes, micro: Micro, stage: int) -> int:
    """Fully sharded: weights gathered for the layers at work and ahead, float32 gradients before they are reduced.

    Embedding, final norm and output layer are one bucket: gathered all through the model, its gradients whole until the
    embedding's have come.
    """
    (chunk,) = chunks_of(shape, sizes, run.model.vocab_divisible_by, stage)
    rest, *layers = (bucket.size for bucket in fsdp_buckets(chunk, sizes.shards))
    one = layers[0]
    queue = 2 * one  # elements; engine/fsdp.py says so
    ahead = min(len(layers), 1 + -(-queue // 2 // one))
    waiting = min(len(layers), queue // one + 2)  # what the queue holds, what overfills it, what is being filled
    return (rest + ahead * one) * micro.element + (rest + waiting * one) * 4
