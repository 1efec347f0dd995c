"""Blocks of global tensors in safetensors files, readable at any slice.

A *global tensor* is what the model would hold on one device; each rank holds a *block* of it: a box given
by its offset. `write_shards` puts a rank's blocks into one file and says in the file's own metadata where
each block lies. `ShardReader` assembles any slice from the blocks that overlap it, so a checkpoint written
under one parallel layout is read under any other without a conversion step.

Blocks that overlap are replicas: they hold the same values, and whichever comes first is read.
"""

import difflib
import json
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from megatron_aquila.errors import AquilaError

# The format's names of dtypes.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

Box = tuple[tuple[int, int], ...]
"""(start, stop) along each axis; a 0-d tensor is the box ()."""


class ShardError(AquilaError):
    """A block cannot be written, or a slice cannot be read, as asked."""


@dataclass(frozen=True)
class Shard:
    """This rank's block of the global tensor `key`: `data`, of as many axes as that, at `offset`."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    data: torch.Tensor

    def __post_init__(self) -> None:
        fits = len(self.global_shape) == len(self.offset) == self.data.ndim and all(
            start >= 0 and start + length <= size
            for start, length, size in zip(self.offset, self.data.shape, self.global_shape)
        )
        if not fits:
            raise ShardError(
                f"block of '{self.key}' with shape {tuple(self.data.shape)} at offset {tuple(self.offset)} "
                f"does not lie in the global shape {tuple(self.global_shape)}"
            )
        if self.data.dtype not in _DTYPE_NAMES:
            raise ShardError(f"'{self.key}' has dtype {self.data.dtype}, which a safetensors file cannot hold")


def shard_path(directory: Path, rank: int) -> Path:
    """Where `rank` writes its blocks, so that `ShardReader(directory)` finds them."""
    return directory / f"shard-{rank:05d}.safetensors"


def write_shards(path: Path, shards: Iterable[Shard]) -> None:
    """Write blocks to one safetensors file and flush it to the disk.

    Any device, strides and sharing of storage will do. Blocks are copied to the host one at a time, which is
    why the file is laid out here: `safetensors.torch.save_file` wants all of them on the host at once.

    Raises:
        ShardError: the file cannot be written (disk full, read-only directory …).
    """
    # Widest elements first, as safetensors itself does, so that every block is aligned for its dtype.
    ordered = sorted(shards, key=lambda shard: -shard.data.element_size())
    seen: Counter[str] = Counter()
    header: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    end = 0
    for shard in ordered:
        name = f"{shard.key}#{seen[shard.key]}"  # one rank may hold several blocks of one tensor
        seen[shard.key] += 1
        start, end = end, end + shard.data.numel() * shard.data.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[shard.data.dtype],
            "shape": list(shard.data.shape),
            "data_offsets": [start, end],
        }
        blocks[name] = {
            "key": shard.key,
            "global_shape": list(shard.global_shape),
            "offset": list(shard.offset),
        }
    header["__metadata__"] = {"format": "pt", "blocks": json.dumps(blocks)}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little"))
            file.write(encoded)
            for shard in ordered:
                host = shard.data.detach().cpu().contiguous().reshape(-1)
                file.write(host.view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ShardError(
            f"cannot write {path} ({8 + len(encoded) + end:,} bytes): {error.strerror or error}"
        ) from error


@dataclass(frozen=True)
class _Block:
    """A stored block: where it lies in the global tensor, and in which open file under which name."""

    box: Box
    file: Any  # safetensors.safe_open: memory-mapped, nothing is read until asked for
    name: str

    def read(self, box: Box) -> torch.Tensor:
        """The part of this block inside `box`, which lies in the block: bytes outside of it are not read."""
        if box == self.box:
            return self.file.get_tensor(self.name)
        return self.file.get_slice(self.name)[_slices(box, self.box)]


class _Tensor:
    """A global tensor and its blocks, sorted along the axis that tells most of them apart."""

    def __init__(self, global_shape: tuple[int, ...], dtype: torch.dtype, blocks: list[_Block]) -> None:
        self.global_shape = global_shape
        self.dtype = dtype
        self.blocks = blocks
        extents = [[block.box[axis] for block in blocks] for axis in range(len(global_shape))]
        self._axis = max(range(len(extents)), key=lambda axis: len(set(extents[axis])), default=None)
        if self._axis is not None:
            along = extents[self._axis]
            self.blocks = [blocks[i] for i in sorted(range(len(blocks)), key=lambda i: along[i])]
            self._starts = sorted(start for start, _ in along)
            self._longest = max(stop - start for start, stop in along)

    def near(self, box: Box) -> list[_Block]:
        """The blocks that may overlap `box`, by bisection along the sorted axis."""
        if self._axis is None:
            return self.blocks
        start, stop = box[self._axis]
        # A block that begins at or before `start - longest` ends at or before `start`.
        first = bisect_right(self._starts, start - self._longest)
        return self.blocks[first : bisect_left(self._starts, stop)]


class ShardReader:
    """All global tensors in `directory/shard-*.safetensors`, as if each lay in one piece.

    Files are memory-mapped and only the bytes asked for are read.

    Raises:
        ShardError: no shard files, an unreadable one, or files that disagree on a tensor's global shape or
            dtype.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        paths = sorted(directory.glob("shard-*.safetensors"))
        if not paths:
            raise ShardError(f"{directory} holds no shard-*.safetensors file")
        declared: dict[str, tuple[Path, tuple[int, ...], torch.dtype]] = {}
        blocks: dict[str, list[_Block]] = {}
        for path in paths:
            for key, global_shape, dtype, block in _blocks(path):
                first, *expected = declared.setdefault(key, (path, global_shape, dtype))
                if expected != [global_shape, dtype]:
                    raise ShardError(
                        f"'{key}' is {expected[1]} {expected[0]} in {first.name} but {dtype} {global_shape} "
                        f"in {path.name}: these files in {directory} are not of one checkpoint"
                    )
                blocks.setdefault(key, []).append(block)
        self._tensors = {
            key: _Tensor(global_shape, dtype, blocks[key]) for key, (_, global_shape, dtype) in declared.items()
        }

    def keys(self) -> list[str]:
        """Names of all global tensors, sorted."""
        return sorted(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        """Global shape of `key`."""
        return self._tensor(key).global_shape

    def dtype(self, key: str) -> torch.dtype:
        """Stored dtype of `key`."""
        return self._tensor(key).dtype

    def read(
        self,
        key: str,
        offset: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """The slice of `key` with `shape` at `offset` (default: all of it), in memory of its own.

        Args:
            dtype: converts on the way; default is the stored one.

        Raises:
            ShardError: unknown key, a slice outside the global shape, or a region that no block covers.
        """
        tensor = self._tensor(key)
        offset = tuple(offset) if offset is not None else (0,) * len(tensor.global_shape)
        shape = tuple(shape) if shape is not None else tuple(n - o for n, o in zip(tensor.global_shape, offset))
        if not len(offset) == len(shape) == len(tensor.global_shape) or any(
            start < 0 or length < 0 or start + length > size
            for start, length, size in zip(offset, shape, tensor.global_shape)
        ):
            raise ShardError(
                f"slice of shape {shape} at offset {offset} does not lie in '{key}' of global shape "
                f"{tensor.global_shape}"
            )
        result = torch.empty(shape, dtype=dtype or tensor.dtype)
        region = _box(offset, shape)
        # What is still missing, as disjoint boxes. Each overlap is copied once and cut away: replicas are not
        # read again, and whatever is left over at the end is exactly what no block covers.
        missing = [region] if result.numel() else []
        for block in tensor.near(region):
            remaining: list[Box] = []
            for box in missing:
                part = _intersection(box, block.box)
                if part is None:
                    remaining.append(box)
                    continue
                result[_slices(part, region)].copy_(block.read(part))
                remaining.extend(_without(box, part))
            missing = remaining
            if not missing:
                break
        if missing:
            gap = ", ".join(f"{start}:{stop}" for start, stop in missing[0])
            raise ShardError(
                f"no block of '{key}' (global shape {tensor.global_shape}) covers [{gap}]: "
                f"a rank's shard file is missing from {self._directory}"
            )
        return result

    def _tensor(self, key: str) -> _Tensor:
        if key not in self._tensors:
            nearest = difflib.get_close_matches(key, self._tensors, n=1, cutoff=0)
            hint = f"; the nearest is '{nearest[0]}'" if nearest else ""
            raise ShardError(f"{self._directory} holds no tensor '{key}'{hint}")
        return self._tensors[key]


def _blocks(path: Path) -> Iterator[tuple[str, tuple[int, ...], torch.dtype, _Block]]:
    """Key, global shape and dtype of each block in a file, and the block."""
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ShardError(f"{path} is not a readable safetensors file: {error}") from error
    places = (file.metadata() or {}).get("blocks")
    if places is None:
        raise ShardError(f"{path} does not say where its blocks lie: it was not written by write_shards")
    for name, place in json.loads(places).items():
        stored = file.get_slice(name)
        block = _Block(_box(place["offset"], stored.get_shape()), file, name)
        yield place["key"], tuple(place["global_shape"]), _DTYPES[stored.get_dtype()], block


def _box(offset: Iterable[int], shape: Iterable[int]) -> Box:
    return tuple((start, start + length) for start, length in zip(offset, shape))


def _slices(box: Box, within: Box) -> tuple[slice, ...]:
    """Indices of `box` in a tensor that fills `within`."""
    return tuple(slice(start - origin, stop - origin) for (start, stop), (origin, _) in zip(box, within))


def _intersection(a: Box, b: Box) -> Box | None:
    common = tuple((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b))
    return None if any(start >= stop for start, stop in common) else common


def _without(box: Box, part: Box) -> Iterator[Box]:
    """`box` less `part`, which lies in it, as disjoint boxes: at most two per axis."""
    for axis, ((start, stop), (cut_start, cut_stop)) in enumerate(zip(box, part)):
        before, after = part[:axis], box[axis + 1 :]
        if start < cut_start:
            yield (*before, (start, cut_start), *after)
        if cut_stop < stop:
            yield (*before, (cut_stop, stop), *after)
