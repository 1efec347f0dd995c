"""From the signatures of all shards to a verdict on each document, in bounded memory.

First texts that are equal are joined, by sorting their digests. One document of each group then goes into the bands:
documents with the same band hash make candidate pairs, which are joined when their estimated similarity is above the
threshold. State is on disk: a file for each column that is sorted, and the clusters as an array of parents. Verdicts
depend on the rows alone.

N: documents.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools import _text
from data_tools.corpus.deduplicate import VERDICT, DeduplicateConfig
from data_tools.corpus.signatures import RowFiles, row_dtype, similarity
from data_tools.publish import atomic_path, storage_errors

Ordinals = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]

_BYTES_PER_KEY = 128  # of a key while its range is sorted and paired
_BYTES_PER_CHUNK = 8 << 20
_ALL_PAIRS = 16  # in larger groups a document is compared with the first and with the one before it


@dataclass(frozen=True)
class DuplicateCounts:
    """clusters: of two or more documents. exact, near: documents dropped as equal, or as similar, to the kept one.
    compared: candidate pairs whose similarity was estimated.
    """

    documents: int
    clusters: int
    exact: int
    near: int
    compared: int


def find_duplicates(
    config: DeduplicateConfig,
    parts: Sequence[Path],
    work: Path,
    outputs: Sequence[Path],
    on_progress: Progress = lambda done, total: None,
) -> DuplicateCounts:
    """Write the verdicts on the documents of parts[i] (files of rows, in the order of the input) to outputs[i], a numpy
    file of `VERDICT` rows, published whole.

    Args:
        work: an existing directory for temporary files, on a disk with room for some 8 * (bands + 4) bytes a document;
            emptied again.
        on_progress: called with the rounds done and all there are.

    Raises:
        InputError: a part that is not whole.
        StorageError: the disk is full.
    """
    with RowFiles(parts, row_dtype(config.bands)) as rows, storage_errors(work):
        search = _Search(config, rows, work)
        try:
            search.start()
            rounds = config.exact + (config.near and config.bands) + 1
            for done, step in enumerate(search.rounds()):
                on_progress(done, rounds)
                step()
            counts = search.write_verdicts(outputs)
            on_progress(rounds, rounds)
        finally:
            search.clean()
    return counts


class _Search:
    def __init__(self, config: DeduplicateConfig, rows: RowFiles, work: Path) -> None:
        self.config = config
        self.rows = rows
        self.work = work
        self.compared = 0
        self.files: list[Path] = []
        self.parents = np.empty(0, np.uint64)

    def start(self) -> None:
        """Every document in a cluster of its own."""
        self.parents = self._mapped("parents")
        for start, stop in self._chunks(8):
            self.parents[start:stop] = np.arange(start, stop, dtype=np.uint64)

    def rounds(self) -> Iterator[Callable[[], None]]:
        if self.config.exact:
            yield self._join_exact
        if self.config.near:
            self._spread_bands()
            for band in range(self.config.bands):
                yield lambda band=band: self._join_band(band)  # type: ignore[misc]

    def _join_exact(self) -> None:
        low, high = self._path("exact-0"), self._path("exact-1")
        with low.open("wb") as first, high.open("wb") as second:
            for start, stop in self._chunks(self.rows.dtype.itemsize):
                digests = self.rows.read(start, stop - start)["exact"]
                np.ascontiguousarray(digests[:, 0]).tofile(first)
                np.ascontiguousarray(digests[:, 1]).tofile(second)
        for keys, ordinals in self._sorted_ranges(low):
            same = np.flatnonzero(keys[1:] == keys[:-1])
            if len(same):
                touched = np.unique(np.concatenate([same, same + 1]))
                others = self._column_values(high, ordinals[touched])
                order = np.lexsort((ordinals[touched], others, keys[touched]))
                touched, others = touched[order], others[order]
                equal = (keys[touched][1:] == keys[touched][:-1]) & (others[1:] == others[:-1])
                _text.unite(self.parents, ordinals[touched][:-1][equal], ordinals[touched][1:][equal])
        self._remove(low, high)

    def _spread_bands(self) -> None:
        """A file of band hashes for each band; 0 for documents that an equal one stands for."""
        paths = [self._path(f"band-{band:03d}") for band in range(self.config.bands)]
        for path in paths:
            path.write_bytes(b"")
        for start, stop in self._chunks(2 * self.rows.dtype.itemsize):
            hashes = self.rows.read(start, stop - start)["bands"].T.copy()
            ordinals = np.arange(start, stop, dtype=np.uint64)
            hashes[:, np.asarray(self.parents[start:stop]) != ordinals] = 0
            for path, column in zip(paths, hashes):
                with path.open("ab") as file:
                    column.tofile(file)

    def _join_band(self, band: int) -> None:
        path = self.work / f"band-{band:03d}"
        for keys, ordinals in self._sorted_ranges(path):
            for left, right in _pairs(keys, ordinals):
                self._join_similar(left, right)
        self._remove(path)

    def _join_similar(self, left: Ordinals, right: Ordinals) -> None:
        size = max(1, _BYTES_PER_CHUNK // (4 * self.rows.dtype.itemsize))
        for start in range(0, len(left), size):
            a, b = left[start : start + size], right[start : start + size]
            # A pair that is in one cluster already changes nothing, whatever its similarity.
            apart = _text.find_roots(self.parents, a) != _text.find_roots(self.parents, b)
            a, b = a[apart], b[apart]
            if self.config.verify and len(a):
                near = self._similarity(a, b) >= self.config.threshold
                self.compared += len(a)
                a, b = a[near], b[near]
            _text.unite(self.parents, a, b)

    def _similarity(self, left: Ordinals, right: Ordinals) -> npt.NDArray[np.float32]:
        known, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        sketches = self.rows.take(known)["sketch"]
        return similarity(sketches[places[: len(left)]], sketches[places[len(left) :]])

    def write_verdicts(self, outputs: Sequence[Path]) -> DuplicateCounts:
        keepers = self._choose_keepers()
        exact = near = clusters = 0
        for part, output in enumerate(outputs):
            found = [np.empty(0, VERDICT)]
            base, end = int(self.rows.starts[part]), int(self.rows.starts[part + 1])
            step = self._chunk_size(4 * self.rows.dtype.itemsize)
            for start in range(base, end, step):
                ordinals = np.arange(start, min(start + step, end), dtype=np.uint64)
                clustered = keepers[self._roots(ordinals)]
                ordinals, clustered = ordinals[clustered != 0], clustered[clustered != 0] - np.uint64(1)
                verdicts = np.zeros(len(ordinals), VERDICT)
                verdicts["position"] = ordinals - np.uint64(base)
                verdicts["cluster"] = clustered
                verdicts["drop"] = ordinals != clustered
                known, places = np.unique(clustered, return_inverse=True)
                own, kept = self.rows.take(ordinals), self.rows.take(known)[places]
                verdicts["exact"] = (own["exact"] == kept["exact"]).all(axis=1)
                verdicts["similarity"] = similarity(own["sketch"], kept["sketch"])
                verdicts["similarity"][verdicts["exact"]] = 1
                found.append(verdicts)
            verdicts = np.concatenate(found)
            exact += int((verdicts["drop"] & verdicts["exact"]).sum())
            near += int((verdicts["drop"] & ~verdicts["exact"]).sum())
            clusters += int((~verdicts["drop"]).sum())
            with atomic_path(output) as temporary, temporary.open("wb") as file:
                np.save(file, verdicts)
        return DuplicateCounts(len(self.rows), clusters, exact, near, self.compared)

    def _choose_keepers(self) -> Ordinals:
        """[N] on disk, at the root of each cluster of two or more: 1 + the ordinal of the member that stays."""
        keepers = self._mapped("keepers")
        best = self._mapped("lengths") if self.config.keep == "longest" else None
        for start, stop in self._chunks(2 * self.rows.dtype.itemsize):
            ordinals = np.arange(start, stop, dtype=np.uint64)
            roots = self._roots(ordinals)
            joined = roots[roots != ordinals]
            keepers[joined] = np.maximum(keepers[joined], joined + np.uint64(1))
            if best is None:
                continue
            lengths = self.rows.read(start, stop - start)["length"].astype(np.uint64) + np.uint64(1)
            order = np.lexsort((ordinals, -lengths.astype(np.int64), roots))
            first = order[np.flatnonzero(np.diff(roots[order], prepend=roots[order[0]] + np.uint64(1)))]
            longer = first[lengths[first] > best[roots[first]]]
            best[roots[longer]] = lengths[longer]
            # A root that is not known to have others yet is noted too, and forgotten below if it stays alone.
            keepers[roots[longer]] = ordinals[longer] + np.uint64(1)
        if best is not None:
            self._forget_single(keepers)
        return keepers

    def _forget_single(self, keepers: Ordinals) -> None:
        several = self._mapped("several", np.bool_)
        for start, stop in self._chunks(32):
            ordinals = np.arange(start, stop, dtype=np.uint64)
            roots = self._roots(ordinals)
            several[roots[roots != ordinals]] = True
        for start, stop in self._chunks(32):
            keepers[start:stop][~several[start:stop]] = 0

    def _roots(self, ordinals: Ordinals) -> Ordinals:
        return _text.find_roots(self.parents, ordinals)

    def _sorted_ranges(self, path: Path) -> Iterator[tuple[Ordinals, Ordinals]]:
        """The keys of a column (u64 [N] in a file) that are not 0 and their ordinals, sorted by both; range of keys
        after range, so that what is sorted at once fits the memory.
        """
        ranges = -(-len(self.rows) * _BYTES_PER_KEY // self.config.memory)
        edges = [(2**64 * k) // ranges for k in range(ranges)]
        for low, high in zip(edges, [*edges[1:], 2**64]):
            keys, ordinals = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
            for start, column in self._column(path):
                wanted = column != 0
                if ranges > 1:
                    wanted &= (column >= np.uint64(low)) & (column <= np.uint64(high - 1))
                keys.append(column[wanted])
                ordinals.append(np.flatnonzero(wanted).astype(np.uint64) + np.uint64(start))
            key, ordinal = np.concatenate(keys), np.concatenate(ordinals)
            order = np.argsort(key, kind="stable")
            yield key[order], ordinal[order]

    def _column(self, path: Path) -> Iterator[tuple[int, Ordinals]]:
        size = self._chunk_size(32)
        start = 0
        with path.open("rb") as file:
            while len(column := np.fromfile(file, np.uint64, size)):
                yield start, column
                start += len(column)

    def _column_values(self, path: Path, ordinals: Ordinals) -> Ordinals:
        """The values at `ordinals`, in any order."""
        out = np.empty(len(ordinals), np.uint64)
        for start, column in self._column(path):
            here = (ordinals >= np.uint64(start)) & (ordinals < np.uint64(start + len(column)))
            out[here] = column[ordinals[here] - np.uint64(start)]
        return out

    def _chunks(self, bytes_per_document: int) -> Iterator[tuple[int, int]]:
        size = self._chunk_size(bytes_per_document)
        for start in range(0, len(self.rows), size):
            yield start, min(start + size, len(self.rows))

    def _chunk_size(self, bytes_per_document: int) -> int:
        return max(1, min(_BYTES_PER_CHUNK, self.config.memory // 4) // bytes_per_document)

    def _mapped(self, name: str, dtype: npt.DTypeLike = np.uint64) -> npt.NDArray[Any]:
        """[N] in a mapped file, zeros."""
        size = len(self.rows) * np.dtype(dtype).itemsize
        if not size:
            return np.zeros(0, dtype)
        path = self._path(name)
        with path.open("wb") as file:
            # Takes the room now: a page of a sparse file that finds no room later ends the process with SIGBUS.
            os.posix_fallocate(file.fileno(), 0, size)
        return np.asarray(np.memmap(path, dtype, "r+"))

    def _path(self, name: str) -> Path:
        path = self.work / name
        self.files.append(path)
        return path

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def clean(self) -> None:
        self._remove(*self.files)


def _pairs(keys: Ordinals, ordinals: Ordinals) -> Iterator[tuple[Ordinals, Ordinals]]:
    """Candidate pairs of sorted keys: in a group of equal keys each with the one before it and with the first; in small
    groups each with each.
    """
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    sizes = np.diff(starts, append=len(keys))
    groups = np.repeat(np.arange(len(starts)), sizes)
    place = np.arange(len(keys)) - starts[groups] if len(keys) else np.empty(0, np.int64)
    longest = int(sizes.max(initial=0))
    later = np.flatnonzero(place > 0)
    yield ordinals[starts[groups[later]]], ordinals[later]
    later = later[place[later] > 1]
    yield ordinals[later - 1], ordinals[later]
    for distance in range(2, min(longest, _ALL_PAIRS)):
        later = later[place[later] > distance]
        here = later[sizes[groups[later]] <= _ALL_PAIRS]
        if len(here):
            yield ordinals[here - distance], ordinals[here]
