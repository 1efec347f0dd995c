"""The plan's exact figures beside the objects that the trainer builds, rank by rank, without weights or processes."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_aquila.config import RunConfig
from megatron_aquila.engine.fake_world import built_bytes
from megatron_aquila.plan.memory import RankBytes, rank_bytes
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape


@dataclass(frozen=True)
class BuiltStage:
    """The first rank of a pipeline stage as it was built."""

    stage: int
    rank: int
    weights: int
    gradients: int
    optimizer: int
    planned: int
    as_planned: bool

    def __str__(self) -> str:
        built = f"Built rank {self.rank}, of stage {self.stage + 1}"
        if self.as_planned:
            return f"{built}: weights, gradients and optimizer are as planned, to the byte."
        total = self.weights + self.gradients + self.optimizer
        return (
            f"{built}: weights, gradients and optimizer take {total:,} bytes, and {self.planned:,} were planned; "
            "please report the recipe and this line."
        )


def compare(run: RunConfig, shape: ModelShape, sizes: Sizes) -> list[BuiltStage]:
    """Build the first rank of every pipeline stage, with Megatron's own model, buffers and optimizer."""
    stages = []
    for stage in range(sizes.pipeline):
        rank = stage * (sizes.world // sizes.pipeline)
        found = built_bytes(run, shape, sizes.world, rank)
        built = RankBytes(found.weights, found.gradients, found.optimizer, found.parameters)
        planned = rank_bytes(run, shape, sizes.world, stage)
        stages.append(
            BuiltStage(
                stage, rank, built.weights, built.gradients, built.optimizer, planned.total, as_planned=built == planned
            )
        )
    return stages
