"""Publishing a file so that a reader finds either the whole of it or nothing: write beside, fsync, rename."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "lock"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StorageError(OSError):
    """The disk is full, a quota is reached, or a place cannot be written to. One sentence, without errno."""


@contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, else remove it.

    `sync=False` leaves out the two fsyncs, for files that carry a checksum and can be made again.

    Raises:
        StorageError: no space, quota reached or file too large, here or inside the block.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            yield temporary
            if sync:
                fsync(temporary)
            temporary.replace(path)
            if sync:
                fsync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Publish a small file. Raises StorageError as `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and its kin, raised inside the block, into a StorageError that names `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        # numpy's ndarray.tofile says "1788 requested and 609 written", and gives no errno (numpy 2.4).
        short = error.errno is None and "requested and" in str(error)
        if error.errno not in _NO_SPACE and not short:
            raise
        raise StorageError(
            f"cannot write {path}: {(error.strerror or 'no space').lower()}; what was half written "
            "is removed: free some space or choose another disk, and run again"
        ) from error


class BusyError(RuntimeError):
    """Another run is writing the same output."""


@contextmanager
def exclusive(directory: Path, output: Path) -> Iterator[None]:
    """Hold the lock file in `directory`, which is made if need be, while `output` is written.

    Raises:
        BusyError: another process holds it.
    """
    directory.mkdir(exist_ok=True)
    with (directory / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another run is writing {output} at this moment: wait for it, or end it") from error
        yield


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that a killed process left beside `path`. The caller holds the output's
    lock.
    """
    for leftover in path.parent.glob(f"{_escape(path.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)


def require_space(directory: Path, size: int) -> None:
    """Refuse early when `directory` has not `size` bytes free.

    Raises:
        StorageError: too little space.
    """
    free = shutil.disk_usage(directory).free
    if free < size:
        raise StorageError(f"{directory} has {free:,} bytes free and {size:,} are needed: free some space first")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _escape(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
