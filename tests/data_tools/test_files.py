"""Readers against oracles: bytes.split, json.loads, csv.DictReader, gzip, zstandard."""

import csv
import gzip
import io
import itertools
import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_tools import streams
from data_tools.files import FileReader, ReadOptions, Record, file_format
from data_tools.publish import StorageError, atomic_path
from data_tools.quarantine import Fault, Quarantine
from data_tools.record_writer import RecordWriter
from data_tools.records import RecordError

LIMIT = 1 << 20
RECORDS = [
    {"id": str(i), "text": f'行 {i} "quoted" [\\ {{ }} ]\n' * (i % 4), "meta": {"n": [i, {"k": "]"}]}}
    for i in range(50)
]


def read(path: Path, options: ReadOptions | None = None, **arguments: Any) -> tuple[list[Any], list[Fault], FileReader]:
    reader = FileReader(path, options or ReadOptions(max_line_bytes=LIMIT), **arguments)
    items = list(reader)
    faults = [item for item in items if isinstance(item, Fault)]
    assert reader.units == len(items) + reader.blank
    return [item.value for item in items if isinstance(item, Record)], faults, reader


@pytest.fixture(params=[3, 64, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The reader's block size: small ones put a boundary everywhere."""
    monkeypatch.setattr(streams, "CHUNK", request.param)
    return int(request.param)


def jsonl(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def test_any_division_into_ranges_gives_each_line_once(tmp_path: Path, chunk: int) -> None:
    generator = random.Random(1)
    lines = [bytes(generator.choices(b"ab \r", k=generator.choice([0, 0, 1, 2, 9, 200]))) for _ in range(80)]
    for ending in (b"", b"\n"):
        data = b"\n".join(lines) + ending
        path = tmp_path / "lines.jsonl"
        path.write_bytes(data)
        oracle, offset = [], 0
        for line in data.split(b"\n")[: None if data.split(b"\n")[-1] else -1]:
            oracle.append((offset, line))
            offset += len(line) + 1
        for parts in (1, 2, 7, 60):
            cuts = sorted({0, len(data), *(generator.randrange(len(data)) for _ in range(parts - 1))})
            found = []
            for start, end in itertools.pairwise(cuts):
                source = streams.ByteSource(path, start=max(0, start - 1))
                pieces = list(streams.split_lines(source, start=start, end=end, limit=LIMIT))
                assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
                found += [(piece.offset, bytes(piece.data)) for piece in pieces]
            assert found == oracle


def test_long_lines_keep_their_head_and_their_place(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"a":1}\n"' + b"x" * 5000 + b'"\n' + b"[" * 101 + b'\n{"a":2}')
    values, faults, _ = read(path, ReadOptions(max_line_bytes=100))
    assert values == [{"a": 1}, {"a": 2}]
    assert [(fault.line, fault.offset, fault.reason) for fault in faults] == [
        (2, 8, "line-too-long"),
        (3, 5011, "line-too-long"),
    ]
    assert faults[0].head == b'"' + b"x" * 199
    assert "5,002 bytes" in faults[0].detail


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst"])
def test_every_container_gives_the_records_back(tmp_path: Path, chunk: int, suffix: str) -> None:
    if suffix.startswith(".jsonl"):
        data = jsonl(RECORDS)
    else:
        data = json.dumps(RECORDS, indent=2, ensure_ascii=False).encode()
    half = len(data) // 2
    if suffix.endswith(".gz"):  # several members, and padding between them
        data = gzip.compress(data[:half]) + b"\0" * 5 + gzip.compress(b"") + gzip.compress(data[half:]) + b"\0" * 9
    elif suffix.endswith(".zst"):
        data = zstandard.compress(data[:half]) + zstandard.compress(b"") + zstandard.compress(data[half:])
    path = tmp_path / f"records{suffix}"
    path.write_bytes(data)
    values, faults, reader = read(path)
    assert (values, faults, reader.damage) == (RECORDS, [], None)
    assert reader.consumed == len(data)


def test_places_of_array_elements(tmp_path: Path, chunk: int) -> None:
    data = b'\xef\xbb\xbf\n [ {"a": "],["},\n\n {"b":\n 2} ,{bad}, "\\"[", ]\n'
    path = tmp_path / "array.json"
    path.write_bytes(data)
    items = list(FileReader(path, ReadOptions()))
    assert [(item.line, data[item.offset : item.offset + 3]) for item in items] == [
        (2, b'{"a'),
        (4, b'{"b'),
        (5, b"{ba"),
        (5, b'"\\"'),
    ]
    assert [item.value if isinstance(item, Record) else item.reason for item in items] == [
        {"a": "],["},
        {"b": 2},
        "not-json",
        '"[',
    ]


@pytest.mark.parametrize(
    ("data", "damage"),
    [
        (b'[{"a":1},{"a":', "not closed"),
        (b'[{"a":1}] x', "something follows"),
        (b'"text"', "neither a JSON array nor JSON lines"),
    ],
)
def test_broken_arrays_are_damage(tmp_path: Path, chunk: int, data: bytes, damage: str) -> None:
    path = tmp_path / "array.json"
    path.write_bytes(data)
    values, _, reader = read(path)
    assert damage in (reader.damage or "")
    assert values == ([{"a": 1}] if data.startswith(b"[") else [])


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_truncated_stream_gives_all_before_the_cut(tmp_path: Path, kind: str) -> None:
    generator = random.Random(2)
    records = [{"text": "".join(generator.choices("abcdefgh", k=300))} for _ in range(3000)]
    data = jsonl(records)
    whole = gzip.compress(data) if kind == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(data)
    path = tmp_path / f"cut.jsonl.{kind}"
    for share in (0.999, 0.8, 0.5):
        path.write_bytes(whole[: int(len(whole) * share)])
        values, faults, reader = read(path)
        assert values == records[: len(values)]
        assert len(values) >= 3000 * share * (0.95 if kind == "gz" else 0.5) - 1  # zstd: whole blocks of 128 KiB
        assert "truncated" in (reader.damage or "")
        assert [fault.reason for fault in faults] in ([], ["cut-off"])
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 0x55]) * 40 + whole[140:])
    assert "corrupt" in (read(path)[2].damage or "")
    path.write_bytes(b"plain text\n")
    assert "corrupt" in (read(path)[2].damage or "")


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_bomb_stays_small_in_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.jsonl.{kind}"
    with gzip.open(path, "wb", 1) if kind == "gz" else zstandard.open(path, "wb") as file:
        for _ in range(40):
            file.write(b"a" * (4 << 20))
        file.write(b'\n{"text":"after"}\n')
    tracemalloc.start()
    values, faults, _ = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values == [{"text": "after"}]
    assert [(fault.reason, len(fault.head)) for fault in faults] == [("line-too-long", 200)]
    assert f"{160 << 20:,} bytes" in faults[0].detail
    assert peak < 80 << 20


