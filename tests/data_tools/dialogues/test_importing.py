"""Raw files of every bad sort on their way into a run: what is imported, what is refused, and what is said of it."""

import gzip
import json
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.corpus.run import CorpusError, CorpusSummary
from data_tools.corpus.why import fates
from data_tools.dialogues.importing import import_to_file
from data_tools.dialogues.recipe import DialogueRecipe
from data_tools.dialogues.run import build_dialogues
from data_tools.inputs import InputError
from data_tools.publish import BusyError, StorageError, exclusive

from ..chat_samples import chat_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def talk(number: int, **keys: Any) -> dict[str, Any]:
    """Of a length that depends on the number only a little, so that equal places in files are common."""
    said = (f"Is {number:04d} the number of the ward?", f"No, the number of the ward is {number + 1:04d}.")
    return {"messages": [{"role": ("user", "assistant")[n], "content": text} for n, text in enumerate(said)], **keys}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    return path


def recipe(tokenizer: Path, output: Path, *files: Path, **changes: Any) -> DialogueRecipe:
    sources = [{"name": "x", "format": "messages", "files": [str(file) for file in files]}]
    tree = {"output": output, "tokenizer": tokenizer, "sources": sources, "max_bad_fraction": 0.9, **changes}
    return DialogueRecipe.model_validate(tree)


def kept(summary: CorpusSummary) -> list[dict[str, Any]]:
    found = []
    for path in sorted((summary.output / "dialogues").rglob("*.jsonl.zst")):
        with zstandard.open(path, "rb") as file:
            found += [json.loads(line) for line in file.read().splitlines()]
    return found


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A full disk: no file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_of_files_with_one_name_have_ids_of_their_own(tokenizer: Path, tmp_path: Path) -> None:
    """Huatuo's two sets are both called train_datasets.jsonl; their records have no ids, and lie at equal places."""
    write(tmp_path / "raw/encyclopedia/train.jsonl", [talk(n) for n in range(20)])
    write(tmp_path / "raw/graph/train.jsonl", [talk(n) for n in range(100, 120)])
    write(tmp_path / "raw/graph/other.jsonl", [talk(n) for n in range(200, 203)])
    first = kept(build_dialogues(recipe(tokenizer, tmp_path / "out", tmp_path / "raw")))
    assert len({record["id"] for record in first}) == len(first) == 43
    (fate,) = fates(tmp_path / "out", first[0]["id"])
    assert fate.decision is None and len(fate.places) == 1
    shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere/moved")
    moved = kept(build_dialogues(recipe(tokenizer, tmp_path / "out2", tmp_path / "elsewhere/moved")))
    assert moved == first, "where the files lie does not matter"


