"""The seam of the importers: what the files of a published set hold, as dialogues."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from data_tools.files import FileReader, ReadOptions, Record
from data_tools.quarantine import Fault
from data_tools.records import Messages


@dataclass(frozen=True, slots=True)
class Imported:
    """A dialogue as its file gives it; without an `id` it gets one out of its place. `meta` holds what else the file
    says of it (`department`), and under "kind" what it asks for: "qa", or "options" for a multiple-choice question.
    """

    messages: Messages
    lang: str = ""
    id: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


class RecordReader(Protocol):
    """What `FileReader` is: iterates over the `Record`s and `Fault`s of a file; counts complete after the end."""

    units: int
    blank: int
    damage: str | None

    @property
    def consumed(self) -> int:
        """Bytes taken off the disk so far."""

    def __iter__(self) -> Iterator[Record | Fault]: ...


class Importer(ABC):
    """One format. A record of a file becomes one dialogue, or is refused."""

    name: ClassVar[str]
    """What a recipe calls the format."""
    title: ClassVar[str]
    """One line for `aquila data import --list`: which published files these are."""
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
    """Of the files it reads, without .gz and .zst."""
    encodings: ClassVar[tuple[str, ...]] = ("utf-8",)
    """Tried in this order, unless the recipe names others."""

    def reader(self, path: Path, options: ReadOptions) -> RecordReader:
        """The records of a file."""
        return FileReader(path, options)

    @abstractmethod
    def convert(self, value: Any) -> Imported:
        """The dialogue of a parsed record. Texts are stripped of white space at their ends, and otherwise as they are:
        cleaning is for the steps.

        Raises:
            RecordError: it cannot be used; the reason is a short kebab-case word.
        """
