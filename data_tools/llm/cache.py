"""Recorded answers on disk, found by the SHA-256 of what was asked.

A directory of append-only segments (`*.jsonl`), one for each process that wrote. A line is one write of

    {"key": hex, "answer": {…}, "check": crc32}    or    {"key": hex, "failure": {…}, "check": crc32}

so that a process may be killed at any moment: what it had recorded is there, an unfinished last line is passed over.
Recorded failures serve the replay of a run only; a recording run asks again. What was asked is not stored.
"""

import errno
import fcntl
import os
import secrets
import time
import zlib
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from data_tools.llm.exchange import Answer, Failure
from data_tools.publish import storage_errors

_SYNC_SECONDS = 5.0


class _Place(NamedTuple):
    segment: str
    offset: int
    size: int


class AnswerCache:
    """A context manager. Several processes may share the directory: each sees what the others have recorded, and
    `claim` keeps two of them from asking the same at once. Within one process open it once.

    Attributes:
        damaged: complete lines that are not what was written (a fault of the disk); they count as not there.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory = directory
        self.damaged = 0
        self._read_only = read_only
        self._answers: dict[bytes, _Place] = {}
        self._failures: dict[bytes, _Place] = {}
        self._seen: dict[str, int] = {}  # bytes of each segment that have been read, up to a line end
        self._segment: FileIO | None = None
        self._name = ""
        self._end = 0
        self._synced = time.monotonic()
        self._claims = -1

    def __enter__(self) -> Self:
        if not self._read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._claims = os.open(self.directory / "claims", os.O_RDWR | os.O_CREAT, 0o644)
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        if self._segment is not None:
            os.fsync(self._segment.fileno())
            self._segment.close()
            self._segment = None
        if self._claims >= 0:
            os.close(self._claims)  # lets all claims go
            self._claims = -1

    def __len__(self) -> int:
        """Answers known to this process."""
        return len(self._answers)

    def __contains__(self, key: bytes) -> bool:
        return key in self._answers

    def refresh(self) -> None:
        """Take note of what other processes have recorded since."""
        if not self.directory.is_dir():
            return
        for name in sorted(entry.name for entry in os.scandir(self.directory) if entry.name.endswith(".jsonl")):
            path = self.directory / name
            start = self._seen.get(name, 0)
            if name == self._name or path.stat().st_size <= start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written, or the last words of a killed process
                    self._note(line, _Place(name, start, len(line)))
                    start += len(line)
            self._seen[name] = start

    def _note(self, line: bytes, place: _Place) -> None:
        """The first record of a key counts; segments are read in order of their names, which begin with the time."""
        record = _parse(line)
        if record is None:
            self.damaged += 1
            return
        places = self._answers if "answer" in record else self._failures
        places.setdefault(bytes.fromhex(record["key"]), place)

    def answer(self, key: bytes) -> Answer | None:
        """The recorded answer."""
        record = self._read(self._answers.get(key))
        return None if record is None else Answer(**record["answer"])

    def failure(self, key: bytes) -> Failure | None:
        """How asking ended at last, where it ended without an answer."""
        record = self._read(self._failures.get(key))
        return None if record is None else Failure(**record["failure"])

    def _read(self, place: _Place | None) -> dict[str, Any] | None:
        if place is None:
            return None
        with (self.directory / place.segment).open("rb") as file:
            line = os.pread(file.fileno(), place.size, place.offset)
        record = _parse(line)
        if record is None:
            raise OSError(f"{self.directory / place.segment} was changed while it was in use: run again")
        return record

    def record(self, key: bytes, result: Answer | Failure) -> None:
        """Append one result. It outlives this process at once, and the machine after a few seconds or `close`.

        Raises:
            StorageError: no space left.
        """
        kind = "answer" if isinstance(result, Answer) else "failure"
        content = {name: getattr(result, name) for name in result.__slots__}
        body = orjson.dumps({"key": key.hex(), kind: content}, option=orjson.OPT_SORT_KEYS)
        line = body[:-1] + b',"check":%d}\n' % zlib.crc32(body)
        with storage_errors(self.directory):
            if self._segment is None:
                self._name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
                self._segment = FileIO(self.directory / self._name, "x")
            try:
                if self._segment.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "no space left on device")
            except OSError:
                with suppress(OSError):
                    self._segment.truncate(self._end)
                    self._segment.seek(self._end)
                raise
            now = time.monotonic()
            if now - self._synced > _SYNC_SECONDS:
                os.fsync(self._segment.fileno())
                self._synced = now
        place = _Place(self._name, self._end, len(line))
        self._end += len(line)
        (self._answers if kind == "answer" else self._failures).setdefault(key, place)

    def claim(self, key: bytes) -> bool:
        """Whether this process may ask for `key` now; False while another one is about it. A process that dies lets go.

        A lock of one byte of the file `claims`, at an offset out of the key.
        """
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _claim_offset(key))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, key: bytes) -> None:
        """Let go of a claimed key."""
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _claim_offset(key))


def _claim_offset(key: bytes) -> int:
    return int.from_bytes(key[:7], "big")


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where it is not whole."""
    body, found, check = line.rpartition(b',"check":')
    body += b"}"
    if not found or check != b"%d}\n" % zlib.crc32(body):
        return None
    return orjson.loads(body)
