"""A whole run: what comes out, that it is the same bytes however it was run, killed and gone on with; and its audit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import zstandard
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.corpus.recipe import load_recipe
from data_tools.corpus.run import build_corpus
from data_tools.corpus.why import fates
from data_tools.indexed import IndexedReader
from data_tools.inputs import RunError
from data_tools.tokenizers import load_tokenizer

from ..small_tokenizer import make_tokenizer
from .raw_corpus import published_bytes, write_corpus, write_recipe

REPOSITORY = Path(__file__).parents[3]
BAD = (b'{"text": "cough \xff"}', b"", b'{"id": "half", "text": "cou', b'{"id": "n"}', b"[1]")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture(scope="module")
def corpus(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the raw corpus, its recipe, and the corpus made of it by this process alone."""
    directory = tmp_path_factory.mktemp("corpus")
    write_corpus(directory, 1200, bad_lines=BAD)
    build_corpus(load_recipe(write_recipe(directory, tokenizer)))
    return directory


def recipe_in(corpus: Path, output: Path, *overrides: str) -> Any:
    return load_recipe(corpus / "recipe.yaml", [f"output={output}", *overrides])


def funnel_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((output / "funnel.json").read_bytes())
    return found


def documents(output: Path, stage: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted((output / "documents" / stage).glob("*.jsonl.zst")):
        with zstandard.open(path, "rb") as file:
            found += [json.loads(line) for line in file.read().splitlines()]
    return found


def test_every_record_is_accounted_for(corpus: Path) -> None:
    funnel = funnel_of(corpus / "out")
    read = funnel["read"]
    raw = (corpus / "web.jsonl").read_bytes().count(b"\n") + 60
    assert read["units"] == raw == read["documents"] + read["blank"] + sum(read["quarantined"].values())
    assert read["quarantined"] == {"bad-encoding": 1, "no-text": 1, "not-an-object": 1, "not-json": 1}
    assert read["blank"] == 1
    places = [json.loads(line) for line in (corpus / "out" / "quarantine.jsonl").read_bytes().splitlines()]
    lines = (corpus / "web.jsonl").read_bytes().split(b"\n")
    assert {lines[fault["line"] - 1] for fault in places} == {bad for bad in BAD if bad}
    left = read["documents"]
    for step in funnel["steps"]:
        assert step["in"]["documents"] == left
        left = step["out"]["documents"]
        assert left == step["in"]["documents"] - sum(entry["documents"] for entry in step["dropped"])
        for side in ("in", "out"):
            for unit in ("documents", "characters", "tokens"):
                assert sum(group[side][unit] for group in step["groups"]) == step[side][unit]
    assert left == len(
        {
            document["id"].split("#")[0]
            for stage in ("stage1", "stage2")
            for document in documents(corpus / "out", stage)
        }
    )


def test_tokens_and_characters_are_those_of_the_text(corpus: Path, tokenizer: Path) -> None:
    loaded = load_tokenizer(tokenizer)
    funnel = funnel_of(corpus / "out")
    for stage in funnel["stages"]:
        texts = [document["text"] for document in documents(corpus / "out", stage["name"])]
        assert stage["documents"] == len(texts)
        assert stage["characters"] == sum(map(len, texts))
        assert stage["tokens"] == sum(len(loaded.encode(text)) for text in texts)


def test_stages_hold_what_was_asked(corpus: Path) -> None:
    funnel = funnel_of(corpus / "out")
    stage1, stage2 = funnel["stages"]
    assert abs(stage1["tokens"] - 30_000) < 1000
    assert [round(part["share"], 1) for part in stage1["parts"]] == [0.7, 0.3]
    books = Counter(document["id"].split("#")[0] for document in documents(corpus / "out", "stage2"))
    assert set(books.values()) == {2}
    assert stage2["parts"][0]["epochs"] == 2
    assert {document["source"] for document in documents(corpus / "out", "stage2")} == {"books"}


def test_each_kind_of_bad_document_is_caught(corpus: Path) -> None:
    raw = [
        json.loads(line) for line in (corpus / "web.jsonl").read_bytes().splitlines() if line.startswith(b'{"id": "d')
    ]
    kept = {document["id"].split("#")[0]: document["text"] for document in documents(corpus / "out", "stage1")}
    seen: set[str] = set()
    expected: dict[str, str] = {}
    for record in raw:
        name, text = record["id"], record["text"]
        if text.startswith("!!!"):
            expected[name] = "language"
        elif "DRUG BRINGS THE FEVER DOWN" in text and text not in seen:
            expected[name] = "decontaminate"
        elif text in seen:
            expected[name] = "deduplicate"
        seen.add(text)
    assert min(Counter(expected.values()).values()) > 10
    for name, step in expected.items():
        (fate,) = fates(corpus / "out", name)
        assert fate.decision is not None and fate.decision["step"] == step, (name, fate)
    assert any("@example.org" in record["text"] for record in raw)
    assert not any("@example.org" in text for text in kept.values())
    everything = b"".join(
        zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        for path in (corpus / "out").rglob("*.zst")
    )
    assert b"@example.org" not in everything + (corpus / "out" / "funnel.html").read_bytes()


def test_every_document_has_one_fate(corpus: Path) -> None:
    draw = random.Random(1)
    read = [f"d{number}" for number in range(1200)]
    kept = {
        document["id"].split("#")[0] for stage in ("stage1", "stage2") for document in documents(corpus / "out", stage)
    }
    for name in draw.sample(read, 60):
        (fate,) = fates(corpus / "out", name)
        assert (fate.decision is None) == (name in kept)
        for path, line in fate.places:
            with zstandard.open(path, "rb") as file:
                assert json.loads(file.read().splitlines()[line - 1])["id"].split("#")[0] == name
        if fate.decision is not None and fate.decision["step"] == "deduplicate":
            members = {member["id"]: member["kept"] for member in fate.members}
            assert members[name] is False and sum(members.values()) == 1
    assert fates(corpus / "out", "nobody") == []


@pytest.mark.parametrize(("workers", "shard_mib"), [(3, 0.02), (1, 64.0)])
def test_workers_and_shards_change_no_document(corpus: Path, tmp_path: Path, workers: int, shard_mib: float) -> None:
    build_corpus(recipe_in(corpus, tmp_path / "out", f"shard_mib={shard_mib}"), workers=workers)
    if shard_mib == 0.02:
        assert published_bytes(tmp_path / "out") == published_bytes(corpus / "out")
    for stage in ("stage1", "stage2"):
        assert documents(tmp_path / "out", stage) == documents(corpus / "out", stage)
    ours, theirs = funnel_of(tmp_path / "out"), funnel_of(corpus / "out")
    assert ours["steps"] == theirs["steps"] and ours["stages"] == theirs["stages"]


COMMAND = "import sys; from data_tools.cli import app; app(sys.argv[1:])"


def start(recipe: Path, output: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "corpus", str(recipe), f"output={output}", "--workers", "2", "--no-progress"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("victim", ["worker", "run"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(corpus: Path, tmp_path: Path, victim: str) -> None:
    draw = random.Random(victim)
    output = tmp_path / "out"
    kills = 0
    for pieces in (2, 40):
        process = start(corpus / "recipe.yaml", output)
        deadline = time.monotonic() + 90
        while process.poll() is None and len(list((output / "work").glob("*.json"))) < pieces:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        if process.poll() is not None:
            break
        workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        victims = [worker.pid for worker in workers[:1]] if victim == "worker" else [process.pid]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        assert not psutil.wait_procs(workers, timeout=60)[1]  # none is left behind
        if victim == "worker" and process.returncode != 0:
            assert process.returncode == 1 and "a worker process died" in errors and "Traceback" not in errors
        kills += process.returncode != 0
    assert kills
    summary = build_corpus(recipe_in(corpus, output), workers=1)
    assert summary.pieces_reused > 0
    for stage in ("stage1", "stage2"):
        assert documents(output, stage) == documents(corpus / "out", stage)
    assert published_bytes(output) == published_bytes(corpus / "out")
    assert not (output / "work").exists()


def test_a_second_run_does_nothing_and_a_changed_recipe_only_what_it_must(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = build_corpus(recipe_in(corpus, output))
    stamp = (output / "manifest.json").stat().st_mtime_ns
    again = build_corpus(recipe_in(corpus, output))
    assert (again.pieces_done, first.pieces_reused) == (0, 0)
    assert (output / "manifest.json").stat().st_mtime_ns == stamp
    changed = build_corpus(recipe_in(corpus, output, "stages.0.tokens=20000"))
    assert changed.pieces_done > 0
    assert abs(changed.funnel["stages"][0]["tokens"] - 20_000) < 1000
    names = {str(path.relative_to(output)) for path in output.rglob("*.zst")}
    assert {
        name for name in json.loads((output / "manifest.json").read_bytes())["files"] if name.endswith(".zst")
    } == names


FULL = """
import resource, sys
from data_tools.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
app(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [300, 4_000, 20_000])
def test_a_full_disk_is_one_sentence_and_no_half_file(corpus: Path, tmp_path: Path, limit: int) -> None:
    output = tmp_path / "out"
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            FULL,
            str(limit),
            "corpus",
            str(corpus / "recipe.yaml"),
            f"output={output}",
            "--workers",
            "1",
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "cannot write" in result.stderr and "Traceback" not in result.stderr
    assert [path for path in output.rglob("*") if path.suffix == ".tmp"] == []
    assert not (output / "manifest.json").exists()
    build_corpus(recipe_in(corpus, output))
    assert documents(output, "stage1") == documents(corpus / "out", "stage1")


def test_too_many_bad_records_publish_nothing_but_the_report(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"4 of 1,264 records are bad \(1 bad-encoding, 1 no-text"):
        build_corpus(recipe_in(corpus, tmp_path / "out", "max_bad_fraction=0.001"))
    assert (tmp_path / "out" / "funnel.html").exists()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "documents").exists()


def test_the_index_holds_the_stages(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    build_corpus(recipe_in(corpus, output, "index=true", "stages.0.name=other"))
    summary = build_corpus(recipe_in(corpus, output, "index=true"))
    assert {path.name for path in output.glob("*.bin")} == {"stage1.bin", "stage2.bin"}  # none of a former recipe
    for stage in summary.funnel["stages"]:
        reader = IndexedReader(output / stage["name"])
        assert len(reader) == stage["documents"]
        assert sum(map(int, reader.lengths)) == stage["tokens"] + stage["documents"]  # each ends with one more


def test_why_on_the_command_line(corpus: Path) -> None:
    funnel = funnel_of(corpus / "out")
    example = next(step for step in funnel["steps"] if step["name"] == "deduplicate")["examples"][0]
    result = CliRunner().invoke(app, ["why", example["id"], "--corpus", str(corpus / "out")])
    assert result.exit_code == 0
    assert f"{example['id']}: dropped by deduplicate: {example['reason']}" in result.stderr
    assert "of its cluster" in result.stderr
    result = CliRunner().invoke(app, ["why", "nobody", "--corpus", str(corpus / "out")])
    assert result.exit_code == 1 and "no such document was read" in result.stderr
    result = CliRunner().invoke(app, ["why", "d1", "--corpus", str(corpus)])
    assert result.exit_code == 2 and "holds no corpus" in result.stderr


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("steps.0.step=normalize", "needs a 'step' out of normalise"),
        ("steps.2.unknown=1", "steps.2.unknown is unknown"),
        ("sources.0.files=[nowhere.jsonl]", "source web: there is no input nowhere.jsonl"),
        ("steps.5.questions=[nowhere.jsonl]", "nowhere.jsonl"),
        ("tokenizer=nowhere", "tokenizer"),
        ("stages.0.parts.0.sources=[shop]", "there is no source shop"),
        ("steps.1.step=normalise", "normalise is there twice"),
    ],
)
def test_a_recipe_that_cannot_be_begun_is_one_sentence(
    corpus: Path, tmp_path: Path, override: str, sentence: str
) -> None:
    result = CliRunner().invoke(app, ["corpus", str(corpus / "recipe.yaml"), f"output={tmp_path / 'out'}", override])
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