def test_equal_ids_in_a_source_are_each_accounted_for(tokenizer: Path, tmp_path: Path) -> None:
    words = (
        "Take two of them after supper.",
        "A cold compress helps.",
        "A cold compress helps.",
        "See a surgeon soon.",
    )
    rows = [talk(n, id=str(n // 3 + 1)) for n in range(4)]
    for row, said in zip(rows, words):
        row["messages"] = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    made = recipe(tokenizer, tmp_path / "out", write(tmp_path / "a.jsonl", rows), steps=[{"step": "deduplicate"}])
    summary = build_dialogues(made)
    assert [record["id"] for record in kept(summary)] == ["x:1", "x:1", "x:2"]
    steps = Counter(fate.decision["step"] if fate.decision else "kept" for fate in fates(summary.output, "x:1"))
    assert steps == {"deduplicate": 1, "kept": 1}
    assert sum(len(fate.places) for fate in fates(summary.output, "x:1")) == 2


def test_the_same_records_in_every_wrapping_are_the_same_dialogues(tokenizer: Path, tmp_path: Path) -> None:
    rows = [talk(n, id=str(n)) for n in range(30)]
    plain = write(tmp_path / "a.jsonl", rows).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain))
    (tmp_path / "a.json").write_bytes(orjson.dumps(rows))
    (tmp_path / "a.json.zst").write_bytes(zstandard.compress(orjson.dumps(rows)))
    (tmp_path / "crlf.jsonl").write_bytes(plain.replace(b"\n", b"\r\n"))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    names = ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.json.zst", "crlf.jsonl", "a.parquet")
    contents = set()
    for name in names:
        account = import_to_file([str(tmp_path / name)], "messages", tmp_path / "out.jsonl")
        assert (account.units, account.dialogues, account.quarantined) == (30, 30, {})
        contents.add((tmp_path / "out.jsonl").read_bytes())
    assert len(contents) == 1
    assert not (tmp_path / "out.jsonl.quarantine.jsonl").exists()


def test_empty_and_useless_files(tokenizer: Path, tmp_path: Path) -> None:
    good = write(tmp_path / "raw/good.jsonl", [talk(1), talk(2)])
    write(tmp_path / "raw/empty.jsonl", [])
    write(tmp_path / "raw/infos.json", [{"license": "none"}])
    (tmp_path / "raw/README.md").write_text("# a set\n")
    made = build_dialogues(recipe(tokenizer, tmp_path / "out", tmp_path / "raw"))
    assert len(kept(made)) == 2
    assert made.funnel["read"]["quarantined"] == {"no-messages": 1}
    assert [Path(file["path"]).name for file in made.funnel["read"]["files"]] == [
        "empty.jsonl",
        "good.jsonl",
        "infos.json",
    ]
    for name in ("empty.jsonl", "infos.json"):
        nothing = recipe(tokenizer, tmp_path / name, tmp_path / "raw" / name, max_bad_fraction=1)
        with pytest.raises(CorpusError, match=r"none of the dialogues is left for selected: see .*funnel\.html"):
            build_dialogues(nothing)
    with pytest.raises(CorpusError, match=r"1 of 1 records are bad \(1 no-messages\)"):
        build_dialogues(recipe(tokenizer, tmp_path / "bad", tmp_path / "raw/infos.json"))
    twice = recipe(tokenizer, tmp_path / "twice", good)
    other = twice.sources[0].model_copy(update={"name": "y"})
    with pytest.raises(InputError, match="is in source x and in source y: give it to one"):
        build_dialogues(twice.model_copy(update={"sources": (*twice.sources, other)}))


def test_a_file_that_changes_is_imported_again_and_nothing_else(tokenizer: Path, tmp_path: Path) -> None:
    stays = write(tmp_path / "stays.jsonl", [talk(n) for n in range(5)])
    changes = write(tmp_path / "changes.jsonl", [talk(n) for n in range(10, 15)])
    made = recipe(tokenizer, tmp_path / "out", stays, changes)
    build_dialogues(made)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/imported").iterdir()}
    write(changes, [talk(n) for n in range(20, 27)])
    assert len(kept(build_dialogues(made))) == 12
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/imported").iterdir()}
    same = {name for name in before if name in after and before[name] == after[name] and name != "lock"}
    assert len(same) == 3, "marker, quarantine and part of the other file"
    assert len(after) == len(before), "nothing is left of what the file was"
    write(changes, [talk(1)])
    with pytest.raises(InputError, match=r"changes\.jsonl is not imported, or has changed since"):
        made.imports.imported()


def test_two_runs_do_not_import_at_once(tokenizer: Path, tmp_path: Path) -> None:
    made = recipe(tokenizer, tmp_path / "out", write(tmp_path / "a.jsonl", [talk(1)]))
    made.output.mkdir()
    with exclusive(made.imports.directory, made.output):
        made.imports.run(1, lambda done, total: None)
        with pytest.raises(BusyError, match="another run is writing"):
            build_dialogues(made)
    (made.imports.directory / "notes").mkdir()  # not ours, and in nobody's way
    assert len(kept(build_dialogues(made))) == 1


@pytest.mark.parametrize("size", [100, 5000, 15_000])
def test_a_full_disk_is_one_sentence_and_no_half_file(tokenizer: Path, tmp_path: Path, size: int) -> None:
    """While importing, in a phase, and at the end."""
    rows = [talk(n * 7919 % 10_000) for n in range(300)]
    made = recipe(tokenizer, tmp_path / "out", write(tmp_path / "a.jsonl", rows), steps=[{"step": "normalise"}])
    with files_up_to(size), pytest.raises(StorageError, match=r"cannot write .*: (file too large|no space); what"):
        build_dialogues(made)
    assert ((tmp_path / "out/work").exists()) == (size > 100)
    assert [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".tmp"] == []
    assert not (tmp_path / "out/manifest.json").exists()
    assert len(kept(build_dialogues(made))) == 300


def test_import_to_a_file_and_its_mistakes(tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["import", *map(str, arguments)])

    source = write(tmp_path / "a.jsonl", [talk(1), {"messages": 3}, talk(2)])
    output = tmp_path / "out [bold].jsonl"
    done = run(source, "--format", "messages", "--output", output)
    assert done.exit_code == 0, done.output
    assert f"{output}: 2 dialogues of 3 records" in done.stderr
    assert len(output.read_bytes().splitlines()) == 2
    refused = [json.loads(line) for line in (tmp_path / f"{output.name}.quarantine.jsonl").read_bytes().splitlines()]
    assert [(fault["file"], fault["line"]) for fault in refused] == [(str(source), 2)]
    for options, sentence in (
        ((source, "--format", "messages", "--output", source), "is one of the files to import"),
        ((source, "--format", "messages", "--output", tmp_path / "out.txt"), "--output: "),
        ((source, "--format", "message", "--output", output), "Did you mean 'messages'?"),
        ((tmp_path / "none.jsonl", "--format", "messages", "--output", output), "there is no input"),
        ((source, "--format", "messages"), "give FILEs, --format and --output"),
    ):
        failed = run(*options)
        assert failed.exit_code == 2, failed.output
        assert sentence in failed.stderr and "Traceback" not in failed.output
    assert len(source.read_bytes().splitlines()) == 3
    with files_up_to(50), pytest.raises(StorageError, match="cannot write"):
        import_to_file([str(source)], "messages", tmp_path / "full.jsonl")
    assert not list(tmp_path.glob("full*"))


def test_what_a_source_may_be_called_and_how_its_files_are_encoded(tokenizer: Path, tmp_path: Path) -> None:
    for change, place in (({"name": "../x"}, "sources.0.name"), ({"encoding": ["gb-18031"]}, "sources.0.encoding")):
        source = {"name": "x", "format": "messages", "files": ["a.jsonl"], **change}
        with pytest.raises(ValidationError) as caught:
            recipe(tokenizer, tmp_path, sources=[source])
        assert place in [".".join(map(str, error["loc"])) for error in caught.value.errors()]


def test_a_csv_of_another_machine(tmp_path: Path) -> None:
    """Lines end in CRLF, a field holds one, the text is GB18030; the file is compressed."""
    rows = 'department,title,ask,answer\r\n内科,头痛,头痛怎么办？,"多休息。\r\n多喝水。"\r\n\r\n'
    rows += "内科,无,腹痛怎么办？,去医院。\r\n"
    (tmp_path / "内科.csv.gz").write_bytes(gzip.compress(rows.encode("gb18030")))
    account = import_to_file([str(tmp_path)], "toyhom", tmp_path / "out.jsonl")
    assert (account.dialogues, account.quarantined) == (2, {})
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [one["messages"][-1]["content"].split() for one in found] == [["多休息。", "多喝水。"], ["去医院。"]]
    assert found[0]["meta"]["department"] == "内科"
