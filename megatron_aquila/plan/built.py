"""The plan's figures beside what the trainer builds, rank by rank, without weights or processes; a step of shapes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from megatron_aquila.config import RunConfig
from megatron_aquila.engine.fake_step import check_build
from megatron_aquila.plan.activations import Micro, chunk_bytes
from megatron_aquila.plan.memory import ELEMENT, RankBytes, rank_bytes
from megatron_aquila.plan.peak import micro_batch
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape


@dataclass(frozen=True)
class BuiltStage:
    """The first rank of a pipeline stage as it was built, in bytes.

    activations: what autograd kept of one micro-batch in all the rank's chunks, on the CPU; planned_activations: what
    the plan counts for a CPU, None where attention works otherwise there: with dropout in it, or context parallelism.
    """

    stage: int
    rank: int
    built: RankBytes
    planned: RankBytes
    activations: int
    planned_activations: int | None

    @property
    def as_planned(self) -> bool:
        return self.built == self.planned and self.planned_activations in (None, self.activations)

    def __str__(self) -> str:
        start = f"Rank {self.rank}, of stage {self.stage + 1}, was built and made a step of shapes"
        if self.as_planned:
            counted = "weights, gradients and optimizer"
            if self.planned_activations is not None:
                counted = "weights, gradients, optimizer and what autograd keeps"
            return f"{start}: {counted} are as planned, to the byte."
        found = f"{self.built.total:,} bytes and {self.activations:,} of activations"
        wanted = f"{self.planned.total:,} and {self.planned_activations or 0:,} were planned"
        return f"{start}: it holds {found}; {wanted}. Please report the recipe and this line."


@dataclass(frozen=True)
class Comparison:
    """problems: why a rank could not be built or stepped, a sentence each."""

    problems: tuple[str, ...]
    stages: tuple[BuiltStage, ...]
    seconds: float

    @property
    def as_planned(self) -> bool:
        return not self.problems and all(stage.as_planned for stage in self.stages)

    def lines(self) -> list[str]:
        """What is said of it; at the end what was not tried."""
        count = len(self.stages) + len(self.problems)
        return [
            *(f"It would fail: {problem}" for problem in self.problems),
            *map(str, self.stages),
            f"Built on this CPU in {self.seconds:.0f} s: {count} rank{'s' * (count > 1)}, of the first, a middle and "
            "the last pipeline stage. Kernels of a GPU, data and weights were not tried.",
        ]

    def as_json(self) -> dict[str, Any]:
        stages = [{**asdict(stage), "as_planned": stage.as_planned} for stage in self.stages]
        return {"problems": list(self.problems), "stages": stages, "seconds": self.seconds}


def compare(run: RunConfig, shape: ModelShape, sizes: Sizes) -> Comparison:
    """Build the first rank of the first, a middle and the last pipeline stage with Megatron's own model, buffers and
    optimizer, take a step of shapes on each, and compare what they hold."""
    start = time.monotonic()
    problems, found = check_build(run, sizes.world)
    stages = []
    for rank, held in found.items():
        stage = rank // (sizes.world // sizes.pipeline)
        stages.append(
            BuiltStage(
                stage,
                rank,
                built=RankBytes(held.weights, held.gradients, held.optimizer, held.parameters),
                planned=rank_bytes(run, shape, sizes.world, stage),
                activations=held.saved_activations or 0,
                planned_activations=_activations(run, shape, sizes, stage),
            )
        )
    return Comparison(tuple(problems), tuple(stages), time.monotonic() - start)


def _activations(run: RunConfig, shape: ModelShape, sizes: Sizes, stage: int) -> int | None:
    if sizes.context > 1 or run.model.attention_dropout:
        return None
    micro = Micro(
        tokens=micro_batch(run, sizes).tokens,
        element=ELEMENT[run.training.precision],
        sequence_parallel=run.parallel.sequence_parallel,
        hidden_dropout=run.model.hidden_dropout,
        fused_norm=False,
        fused_swiglu=False,
    )
    return sum(
        chunk_bytes(
            shape,
            sizes,
            micro,
            run.training.recompute,
            first=stage == 0 and number == 0,
            last=stage == sizes.pipeline - 1 and number == sizes.virtual - 1,
        )
        for number in range(sizes.virtual)
    )
