"""Which samples a run was trained on: a line a step, each tied to the one before, and checked against the ranks.

    {"step": 7, "samples": 768, "sum": "1f…", "ids": [[5376], …], "skipped": true, "chain": "9a…"}

sum: `fingerprint` of the step's samples, in hexadecimal. Every rank adds up what it has really computed with, and the
sum over the ranks must be it: no sample of the step was lost and none came twice, whatever the layout. ids: only with
`resilience.ledger: ids`. skipped: only where the update was left out. chain: SHA-256 over the chain of the line before
and this line, so that a line that was altered, taken out or put in is found; what was cut off at the end is not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from megatron_aquila.errors import AquilaError
from megatron_aquila.manifest import write_flushed

FILE = "ledger.jsonl"
_START = ""  # the chain before the first line

Hashes = npt.NDArray[np.uint64]


class LedgerError(AquilaError):
    """A ledger is damaged, cannot be written, or what the ranks trained on is not what the step has."""


def fingerprint(samples: Iterable[tuple[int, ...]]) -> int:
    """A hash of a multiset: the sum, modulo 2⁶⁴, of a 64-bit hash of each sample, as a signed int64.

    Sums over any division of the samples add up (modulo 2⁶⁴, as an all_reduce of int64 adds) to that of the whole;
    two multisets agree by chance once in 2⁶⁴. The hash is splitmix64 (Steele et al. 2014) over a sample's integers.
    """
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for sample in samples:
        by_length[len(sample)].append(sample)
    total = 0
    for length, group in by_length.items():
        hashes: Hashes = np.full(len(group), length, np.uint64)
        for column in np.array(group, np.int64).reshape(len(group), length).T.astype(np.uint64):
            hashes = _splitmix64(hashes ^ column)
        total += int(_splitmix64(hashes).sum(dtype=np.uint64))
    return signed(total)


def signed(total: int) -> int:
    """`total` modulo 2⁶⁴, as an int64."""
    return (total + 2**63) % 2**64 - 2**63


def _splitmix64(values: Hashes) -> Hashes:
    """One output of splitmix64 from each state. Unsigned arithmetic of arrays wraps."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Ledger:
    """Checks and writes a line for every step of a run.

    Every rank has one and calls `write`, so that all of them stop where something is wrong; the one with a path writes.
    """

    def __init__(self, path: Path | None, step: int, mode: Literal["digest", "ids", "off"]) -> None:
        """Go on after `step`: what lies beyond it is trained again, and cut off, a half-written line included.

        Raises:
            LedgerError: a line up to `step` is damaged, or does not follow from the one before.
        """
        self._mode = mode
        self._path = path
        self._file = None
        self._chain = _START
        if path is None or mode == "off":
            return
        self._chain, end = _head(path, step)
        partial = path.with_suffix(".tmp")
        with _written(path):
            # Another file: a process of this run that has not noticed its end does not write between our lines.
            write_flushed(partial, path.read_bytes()[:end] if end else b"")
            partial.replace(path)
            self._file = path.open("ab", buffering=0)

    def write(self, step: int, samples: Sequence[tuple[int, ...]], trained: int, *, skipped: bool = False) -> None:
        """Record step `step`, that has `samples`; `trained` is the sum over all ranks of what each was given to do.

        Args:
            step: number of the step, from 1.
            samples: of the global batch.
            trained: the sum of the `fingerprint` of every rank's own samples, each sample counted on one rank.
            skipped: the batch was computed and its update left out.

        Raises:
            LedgerError: `trained` is not the fingerprint of `samples`, or the file cannot be written.
        """
        if self._mode == "off":
            return
        expected = fingerprint(samples)
        if signed(trained) != expected:
            raise LedgerError(
                f"step {step}: the ranks did not train on the {len(samples)} samples that the step has: one was lost "
                f"or came twice (their hashes add up to {_hex(trained)} instead of {_hex(expected)}). The last "
                "checkpoint is sound; please report this with the recipe and the layout"
            )
        if self._path is None or self._file is None:
            return
        record: dict[str, Any] = {"step": step, "samples": len(samples), "sum": _hex(expected)}
        if self._mode == "ids":
            record["ids"] = [list(map(int, sample)) for sample in samples]
        if skipped:
            record["skipped"] = True
        line, self._chain = _line(self._chain, record)
        with _written(self._path):
            self._file.write(line.encode())

    def sync(self) -> None:
        """Have the disk hold every line: before a checkpoint of this step is published."""
        if self._path is not None and self._file is not None:
            with _written(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, without a half-written last one, unchecked; none where there is no file."""
    return [json.loads(line) for line, _ in _lines(path)]


def verify(path: Path) -> list[str]:
    """What is wrong with a ledger, a sentence a fault with the number of its line; nothing where it is sound.

    A line that is still being written is no fault.
    """
    wrong = []
    chain, last = _START, None
    for number, (line, _) in enumerate(_lines(path), 1):
        where = f"{path}: line {number}"
        record = _parse(line)
        if record is None:
            wrong.append(f"{where} is no line of a ledger")
            chain, last = "", None
            continue
        step = record["step"]
        if last is not None and step != last + 1:
            wrong.append(f"{where}: step {step} follows step {last}")
        if (chain or number == 1) and not _follows(chain, line, record):
            wrong.append(f"{where}: step {step} was altered, or does not follow the line before")
        if "ids" in record and _hex(fingerprint(map(tuple, record["ids"]))) != record["sum"]:
            wrong.append(f"{where}: step {step} has other ids than its sum says")
        chain, last = record["chain"], step
    return wrong


def _head(path: Path, step: int) -> tuple[str, int]:
    """The chain at the last line up to `step`, and the bytes until there."""
    chain, end, reached = _START, 0, None
    for number, (line, stop) in enumerate(_lines(path), 1):
        if step == 0 or reached == step:
            break
        record = _parse(line)
        if record is not None and record["step"] > step:
            break
        if record is None or not _follows(chain, line, record):
            raise LedgerError(
                f"{path}: line {number} was altered, or does not follow the line before: which samples the run has "
                "seen is no longer certain. Restore the file, or move it away and go on with a new one"
            )
        chain, end, reached = record["chain"], stop, record["step"]
    return chain, end


def _lines(path: Path) -> Iterator[tuple[str, int]]:
    """Complete lines, with the offset of the byte after each; none where there is no file."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for raw in file:
            end += len(raw)
            if raw.endswith(b"\n"):
                yield raw[:-1].decode(errors="replace"), end


def _line(chain: str, record: dict[str, Any]) -> tuple[str, str]:
    """The line that follows `chain`, and its own chain."""
    following = hashlib.sha256((chain + json.dumps(record)).encode()).hexdigest()
    return json.dumps({**record, "chain": following}) + "\n", following


def _follows(chain: str, line: str, record: dict[str, Any]) -> bool:
    content = {key: value for key, value in record.items() if key != "chain"}
    return _line(chain, content)[0] == line + "\n"


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    kinds = {"step": int, "samples": int, "sum": str, "chain": str}
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        return None
    return record


def _hex(total: int) -> str:
    return f"{total % 2**64:016x}"


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Say of a disk that is full, gone or read-only which file it was."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be written: {error.strerror}. Make room, or make it writable, and start the run again: it "
            "goes on from its last checkpoint"
        ) from error