LINES = [
    (b'{"a":1}', {"a": 1}),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"a":NaN}', "nan"),
    (b'{"a":-Infinity}', "nan"),
    (b'{"a":"\\ud800"}', "lone-surrogate"),
    (b'{"a":"\\ud83d\\ude00\\u0000"}', {"a": "😀\0"}),
    (b'{"a":"\xff"}', "bad-encoding"),
    (b'{"a":"\xed\xa0\x80"}', "bad-encoding"),
    (b'\xef\xbb\xbf{"a":1}', "not-json"),
    (b'{"a":1', "not-json"),
    (b'{"a":1} {"a":2}', "not-json"),
    (b"[" * 3000, "not-json"),
    (b'{"a":1}\r', {"a": 1}),
]


def test_each_kind_of_line(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(line + b"\n\n \t\r\n" for line, _ in LINES))
    items = list(reader := FileReader(path, ReadOptions()))
    assert [item.value if isinstance(item, Record) else item.reason for item in items] == [want for _, want in LINES]
    assert [item.line for item in items] == [1 + 3 * i for i in range(len(LINES))]
    assert reader.blank == 2 * len(LINES)
    assert reader.span == path.stat().st_size


def test_encodings_are_tried_in_turn(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    text = "{'text':'患者發熱'}".replace("'", '"')
    path.write_bytes(text.encode() + b"\n" + text.encode("gb18030") + b"\n" + b'{"text":"\xff\xff"}\n')
    values, faults, _ = read(path, ReadOptions(("utf-8", "gb18030")))
    assert values == [{"text": "患者發熱"}] * 2
    assert [(fault.line, fault.reason) for fault in faults] == [(3, "bad-encoding")]
    assert "utf-8" in faults[0].detail and "gb18030" in faults[0].detail


def test_encodings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown text encoding 'latin-99'"):
        ReadOptions(("latin-99",))
    with pytest.raises(ValueError, match="utf-16"):
        ReadOptions(("utf-16-le",))


def test_csv_equals_the_csv_module(tmp_path: Path, chunk: int) -> None:
    rows = [{"title": f"题 {i}", "ask": 'a "b",\n\r\n c' * (i % 3), "answer": "答\\" * i} for i in range(40)]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["title", "ask", "answer"])
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "rows.csv"
    path.write_bytes(buffer.getvalue().encode("gb18030"))
    values, faults, reader = read(path, ReadOptions(("gb18030",)))
    assert faults == []
    assert values == list(csv.DictReader(io.StringIO(buffer.getvalue(), newline=""))) == rows
    assert reader.span == path.stat().st_size


