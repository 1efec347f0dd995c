"""Unpacking archives from elsewhere: nothing outside the target, nothing but files, no more than was bargained for.

Python 3.11's own extraction follows links that a later member replaces (CVE-2025-4517 and its kin); here members are
read as streams and written by us, so that no link, owner or mode of the archive is ever made.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from megatron_aquila.evaluation.tasks.data import EvaluationDataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_BYTES = 2 << 30
MAX_MEMBERS = 100_000
MAX_RATIO = 200
"""Bytes out for each byte in; JSON of exam questions gives under 20, a bomb over 1,000."""
_FREE_BYTES = 16 << 20  # what any archive may give, whatever the ratio
_BLOCK = 1 << 20


def is_archive(path: Path | str) -> bool:
    return str(path).lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Write the files of a .zip or .tar (.gz, .bz2, .xz) below `target`.

    Raises:
        EvaluationDataError: it is damaged or encrypted, a member's name leaves the target, a member is a link or a
            device, or its contents are too many or too large.
    """
    limit = min(max_bytes, max(_FREE_BYTES, MAX_RATIO * archive.stat().st_size))
    written = 0
    try:
        for number, (name, stream) in enumerate(_members(archive), 1):
            if number > MAX_MEMBERS:
                raise EvaluationDataError(f"{archive} has more than {MAX_MEMBERS:,} members: it is no evaluation set")
            place = target / _safe(archive, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as file:
                while block := stream.read(_BLOCK):
                    written += len(block)
                    if written > limit:
                        raise EvaluationDataError(
                            f"{archive} unpacks to more than {limit:,} bytes: if it is what you mean, unpack it "
                            "yourself and give the directory"
                        )
                    file.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        # RuntimeError: zipfile's, where a member is encrypted
        raise EvaluationDataError(f"{archive} cannot be unpacked: {error}") from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as package:
            for entry in package.infolist():
                mode = stat.S_IFMT(entry.external_attr >> 16)
                if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise EvaluationDataError(f"{archive}: {entry.filename} is a link or a device: it is refused")
                if not entry.is_dir():
                    with package.open(entry) as stream:
                        yield entry.filename, stream
        return
    with tarfile.open(archive) as bundle:
        for member in bundle:
            if member.isdir():
                continue
            if not member.isreg():
                raise EvaluationDataError(f"{archive}: {member.name} is a link or a device: it is refused")
            found = bundle.extractfile(member)
            assert found is not None
            with found as stream:
                yield member.name, stream


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Raises: EvaluationDataError: the name is absolute, climbs up, or is one of Windows."""
    path = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise EvaluationDataError(f"{archive}: the member {name!r} would lie outside the directory: it is refused")
    return path
