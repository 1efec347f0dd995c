"""Which samples a data-parallel rank reads at a step."""

from __future__ import annotations


def micro_batch_indices(
    consumed: int, *, global_batch_size: int, micro_batch_size: int, data_rank: int, data_size: int
) -> list[list[int]]:
    """Sample indices of one step, one list a micro-batch, for one data-parallel rank.

    A step reads samples `consumed … consumed + global_batch_size - 1` whatever the layout: ranks take turns by
    micro-batch. The position in the data is therefore the one number `consumed`.
    """
    stride = micro_batch_size * data_size
    if global_batch_size % stride:
        raise ValueError(
            f"global_batch_size {global_batch_size} is not a multiple of micro_batch_size {micro_batch_size} × "
            f"data parallel size {data_size}"
        )
    first = consumed + data_rank * micro_batch_size
    return [list(range(start, start + micro_batch_size)) for start in range(first, first + global_batch_size, stride)]
