"""What makes a checkpoint folder whole.

`manifest.json` holds size and SHA-256 of every other file; `manifest.json.sha256` beside it seals the
manifest itself, in the format of sha256sum. A flipped bit, a zeroed page, a truncated, missing or extra file
anywhere in the folder is `Damage`.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from data_tools.publish import fsync, sha256_file

MANIFEST, SEAL = "manifest.json", "manifest.json.sha256"

Manifest = dict[str, Any]
"""Has at least `files`: {name: {"size": bytes, "sha256": hex digest}}."""


class Damage(Exception):
    """What is wrong with a checkpoint: one clause that names the file."""


def weights_digest(digests: Iterable[str]) -> str:
    """What names weights wherever they are named: SHA-256 over the sorted SHA-256 of their files."""
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest and its seal, flushed to the disk."""
    content = json.dumps(manifest, indent=1).encode()
    write_flushed(directory / MANIFEST, content)
    write_flushed(directory / SEAL, _seal(content))


def read_manifest(directory: Path) -> Manifest:
    """The manifest, after comparing it with its seal.

    Raises:
        Damage: either file is missing or altered.
    """
    content = _read(directory / MANIFEST)
    if _read(directory / SEAL) != _seal(content):
        raise Damage(f"{MANIFEST} and {SEAL} do not fit each other")
    return json.loads(content)


def read_listed(directory: Path, name: str, manifest: Manifest) -> bytes:
    """The content of a small listed file, compared with its digest. Raises Damage."""
    content = _read(directory / name)
    if hashlib.sha256(content).hexdigest() != manifest["files"][name]["sha256"]:
        raise Damage(_altered(name))
    return content


def check_listing(directory: Path, manifest: Manifest) -> None:
    """Compare names and sizes with the manifest without reading any file. Raises Damage."""
    with os.scandir(directory) as entries:
        present = {
            entry.name: entry.stat().st_size if entry.is_file(follow_symlinks=False) else None for entry in entries
        }
    files = manifest["files"]
    extra = sorted(present.keys() - files.keys() - {MANIFEST, SEAL})
    if extra:
        raise Damage(f"{extra[0]} does not belong to it")
    for name, expected in files.items():
        if name not in present:
            raise Damage(f"{name} is missing")
        if present[name] is None:
            raise Damage(f"{name} is not a regular file")
        if present[name] != expected["size"]:
            raise Damage(f"{name} has {present[name]} bytes instead of {expected['size']}")


def altered_files(directory: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    """What is wrong with the content of the files `names` that do not match their digests."""

    def compare(name: str) -> str | None:
        try:
            same = sha256_file(directory / name) == manifest["files"][name]["sha256"]
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        return None if same else _altered(name)

    with _pool() as pool:
        return [damage for damage in pool.map(compare, names) if damage]


def flush_and_digest(directory: Path) -> dict[str, dict[str, Any]]:
    """Flush every file in `directory` to the disk and hash it, in threads: the `files` of a manifest.

    Raises:
        ValueError: it holds something that is not a file.
    """

    def digest(path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise ValueError(f"{path.name} is not a file; a checkpoint holds no folders")
        fsync(path)
        return {"size": path.stat().st_size, "sha256": sha256_file(path)}

    paths = sorted(directory.iterdir())
    with _pool() as pool:
        return dict(zip([path.name for path in paths], pool.map(digest, paths)))


def versions(*distributions: str) -> dict[str, str | None]:
    """Installed versions; None for a package that runs from a source tree."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def write_flushed(path: Path, content: bytes) -> None:
    """Write a small file through to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # hashlib lets go of the GIL


def _seal(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _altered(name: str) -> str:
    return f"the content of {name} has changed since it was written (SHA-256 differs)"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Damage(f"{path.name} cannot be read ({error.strerror})") from error
