"""Files of records, read and written as streams: .jsonl, .json, .csv (each also .gz and .zst) and .parquet.

A reader never stops at a bad record and never loses one: it yields a `Fault` in its place.
"""

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from data_tools.quarantine import Fault
from data_tools.records import RecordError
from data_tools.streams import EXCERPT_BYTES, ByteSource, DamagedStreamError, Piece, split_array, split_lines

COMPRESSIONS = (".gz", ".zst")
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_DIAGNOSIS_BYTES = 16 << 20  # the slow second parse that finds the reason is for lines up to this size
_PARQUET_BATCH = 256
_CSV_RECORD_BYTES = 16 << 20  # of a record that spans lines: its lines are kept, to start again after the first


class Record(NamedTuple):
    """One parsed record. `line` is the line it starts on (parquet: the row), from 1; `offset` its byte offset
    in the decompressed file (parquet: the row, from 0); `head` the start of its raw bytes, for an excerpt."""

    line: int
    offset: int
    value: Any
    head: bytes


@dataclass(frozen=True)
class ReadOptions:
    """How bytes become records.

    encodings: tried in this order, strictly, on each line.
    max_line_bytes: a longer line is quarantined; memory stays bounded by a few times this.
    """

    encodings: tuple[str, ...] = ("utf-8",)
    max_line_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if not self.encodings:
            raise ValueError("at least one encoding is needed, such as utf-8")
        for name in self.encodings:
            try:
                newline = "\n".encode(codecs.lookup(name).name)
            except (LookupError, UnicodeError) as error:
                raise ValueError(f"unknown text encoding {name!r}: use a name such as utf-8 or gb18030") from error
            if newline != b"\n":
                raise ValueError(f"files in {name} cannot be cut at line ends: convert them to UTF-8 first")


def file_format(path: Path) -> str:
    """The format of a file by its name: jsonl, json, csv or parquet.

    Raises:
        ValueError: a suffix this module does not read.
    """
    name = Path(path.stem) if path.suffix in COMPRESSIONS else path
    found = FORMATS.get(name.suffix)
    if found is None or (found == "parquet" and name is not path):
        known = ", ".join(FORMATS)
        raise ValueError(f"{path} has no suffix that is known here: {known}, all but the last also with .gz or .zst")
    return found


