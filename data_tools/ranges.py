"""What a run reads, cut into shards: byte ranges of plain .jsonl files, and whole files of any other kind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_tools.files import COMPRESSIONS, file_format

_MIN_SHARD, _MAX_SHARD, _SHARDS_PER_FILE = 4 << 20, 64 << 20, 64


@dataclass(frozen=True)
class InputFile:
    """An input as the run saw it first; a later change of size or time is found."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> "InputFile":
        """The file as it is now.

        Raises:
            ValueError: a suffix that is not read. FileNotFoundError.
        """
        file_format(path)
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def plain(self) -> bool:
        """Whether it can be read in ranges."""
        return file_format(self.path) == "jsonl" and self.path.suffix not in COMPRESSIONS


class Range(NamedTuple):
    """Bytes of the file number `file`; `end` is None for a whole file. `weight`: bytes on disk, for progress."""

    file: int
    start: int
    end: int | None
    weight: int


def plan_ranges(files: Sequence[InputFile], shard_bytes: int | None = None) -> list[Range]:
    """The ranges of a run, in document order. They depend on the inputs alone, not on the number of workers.

    Args:
        shard_bytes: size of a byte range; left out, a 64th of the file, within 4 to 64 MiB.
    """
    ranges = []
    for number, file in enumerate(files):
        size = shard_bytes or min(max(file.size // _SHARDS_PER_FILE, _MIN_SHARD), _MAX_SHARD)
        for index in range(max(1, math.ceil(file.size / size)) if file.plain else 1):
            start, end = (index * size, min((index + 1) * size, file.size)) if file.plain else (0, None)
            ranges.append(Range(number, start, end, file.size if end is None else end - start))
    return ranges


def range_problem(file: InputFile, span: int) -> str | None:
    """What is wrong after the ranges of `file` were read, or None: it changed, or its lines, `span` bytes of them
    with their ends, do not cover all of it.
    """
    if InputFile.at(file.path) != file:
        return f"{file.path} changed while it was read: run again once it is at rest"
    if file.plain and span - file.size not in (0, 1):  # 1: the last line has no line end
        return f"{file.path}: its lines cover {span:,} of {file.size:,} bytes: please report this"
    return None