def test_bad_csv_rows_do_not_take_the_good_ones_along(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,2\n3,"open\n5,6\n7\n8,\xff\n9,"x"y\n\n10,11\n')
    items = list(reader := FileReader(path, ReadOptions()))
    assert [(item.line, item.value if isinstance(item, Record) else item.reason) for item in items] == [
        (2, {"a": "1", "b": "2"}),
        (3, "bad-csv"),  # its open quote runs into line 6; only line 3 is given up, and reading goes on at 4
        (4, {"a": "5", "b": "6"}),
        (5, "wrong-columns"),
        (6, "bad-encoding"),
        (7, "bad-csv"),
        (9, {"a": "10", "b": "11"}),
    ]
    assert (reader.units, reader.blank) == (8, 1)
    path.write_bytes(b'a\n"' + b"x\n" * 50)
    values, faults, _ = read(path)
    assert (values, [fault.reason for fault in faults]) == ([{"a": "x"}] * 49, ["bad-csv"])


def test_parquet_in_and_out(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with RecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
    assert read(path)[0] == RECORDS
    assert read(path, columns=["text", "absent"])[0] == [{"text": record["text"]} for record in RECORDS]
    assert "none of the columns body is there" in (read(path, columns=["body"])[2].damage or "")
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read" in (read(path)[2].damage or "")


def test_parquet_cells_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    offsets, data = pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")
    pq.write_table(pa.table({"text": pa.StringArray.from_buffers(2, offsets, data)}), path)
    values, faults, _ = read(path)
    assert values == [{"text": "ok"}]
    assert [(fault.line, fault.reason) for fault in faults] == [(2, "bad-encoding")]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_written_files_are_read_by_others_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with RecordWriter(path) as writer:
        for record in RECORDS:
            writer.write(record)
        assert not path.exists()
    assert writer.records == len(RECORDS)
    opener = {".gz": gzip.open, ".zst": zstandard.open}.get(path.suffix, open)
    with opener(path, "rb") as file:
        assert [orjson.loads(line) for line in file.read().splitlines()] == RECORDS
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".parquet"])
def test_a_failed_writer_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(RecordError), RecordWriter(tmp_path / f"out{suffix}") as writer:
        writer.write({"a": "text"})
        writer.write({"a": 5.5} if suffix == ".parquet" else {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="no space left on device"),
        Quarantine(Path("/dev/full")) as quarantine,
    ):
        quarantine.add("f", Fault(1, 0, "nan", "d" * 9000, b""))
    script = (
        "import resource, sys; from pathlib import Path; from data_tools.record_writer import RecordWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with RecordWriter(Path(sys.argv[1])) as writer:\n"
        "    for i in range(100_000): writer.write({'text': f'{i:050}'})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out.jsonl")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"StorageError: cannot write {tmp_path / 'out.jsonl'}: file too large" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_formats_by_name() -> None:
    assert [file_format(Path(name)) for name in ("a.b.jsonl.gz", "a.ndjson", "a.json.zst", "a.csv", "a.parquet")] == [
        "jsonl",
        "jsonl",
        "json",
        "csv",
        "parquet",
    ]
    for name in ("a", "a.gz", "a.txt", "a.parquet.gz"):
        with pytest.raises(ValueError, match="suffix"):
            file_format(Path(name))