class FileReader:
    """Iterates over the `Record`s and `Fault`s of one file, in order.

    For JSON Lines a byte range [start, end) may be asked for: it holds the lines that begin in it.

    Attributes, complete once the iteration has ended:
        units: lines (array elements, CSV rows, parquet rows) met: records + faults + blank.
        blank: lines of nothing but white space; they hold no record.
        span: bytes of the decompressed file that the units cover, line ends included.
        damage: why the file could not be read to its end, or None. What stood before was yielded.
    """

    def __init__(
        self,
        path: Path,
        options: ReadOptions,
        *,
        start: int = 0,
        end: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.path = path
        self.options = options
        self.units = 0
        self.blank = 0
        self.span = 0
        self.damage: str | None = None
        self._format = file_format(path)
        self._range = start, end
        self._columns = columns
        self._source = ByteSource(path, start=max(0, start - 1))
        if (start or end is not None) and (self._format != "jsonl" or path.suffix in COMPRESSIONS):
            raise ValueError(f"{path} cannot be read in ranges: only plain .jsonl can")

    @property
    def consumed(self) -> int:
        """Bytes taken off the disk so far."""
        return self._source.consumed

    def __iter__(self) -> Iterator[Record | Fault]:
        readers = {"jsonl": self._json_lines, "json": self._json, "csv": self._csv, "parquet": self._parquet}
        try:
            yield from readers[self._format]()
        except DamagedStreamError as error:
            self.damage = str(error)

    def _json_lines(self) -> Iterator[Record | Fault]:
        start, end = self._range
        limit = self.options.max_line_bytes
        yield from self._parsed(split_lines(self._source, start=start, end=end, limit=limit), self.options.encodings)

    def _json(self) -> Iterator[Record | Fault]:
        """A .json file is an array of objects, or, as many published sets are, JSON Lines under another
        name.
        """
        chunks = iter(self._source)
        first = next(chunks, b"")
        whole = _prepend(first, chunks)
        limit = self.options.max_line_bytes
        if first.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
            yield from self._parsed(split_lines(whole, limit=limit), self.options.encodings)
        else:
            yield from self._parsed(split_array(whole, limit=limit), ("utf-8",))

    def _parsed(self, pieces: Iterator[Piece], encodings: tuple[str, ...]) -> Iterator[Record | Fault]:
        utf8_first = codecs.lookup(encodings[0]).name == "utf-8"
        for number, offset, data, size, refusal in pieces:
            self.units += 1
            self.span += size + 1
            head = bytes(data[:EXCERPT_BYTES])
            if refusal:
                yield Fault(number, offset, refusal, self._refusal_detail(refusal, size), head)
                continue
            try:
                # orjson checks the UTF-8 itself; whatever it refuses is looked at again, to find the reason
                value = orjson.loads(data) if utf8_first else parse_json(data, encodings)
            except ValueError:
                if not data.strip():
                    self.blank += 1
                    continue
                try:
                    value = parse_json(data, encodings)
                except RecordError as error:
                    yield Fault(number, offset, error.reason, error.detail, head)
                    continue
            del data  # while the consumer works, a huge line must not be held twice
            yield Record(number, offset, value, head)

    def _refusal_detail(self, refusal: str, size: int) -> str:
        if refusal == "cut-off":
            return "the file is damaged here and the record is unfinished"
        return f"{size:,} bytes, more than the limit of {self.options.max_line_bytes:,}"

    def _csv(self) -> Iterator[Record | Fault]:
        """A header row, then one record per row; quoted fields may span lines (RFC 4180, strictly).

        When a row cannot be parsed only its first line is given up: the next row is looked for on the line
        after, so that one open quote does not take the rest of the file with it.
        """
        limit = self.options.max_line_bytes
        csv.field_size_limit(limit)
        pieces = split_lines(self._source, limit=limit)
        again: deque[Piece] = deque()
        used: list[Piece] = []

        def texts() -> Iterator[str]:
            size = 0
            while piece := again.popleft() if again else next(pieces, None):
                used.append(piece)
                size += piece.size
                if piece.refusal:
                    raise RecordError(piece.refusal, self._refusal_detail(piece.refusal, piece.size))
                if len(used) > 1 and size > min(limit, _CSV_RECORD_BYTES):
                    raise RecordError("bad-csv", f"a quoted field is not closed within {_CSV_RECORD_BYTES:,} bytes")
                yield decode(piece.data, self.options.encodings) + "\n"

        header: list[str] | None = None
        while True:
            used.clear()
            refusal: RecordError | None = None
            row: list[str] | None = None
            try:
                row = next(csv.reader(texts(), strict=True), None)
            except RecordError as error:
                refusal = error
                if len(used) > 1:  # the fault is in a later line, into which a quoted field of this one runs
                    refusal = RecordError("bad-csv", f"line {used[-1].number} cannot end this row: {error.detail}")
            except csv.Error as error:
                refusal = RecordError("bad-csv", str(error))
            if row is None and refusal is None:
                return
            first = used[0]
            taken = used[:1] if refusal else used
            if refusal:
                again.extendleft(reversed(used[1:]))
            self.span += sum(piece.size + 1 for piece in taken)
            if refusal is None and row is not None and header is not None and row and len(row) != len(header):
                refusal = RecordError("wrong-columns", f"{len(row)} fields where the header has {len(header)}")
            if header is None and row:
                header = row
                continue
            self.units += 1
            head = bytes(first.data[:EXCERPT_BYTES])
            if refusal is not None:
                yield Fault(first.number, first.offset, refusal.reason, refusal.detail, head)
            elif not row:
                self.blank += 1
            else:
                assert header is not None
                yield Record(first.number, first.offset, dict(zip(header, row)), head)

    def _parquet(self) -> Iterator[Record | Fault]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        row = 0
        try:
            with pq.ParquetFile(self.path) as file:
                columns = None if self._columns is None else [c for c in self._columns if c in file.schema_arrow.names]
                nested = _json_columns(file.schema_arrow)
                size = self.path.stat().st_size
                for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns):
                    names = batch.schema.names
                    for values in zip(*(_cells(column) for column in batch.columns)) if names else ():
                        row += 1
                        self.units += 1
                        head = repr(values)[:EXCERPT_BYTES].encode("utf-8", "backslashreplace")
                        broken = next((value for value in values if isinstance(value, RecordError)), None)
                        if broken is not None:
                            yield Fault(row, row - 1, broken.reason, broken.detail, head)
                            continue
                        value = {
                            name: orjson.loads(cell) if name in nested and cell is not None else cell
                            for name, cell in zip(names, values)
                        }
                        yield Record(row, row - 1, value, head)
                    self._source.consumed = size * row // max(1, file.metadata.num_rows)
                if not columns and columns is not None:
                    raise DamagedStreamError(
                        f"none of the columns {', '.join(self._columns or ())} is there: "
                        f"it has {', '.join(file.schema_arrow.names)}"
                    )
        except (pa.ArrowException, OSError) as error:
            raise DamagedStreamError(f"the parquet file cannot be read after row {row} ({error})") from error


def decode(data: bytes | bytearray, encodings: Sequence[str]) -> str:
    """Decode strictly with the first of `encodings` that fits.

    Raises:
        RecordError: `bad-encoding`, when none does.
    """
    places = []
    for name in encodings:
        try:
            return data.decode(name)
        except UnicodeDecodeError as error:
            places.append(f"byte {error.start} is not {name} ({error.reason})")
    raise RecordError("bad-encoding", "; ".join(places))


def parse_json(data: bytes | bytearray, encodings: Sequence[str] = ("utf-8",)) -> Any:
    """Parse one JSON value strictly (RFC 8259, no NaN); of a repeated key the last one counts.

    Raises:
        RecordError: `bad-encoding`, `nan` (NaN or Infinity, which are not JSON), `lone-surrogate` (an escape
        that is
            half of a pair) or `not-json`.
    """
    text = decode(data, encodings)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = str(error)
    if len(data) <= _DIAGNOSIS_BYTES:
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            message = str(error)
        except RecursionError:
            message = "nested too deeply"
        else:
            raise RecordError("lone-surrogate", f"an escape is half of a surrogate pair ({message})")
    raise RecordError("not-json", message)


def _refuse_constant(name: str) -> None:
    raise RecordError("nan", f"{name} is not JSON: write null or leave the key out")


def _prepend(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _json_columns(schema: Any) -> set[str]:
    """Columns that our writer stored as JSON text."""
    return {field.name for field in schema if field.metadata and field.metadata.get(b"content") == b"json"}


def _cells(column: Any) -> list[Any]:
    """A column as Python values; a string that is not UTF-8 (parquet does not check) becomes a
    RecordError.
    """
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_cell(scalar) for scalar in column]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return RecordError("bad-encoding", f"the cell is not UTF-8 at byte {error.start}")
