"""Reading the dialogues and questions that pairs are made of: what cannot be read goes to quarantine and is counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import RecordError

T = TypeVar("T")


@dataclass
class FileCounts:
    """units = records + blank + quarantined."""

    path: str
    bytes: int
    units: int = 0
    records: int = 0
    blank: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self.__dict__, "quarantined": dict(sorted(self.quarantined.items()))}


def read_records(
    paths: Sequence[Path],
    convert: Callable[[Any, str, int], T],
    *,
    quarantine: Quarantine | None = None,
    counts: list[FileCounts] | None = None,
) -> Iterator[T]:
    """What `convert` (value, name of the file, offset) makes of every record; `quarantine` and `counts` get what was
    met, at the first of several readings.

    Raises:
        InputError: a file is damaged. RecordError, raised by `convert`, is none: the record goes to quarantine.
    """
    for path in paths:
        reader = FileReader(path, ReadOptions())
        found = FileCounts(str(path), path.stat().st_size)
        for item in reader:
            try:
                if isinstance(item, Fault):
                    raise RecordError(item.reason, item.detail)
                converted = convert(item.value, path.name, item.offset)
            except RecordError as error:
                found.quarantined[error.reason] += 1
                if quarantine is not None:
                    quarantine.add(str(path), Fault(item.line, item.offset, error.reason, error.detail, item.head))
                continue
            found.records += 1
            yield converted
        if reader.damage:
            raise InputError(f"{path}: {reader.damage}; get a whole copy or leave it out")
        found.units, found.blank = reader.units, reader.blank
        assert found.units == found.records + found.blank + found.quarantined.total()
        if counts is not None:
            counts.append(found)
