"""Which files a run reads, and in which order."""

import glob
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from data_tools.files import COMPRESSIONS, FORMATS


class InputError(ValueError):
    """What was asked for cannot be begun: a missing file, a wrong option, nothing to read."""


class RunError(RuntimeError):
    """A run cannot be finished as asked: too many bad records, a damaged file. What was done so far is kept."""


def resolve_inputs(inputs: Sequence[str], suffixes: Collection[str] = tuple(FORMATS)) -> list[Path]:
    """The files that `inputs` name, in this order: the arguments as given; within a directory (searched to
    any depth) or a glob pattern, by path in byte order.

    Files with other suffixes are passed over in a directory, and refused when they are named. .gz and .zst may follow a
    suffix.

    Raises:
        InputError: nothing there, a suffix that is not read, or a file that is named twice.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = _sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p) in suffixes)
            if not inside:
                raise InputError(f"the directory {given} holds no file that ends in {' or '.join(suffixes)}")
            found += inside
        elif path.is_file():
            found.append(path)
        elif glob.has_magic(given):
            names = glob.glob(given, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
            matches = _sorted(path for path in map(Path, names) if path.is_file())
            if not matches:
                raise InputError(f"no file matches {given}")
            found += matches
        elif path.exists():
            raise InputError(f"{given} is neither a file nor a directory: streams and devices cannot be read in shards")
        else:
            raise InputError(f"there is no input {given}")
    seen: set[Path] = set()
    for path in found:
        if _suffix(path) not in suffixes:
            raise InputError(f"{path} has no suffix that is known here: {', '.join(suffixes)}; .gz or .zst may follow")
        real = path.resolve()
        if real in seen:
            raise InputError(f"{path} is named twice: to weigh it more, give it a weight in the blend")
        seen.add(real)
    return found


def all_files(paths: Sequence[Path]) -> list[Path]:
    """`paths`, with the files in a directory, in byte order, in its place."""
    found = []
    for path in paths:
        inside = sorted((p for p in path.rglob("*") if p.is_file()), key=os.fsencode) if path.is_dir() else [path]
        found += inside
    return found


def _suffix(path: Path) -> str:
    """Of the name, without that of a compression; a compressed .parquet is not read."""
    inner = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return path.suffix if inner == ".parquet" else inner


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=os.fsencode)
