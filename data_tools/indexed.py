"""Megatron's indexed dataset: `PREFIX.bin` holds token ids and nothing else, `PREFIX.idx` says where they
lie.

Layout of .idx, little-endian: magic (9 bytes), uint64 version, uint8 dtype code, uint64 S = sequences, uint64
D = documents + 1, int32[S] sequence lengths in tokens, int64[S] byte offsets into .bin, int64[D] document
indices: the first sequence of each document, and S at the end. There is no length or checksum of .bin in it;
the manifest has both.
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_tools.publish import atomic_path, require_space

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_BYTES = 34
DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name) for code, name in enumerate(("u1", "i1", "<i2", "<i4", "<i8", "<f8", "<f4", "<u2"), start=1)
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_MAX_SEQUENCE = 2**31 - 1
_COPY_BYTES = 1 << 30
_NO_RANGE_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}

Array = npt.NDArray[Any]


class IndexedDatasetError(ValueError):
    """A dataset that cannot be read or joined; the sentence names the file."""


def bin_path(prefix: Path) -> Path:
    """PREFIX.bin. (A prefix may hold dots: nothing is cut off.)"""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """PREFIX.idx."""
    return prefix.with_name(prefix.name + ".idx")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Megatron's rule: uint16 below 65,500 ids, else int32."""
    return np.dtype("<u2") if vocab_size < 65500 else np.dtype("<i4")


class IndexedWriter:
    """A context manager that writes one dataset and publishes .bin and then .idx when the block ends well.

    Args:
        prefix: the dataset's path without suffix.
        dtype: of the tokens, one of DTYPES.
        sync: False leaves out fsync, for parts that are checked and can be made again.

    Raises:
        StorageError: no space left; nothing half written stays.
    """

    def __init__(self, prefix: Path, dtype: npt.DTypeLike, *, sync: bool = True) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype)
        if self.dtype not in _CODES:
            raise IndexedDatasetError(f"{prefix}: the format has no tokens of type {self.dtype}")
        self._sync = sync
        self._lengths: list[Array] = []
        self._ends: list[Array] = [np.zeros(1, np.int64)]
        self._sequences = 0
        self._stack = ExitStack()

    def __enter__(self) -> "IndexedWriter":
        temporary = self._stack.enter_context(atomic_path(bin_path(self.prefix), sync=self._sync))
        self._file = self._stack.enter_context(temporary.open("wb"))
        return self

    def add(self, tokens: Array, lengths: Array, sequences_per_document: Array | None = None) -> None:
        """Append documents.

        Args:
            tokens: flat, of the writer's dtype or an integer type whose values fit it.
            lengths: tokens per sequence, in order; their sum is len(tokens).
            sequences_per_document: their sum is len(lengths); left out, each sequence is a document.

        Raises:
            ValueError: sums that do not fit, a sequence beyond int32, or a token that the dtype cannot hold.
        """
        lengths = np.asarray(lengths, np.int64)
        counts = np.ones(len(lengths), np.int64) if sequences_per_document is None else sequences_per_document
        if lengths.sum() != len(tokens) or np.sum(counts) != len(lengths):
            raise ValueError(f"{self.prefix}: {len(tokens)} tokens do not fit the lengths given for them")
        if len(lengths) and (lengths.max() > _MAX_SEQUENCE or lengths.min() < 0):
            raise ValueError(
                f"{self.prefix}: a sequence of {lengths.max():,} tokens; the format holds {_MAX_SEQUENCE:,}"
            )
        if tokens.dtype != self.dtype:
            limits = np.iinfo(self.dtype)
            if len(tokens) and (tokens.min() < limits.min or tokens.max() > limits.max):
                raise ValueError(f"{self.prefix}: token id {tokens.max()} does not fit {self.dtype}")
            tokens = tokens.astype(self.dtype)
        self._file.write(np.ascontiguousarray(tokens).data)
        self._lengths.append(lengths.astype(np.int32))
        self._ends.append(self._sequences + np.cumsum(counts, dtype=np.int64))
        self._sequences += len(lengths)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is not None:
            return self._stack.__exit__(kind, error, trace)
        idx_path(self.prefix).unlink(missing_ok=True)  # an old index must not stand beside the new tokens
        self._stack.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int32)
        indices = np.concatenate(self._ends)
        parts = [(lengths, indices)]
        _publish_index(self.prefix, self.dtype, parts, len(lengths), len(indices) - 1, self._sync)
        return None


