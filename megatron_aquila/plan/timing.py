"""How long a step takes: an estimate that ranks layouts, with every term named.

The product of the slowest pipeline stage at the stated MFU, what is computed again, the bubble, and the communication
that nothing hides. Bytes of a collective over n ranks are those of NCCL's ring: 2 (n - 1) / n of the tensor for an
all-reduce, (n - 1) / n for a gather or a reduce-scatter.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_aquila.config import RunConfig
from megatron_aquila.gpus import GPU
from megatron_aquila.plan.activations import Micro, logits_bytes
from megatron_aquila.plan.memory import rank_bytes
from megatron_aquila.plan.peak import micro_batch
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape

# Share of a link's data-sheet bandwidth that NCCL's large collectives reach: nccl-tests give 230 to 240 of 300 GB/s on
# A100, about 370 of 450 on H100.
_REACHED = 0.8
# Share of a collective's time that is lost although computation hides it: NCCL's kernels take multiprocessors and
# memory bandwidth from the products. Assumed.
_INTERFERENCE = 0.2


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by what they go to."""

    compute: float
    recompute: float
    bubble: float
    tensor: float
    context: float
    pipeline: float
    data: float

    @property
    def total(self) -> float:
        return self.compute + self.recompute + self.bubble + self.tensor + self.context + self.pipeline + self.data


@dataclass(frozen=True)
class Machine:
    """What the run is launched on: `node` GPUs are joined by `gpu.link`, nodes by `gpu.network`."""

    gpu: GPU
    node: int
    mfu: float


def bubble_fraction(sizes: Sizes, micro_batches: int) -> float:
    """Share of the step in which a stage waits: (p − 1) / (m·v + p − 1) (Narayanan et al. 2021, 2.2)."""
    idle = sizes.pipeline - 1
    return idle / (micro_batches * sizes.virtual + idle)


def step_time(run: RunConfig, shape: ModelShape, sizes: Sizes, machine: Machine, micro_batches: int) -> StepTime:
    """Estimated seconds of a step of `micro_batches` a replica."""
    micro = micro_batch(run, sizes)
    rate = machine.gpu.tflops * 1e12 * machine.mfu
    compute = micro_batches * _stage_flops(run, shape, sizes, micro) / rate
    again = micro_batches * _again_flops(run, shape, sizes, micro) / rate
    tensor = micro_batches * _tensor_bytes(run, shape, sizes, micro) / _bandwidth(machine, 1, sizes.tensor)
    context = micro_batches * _context_bytes(shape, sizes, micro) / _bandwidth(machine, sizes.tensor, sizes.context)
    pipeline = micro_batches * _pipeline_seconds(shape, sizes, micro, machine)
    work = compute + again + tensor + context + pipeline
    waiting = bubble_fraction(sizes, micro_batches)
    return StepTime(
        compute=compute,
        recompute=again,
        bubble=work * waiting / (1 - waiting),
        tensor=tensor,
        context=context,
        pipeline=pipeline,
        data=_data_seconds(run, shape, sizes, machine, micro_batches, work / micro_batches),
    )


def _stage_flops(run: RunConfig, shape: ModelShape, sizes: Sizes, micro: Micro) -> float:
    """Of one micro-batch on a rank of the last stage, which has the output layer beside its layers."""
    length = run.data.sequence_length
    output = 6.0 * shape.vocab_size * shape.hidden_size
    layers = shape.flops_per_token(length) - output
    return micro.tokens * (layers / sizes.pipeline + output) / sizes.tensor


def _again_flops(run: RunConfig, shape: ModelShape, sizes: Sizes, micro: Micro) -> float:
    """A forward is a third of forward and backward."""
    length = run.data.sequence_length
    output = 6.0 * shape.vocab_size * shape.hidden_size
    attention = 12.0 * shape.num_layers * shape.num_attention_heads * shape.head_dim * length
    layers = shape.flops_per_token(length) - output
    share = {"none": 0.0, "selective": attention / 3, "full": layers / 3}[run.training.recompute]
    logits = logits_bytes(shape, sizes, micro, run.model.vocab_divisible_by, run.training.logits_mib)
    return micro.tokens * (share / sizes.pipeline + logits.recomputed * output / 3) / sizes.tensor


