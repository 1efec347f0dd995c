"""One layout of one run on one machine: whether it works, whether it fits, how long a step takes."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_aquila.config import RunConfig
from megatron_aquila.layout import check_layout
from megatron_aquila.plan.peak import StageBytes, available, stage_bytes
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.plan.timing import Machine, StepTime, bubble_fraction, step_time
from megatron_aquila.plan.workload import Workload
from megatron_aquila.shapes import ModelShape


@dataclass(frozen=True)
class Assessment:
    """What a layout needs: memory of each pipeline stage's worst rank, and time."""

    run: RunConfig
    sizes: Sizes
    micro_batches: int
    stages: tuple[StageBytes, ...]
    limit: int  # bytes that may be filled
    time: StepTime

    @property
    def worst(self) -> StageBytes:
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool:
        return self.worst.total <= self.limit

    @property
    def bubble(self) -> float:
        return bubble_fraction(self.sizes, self.micro_batches)


def assess(
    run: RunConfig, shape: ModelShape, work: Workload, gpus: int, machine: Machine, memory: int
) -> Assessment | list[str]:
    """The assessment, or what keeps the run from being laid out on so many GPUs, a sentence each.

    `memory` is of one GPU, in bytes.
    """
    problems = check_layout(run, gpus)
    if problems:
        return problems
    sizes = Sizes.of(run, gpus)
    micro_batches = work.micro_batches(run, sizes)
    stages = tuple(stage_bytes(run, shape, sizes, stage, micro_batches) for stage in range(sizes.pipeline))
    time = step_time(run, shape, sizes, machine, micro_batches)
    return Assessment(run, sizes, micro_batches, stages, available(memory), time)
