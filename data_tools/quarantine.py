"""Where bad records go: a JSON Lines file with the place, the reason and the head of the raw bytes of
each.
"""

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import orjson

from data_tools.publish import storage_errors


class Fault(NamedTuple):
    """A record that was not taken. `line` and `offset` as in `files.Record`; `head` is the start of its raw
    bytes.
    """

    line: int
    offset: int
    reason: str
    detail: str
    head: bytes

    def to_json(self, file: str) -> dict[str, object]:
        """The fault as a quarantine record; bytes that are not UTF-8 show as \\xNN in the excerpt."""
        return {
            "file": file,
            "line": self.line,
            "offset": self.offset,
            "reason": self.reason,
            "detail": self.detail,
            "excerpt": self.head.decode("utf-8", "backslashreplace"),
        }


class Quarantine:
    """Writes the faults of one source to `path` and counts them by reason. No fault, no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._file: BinaryIO | None = None

    def add(self, file: str, fault: Fault) -> None:
        """Write one fault of the input `file`.

        Raises:
            StorageError: the disk is full.
        """
        with storage_errors(self.path):
            if self._file is None:
                self._file = self.path.open("wb")
            self._file.write(orjson.dumps(fault.to_json(file), option=orjson.OPT_APPEND_NEWLINE))
        self.reasons[fault.reason] += 1

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with storage_errors(self.path):
                self._file.close()
