"""Finished pieces of work: a marker file whose presence says that a piece is done, and how to tell that its files are
whole.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import xxhash

from data_tools.publish import atomic_path


def digest_of(facts: Mapping[str, Any]) -> str:
    """32 hex digits over everything that a piece of work depends on; names its files."""
    return hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def commit(marker: Path, counts: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Say that a piece is done. `files` lie beside `marker`; their sizes and checksums are kept in it."""
    content = {"counts": counts, "files": {path.name: _checksum(path) for path in files}}
    with atomic_path(marker, sync=False) as temporary:
        temporary.write_bytes(orjson.dumps(content))


def committed(marker: Path) -> dict[str, Any] | None:
    """The counts of a piece that is done and whose files are whole, else None."""
    try:
        content = orjson.loads(marker.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    for name, checksum in content["files"].items():
        path = marker.with_name(name)
        if not path.exists() or _checksum(path) != checksum:
            return None
    counts: dict[str, Any] = content["counts"]
    return counts


def counts_of(marker: Path) -> dict[str, Any]:
    """The counts of a piece that is known to be done; its files are not looked at."""
    counts: dict[str, Any] = orjson.loads(marker.read_bytes())["counts"]
    return counts


def _checksum(path: Path) -> list[Any]:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]
