"""The micro-batch: the one shape in which every stage hands its samples to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from megatron_aquila.kernels import IGNORE_INDEX

__all__ = ["IGNORE_INDEX", "MicroBatch", "document_bounds", "restarting_positions"]


@dataclass(frozen=True)
class MicroBatch:
    """One pack of T tokens: rows laid end to end, one length for all packs of a run.

    Axes: `tokens`, `labels` and `positions` are `[1, T]` int64. `labels` hold the next token, or `IGNORE_INDEX`
    where no loss counts. `cu_seqlens` are the bounds `[0, …, T]` of the documents; attention never crosses one and
    `positions` restart at each. `extra` holds what a stage's loss wants beyond that.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    cu_seqlens: list[int]
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> MicroBatch:
        """The same on `device`; `cu_seqlens` stay a list, so that attention need not wait for the device."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            extra={name: value.to(device, non_blocking=True) for name, value in self.extra.items()},
        )


def document_bounds(rows: torch.Tensor, end_of_document: int | None) -> list[int]:
    """`cu_seqlens` of rows `[R, S]` laid end to end: a bound at every row and after every `end_of_document`."""
    count, length = rows.shape
    bounds = set(range(0, count * length + 1, length))
    if end_of_document is not None:
        bounds.update((torch.nonzero(rows.reshape(-1) == end_of_document).squeeze(1) + 1).tolist())
    return sorted(bounds)


def restarting_positions(cu_seqlens: Sequence[int]) -> torch.Tensor:
    """Positions `[T]` int64 that start from 0 at every bound."""
    bounds = torch.tensor(cu_seqlens)
    lengths = bounds.diff()
    return torch.arange(int(bounds[-1])) - torch.repeat_interleave(bounds[:-1], lengths)
