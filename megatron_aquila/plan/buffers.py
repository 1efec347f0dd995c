"""How Megatron-core 0.16 lays parameters and gradients into flat buffers, and which part a data-parallel rank owns.

Two layouts. DDP with the distributed optimizer (`distributed/param_and_grad_buffer.py`): parameters in reverse order,
each starting at a multiple of 64 elements, cut into buckets that end at a multiple of lcm(ranks, 128). Megatron-FSDP
(`fsdp/src/megatron_fsdp/param_and_grad_buffer.py`): a bucket a layer and one for the rest, cut so that no shard ends
within a row. A rank owns the same part of every bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from megatron_aquila.plan.parameters import Tensor

_PARAMETER_ALIGNMENT = 64  # elements: 128 bytes of bf16
_BUCKET_ALIGNMENT = 128


@dataclass(frozen=True)
class Bucket:
    """Elements `start … end` of a buffer, padding included, and where parameters lie in them: `[(first, last), …]`."""

    start: int
    end: int
    parameters: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return self.end - self.start

    def owned(self, shards: int) -> list[int]:
        """Elements of parameters in the part of each of `shards` ranks."""
        part = self.size // shards
        counts = [0] * shards
        for first, last in self.parameters:
            for rank in range((first - self.start) // part, -(-(last - self.start) // part)):
                low = self.start + rank * part
                counts[rank] += min(last, low + part) - max(first, low)
        return counts


def bucket_size(data: int, *, overlap: bool, pipeline_rank: int, chunk: int) -> int | None:
    """Elements after which DDP ends a bucket; None: never. Only the first stage's first chunk has several."""
    if not overlap or pipeline_rank > 0 or chunk > 0:
        return None
    return max(40_000_000, 1_000_000 * data)


def ddp_buckets(tensors: Sequence[Tensor], shards: int, size: int | None) -> list[Bucket]:
    """The buckets of one chunk under the distributed optimizer."""
    alignment = math.lcm(shards, _BUCKET_ALIGNMENT)
    buckets: list[Bucket] = []
    start, position = 0, 0
    held: list[tuple[int, int]] = []

    def close() -> None:
        nonlocal start, position, held
        end = _pad(position, alignment)
        buckets.append(Bucket(start, end, tuple(held)))
        start = position = end
        held = []

    for tensor in reversed(tensors):
        position = _pad(position, _PARAMETER_ALIGNMENT)
        if tensor.shared and held:
            close()
        held.append((position, position + tensor.size))
        position += tensor.size
        if tensor.shared or (size is not None and position - start >= size):
            close()
    if held:
        close()
    return buckets


def fsdp_buckets(tensors: Sequence[Tensor], shards: int) -> list[Bucket]:
    """The buckets of a fully sharded chunk: what belongs to no layer first, then the layers. Each starts at 0."""
    groups: dict[int | None, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.layer, []).append(tensor)
    return [_fsdp_bucket(group, shards) for group in groups.values()]


def _fsdp_bucket(group: Iterable[Tensor], shards: int) -> Bucket:
    """Larger tensors fill whole multiples of a chunk; what is left over in the last one takes smaller tensors."""
    ordered = sorted(group, key=lambda tensor: tensor.row, reverse=True)
    chunk = ordered[0].row
    for tensor in ordered:
        fits = tensor.row == chunk or (chunk % tensor.row == 0 and tensor.size % chunk == 0) or tensor.size < chunk
        if not fits:
            chunk = math.lcm(chunk, tensor.row)
    whole = [tensor.size for tensor in ordered if tensor.size >= chunk]
    fragments = [tensor.size for tensor in ordered if tensor.size < chunk]
    places: list[tuple[int, int]] = []
    position = 0
    while whole:
        size = whole.pop(0)
        places.append((position, position + size))
        rest = size % chunk
        if rest == 0:
            position += size
            continue
        gap = position + size
        position += size - rest + chunk
        space = chunk - rest
        other = next((one for one in whole if one % chunk and rest + one % chunk <= chunk), None)
        if other is not None:
            whole.remove(other)
            places.append((position - other % chunk, position - other % chunk + other))
            space -= other % chunk
            position += other - other % chunk
        for fragment in list(fragments):
            if fragment <= space:
                fragments.remove(fragment)
                places.append((gap, gap + fragment))
                space -= fragment
                gap += fragment
    for fragment in fragments:
        places.append((position, position + fragment))
        position += fragment
    return Bucket(0, _pad(position, shards * chunk), tuple(places))


def _pad(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