class IndexedReader:
    """Reads a dataset through memory maps.

    Attributes:
        dtype: of the tokens.
        lengths: int32 [S], tokens per sequence. offsets: int64 [S], bytes. document_indices: int64 [D].

    Raises:
        IndexedDatasetError: missing file, wrong magic, version or dtype code, or sizes that contradict each
        other.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        index = idx_path(prefix)
        try:
            size = index.stat().st_size
            with index.open("rb") as file:
                header = file.read(HEADER_BYTES)
            self.bin_bytes = bin_path(prefix).stat().st_size
        except FileNotFoundError as error:
            raise IndexedDatasetError(f"there is no {error.filename}: is {prefix} the right prefix?") from error
        if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
            raise IndexedDatasetError(f"{index} is not a Megatron index: it does not begin with {MAGIC!r}")
        version, code, sequences, entries = struct.unpack_from("<QBQQ", header, len(MAGIC))
        if version != VERSION:
            raise IndexedDatasetError(f"{index} has format version {version}; only {VERSION} is known")
        if code not in DTYPES:
            raise IndexedDatasetError(f"{index} has the unknown dtype code {code}")
        needed = HEADER_BYTES + 12 * sequences + 8 * entries
        if size != needed:
            raise IndexedDatasetError(f"{index} has {size:,} bytes where its header asks for {needed:,}: it is damaged")
        self.dtype = DTYPES[code]
        with index.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.lengths: Array = np.frombuffer(mapped, "<i4", sequences, HEADER_BYTES)
        self.offsets: Array = np.frombuffer(mapped, "<i8", sequences, HEADER_BYTES + 4 * sequences)
        self.document_indices: Array = np.frombuffer(mapped, "<i8", entries, HEADER_BYTES + 12 * sequences)

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.lengths)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.document_indices) - 1

    @cached_property
    def _tokens(self) -> Array:
        if not self.bin_bytes:
            return np.zeros(0, self.dtype)
        with bin_path(self.prefix).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self.dtype, self.bin_bytes // self.dtype.itemsize)

    def sequence(self, index: int) -> Array:
        """Tokens of one sequence, a read-only view."""
        begin = int(self.offsets[index]) // self.dtype.itemsize
        return self._tokens[begin : begin + int(self.lengths[index])]

    def document(self, index: int) -> list[Array]:
        """The sequences of one document."""
        return [self.sequence(i) for i in range(self.document_indices[index], self.document_indices[index + 1])]

    def blocks(self, tokens: int = 1 << 22) -> Iterator[Array]:
        """All of .bin in order, in arrays of at most `tokens` items, read without a memory map."""
        with bin_path(self.prefix).open("rb") as file:
            while len(block := np.fromfile(file, self.dtype, tokens)):
                yield block


def merge(parts: Sequence[Path], prefix: Path) -> None:
    """Join the datasets `parts` into `prefix`, in order. Memory: the index of one part at a time.

    Raises:
        IndexedDatasetError: no parts, or parts of different token types.
        StorageError: no space left (asked before the first byte is copied).
    """
    if not parts:
        raise IndexedDatasetError(f"nothing to join into {prefix}")
    first, tokens_size, sequences, documents = IndexedReader(parts[0]), 0, 0, 0
    for part in parts:
        reader = IndexedReader(part)
        if reader.dtype != first.dtype:
            raise IndexedDatasetError(
                f"{part} holds {reader.dtype} and {parts[0]} {first.dtype}: different vocabularies"
            )
        tokens_size += reader.bin_bytes
        sequences += len(reader)
        documents += reader.documents
    require_space(prefix.parent, tokens_size + HEADER_BYTES + 12 * sequences + 8 * (documents + 1))
    idx_path(prefix).unlink(missing_ok=True)
    with atomic_path(bin_path(prefix)) as temporary, temporary.open("wb") as target:
        for part in parts:
            with bin_path(part).open("rb") as source:
                _append(source, target)
        if target.tell() != tokens_size:
            raise IndexedDatasetError(f"a part of {prefix} changed while it was joined: run again")
    _publish_index(prefix, first.dtype, _Parts(parts), sequences, documents, sync=True)


class _Parts(Sequence[tuple[Array, Array]]):
    """(lengths, document indices) of datasets on disk, opened one at a time."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self._prefixes = prefixes

    def __len__(self) -> int:
        return len(self._prefixes)

    def __getitem__(self, index: Any) -> Any:
        reader = IndexedReader(self._prefixes[index])
        return reader.lengths, reader.document_indices


def _publish_index(
    prefix: Path,
    dtype: np.dtype[Any],
    parts: Sequence[tuple[Array, Array]],
    sequences: int,
    documents: int,
    sync: bool,
) -> None:
    """Write .idx from (lengths [S], document indices [D]) of consecutive parts, without holding them all at
    once.
    """
    with atomic_path(idx_path(prefix), sync=sync) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<QBQQ", VERSION, _CODES[dtype], sequences, documents + 1))
        for lengths, _ in parts:
            file.write(lengths.astype("<i4").tobytes())
        offset = 0
        for lengths, _ in parts:
            ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize + offset
            file.write(np.concatenate(([offset], ends[:-1])).astype("<i8").tobytes() if len(ends) else b"")
            offset = int(ends[-1]) if len(ends) else offset
        file.write(struct.pack("<q", 0))
        base = 0
        for lengths, indices in parts:
            file.write((indices[1:] + base).astype("<i8").tobytes())
            base += len(lengths)


def _append(source: BinaryIO, target: BinaryIO) -> None:
    """Copy all of `source` to the end of `target`: in the kernel where it can, which on some file systems is
    free.
    """
    remaining = os.fstat(source.fileno()).st_size
    while remaining:
        try:
            copied = os.copy_file_range(source.fileno(), target.fileno(), min(remaining, _COPY_BYTES))
        except OSError as error:
            if error.errno not in _NO_RANGE_COPY:
                raise
            copied = 0
        if not copied:  # not supported here: by hand, from where the kernel stopped
            while block := os.read(source.fileno(), 1 << 22):
                while block:
                    block = block[os.write(target.fileno(), block) :]
            return
        remaining -= copied
