"""Which files a run reads, and in which order."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_tools.files import file_format


class InputError(ValueError):
    """What was asked for cannot be begun: a missing file, a wrong option, nothing to read."""


class RunError(RuntimeError):
    """A run cannot be finished as asked: too many bad records, a damaged file. What was done so far is kept."""


def resolve_inputs(inputs: Sequence[str]) -> list[Path]:
    """The files that `inputs` name, in this order: the arguments as given; within a directory (searched to
    any depth) or a glob pattern, by path in byte order.

    Files with other suffixes are passed over in a directory, and refused when they are named.

    Raises:
        InputError: nothing there, a suffix that is not read, or a file that is named twice.
    """
    found: list[Path] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = _sorted(p for p in path.rglob("*") if p.is_file() and _is_known(p))
            if not inside:
                raise InputError(f"the directory {given} holds no .jsonl, .json, .csv or .parquet file")
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
        try:
            file_format(path)
        except ValueError as error:
            raise InputError(str(error)) from error
        real = path.resolve()
        if real in seen:
            raise InputError(f"{path} is named twice: to weigh it more, give it a weight in the blend")
        seen.add(real)
    return found


def _is_known(path: Path) -> bool:
    try:
        file_format(path)
    except ValueError:
        return False
    return True


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=os.fsencode)
