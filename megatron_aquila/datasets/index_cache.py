"""What lies in the folder of Megatron's cached indices, looked at before Megatron opens it.

Megatron-core 0.16 opens `*.npy` there by `numpy.load(allow_pickle=True)`, which runs whatever a pickled file says, and
takes a file that a killed process wrote by half for a whole one. So every rank reads the headers first: what is no
plain array of integers is refused, and what is cut off is removed by rank 0, which then builds it anew.

Whoever may write into the folder while a run starts can still change a file after it was looked at: SECURITY.md counts
those who may write into a run's folders among the trusted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from megatron_aquila.errors import AquilaError

_MAGIC = npy.MAGIC_PREFIX
_HEADER_BYTES = 10_000  # numpy's own limit, under which it parses a header as a literal


class IndexCacheError(AquilaError):
    """The folder of cached indices holds what no run of ours has written."""


def check(folder: Path, *, repair: bool) -> list[Path]:
    """The cut-off files of `folder`. With `repair` they are removed: only one rank does it.

    Raises:
        IndexCacheError: a file is no plain array of integers.
    """
    damaged = [path for path in sorted(folder.glob("*.npy")) if _is_cut_off(path)]
    if repair:
        for path in damaged:
            path.unlink(missing_ok=True)
    return damaged


def _is_cut_off(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:  # rank 0 has just removed it
        return False


def _read(path: Path, file: IO[bytes]) -> bool:
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(_MAGIC))
    if start != _MAGIC:
        if _MAGIC.startswith(start):
            return True  # a process was killed at the first bytes
        raise _refused(path, "does not begin as an array of numpy does")
    file.seek(0)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise _refused(path, f"has the format version {version}, which Megatron does not write")
        shape, _, dtype = read(file, max_header_size=_HEADER_BYTES)
    except ValueError as error:
        if file.tell() == size:  # it ends within its header
            return True
        raise _refused(path, f"has a header that cannot be read ({error})") from error
    if dtype.kind not in "iu":
        raise _refused(path, f"holds {'Python objects' if dtype.hasobject else dtype}, not whole numbers")
    expected = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > expected:
        raise _refused(path, f"has {size - expected:,} bytes behind its array")
    return size < expected


def _refused(path: Path, reason: str) -> IndexCacheError:
    return IndexCacheError(
        f"{path} {reason}: no run of this program has written it. Find out who did; then remove the folder, which the "
        "next run builds anew"
    )
