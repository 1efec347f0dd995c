"""The rows that deduplication works on: one of fixed size for each document, and what can be told from two of them.

N: rows. B: bands. S: bytes of a sketch, two bins each.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from data_tools.inputs import InputError

SKETCH_BINS = 512
_CODES = 15  # what a bin that is not empty may hold

Rows = npt.NDArray[np.void]


def row_dtype(bands: int) -> np.dtype[np.void]:
    """A row, packed: digest of the folded text, characters of the text, shingles of the folded text, band hashes
    (0: none, the text folds to nothing), sketch.
    """
    return np.dtype(
        [
            ("exact", "<u8", (2,)),
            ("length", "<u4"),
            ("shingles", "<u4"),
            ("bands", "<u8", (bands,)),
            ("sketch", "u1", (SKETCH_BINS // 2,)),
        ]
    )


def similarity(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Estimated Jaccard similarity of the shingle sets of N pairs, from their sketches [N, S].

    One permutation hashing (Li, Owen, Zhang 2012, arXiv 1208.1259): of the bins that either document fills, the share
    whose least elements are the same. Of the others that both fill, one in 15 looks the same by chance; that is taken
    off. The standard error is at most sqrt(J (1 - J) / 512) or so, and less for documents of few shingles.
    """
    both = np.zeros(len(left), np.int64)
    either = np.zeros(len(left), np.int64)
    same = np.zeros(len(left), np.int64)
    for shift in (0, 4):
        a, b = (left >> shift) & 15, (right >> shift) & 15
        both += ((a != 0) & (b != 0)).sum(axis=1)
        either += ((a != 0) | (b != 0)).sum(axis=1)
        same += ((a == b) & (a != 0)).sum(axis=1)
    found = (_CODES * same - both) / np.maximum(1, (_CODES - 1) * either)
    return np.clip(found, 0, 1).astype(np.float32)


class RowFiles:
    """The rows of all shards, by ordinal: `parts` in the order of the documents. A context manager.

    Raises:
        InputError: a part that does not hold whole rows.
    """

    def __init__(self, parts: Sequence[Path], dtype: np.dtype[np.void]) -> None:
        self.dtype = dtype
        self.parts = list(parts)
        sizes = [path.stat().st_size for path in parts]
        for path, size in zip(parts, sizes):
            if size % dtype.itemsize:
                raise InputError(
                    f"{path} has {size:,} bytes, which are no whole signatures of {dtype.itemsize}: it was cut off, or "
                    "made with another configuration; remove it and run again"
                )
        self.starts = np.concatenate([[0], np.cumsum([size // dtype.itemsize for size in sizes], dtype=np.int64)])
        self._open: tuple[int, int] | None = None  # part, file descriptor

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, count: int) -> Rows:
        """Rows [start, start + count) of one part or of several."""
        out = np.empty(count, self.dtype)
        done = 0
        while done < count:
            part = int(np.searchsorted(self.starts, start + done, side="right")) - 1
            size = min(count - done, int(self.starts[part + 1]) - start - done)
            self._read_into(part, start + done, out[done : done + size])
            done += size
        return out

    def take(self, ordinals: npt.NDArray[np.uint64]) -> Rows:
        """The rows of `ordinals`, which ascend. Read one by one: memory that is mapped would stay resident."""
        out = np.empty(len(ordinals), self.dtype)
        parts = np.searchsorted(self.starts, ordinals, side="right") - 1
        for place, (part, ordinal) in enumerate(zip(parts.tolist(), ordinals.tolist())):
            self._read_into(part, ordinal, out[place : place + 1])
        return out

    def _read_into(self, part: int, ordinal: int, out: Rows) -> None:
        if self._open is None or self._open[0] != part:
            self.close()
            self._open = part, os.open(self.parts[part], os.O_RDONLY)
        offset = (ordinal - int(self.starts[part])) * self.dtype.itemsize
        target = memoryview(out.view(np.uint8).data)
        while len(target):
            done = os.preadv(self._open[1], [target], offset)
            if not done:
                raise InputError(f"{self.parts[part]} became shorter while it was read: run again")
            target, offset = target[done:], offset + done

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def __enter__(self) -> "RowFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
