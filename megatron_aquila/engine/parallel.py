"""The one object that knows all parallel sizes and this process's place among them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.sampler import deal
from megatron_aquila.errors import ConfigError
from megatron_aquila.layout import require_layout

Row = TypeVar("Row")


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel dimensions and this process's coordinates."""

    world_size: int
    rank: int
    tensor_size: int
    tensor_rank: int
    pipeline_size: int
    pipeline_rank: int
    data_size: int
    data_rank: int
    virtual_size: int  # model chunks on each pipeline rank

    @property
    def is_main(self) -> bool:
        """Rank 0 of the world: the one that writes run-wide files."""
        return self.rank == 0

    @property
    def micro_batch_multiple(self) -> int:
        """What a rank's micro-batches of a step must be a multiple of: the interleaved schedule runs them in groups."""
        return self.pipeline_size if self.virtual_size > 1 else 1

    def deal(self, rows: Sequence[Row], micro_batch_size: int) -> list[list[Row]]:
        """This rank's part of the rows of a step, one list a micro-batch, as `sampler.deal` says."""
        return deal(
            rows,
            micro_batch_size=micro_batch_size,
            data_rank=self.data_rank,
            data_size=self.data_size,
            multiple=self.micro_batch_multiple,
        )

    def describe(self) -> str:
        virtual = f"×VPP{self.virtual_size}" if self.virtual_size > 1 else ""
        return f"TP{self.tensor_size}×PP{self.pipeline_size}{virtual}×DP{self.data_size}"

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """`value` of rank `source`, on every rank."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=source, device=_object_device())
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def _object_device() -> torch.device | None:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None


@contextmanager
def parallel_world(run: RunConfig, device: torch.device, timeout_minutes: float = 30) -> Iterator[Layout]:
    """Join the process group and Megatron's parallel groups; leave both at exit.

    Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them; without them, a world of one.

    Raises:
        ConfigError: the run cannot be laid out on this many processes.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    require_layout(run, world_size)
    config, seed = run.parallel, run.seed
    _init_process_group(world_size, device, timeout_minutes)
    try:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=config.tensor_parallel,
            pipeline_model_parallel_size=config.pipeline_parallel,
            virtual_pipeline_model_parallel_size=config.virtual_pipeline,
            create_gloo_process_groups=False,
        )
        torch.manual_seed(seed)
        model_parallel_cuda_manual_seed(seed)
        yield Layout(
            world_size=world_size,
            rank=dist.get_rank(),
            tensor_size=config.tensor_parallel,
            tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
            pipeline_size=config.pipeline_parallel,
            pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
            data_size=parallel_state.get_data_parallel_world_size(),
            data_rank=parallel_state.get_data_parallel_rank(),
            virtual_size=config.virtual_pipeline or 1,
        )
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def _init_process_group(world_size: int, device: torch.device, timeout_minutes: float) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = datetime.timedelta(minutes=timeout_minutes)
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
        return
    if world_size != 1:
        raise ConfigError(f"WORLD_SIZE={world_size} is set but RANK is not: start the run with torchrun or srun")
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
