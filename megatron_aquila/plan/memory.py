"""Bytes of weights, gradients and optimizer state on a rank: exact, to the byte, as Megatron-core 0.16 lays them out.

bf16 and fp16: 2 B a weight, 4 B of gradient (always float32), 12 B of optimizer (float32 value and Adam's two moments),
18 B a parameter in all where nothing is divided. fp32: 4 + 4 + 8. `tests/megatron_aquila/test_plan_exact.py` compares
with the objects that the trainer builds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from megatron_aquila.config import RunConfig
from megatron_aquila.plan.buffers import Bucket, bucket_size, ddp_buckets, fsdp_buckets
from megatron_aquila.plan.parameters import Tensor, chunks_of
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.shapes import ModelShape

ELEMENT = {"bf16": 2, "fp16": 2, "fp32": 4}
"""Bytes of a number in the model's arithmetic."""
_FLOAT32 = 4


@dataclass(frozen=True)
class RankBytes:
    """What a rank holds for all of a run.

    weights and gradients: of the buffers, padding included. optimizer: of what this rank updates, Adam's counters left
    out. parameters: elements, vocabulary padding included, before they are divided among data-parallel ranks.
    """

    weights: int
    gradients: int
    optimizer: int
    parameters: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def rank_bytes(
    run: RunConfig,
    shape: ModelShape,
    world_size: int,
    pipeline_rank: int,
    tensor_rank: int = 0,
    data_rank: int | None = 0,
) -> RankBytes:
    """Bytes on one rank. Tensor-parallel ranks hold the like; `data_rank` counts over context parallelism too, and is
    None for the largest of them all.

    Raises:
        ValueError: there is no such rank.
    """
    sizes = Sizes.of(run, world_size)
    for rank, count in ((pipeline_rank, sizes.pipeline), (tensor_rank, sizes.tensor), (data_rank or 0, sizes.shards)):
        if not 0 <= rank < count:
            raise ValueError(f"rank {rank} of {count}")
    parallel = run.parallel
    totals = _totals(
        shape,
        sizes,
        run.model.vocab_divisible_by,
        parallel.sharding,
        parallel.overlap_grad_reduce,
        pipeline_rank,
    )
    owned = max(totals.owned) if data_rank is None else totals.owned[data_rank]
    element, low = ELEMENT[run.training.precision], run.training.precision != "fp32"
    main = 0
    if low:  # a float32 copy: of what is owned, or, fully sharded, a buffer like that of the weights
        main = totals.buffer if parallel.sharding == "full" else owned
    return RankBytes(
        weights=totals.weights * element,
        gradients=totals.buffer * _FLOAT32,
        optimizer=(main + 2 * owned) * _FLOAT32,
        parameters=totals.parameters,
    )


@dataclass(frozen=True)
class _Totals:
    """Elements on a rank: `buffer` of its gradients, `owned` what each data-parallel rank updates."""

    parameters: int
    weights: int
    buffer: int
    owned: tuple[int, ...]


@lru_cache(maxsize=4096)
def _totals(
    shape: ModelShape, sizes: Sizes, vocab_divisible_by: int, sharding: str, overlap: bool, pipeline_rank: int
) -> _Totals:
    chunks = chunks_of(shape, sizes, vocab_divisible_by, pipeline_rank)
    parameters = sum(tensor.size for chunk in chunks for tensor in chunk)
    if sharding == "none":  # no padding, and the weights stay where they were
        return _Totals(parameters, parameters, parameters, (parameters,) * sizes.shards)
    buckets = [
        bucket
        for number, chunk in enumerate(chunks)
        for bucket in _buckets(chunk, sizes, sharding, overlap, pipeline_rank, number)
    ]
    owned = tuple(map(sum, zip(*(bucket.owned(sizes.shards) for bucket in buckets))))
    buffer = sum(bucket.size for bucket in buckets)
    if sharding == "full":
        buffer //= sizes.shards
    return _Totals(parameters, buffer, buffer, owned)


def _buckets(
    chunk: tuple[Tensor, ...], sizes: Sizes, sharding: str, overlap: bool, pipeline_rank: int, number: int
) -> Iterable[Bucket]:
    if sharding == "full":
        return fsdp_buckets(chunk, sizes.shards)
    limit = bucket_size(sizes.data, overlap=overlap, pipeline_rank=pipeline_rank, chunk=number)
    return ddp_buckets(chunk, sizes.shards, limit)
