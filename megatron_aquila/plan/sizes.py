"""Parallel sizes of a run on a given number of processes."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_aquila.config import RunConfig


@dataclass(frozen=True)
class Sizes:
    """How many processes share what; `tensor · context · data · pipeline` of them make the world."""

    tensor: int
    pipeline: int
    virtual: int  # model chunks on each pipeline rank
    context: int
    data: int

    @classmethod
    def of(cls, run: RunConfig, world_size: int) -> Sizes:
        """The sizes on `world_size` processes; ValueError where they do not divide it."""
        parallel = run.parallel
        data, rest = divmod(world_size, parallel.model_parallel)
        if rest or not data:
            raise ValueError(f"{world_size} processes cannot be divided into replicas of {parallel.model_parallel}")
        return cls(
            tensor=parallel.tensor_parallel,
            pipeline=parallel.pipeline_parallel,
            virtual=parallel.virtual_pipeline or 1,
            context=parallel.context_parallel,
            data=data,
        )

    @property
    def shards(self) -> int:
        """Ranks among which gradients are summed, and optimizer state is divided."""
        return self.data * self.context

    @property
    def world(self) -> int:
        return self.tensor * self.pipeline * self.context * self.data

    def describe(self) -> str:
        virtual = f"×VPP{self.virtual}" if self.virtual > 1 else ""
        context = f"×CP{self.context}" if self.context > 1 else ""
        return f"TP{self.tensor}×PP{self.pipeline}{virtual}{context}×DP{self.data}"