def _tensor_bytes(run: RunConfig, shape: ModelShape, sizes: Sizes, micro: Micro) -> float:
    """Two all-reduces forward and two backward a layer; with sequence parallelism gathers and reduce-scatters, and two
    gathers more for the gradients of weights. The output layer all-reduces a float32 gradient of its input."""
    part = (sizes.tensor - 1) / sizes.tensor
    hidden = micro.tokens * shape.hidden_size * micro.element
    collectives = 10 if micro.sequence_parallel else 8
    if run.training.recompute == "full":
        collectives += 4
    layers = shape.num_layers / sizes.pipeline
    output = (2 * 4 / micro.element) * hidden
    return part * (layers * collectives * hidden + output)


def _context_bytes(shape: ModelShape, sizes: Sizes, micro: Micro) -> float:
    """Keys and values of all ranks a layer, and their gradients; again in the backward."""
    part = (sizes.context - 1) / sizes.context
    whole = 2 * shape.num_query_groups * shape.head_dim / sizes.tensor * micro.tokens * sizes.context * micro.element
    return 3 * part * whole * shape.num_layers / sizes.pipeline


def _pipeline_seconds(shape: ModelShape, sizes: Sizes, micro: Micro, machine: Machine) -> float:
    """Hidden states to the next stage and their gradients back; interleaved, for every chunk, but hidden."""
    if sizes.pipeline == 1:
        return 0.0
    hidden = micro.tokens * shape.hidden_size * micro.element
    if micro.sequence_parallel:
        hidden //= sizes.tensor
    within = sizes.tensor * sizes.context * sizes.data  # ranks from a stage to the next
    bandwidth = machine.gpu.link if within < machine.node else machine.gpu.network
    seconds = 2 * hidden / (bandwidth * 1e9 * _REACHED)
    return seconds if sizes.virtual == 1 else _INTERFERENCE * sizes.virtual * seconds


def _data_seconds(
    run: RunConfig, shape: ModelShape, sizes: Sizes, machine: Machine, micro_batches: int, micro_seconds: float
) -> float:
    """Gradients reduced and weights gathered, once a step or, fully sharded, once a micro-batch; less what overlaps.

    One micro-batch's forward (a third) hides a gather, its backward a reduction.
    """
    ranks = sizes.shards
    held = rank_bytes(run, shape, sizes.world, sizes.pipeline - 1)
    part = (ranks - 1) / ranks
    bandwidth = _bandwidth(machine, sizes.tensor, ranks)
    gradients, weights = held.parameters * 4 * part, held.parameters * micro_batch(run, sizes).element * part
    if run.parallel.sharding == "full":
        each = (gradients + 2 * weights) / bandwidth  # gathered for forward and backward
        return micro_batches * _exposed(each, micro_seconds)
    if run.parallel.sharding == "none":
        gradients, weights = 2 * gradients, 0.0
    hidden_reduce = 2 / 3 * micro_seconds if run.parallel.overlap_grad_reduce else 0.0
    hidden_gather = 1 / 3 * micro_seconds if run.parallel.overlap_param_gather else 0.0
    return _exposed(gradients / bandwidth, hidden_reduce) + _exposed(weights / bandwidth, hidden_gather)


def _exposed(seconds: float, hidden: float) -> float:
    """What `seconds` of a collective cost where computation of `hidden` seconds goes on beside it."""
    return max(seconds - hidden, _INTERFERENCE * seconds)


def _bandwidth(machine: Machine, stride: int, ranks: int) -> float:
    """Bytes a second of a collective among `ranks` ranks, `stride` apart; Megatron numbers ranks tensor first.

    Beyond a node every member on it drives a network card of its own, so the ring is as fast as these together.
    """
    link = machine.gpu.link
    if stride * ranks > machine.node:
        link = min(link, machine.gpu.network * max(1, machine.node // stride))
    return link * 1e9 * _REACHED
