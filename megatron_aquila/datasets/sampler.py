"""How the rows of an optimizer step are dealt to micro-batches and data-parallel ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def deal(
    rows: Sequence[Row], *, micro_batch_size: int, data_rank: int, data_size: int, multiple: int = 1
) -> list[list[Row]]:
    """The rows of one data-parallel rank, one list a micro-batch.

    Which rows a step has does not depend on the layout; ranks take turns by micro-batch. Every rank gets the same
    number of micro-batches, a multiple of `multiple`: where the rows do not suffice, the last hold fewer rows, or none.
    """
    stride = micro_batch_size * data_size
    count = max(1, -(-len(rows) // stride))
    count = -(-count // multiple) * multiple
    starts = [(number * data_size + data_rank) * micro_batch_size for number in range(count)]
    return [list(rows[start : start + micro_batch_size]) for start in starts]
