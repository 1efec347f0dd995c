"""Short vectors and cells: what the walk of `diversity.py` looks at before it looks at whole vectors.

Both only ever rule pairs out that cannot be above the threshold. How they are chosen, from a sample, decides time.

N: vectors. D: numbers of a vector. M: principal coordinates. S: sample. B: vectors of a block. C: cells. K: kept ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_SAMPLE, _SAMPLE_BYTES = 8192, 64 << 20
_FITTED = 1024
_WORTH_IT = 1 << 36  # products; fewer are made before axes are found
_SCAN, _GATHER = 32, 100  # work on a pair, beside its product; a pair that is gathered takes so many products
_LENGTHS = (8, 16, 32, 64, 128)
_CELLS = 1024
_PER_CELL = 512  # vectors to a cell, or more
_ROUNDS = 4  # of Lloyd's algorithm
_EPSILON = 2.0**-24

Array = npt.NDArray[Any]


class _Vectors(Protocol):
    def __len__(self) -> int: ...

    @property
    def dimensions(self) -> int: ...

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]: ...


def float32_error(columns: int, magnitude: float = 1.0) -> float:
    """A bound on the error of a float32 product of two vectors of so many numbers, whose summands' magnitudes add up to
    `magnitude`, in any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), twice over.
    """
    return 2 * (columns + 8) * _EPSILON * magnitude


@dataclass(frozen=True)
class Short:
    """Short vectors of B unit vectors: z_BM float64, with |z_x - z_y| <= |x - y|. query · key = -|z_x - z_y|^2 / 2, a
    float32 product of M + 3 columns; at least `floor` where the cosine is above the threshold.
    """

    z_BM: npt.NDArray[np.float64]
    query: npt.NDArray[np.float32]
    key: npt.NDArray[np.float32]
    floor: float

    def select(self, rows: Array) -> "Short":
        """Of `rows` only."""
        return Short(self.z_BM[rows], self.query[rows], self.key[rows], self.floor)


class Near:
    """Finds the pairs of a product of matrices that reach a floor. It keeps its buffers."""

    COLUMNS = 1024  # of a product, so that it stays in the cache

    def __init__(self) -> None:
        self.compared = 0
        self._product = np.empty(0, np.float32)
        self._found = np.empty(0, np.bool_)

    def __call__(self, query: Array, key: Array, floor: float) -> tuple[Array, Array]:
        """The rows and columns, int64 [pairs] each, at which query @ key.T is at least `floor`; by row where there are
        no more than COLUMNS keys.
        """
        rows, columns = [], []
        self.compared += len(query) * len(key)
        for start in range(0, len(key), self.COLUMNS):
            some = key[start : start + self.COLUMNS]
            size = len(query) * len(some)
            if size > len(self._product):
                self._product, self._found = np.empty(size, np.float32), np.empty(size, np.bool_)
            product = self._product[:size].reshape(len(query), len(some))
            np.matmul(query, some.T, out=product)
            found = np.flatnonzero(np.greater_equal(self._product[:size], np.float32(floor), out=self._found[:size]))
            rows.append(found // len(some))
            columns.append(found % len(some) + start)
        return (np.concatenate(rows), np.concatenate(columns)) if rows else (np.empty(0, np.int64),) * 2


class Shortening:
    """The map from unit vectors to short ones: by the principal axes of a sample, as many as make the walk fastest by
    the share of sampled pairs that the short vectors do not tell apart.
    """

    def __init__(self, vectors: _Vectors, threshold: float, shorten: bool | None = None) -> None:
        self.threshold = threshold
        self.count = len(vectors)
        self._mean = np.zeros(vectors.dimensions)
        self._axes_DM: Array | None = None
        self.centres_CM: Array | None = None
        if len(vectors) ** 2 * vectors.dimensions >= _WORTH_IT if shorten is None else shorten and len(vectors) > 0:
            size = min(len(vectors), _SAMPLE, max(256, _SAMPLE_BYTES // (8 * vectors.dimensions)))
            places = np.linspace(0, len(vectors) - 1, size).astype(np.int64)
            whole = vectors.take(places).astype(np.float64)
            lengths = np.linalg.norm(whole, axis=1, keepdims=True)
            sample_SD = np.divide(whole, lengths, out=np.zeros_like(whole), where=lengths > 0)
            self._mean = sample_SD.mean(0)
            self._axes_DM = self._choose_axes(sample_SD[::2][:_FITTED], sample_SD[1::2][:_FITTED])
            count = min(_CELLS, len(vectors) // _PER_CELL, len(sample_SD) // 4)
            if count > 1:
                self.centres_CM = _centres(self(sample_SD.astype(np.float32)).z_BM, count)

    def _choose_axes(self, fitted_SD: Array, some_SD: Array) -> Array | None:
        """Axes of the former; the number M that is the least work for the latter, whose fit is not flattered: M for
        each pair, and for each pair that passes whole vectors, which are gathered one by one.
        """
        dimensions = len(self._mean)
        if dimensions <= min(_LENGTHS) or len(some_SD) < 2:
            return None
        axes = _principal_axes(fitted_SD - self._mean, max(_LENGTHS))
        truly = int(np.count_nonzero(np.tril(some_SD @ some_SD.T > self.threshold, -1)))
        pairs = len(some_SD) * (len(some_SD) - 1) // 2
        best, chosen = float(dimensions + _SCAN), None  # whole vectors
        for length in _LENGTHS:
            if length >= dimensions or length > axes.shape[1]:
                break
            short = self._short(some_SD.astype(np.float32), axes[:, :length])
            row, column = Near()(short.query, short.key, short.floor)
            passed = int(np.count_nonzero(column < row)) - truly
            work = length + _SCAN + _GATHER * dimensions * max(0, passed) / pairs
            if work < best:
                best, chosen = work, axes[:, :length]
        return chosen

    def __call__(self, unit_BD: npt.NDArray[np.float32]) -> Short:
        return self._short(unit_BD, self._axes_DM)

    def _short(self, unit_BD: npt.NDArray[np.float32], axes_DM: Array | None) -> Short:
        around = unit_BD - self._mean
        if axes_DM is None:
            z = around
        else:
            z = around @ axes_DM
            squares = np.einsum("bd,bd->b", around, around) - np.einsum("bm,bm->b", z, z)
            z = np.column_stack([z, np.sqrt(np.maximum(0, squares))])
        half = np.einsum("bm,bm->b", z, z) / 2
        ones = np.ones(len(z))
        query = np.column_stack([z, -half, ones]).astype(np.float32)
        key = np.column_stack([z, ones, -half]).astype(np.float32)
        # |z| is 2 at the most: a unit vector and a mean of unit vectors lie no further apart.
        floor = -(1 - self.threshold) - float32_error(z.shape[1] + 2, magnitude=8)
        return Short(z, query, key, floor)

    @property
    def reach(self) -> float:
        """Short vectors of a pair above the threshold are no further apart."""
        return float(np.sqrt(2 - 2 * self.threshold + 1e-5))


class Cells:
    """The kept short vectors, each in the cell whose centre is nearest."""

    def __init__(self, shortening: Shortening, near: Near) -> None:
        self._near = near
        self._reach = shortening.reach
        self._centres_CM = shortening.centres_CM
        self._cells: dict[int, _Cell] = {}

    def near(self, short: Short) -> Iterator[tuple[Array, Array]]:
        """Pairs of which a row of the block may be too similar to a kept one, by cell: rows, and orders of keeping,
        int64 [pairs] each.
        """
        if not self._cells:
            return
        distances = self._distances(short)
        everybody = np.arange(len(short.query))
        for number, cell in self._cells.items():
            rows = everybody if distances is None else np.flatnonzero(distances[:, number] <= cell.radius + self._reach)
            if len(rows):
                query = short.query if len(rows) == len(everybody) else short.query[rows]
                row, column = self._near(query, cell.keys[: cell.size], short.floor)
                if len(row):
                    yield rows[row], cell.orders[column]

    def add(self, short: Short, orders: Array) -> None:
        """Take in kept ones; `orders`: how many were kept before each."""
        distances = self._distances(short)
        numbers = np.zeros(len(orders), np.int64) if distances is None else distances.argmin(1)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            cell = self._cells.setdefault(number, _Cell(short.key.shape[1]))
            cell.add(short.key[here], orders[here])
            if distances is not None:
                cell.radius = max(cell.radius, float(distances[here, number].max()))

    def _distances(self, short: Short) -> Array | None:
        """Of each row from each centre, float64 [B, C]."""
        return None if self._centres_CM is None else _distances(short.z_BM, self._centres_CM)


class _Cell:
    def __init__(self, columns: int) -> None:
        self.size = 0
        self.radius = 0.0
        self.keys = np.empty((64, columns), np.float32)
        self.orders = np.empty(64, np.int64)

    def add(self, keys: Array, orders: Array) -> None:
        end = self.size + len(keys)
        if end > len(self.keys):
            room = max(end, len(self.keys) * 3 // 2)
            grown = np.empty((room, self.keys.shape[1]), np.float32), np.empty(room, np.int64)
            grown[0][: self.size], grown[1][: self.size] = self.keys[: self.size], self.orders[: self.size]
            self.keys, self.orders = grown
        self.keys[self.size : end], self.orders[self.size : end] = keys, orders
        self.size = end


def _principal_axes(around_SD: Array, count: int) -> Array:
    """Orthonormal axes [D, count or fewer] of a sample, the longest first."""
    size, dimensions = around_SD.shape
    count = min(count, size, dimensions)
    if dimensions <= size:
        return np.linalg.eigh(around_SD.T @ around_SD)[1][:, ::-1][:, :count]
    squares, vectors = np.linalg.eigh(around_SD @ around_SD.T)
    axes = around_SD.T @ vectors[:, ::-1][:, :count][:, squares[::-1][:count] > 1e-9 * squares[-1]]
    for _ in range(2):  # CholeskyQR2: what is not orthonormal could stretch a distance
        axes = np.linalg.solve(np.linalg.cholesky(axes.T @ axes), axes.T).T
    return axes


def _centres(z_SM: Array, count: int) -> Array:
    centres = z_SM[np.linspace(0, len(z_SM) - 1, count).astype(np.int64)].copy()
    for _ in range(_ROUNDS):
        numbers = _distances(z_SM, centres).argmin(1)
        sizes = np.bincount(numbers, minlength=count)
        sums = np.stack([np.bincount(numbers, column, count) for column in z_SM.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(1, sizes)[:, None], centres)
    return centres


def _distances(left_BM: Array, right_CM: Array) -> Array:
    squares = (
        np.einsum("bm,bm->b", left_BM, left_BM)[:, None]
        + np.einsum("cm,cm->c", right_CM, right_CM)
        - 2 * left_BM @ right_CM.T
    )
    return np.asarray(np.sqrt(np.maximum(0, squares)))
