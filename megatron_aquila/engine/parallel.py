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

# Context-parallel ranks hold other tokens of a sequence, and drop others of them. Far apart: Megatron adds the tensor
# rank to the seed.
_CONTEXT_SEEDS = 1 << 20


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
    context_size: int = 1  # ranks that share the tokens of a micro-batch
    context_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Rank 0 of the world: the one that writes run-wide files."""
        return self.rank == 0

    @property
    def copies(self) -> int:
        """Ranks that hold the same weights: data-parallel replicas, and in each the context-parallel ranks.

        Where attention stays within a rank, as in scoring and generation, every copy does work of its own.
        """
        return self.data_size * self.context_size

    @property
    def copy_rank(self) -> int:
        """This process's place among the `copies`; it is 0 on the one that writes what all of them hold."""
        return self.data_rank * self.context_size + self.context_rank

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
        context = f"×CP{self.context_size}" if self.context_size > 1 else ""
        return f"TP{self.tensor_size}×PP{self.pipeline_size}{virtual}{context}×DP{self.data_size}"

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

    def total(self, values: Sequence[int]) -> list[int]:
        """The sums over all ranks of whole numbers below 2^63; what is above wraps around, as in two's complement."""
        if self.world_size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.int64, device=_object_device())
        dist.all_reduce(sums)
        return [int(value) for value in sums.tolist()]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()


def _object_device() -> torch.device | None:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else None


def seed_ranks(seed: int) -> None:
    """Give this rank's generators their first states: dropout differs where the layout wants it to."""
    seed += _CONTEXT_SEEDS * parallel_state.get_context_parallel_rank()
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)


@contextmanager
def parallel_world(run: RunConfig, device: torch.device, timeout_minutes: float = 30) -> Iterator[Layout]:
    """Join the process group and Megatron's parallel groups; leave both at exit.

    Reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them; without them, a world of one.

    Raises:
        ConfigError: the run cannot be laid out on this many processes.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    require_layout(run, world_size)
    _init_process_group(world_size, device, timeout_minutes)
    with parallel_groups(run) as layout:
        yield layout


@contextmanager
def parallel_groups(run: RunConfig) -> Iterator[Layout]:
    """Megatron's parallel groups in the world that this process has joined; leave both at exit."""
    config, seed, world_size = run.parallel, run.seed, dist.get_world_size()
    try:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=config.tensor_parallel,
            pipeline_model_parallel_size=config.pipeline_parallel,
            virtual_pipeline_model_parallel_size=config.virtual_pipeline,
            context_parallel_size=config.context_parallel,
            create_gloo_process_groups=False,
        )
        seed_ranks(seed)
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
            context_size=config.context_parallel,
            context_rank=parallel_state.get_context_parallel_rank(),
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
