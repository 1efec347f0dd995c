"""From the files as published to DATA/SET: read, counted, checked, written with their digests.

Nothing is downloaded but from a prefix that the user names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from data_tools.manifest import write_manifest
from data_tools.publish import exclusive, sha256_file
from megatron_aquila.evaluation.results import write_lines
from megatron_aquila.evaluation.tasks.archives import MAX_BYTES, is_archive, unpack
from megatron_aquila.evaluation.tasks.data import FORMAT, MANIFEST, EvaluationDataError, read_set, split_path
from megatron_aquila.evaluation.tasks.sources import SOURCES, Options, Source
from megatron_aquila.evaluation.tasks.sources.base import Folder, Read

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60
_UNPACKED = "unpacked"


@dataclass(frozen=True)
class FetchedFile:
    """A file that was read: as published (True), another version (False), or of no known digest (None)."""

    name: str
    sha256: str
    size: int
    as_published: bool | None


@dataclass(frozen=True)
class Fetched:
    """What lies in DATA/SET now. splits: rows of each."""

    directory: Path
    splits: dict[str, int]
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...]


def fetch(
    name: str,
    source: str,
    data: Path,
    *,
    any_rows: bool = False,
    cop_base: int | None = None,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Fetched:
    """Read a published set from a directory, a file, an archive or a mirror, and write it as records of ours.

    Args:
        name: of `sources.SOURCES`.
        source: a path, or the http(s) prefix of a mirror, or the address of an archive or file.
        data: the directory of all sets.
        any_rows: take another number of rows than was published; the manifest says so.
        cop_base: of MedMCQA, whether `cop` counts from 0 or 1, where the numbers do not tell.
        seed: of the draw of 500 questions of Huatuo.
        max_bytes: of a download, and of what an archive holds.

    Raises:
        EvaluationDataError: in one sentence: a missing file, a row that cannot be read, other counts than expected.
    """
    published = SOURCES.get(name)
    if published is None:
        raise EvaluationDataError(f"there is no set {name!r}: choose out of {', '.join(SOURCES)}")
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=data) as scratch:
        try:
            former = [*(data / known for known in SOURCES), Path(scratch)]
            folder = _obtain(published, source, Path(scratch), max_bytes, former)
            read = published.read(folder, Options(cop_base, seed))
            _check_counts(published, read, any_rows)
        except EvaluationDataError as error:
            # Files of a mirror or an archive are known to the user by where they came from.
            shown = source.rstrip("/")
            said = str(error).replace(f"{scratch}/{_UNPACKED}", shown).replace(scratch, shown)
            raise EvaluationDataError(said) from error
        files = tuple(_fetched_file(published, path) for path in folder.used)
        return _write(published, source, data, read, files, any_rows)


def _obtain(published: Source, source: str, scratch: Path, max_bytes: int, former: Sequence[Path]) -> Folder:
    def unpack_all(files: Sequence[Path]) -> Path:
        for archive in filter(is_archive, files):
            unpack(archive, scratch / _UNPACKED / archive.name, max_bytes=max_bytes)
        return scratch / _UNPACKED

    if urlsplit(source).scheme in ("http", "https"):
        _download_set(published, source, scratch, max_bytes)
        return Folder(scratch, unpack_all)
    path = Path(source).expanduser()
    if "://" in source:
        raise EvaluationDataError(f"{source}: give a path, or an address of http or https")
    if not path.exists():
        raise EvaluationDataError(f"there is nothing at {source}: give the directory, file or archive as published")
    return Folder(path, unpack_all, former)


def _download_set(published: Source, source: str, scratch: Path, max_bytes: int) -> None:
    """The files of the first alternative that the mirror has in full, or the one file that the address names."""
    parts = urlsplit(source)
    last = parts.path.rsplit("/", 1)[-1]
    if is_archive(last) or any(last == name.rsplit("/", 1)[-1] for names in published.mirror for name in names):
        if not _download(source, scratch / last, max_bytes):
            raise EvaluationDataError(f"{source} does not exist (404)")
        return
    left, tried = max_bytes, []
    for names in published.mirror:
        for number, name in enumerate(names):
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _download(f"{source.rstrip('/')}/{quote(name)}", path, left):
                tried.append(name)
                break
            left -= path.stat().st_size
            if number == len(names) - 1:
                return
    raise EvaluationDataError(f"{source} has none of the layouts of {published.name}: not found are {', '.join(tried)}")


def _download(address: str, path: Path, max_bytes: int) -> bool:
    """Whether the file was there. Raises: EvaluationDataError: unreachable, refused, cut off or too large."""
    import urllib.request  # 0.3 s that only a download needs

    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
            size = 0
            while block := answer.read(_BLOCK):
                size += len(block)
                if size > max_bytes:
                    raise EvaluationDataError(f"{address} is larger than {max_bytes:,} bytes: it is not taken")
                file.write(block)
            expected = answer.headers.get("Content-Length")
    except urllib.request.HTTPError as error:
        if error.code == 404:
            path.unlink(missing_ok=True)
            return False
        raise EvaluationDataError(f"{address}: the server answers {error.code} {error.reason}") from error
    except OSError as error:
        raise EvaluationDataError(f"{address} cannot be read: {error}") from error
    if expected is not None and size != int(expected):
        raise EvaluationDataError(f"{address} was cut off after {size:,} of {int(expected):,} bytes: fetch it again")
    return True


def _check_counts(published: Source, read: Read, any_rows: bool) -> None:
    for split, expected in published.rows.items():
        if split not in read.splits:
            if split not in published.optional and not any_rows:
                raise EvaluationDataError(f"{published.name} has no {split} in what was given: lay all its files there")
            continue
        if any_rows:
            continue
        for part in read.splits[split]:
            wanted = expected.get(part.subject)
            if wanted is not None and len(part.records) != wanted:
                about = f" of {part.subject}" if part.subject else ""
                raise EvaluationDataError(
                    f"{part.file.name}: {len(part.records):,} rows in {split}{about} where the published file has "
                    f"{wanted:,}: take the file as published, or --any-rows to score what is there"
                )


def _fetched_file(published: Source, path: Path) -> FetchedFile:
    digest = sha256_file(path)
    known = published.known.get(path.name)
    return FetchedFile(path.name, digest, path.stat().st_size, None if known is None else known == digest)


def _write(
    published: Source, source: str, data: Path, read: Read, files: tuple[FetchedFile, ...], any_rows: bool
) -> Fetched:
    directory = data / published.name
    rows = {split: [record for part in parts for record in part.records] for split, parts in read.splits.items()}
    with exclusive(data / ".locks", directory):
        directory.mkdir(exist_ok=True)
        former = read_set(data, published.name).get("splits", {})
        (directory / MANIFEST).unlink(missing_ok=True)
        for split in former.keys() - rows.keys():
            split_path(data, published.name, split).unlink(missing_ok=True)
        splits = {}
        for split, records in rows.items():
            path = split_path(data, published.name, split)
            write_lines(path, records)
            splits[split] = {"file": path.name, "rows": len(records), "sha256": sha256_file(path)}
        manifest = {
            "format": FORMAT,
            "set": published.name,
            "title": published.title,
            "licence": published.licence,
            "origin": published.origin,
            "from": source,
            "any_rows": any_rows,
            "splits": splits,
            "sources": [
                {"file": file.name, "sha256": file.sha256, "bytes": file.size, "as_published": file.as_published}
                for file in files
            ],
            "notes": list(read.notes),
        }
        write_manifest(directory / MANIFEST, manifest)
    counts = {split: len(records) for split, records in rows.items()}
    return Fetched(directory, counts, files, read.notes)
