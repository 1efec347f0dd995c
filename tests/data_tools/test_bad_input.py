"""Every bad input has its behaviour: counted, quarantined, or one clear sentence; nothing hangs, nothing is
lost.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.indexed import IndexedReader, bin_path, idx_path
from data_tools.indexing import quarantine_file
from data_tools.manifest import manifest_path, read_manifest

from .small_tokenizer import make_tokenizer, reference_ids, write_documents

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and stderr of `aquila data`, which must be one sentence without a traceback when it fails."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def index(source: Path, tokenizer: Path, prefix: Path, *more: object) -> tuple[int, str]:
    return run("index", source, "--tokenizer", tokenizer, "--output", prefix, "--workers", 1, *more)


def quarantined(prefix: Path) -> list[tuple[int, str]]:
    lines = quarantine_file(prefix).read_text().splitlines() if quarantine_file(prefix).exists() else []
    return [(fault["line"], fault["reason"]) for fault in map(json.loads, lines)]


def documents(prefix: Path) -> list[list[int]]:
    reader = IndexedReader(prefix)
    return [reader.sequence(number).tolist() for number in range(len(reader))]


GOOD = [b'{"text": "fever %d"}' % number for number in range(10)]
TEXTS = [f"fever {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "cough \xff"}', "bad-encoding"),
        (b'{"text": "cough', "not-json"),
        (b'{"text": ""}', "blank-text"),
        (b'{"text": " \\n"}', "blank-text"),
        (b'{"text": null}', "no-text"),
        (b'{"body": "cough"}', "no-text"),
        (b'{"text": 5}', "text-not-a-string"),
        (b'{"text": "\\ud800"}', "lone-surrogate"),
        (b'{"text": "cough", "score": NaN}', "nan"),
        (b'["cough"]', "not-an-object"),
        (b'"cough"', "not-an-object"),
        (b'{"text": "cough", "id": [1]}', "bad-id"),
        (b'\xef\xbb\xbf{"text": "cough"}', "not-json"),
        (b'{"text": "' + b"x" * (1 << 20) + b'"}', "line-too-long"),
    ],
)
@pytest.mark.parametrize("place", [0, 4, 10])
def test_one_bad_line_costs_that_line(tokenizer: Path, tmp_path: Path, bad: bytes, reason: str, place: int) -> None:
    if place == 0 and bad.startswith(b"\xef\xbb\xbf"):
        reason = ""  # at the start of a file a byte-order mark is no fault
    lines = [*GOOD[:place], bad, *GOOD[place:]]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    code, errors = index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out", "--max-line-mib", 1)
    assert code == 0, errors
    texts = TEXTS if reason else ["cough", *TEXTS]
    assert documents(tmp_path / "out") == reference_ids(tokenizer, texts)
    assert quarantined(tmp_path / "out") == ([(place + 1, reason)] if reason else [])
    assert not reason or f"quarantined: {reason}" in errors


@pytest.mark.parametrize("line", [b"", b"  \t", b"\r"])
def test_blank_lines_are_counted_and_no_fault(tokenizer: Path, tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*GOOD[:5], line, *GOOD[5:], b""]))
    code, errors = index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out")
    assert code == 0
    assert "blank lines" in errors
    assert documents(tmp_path / "out") == reference_ids(tokenizer, TEXTS)
    assert quarantined(tmp_path / "out") == []


def test_text_that_is_odd_but_good_is_kept(tokenizer: Path, tmp_path: Path) -> None:
    texts = ["a\0b", "</s> <|endoftext|>", "\u200b", "last wins", "crlf\r\n"]
    lines = [json.dumps({"text": text}) for text in texts]
    lines[3] = '{"text": "first", "text": "last wins"}'
    (tmp_path / "a.jsonl").write_text("\r\n".join(lines), newline="")
    assert index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out")[0] == 0
    assert documents(tmp_path / "out") == reference_ids(tokenizer, texts)


def test_too_many_bad_records(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*GOOD, b"{", b"{"]))
    code, errors = index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out")
    assert code == 1
    assert "2 of 12 records (16.7%) are bad (2 not-json)" in errors
    assert quarantined(tmp_path / "out") == [(11, "not-json"), (12, "not-json")]
    assert not idx_path(tmp_path / "out").exists()
    assert index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out", "--max-bad-fraction", 0.2)[0] == 0
    assert documents(tmp_path / "out") == reference_ids(tokenizer, TEXTS)


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_truncated_stream(tokenizer: Path, tmp_path: Path, kind: str) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    texts = write_documents(first, 30) + write_documents(second, 30, seed=1)
    pack = gzip.compress if kind == "gz" else zstandard.compress
    path = tmp_path / f"a.jsonl.{kind}"
    path.write_bytes(pack(first.read_bytes()) + pack(second.read_bytes())[:-300])
    code, errors = index(path, tokenizer, tmp_path / "out")
    assert code == 1
    assert str(path) in errors and "truncated" in errors and "--allow-truncated" in errors
    assert not idx_path(tmp_path / "out").exists()
    code, errors = index(path, tokenizer, tmp_path / "out", "--allow-truncated")
    assert code == 0
    assert "damaged" in errors
    found = documents(tmp_path / "out")
    assert 30 <= len(found) < 60
    assert found == reference_ids(tokenizer, texts)[: len(found)]
    manifest = read_manifest(manifest_path(tmp_path / "out"))
    assert manifest is not None and "truncated" in manifest["inputs"][0]["damage"]


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": [*TEXTS[:5], None, *TEXTS[5:]], "id": list(range(11))}), path)


def table(path: Path) -> None:
    rows = "".join(f'{number},"fever {number}"\n' for number in range(10))
    path.write_bytes(f"id,text\n{rows}发,热,痛\n".encode("gb18030"))


def array(path: Path) -> None:
    path.write_bytes(b"[" + b",\n".join([*GOOD, b'{"text": 5}']) + b"]")


@pytest.mark.parametrize(
    ("name", "make", "fault"),
    [
        ("a.parquet", parquet, (6, "no-text")),
        ("a.csv", table, (12, "wrong-columns")),
        ("a.json", array, (11, "text-not-a-string")),
    ],
)
def test_other_formats(
    tokenizer: Path, tmp_path: Path, name: str, make: Callable[[Path], None], fault: tuple[int, str]
) -> None:
    make(tmp_path / name)
    encoding = ("--encoding", "gb18030") if name.endswith("csv") else ()
    code, errors = index(tmp_path / name, tokenizer, tmp_path / "out", *encoding)
    assert code == 0, errors
    assert documents(tmp_path / "out") == reference_ids(tokenizer, TEXTS)
    assert quarantined(tmp_path / "out") == [fault]


def test_an_empty_file_among_others_is_said(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.json", "e.jsonl.zst"):
        (tmp_path / "in" / name).touch()
    code, errors = index(tmp_path / "in", tokenizer, tmp_path / "out")
    assert (code, "the inputs are empty" in errors) == (2, True)
    (tmp_path / "in" / "f.jsonl").write_bytes(b"\n".join(GOOD))
    code, errors = index(tmp_path / "in", tokenizer, tmp_path / "out")
    assert code == 0
    assert "6, 5 of them empty" in errors
    assert documents(tmp_path / "out") == reference_ids(tokenizer, TEXTS)


def test_what_cannot_be_begun_is_one_sentence(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(GOOD))
    wordless = tmp_path / "b.jsonl"
    wordless.write_bytes(b'{"body": "x"}\n')
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((path, tmp_path / "absent", tmp_path / "out"), "no tokenizer at"),
        ((tmp_path / "absent.jsonl", tokenizer, tmp_path / "out"), "there is no input"),
        ((path, tokenizer, tmp_path / "absent" / "out"), "does not exist: make it first"),
        ((path, tokenizer, tmp_path), "is a directory: give a path prefix"),
        ((path, tokenizer, tmp_path / "out", "--encoding", "klingon"), "unknown text encoding 'klingon'"),
        ((path, tokenizer, tmp_path / "out", "--eod", "<nowhere>"), "<nowhere>"),
        ((wordless, tokenizer, tmp_path / "out"), "no documents at all: all 1 records are bad (1 no-text)"),
    ]
    for arguments, sentence in cases:
        code, errors = index(*arguments)
        assert code == 2, (sentence, errors)
        assert errors.startswith("aquila data: ") and sentence in errors
        assert errors.count("\n") == 1
    assert not idx_path(tmp_path / "out").exists()


def test_unwritable_output_directory(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(GOOD))
    may = os.access  # as a user without the right would find it: root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and may(path, mode))
    code, errors = index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out")
    assert "cannot be written to" in errors
    assert code == 2


def test_verify_by_command_line(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(GOOD))
    index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out")
    assert run("verify", tmp_path / "out", "--tokenizer", tokenizer)[0] == 0
    other = make_tokenizer(tmp_path / "other", vocab_size=280)
    assert run("verify", tmp_path / "out", "--tokenizer", other)[0] == 1
    data = bytearray(bin_path(tmp_path / "out").read_bytes())
    data[3] ^= 1
    bin_path(tmp_path / "out").write_bytes(data)
    assert run("verify", tmp_path / "out")[0] == 1
    code, errors = run("verify", tmp_path / "nowhere")
    assert (code, "there is no" in errors) == (1, True)


COMMAND = """
import resource, sys
from data_tools.cli import app
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    app()
finally:
    # Not ru_maxrss, in which Linux leaves the peak of the process that started this one.
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)
"""


def subprocess_index(source: Path, tokenizer: Path, prefix: Path, limit: int = 0) -> subprocess.CompletedProcess[str]:
    arguments = [str(limit), "index", str(source), "--tokenizer", str(tokenizer), "--output", str(prefix)]
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments, "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(tokenizer: Path, tmp_path: Path) -> None:
    texts = write_documents(tmp_path / "a.jsonl", 3000)
    result = subprocess_index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out", limit=50_000)
    assert result.returncode == 1
    assert "cannot write" in result.stderr and "file too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".bin", ".idx"))] == []
    assert subprocess_index(tmp_path / "a.jsonl", tokenizer, tmp_path / "out").returncode == 0
    assert documents(tmp_path / "out") == reference_ids(tokenizer, texts)


def test_a_line_of_200_mb_stays_under_one_gigabyte(tokenizer: Path, tmp_path: Path) -> None:
    phrase, times = "the patient has fever and cough, dose 250 mg daily 患者 每日 三次 服用. ", 2_600_000
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD[0] + b'\n{"text": "')
        for _ in range(100):
            file.write((phrase * (times // 100)).encode())
        file.write(b'"}\n' + GOOD[1] + b"\n")
    assert path.stat().st_size > 200_000_000
    result = subprocess_index(path, tokenizer, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    reader = IndexedReader(tmp_path / "out")
    ids = reference_ids(tokenizer, [phrase * 3, *TEXTS[:2]])
    assert reader.sequence(0).tolist() == ids[1]
    assert reader.sequence(len(reader) - 1).tolist() == ids[2]
    assert len(reader) == 3
    long = reader.sequence(1)
    period = reference_ids(tokenizer, [phrase * 2])[0]
    once = len(reference_ids(tokenizer, [phrase * 3])[0]) - len(period)  # tokens of one repetition
    assert len(long) == len(period) + (times - 2) * once
    assert (long[: len(long) - 1 - once] == long[once : len(long) - 1]).mean() > 0.999999
    assert int(result.stdout.split()[-1]) < 1 << 30


def test_help_is_light() -> None:
    heavy = "{'numpy', 'pyarrow', 'tokenizers', 'torch', 'rich.console', 'orjson'}"
    script = f"import sys, data_tools.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
