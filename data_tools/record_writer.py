"""Writing records: .jsonl, .jsonl.gz, .jsonl.zst or .parquet by the name of the file, published as a
whole.
"""

import gzip
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from data_tools.files import file_format
from data_tools.publish import atomic_path, storage_errors
from data_tools.records import RecordError

_PARQUET_ROWS = 4096
_LINES_BYTES = 1 << 18  # compressed together


class RecordWriter:
    """A context manager with `write(record)`. The file appears under its name when the block ends without an
    error; otherwise nothing is left.

    In parquet an object-valued column (`meta`, `options`) is stored as JSON text and marked so in its
    metadata, and `FileReader` gives it back as an object; column types are those of the first rows.

    `sync=False` leaves out the fsyncs, for files that carry a checksum and can be made again; `level` is zstd's.

    Raises:
        ValueError: a suffix that is not written.
        StorageError: no space left.
    """

    def __init__(self, path: Path, *, sync: bool = True, level: int = 3) -> None:
        self._format = file_format(path)
        if self._format not in ("jsonl", "parquet"):
            raise ValueError(f"{path}: records are written as .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
        self.path = path
        self.records = 0
        self._sync, self._level = sync, level
        self._stack = ExitStack()
        self._file: Any = None
        self._lines = bytearray()
        self._rows: list[dict[str, Any]] = []
        self._parquet: Any = None

    def __enter__(self) -> "RecordWriter":
        self._temporary = self._stack.enter_context(atomic_path(self.path, sync=self._sync))
        if self._format == "jsonl":
            self._file = self._open()
        return self

    def _open(self) -> Any:
        raw = self._stack.enter_context(self._temporary.open("wb"))
        if self.path.suffix == ".gz":  # no time and no name inside: the same records give the same bytes
            return self._stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        if self.path.suffix == ".zst":
            import zstandard

            compressor = zstandard.ZstdCompressor(self._level, write_checksum=True)
            return self._stack.enter_context(compressor.stream_writer(raw, closefd=False))
        return raw

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one JSON object.

        Raises:
            RecordError: `not-serialisable`; `mixed-types` when a parquet column changes its type.
        """
        if self._file is not None:
            try:
                self._lines += orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
            except TypeError as error:
                raise RecordError("not-serialisable", f"{self.path}: {error}") from error
            if len(self._lines) >= _LINES_BYTES:
                self._write_lines()
        else:
            self._rows.append(dict(record))
            if len(self._rows) == _PARQUET_ROWS:
                self._write_rows()
        self.records += 1

    def _write_lines(self) -> None:
        with storage_errors(self.path):
            self._file.write(self._lines)
        self._lines.clear()

    def _write_rows(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._parquet is None:
            self._parquet = self._stack.enter_context(pq.ParquetWriter(self._temporary, _schema(self._rows)))
        schema = self._parquet.schema
        nested = {field.name for field in schema if field.metadata}
        rows = [
            {
                key: orjson.dumps(item).decode() if key in nested and item is not None else item
                for key, item in row.items()
            }
            for row in self._rows
        ]
        if unknown := {key for row in rows for key in row} - set(schema.names):
            raise RecordError("mixed-types", f"{self.path}: {sorted(unknown)} came after the columns were fixed")
        try:
            table = pa.Table.from_pylist(rows, schema=schema)
        except (pa.ArrowException, TypeError) as error:
            raise RecordError("mixed-types", f"{self.path}: {error}") from error
        with storage_errors(self.path):
            self._parquet.write_table(table)
        self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            try:
                if self._format == "parquet":
                    self._write_rows()
                else:
                    self._write_lines()
            except (OSError, RecordError) as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._stack.__exit__(kind, error, trace)


def _schema(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    columns = list(dict.fromkeys(key for row in rows for key in row))
    fields = []
    for name in columns:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, dict) for value in values):
            fields.append(pa.field(name, pa.string(), metadata={b"content": b"json"}))
            continue
        inferred = pa.infer_type(values)
        fields.append(pa.field(name, pa.string() if pa.types.is_null(inferred) else inferred))
    return pa.schema(fields)
