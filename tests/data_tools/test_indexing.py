"""The pipeline: the bytes Megatron's script would write, whatever the division of work, and whoever gets
killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from data_tools import samples as samples_module
from data_tools import shards as shards_module
from data_tools.files import ReadOptions
from data_tools.indexed import bin_path, idx_path
from data_tools.indexing import (
    IndexingError,
    IndexSummary,
    build_index,
    count_duplicates,
    quarantine_file,
    work_directory,
)
from data_tools.inputs import InputError, resolve_inputs
from data_tools.manifest import manifest_path, read_manifest
from data_tools.publish import BusyError, sha256_file
from data_tools.shards import IndexOptions
from data_tools.tokenizers import load_tokenizer
from data_tools.verification import verify

from .small_tokenizer import make_tokenizer, reference_ids, write_documents

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


def index(inputs: list[Path], tokenizer: Path, prefix: Path, **arguments: Any) -> IndexSummary:
    options = arguments.pop("options", IndexOptions())
    return build_index([str(path) for path in inputs], tokenizer, prefix, options, **arguments)


def megatron_writes(prefix: Path, documents: list[list[int]], dtype: Any) -> Path:
    builder = IndexedDatasetBuilder(str(bin_path(prefix)), dtype=dtype)
    for ids in documents:
        builder.add_document(torch.tensor(ids), [len(ids)])
    builder.finalize(str(idx_path(prefix)))
    return prefix


def contents(prefix: Path) -> tuple[bytes, bytes]:
    return bin_path(prefix).read_bytes(), idx_path(prefix).read_bytes()


def test_output_is_megatrons_whatever_the_workers_and_shards(tokenizer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    texts = write_documents(folder / "b.jsonl", 300, seed=1)
    texts += write_documents(folder / "c.jsonl", 40, seed=2)
    first = write_documents(tmp_path / "a.jsonl", 25, seed=3)
    expected = contents(megatron_writes(tmp_path / "oracle", reference_ids(tokenizer, first + texts), np.uint16))
    inputs = [tmp_path / "a.jsonl", folder]
    for name, arguments in {
        "one": {"workers": 1},
        "many": {"workers": 1, "shard_bytes": 700},
        "pool": {"workers": 2, "shard_bytes": 5000},
    }.items():
        summary = index(inputs, tokenizer, tmp_path / name, **arguments)
        assert contents(tmp_path / name) == expected, name
        assert not work_directory(tmp_path / name).exists()
        counts = summary.manifest["counts"]
        assert counts["documents"] == 365
        assert counts["characters"] == sum(map(len, first + texts))
        assert counts["text_bytes"] == sum(len(text.encode()) for text in first + texts)
        assert counts["tokens"] == len(expected[0]) // 2
        assert [entry["documents"] for entry in summary.manifest["inputs"]] == [25, 300, 40]
        assert verify(tmp_path / name, load_tokenizer(tokenizer)).problems == []
    dataset = IndexedDataset(str(tmp_path / "pool"))
    assert dataset[24].tolist() == reference_ids(tokenizer, [first[24]])[0]


def test_manifest_names_everything(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_documents(path, 10)
    index([path], tokenizer, tmp_path / "out")
    manifest = read_manifest(manifest_path(tmp_path / "out"))
    assert manifest is not None
    loaded = load_tokenizer(tokenizer)
    assert manifest["tokenizer"]["digest"] == loaded.digest
    assert manifest["tokenizer"]["eod_id"] == loaded.eod_id
    entry = manifest["inputs"][0]
    assert (entry["path"], entry["bytes"], entry["sha256"]) == (
        str(path),
        path.stat().st_size,
        sha256_file(path),
    )
    assert manifest["files"]["bin"]["sha256"] == sha256_file(bin_path(tmp_path / "out"))
    assert manifest["files"]["idx"]["bytes"] == idx_path(tmp_path / "out").stat().st_size
    assert manifest["options"]["text_keys"] == ["text"]


def test_long_documents_have_the_same_ids(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = write_documents(tmp_path / "a.jsonl", 30)
    whole = "\n".join(texts * 20)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"text": whole}) + "\n" + json.dumps({"text": "fever"}) + "\n")
    for module in (shards_module, samples_module):
        monkeypatch.setattr(module, "LONG_DOCUMENT", 5000)
    index([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out")
    oracle = megatron_writes(tmp_path / "oracle", reference_ids(tokenizer, [*texts, whole, "fever"]), np.uint16)
    assert contents(tmp_path / "out") == contents(oracle)


def test_repeated_ids_are_counted_across_shards(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    ids = ["x", "y", 5, "x", "5", None, None, "x"]  # x twice again, 5 once again
    lines = [json.dumps({"text": "fever", **({} if i is None else {"id": i})}) for i in ids]
    path.write_text("\n".join(lines))
    summary = index([path], tokenizer, tmp_path / "out", shard_bytes=30)
    assert summary.manifest["counts"]["duplicate_ids"] == 3
    random = np.random.default_rng(0).integers(0, 500, 2000, np.uint64)
    for number, part in enumerate(np.split(random, 4)):
        part.tofile(tmp_path / f"{number}.ids")
    monkeypatch.setattr("data_tools.indexing._DUPLICATE_BUCKET", 130)
    assert count_duplicates([tmp_path / f"{i}.ids" for i in range(4)]) == 2000 - len(set(random.tolist()))


def test_quarantine_has_the_lines_of_the_whole_file(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_documents(path, 200)
    lines = path.read_bytes().splitlines(keepends=True)
    bad = {3: b"{\n", 77: b'{"text": "\xff"}\n', 78: b"\n", 150: b'{"text": 5}\n'}
    for number, line in bad.items():
        lines[number - 1] = line
    path.write_bytes(data := b"".join(lines))
    summary = index([path], tokenizer, tmp_path / "out", shard_bytes=1000)
    assert summary.manifest["shards"] > 10
    faults = [json.loads(line) for line in quarantine_file(tmp_path / "out").read_text().splitlines()]
    assert [(f["line"], f["reason"]) for f in faults] == [
        (3, "not-json"),
        (77, "bad-encoding"),
        (150, "text-not-a-string"),
    ]
    assert all(data[f["offset"] :].startswith(bad[f["line"]]) for f in faults)
    assert faults[1]["excerpt"] == '{"text": "\\xff"}'
    counts = summary.manifest["counts"]
    assert (counts["units"], counts["documents"], counts["blank"], counts["quarantined"]) == (200, 196, 1, 3)


def test_second_run_does_nothing_and_changes_redo(tokenizer: Path, tmp_path: Path) -> None:
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for seed, path in enumerate(inputs):
        write_documents(path, 50, seed)
    prefix = tmp_path / "out"
    assert index(inputs, tokenizer, prefix).shards_done == 2
    stamp = bin_path(prefix).stat().st_mtime_ns
    again = index(inputs, tokenizer, prefix)
    assert (again.shards_done, again.shards_reused, bin_path(prefix).stat().st_mtime_ns) == (0, 2, stamp)
    before = contents(prefix)
    write_documents(inputs[1], 50, seed=9)
    assert index(inputs, tokenizer, prefix).shards_done == 2
    assert contents(prefix) != before
    os.utime(inputs[0], (1, 1))
    assert index(inputs, tokenizer, prefix).shards_done == 2
    options = IndexOptions(read=ReadOptions(max_line_bytes=1 << 20))
    assert index(inputs, tokenizer, prefix, options=options).shards_done == 2
    bin_path(prefix).write_bytes(b"")
    assert index(inputs, tokenizer, prefix).shards_done == 2
    assert verify(prefix).problems == []


def test_failed_run_keeps_its_shards_unless_they_are_damaged(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_documents(path, 100)
    with path.open("a") as file:
        file.write("{\n" * 50)
    with pytest.raises(IndexingError, match=r"50 of 150 records \(33.3%\) are bad \(50 not-json\)"):
        index([path], tokenizer, tmp_path / "out", shard_bytes=2000)
    assert not idx_path(tmp_path / "out").exists()
    kept = sorted(work_directory(tmp_path / "out").glob("*.bin"))
    victim = max(kept, key=lambda item: item.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-2] + b"\1\1")
    summary = index([path], tokenizer, tmp_path / "out", shard_bytes=2000, max_bad_fraction=0.5)
    assert (summary.shards_done, summary.shards_reused) == (1, len(kept) - 1)
    reference = index([path], tokenizer, tmp_path / "fresh", max_bad_fraction=0.5)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert reference.shards_reused == 0


RUN = """
import sys
from pathlib import Path
from data_tools.indexing import build_index
from data_tools.shards import IndexOptions
if __name__ == "__main__":
    build_index([sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]), IndexOptions(), workers=2,
    shard_bytes=8000)
