"""What a reader of a published set has to give, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.files import FileReader, ReadOptions
from data_tools.quarantine import Fault
from data_tools.records import RecordError
from megatron_aquila.evaluation.tasks.data import EvaluationDataError, Record, check_record

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Options:
    """What a user may say of a set: see `fetch.fetch`."""

    cop_base: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """The records of one file, or of one subject in it."""

    file: Path
    subject: str | None
    records: list[Record]


@dataclass(frozen=True)
class Read:
    """What a reader found: split → its parts, in order; what the manifest should say beside."""

    splits: Mapping[str, Sequence[Part]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A published set.

    Attributes:
        rows: split → rows of the published set, by subject where it has some ({None: rows} else).
        optional: splits that are left out if their files are missing (examples only).
        mirror: file names below a mirror's prefix, as alternatives: the first whose files are all there is taken.
        known: SHA-256 of published files that were read when this was written, by name.
    """

    name: str
    title: str
    licence: str
    origin: str
    rows: Mapping[str, Mapping[str | None, int]]
    read: Callable[[Folder, Options], Read]
    mirror: Sequence[Sequence[str]]
    optional: frozenset[str] = frozenset()
    known: Mapping[str, str] = field(default_factory=dict)


class Folder:
    """The published files, wherever below a directory they stand; remembers which were used.

    Args:
        root: a directory, or the one file there is.
        without: directories whose files are passed over: what was fetched before may lie among what is read.
        unpack: called once, when a needed file is missing: unpacks the archives among the files, and says where to.
    """

    def __init__(
        self,
        root: Path,
        unpack: Callable[[Sequence[Path]], Path] | None = None,
        without: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.used: list[Path] = []
        files = _files_below(root) if root.is_dir() else [root]
        passed_over = [path.resolve() for path in without]
        self._files = [path for path in files if not any(path.resolve().is_relative_to(x) for x in passed_over)]
        self._unpack = unpack

    def find(self, *names: str) -> Path | None:
        """The file whose path ends in one of `names` (in this order; of several such files the one least deep).
        `*` in a name stands for any text within its part of the path.
        """
        for name in names:
            for path in self._files:
                if path.match(name) and not path.name.startswith("._"):  # ._x: what macOS adds to archives
                    if path not in self.used:
                        self.used.append(path)
                    return path
        return None

    def need(self, *names: str) -> Path:
        """As `find`. Raises: EvaluationDataError: there is none."""
        found = self.find(*names)
        if found is None and self._unpack is not None:
            unpack, self._unpack = self._unpack, None
            self._files += _files_below(unpack(self._files))
            found = self.find(*names)
        if found is None:
            raise EvaluationDataError(f"{self.root} holds no {' or '.join(names)}: lay the files there as published")
        return found


def _files_below(root: Path) -> list[Path]:
    return sorted((p for p in root.rglob("*") if p.is_file()), key=lambda p: (len(p.parts), p.as_posix()))


def rows_of(path: Path) -> Iterator[tuple[int, Record]]:
    """Line numbers and rows of a .json, .jsonl, .csv or .parquet file.

    Raises:
        EvaluationDataError: with file and line.
    """
    reader = FileReader(path, ReadOptions())
    for row in reader:
        if isinstance(row, Fault):
            raise EvaluationDataError(f"{path}, line {row.line}: {row.detail}")
        if not isinstance(row.value, dict):
            raise EvaluationDataError(f"{path}, line {row.line}: a row must be an object")
        yield row.line, {key.removeprefix("\ufeff"): cell for key, cell in row.value.items()}
    if reader.damage:
        raise EvaluationDataError(f"{path}: {reader.damage}")


def checked(path: Path, line: int | str, record: Record) -> Record:
    """Raises: EvaluationDataError with file and line (or the row's key), where the record is not one of ours."""
    try:
        return check_record(record, "")
    except RecordError as error:
        place = f"line {line}" if isinstance(line, int) else line
        raise EvaluationDataError(f"{path}, {place}: {error.detail}") from error


def question(
    path: Path,
    line: int | str,
    identity: str,
    text: Any,
    options: Mapping[str, Any],
    answer: Sequence[str],
    *,
    source: str,
    split: str,
    explanation: str = "",
    **meta: Any,
) -> Record:
    """A question of ours out of the cells of a row, checked."""
    return checked(
        path,
        line,
        {
            "id": identity,
            "question": text,
            "options": {letter: "" if option is None else option for letter, option in options.items()},
            "answer": list(answer),
            "explanation": explanation,
            "source": source,
            "split": split,
            "meta": {"cluster": identity, **meta},
        },
    )


def letters_of(row: Mapping[str, Any], path: Path, line: int, keys: Sequence[str] = "ABCD") -> dict[str, Any]:
    """The cells of `keys` as options A, B, …"""
    missing = [key for key in keys if key not in row]
    if missing:
        raise EvaluationDataError(
            f"{path}, line {line}: the column {missing[0]!r} is missing; there are {', '.join(row) or 'none'}"
        )
    return {letter: row[key] for letter, key in zip(LETTERS, keys)}
