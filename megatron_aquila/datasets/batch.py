"""The micro-batch: the one shape in which every stage hands its samples to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch

from megatron_aquila.kernels import IGNORE_INDEX

__all__ = [
    "IGNORE_INDEX",
    "MicroBatch",
    "Volume",
    "document_bounds",
    "make_batch",
    "restarting_positions",
    "volume_of",
]


@dataclass(frozen=True)
class Volume:
    """How much work a micro-batch holds; padding is not counted.

    samples: rows of text, dialogues or pairs. tokens: of them. attended: Σ length² over what attention does not cross.
    """

    samples: int
    tokens: int
    attended: int


@dataclass(frozen=True)
class MicroBatch:
    """One pack of T tokens: sequences laid end to end, one length for all micro-batches of a run.

    Axes: `tokens`, `labels` and `positions` are `[1, T]` int64. `labels` hold the next token, or `IGNORE_INDEX`
    where no loss counts; `labelled` `[M]` int64 are the places of the others. `cu_seqlens` are the bounds `[0, …, T]`
    of the documents, padding included; attention never crosses one and `positions` restart at each. `extra` holds what
    a stage's loss wants beyond that.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    labelled: torch.Tensor
    cu_seqlens: list[int]
    volume: Volume
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> MicroBatch:
        """The same on `device`; `cu_seqlens` stay a list, so that attention need not wait for the device."""
        if device.type == "cpu":
            return self

        def moved(value: torch.Tensor) -> torch.Tensor:
            # A copy from pageable memory would wait for the device.
            return value.pin_memory().to(device, non_blocking=True)

        return replace(
            self,
            tokens=moved(self.tokens),
            labels=moved(self.labels),
            positions=moved(self.positions),
            labelled=moved(self.labelled),
            extra={name: moved(value) for name, value in self.extra.items()},
        )


def make_batch(
    tokens_T: torch.Tensor,
    labels_T: torch.Tensor,
    cu_seqlens: list[int],
    volume: Volume,
    extra: dict[str, torch.Tensor] | None = None,
) -> MicroBatch:
    """A micro-batch of flat tokens and labels; the rest follows from them and the bounds."""
    return MicroBatch(
        tokens=tokens_T.unsqueeze(0),
        labels=labels_T.unsqueeze(0),
        positions=restarting_positions(cu_seqlens).unsqueeze(0),
        labelled=(labels_T != IGNORE_INDEX).nonzero().squeeze(1),
        cu_seqlens=cu_seqlens,
        volume=volume,
        extra=extra or {},
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


def volume_of(samples: int, cu_seqlens: Sequence[int]) -> Volume:
    """The volume of documents that fill everything between the bounds."""
    lengths = [end - start for start, end in pairwise(cu_seqlens)]
    return Volume(samples, sum(lengths), sum(length * length for length in lengths))