"""


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_after_kill_9_only_the_unfinished_is_done(tokenizer: Path, tmp_path: Path, victim: str) -> None:
    path, prefix = tmp_path / "a.jsonl", tmp_path / "out"
    write_documents(path, 8000)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(path), str(tokenizer), str(prefix)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    directory = work_directory(prefix)
    deadline = time.monotonic() + 240
    while len(list(directory.glob("*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    children = psutil.Process(process.pid).children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    os.kill(workers[0].pid if victim == "worker" else process.pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    if victim == "worker":
        assert process.returncode == 1
        assert "a worker process died" in errors
    assert not psutil.wait_procs(workers, timeout=60)[1]  # none is left behind
    finished = {marker.stem for marker in directory.glob("*.json")}
    stamps = {item: item.stat().st_mtime_ns for item in directory.iterdir() if item.stem in finished}
    assert not idx_path(prefix).exists()

    seen: dict[Path, int] = {}

    def look(done: int, total: int) -> None:
        if not seen:
            seen.update({item: item.stat().st_mtime_ns for item in stamps})

    summary = index([path], tokenizer, prefix, shard_bytes=8000, on_progress=look)
    assert summary.shards_reused == len(finished) >= 3
    assert summary.shards_done > 0
    assert seen == stamps
    index([path], tokenizer, tmp_path / "fresh")
    assert contents(prefix) == contents(tmp_path / "fresh")
    assert sorted(item.name for item in tmp_path.glob("out*")) == ["out.bin", "out.idx", "out.manifest.json"]


def test_two_runs_do_not_write_one_output(tokenizer: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "a.jsonl", 5)

    def intrude(done: int, total: int) -> None:
        with pytest.raises(BusyError, match="another run is writing"):
            index([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out")

    index([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out", on_progress=intrude)
    assert verify(tmp_path / "out").problems == []


def test_input_that_changes_meanwhile_is_noticed(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_documents(path, 50)

    def change(done: int, total: int) -> None:
        with path.open("a") as file:
            file.write("\n")

    with pytest.raises(IndexingError, match="changed while it was read"):
        index([path], tokenizer, tmp_path / "out", on_progress=change)
    assert not idx_path(tmp_path / "out").exists()


def test_order_of_inputs(tmp_path: Path) -> None:
    for name in ("b/z.jsonl", "b/a.csv", "b/c/d.parquet", "b/notes.txt", "a.jsonl.gz", "B.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*given: str) -> list[str]:
        found = resolve_inputs([str(tmp_path / item) for item in given])
        return [str(item.relative_to(tmp_path)) for item in found]

    assert names("b") == ["b/a.csv", "b/c/d.parquet", "b/z.jsonl"]
    assert names("b/z.jsonl", "*.j*") == ["b/z.jsonl", "B.json", "a.jsonl.gz"]
    assert names("**/*.jsonl") == ["b/z.jsonl"]
    for given, sentence in {
        ("nothing.jsonl",): "there is no input",
        ("x*.jsonl",): "no file matches",
        ("b/notes.txt",): "no suffix that is known",
        ("b/z.jsonl", "b"): "is named twice",
    }.items():
        with pytest.raises(InputError, match=sentence):
            names(*given)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no"):
        names("empty")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data are not beside this checkout")
def test_real_gb18030_table_with_the_aquila_tokenizer(tmp_path: Path) -> None:
    import csv

    path, tokenizer = SHARED / "chinese_medical_dialogue_sample.csv", SHARED / "aquila_tokenizer"
    options = IndexOptions(("ask", "answer"), read=ReadOptions(("gb18030",)))
    summary = index([path], tokenizer, tmp_path / "out", options=options)
    with path.open(encoding="gb18030", newline="") as file:
        rows = list(csv.DictReader(file))
    assert summary.manifest["counts"]["documents"] == len(rows) == 7644
    dataset = IndexedDataset(str(tmp_path / "out"))
    encoder = load_tokenizer(tokenizer)
    for number in (0, 1234, 7643):
        *ids, end = dataset[number].tolist()
        assert encoder.decode(ids) == f"{rows[number]['ask']}\n{rows[number]['answer']}"
        assert end == encoder.eod_id
