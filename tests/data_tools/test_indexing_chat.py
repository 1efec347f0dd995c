"""Dialogues and pairs: tokens and loss masks as written out by hand, whatever the division of work and the lengths."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_tools.chat import get_template
from data_tools.cli import app
from data_tools.indexed import idx_path
from data_tools.indexing import IndexingError, quarantine_file, work_directory
from data_tools.manifest import loss_mask_prefix, manifest_path, read_manifest
from data_tools.publish import sha256_file
from data_tools.samples import IndexOptions
from data_tools.tokenizers import load_tokenizer
from data_tools.verification import verify

from .chat_samples import (
    DIALOGUES,
    PAIRS,
    bytes_of,
    chat_tokenizer,
    conversation,
    index,
    message,
    pair,
    pair_sequences,
    random_pairs,
    read,
    rendered,
    write,
)
from .small_tokenizer import make_tokenizer, write_documents

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer") / "chat")


def test_dialogues_are_what_megatron_reads_whatever_the_workers_and_shards(tokenizer: Path, tmp_path: Path) -> None:
    generator = random.Random(1)
    dialogues = [conversation(generator, generator.randrange(1, 4)) for _ in range(150)]
    dialogues[3] = [message("system", "the dose 每日"), *dialogues[3]]
    dialogues[4] += [message("user", "cough")]
    records: list[Any] = [{"id": str(n), "messages": item, "lang": "zh"} for n, item in enumerate(dialogues)]
    source = write(tmp_path / "a.jsonl", [*records[:70], "", "{", *records[70:]])
    expected = [[rendered(tokenizer, item)] for item in dialogues]
    expected[4] = [rendered(tokenizer, dialogues[4][:-1])]
    tokens = sum(len(ids) for [(ids, _)] in expected)
    trained = sum(sum(mask) for [(_, mask)] in expected)
    for name, arguments in {
        "one": {"workers": 1},
        "many": {"workers": 1, "shard_bytes": 3000},
        "pool": {"workers": 2, "shard_bytes": 40_000},
    }.items():
        prefix = tmp_path / name
        manifest = index(source, tokenizer, prefix, DIALOGUES, **arguments).manifest
        assert read(prefix) == expected, name
        assert bytes_of(prefix) == bytes_of(tmp_path / "one")
        assert not work_directory(prefix).exists()
        counts = manifest["counts"]
        assert (counts["units"], counts["documents"], counts["blank"], counts["quarantined"]) == (152, 150, 1, 1)
        assert (counts["sequences"], counts["tokens"], counts["trained_tokens"]) == (150, tokens, trained)
        assert (counts["truncated"], counts["dropped"], counts["trailing_user"]) == (0, {}, 1)
        result = verify(prefix, load_tokenizer(tokenizer))
        assert result.problems == [] and result.skipped == [] and result.kind == "dialogues"


def test_pairs_are_two_sequences_and_the_prompt_is_untrained(tokenizer: Path, tmp_path: Path) -> None:
    records = random_pairs(80)
    source = write(tmp_path / "a.jsonl", records)
    expected = [pair_sequences(tokenizer, record) for record in records]
    for name, arguments in {"one": {"workers": 1}, "many": {"workers": 1, "shard_bytes": 3000}}.items():
        counts = index(source, tokenizer, tmp_path / name, PAIRS, **arguments).manifest["counts"]
        assert read(tmp_path / name) == expected
        assert bytes_of(tmp_path / name) == bytes_of(tmp_path / "one")
        assert (counts["documents"], counts["sequences"]) == (80, 160)
        assert verify(tmp_path / name, load_tokenizer(tokenizer)).problems == []


def test_manifest_names_everything(tokenizer: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", random_pairs(5))
    index(source, tokenizer, tmp_path / "out", PAIRS)
    manifest = read_manifest(manifest_path(tmp_path / "out"))
    assert manifest is not None
    assert manifest["kind"] == "pairs"
    assert manifest["template"] == {"name": "chatml", "digest": get_template("chatml").digest}
    assert (manifest["options"]["max_length"], manifest["options"]["template"]) == (2048, "chatml")
    assert set(manifest["files"]) == {"bin", "idx", "loss_mask.bin", "loss_mask.idx"}
    for name, facts in manifest["files"].items():
        path = tmp_path / f"out.{name}"
        assert facts == {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def test_truncation_is_counted_and_what_is_dropped_is_listed(tokenizer: Path, tmp_path: Path) -> None:
    short = [message("user", "fever"), message("assistant", "dose")]
    long = [message("user", "cough"), message("assistant", "the patient has pain " * 9)]
    wordy = [message("user", "the patient has fever " * 9), message("assistant", "dose")]
    limit = len(rendered(tokenizer, short)[0]) + 8
    source = write(tmp_path / "a.jsonl", [{"messages": m} for m in (short, short + long, long, wordy)])
    options = IndexOptions(kind="dialogues", template="chatml", max_length=limit)
    counts = index(source, tokenizer, tmp_path / "out", options).manifest["counts"]
    ids, mask = rendered(tokenizer, long)
    assert read(tmp_path / "out") == [
        [rendered(tokenizer, short)],
        [rendered(tokenizer, short)],
        [(ids[:limit], mask[:limit])],
    ]
    assert (counts["truncated"], counts["turns_dropped"], counts["answer_cut"]) == (2, 1, 1)
    assert counts["dropped"] == {"prompt-too-long": 1}
    assert counts["quarantined"] == 0  # 1 of 4 would be too many bad records
    [fault] = map(json.loads, quarantine_file(tmp_path / "out").read_text().splitlines())
    assert (fault["line"], fault["reason"]) == (4, "prompt-too-long")
    assert f"--max-length) is {limit}" in fault["detail"]

    pairs = [
        pair(short[:1], "the patient has pain " * 9, "no"),
        pair(short[:1], f"{'dose ' * 30}yes", f"{'dose ' * 30}no"),
        pair(wordy[:1], "yes", "no"),
    ]
    options = IndexOptions(kind="pairs", template="chatml", max_length=limit)
    counts = index(write(tmp_path / "b.jsonl", pairs), tokenizer, tmp_path / "pairs", options).manifest["counts"]
    (chosen, chosen_mask), rejected = pair_sequences(tokenizer, pairs[0])
    assert read(tmp_path / "pairs") == [[(chosen[:limit], chosen_mask[:limit]), rejected]]
    assert (counts["truncated"], counts["answer_cut"]) == (1, 1)
    assert counts["dropped"] == {"equal-after-cut": 1, "prompt-too-long": 1}


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_and_every_sample_has_something_to_train_on(tokenizer: Path, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    records: list[Any] = []
    for _ in range(120):
        messages = conversation(generator, generator.randrange(1, 5), generator.choice([4, 30]))
        damage = generator.random()
        if damage < 0.05:
            messages = messages[::-1]
        elif damage < 0.1:
            messages = messages[:1]
        elif damage < 0.2:
            messages.append(message("user", "fever"))
        elif damage < 0.25:
            messages[-1]["content"] = " \n"
        records.append(generator.choice(["", "{", {"messages": "x"}]) if damage > 0.93 else {"messages": messages})
    limit = (26, 30, 36, 45, 60, 90)[seed]
    options = IndexOptions(kind="dialogues", template="chatml", max_length=limit)
    source = write(tmp_path / "a.jsonl", records)
    manifest = index(source, tokenizer, tmp_path / "out", options, max_bad_fraction=1, shard_bytes=4000).manifest
    counts = manifest["counts"]
    lost = counts["blank"] + counts["quarantined"] + sum(counts["dropped"].values())
    assert counts["units"] == len(records) == counts["documents"] + lost
    faults = [json.loads(line) for line in quarantine_file(tmp_path / "out").read_text().splitlines()]
    refused = {fault["line"] for fault in faults}
    assert len(faults) == len(refused) == counts["quarantined"] + sum(counts["dropped"].values())
    kept = [record for line, record in enumerate(records, 1) if line not in refused and record != ""]
    samples = read(tmp_path / "out")
    assert len(samples) == len(kept)
    cut = 0
    for [(ids, mask)], record in zip(samples, kept):
        messages = record["messages"]
        whole, trained = rendered(tokenizer, messages[: len(messages) // 2 * 2])
        assert len(ids) == len(mask) <= limit
        assert (ids, mask) == (whole[: len(ids)], trained[: len(ids)])
        assert any(mask[1:])
        cut += sum(trained) > sum(mask)
    assert cut > 0
    assert (counts["dropped"] != {}) == (limit < 50)
    assert counts["truncated"] == counts["turns_dropped"] + counts["answer_cut"] == cut
    assert verify(tmp_path / "out").problems == []


def test_finished_shards_are_kept_unless_their_masks_are_damaged(tokenizer: Path, tmp_path: Path) -> None:
    generator = random.Random(2)
    records: list[Any] = [{"messages": conversation(generator, 2)} for _ in range(100)]
    source = write(tmp_path / "a.jsonl", [*records, *["{"] * 40])
    with pytest.raises(IndexingError, match="40 of 140 records"):
        index(source, tokenizer, tmp_path / "out", DIALOGUES, shard_bytes=3000)
    assert not idx_path(tmp_path / "out").exists()
    kept = sorted(work_directory(tmp_path / "out").glob("*.loss_mask.bin"))
    victim = max(kept, key=lambda path: path.stat().st_size)
    victim.write_bytes(bytes(victim.stat().st_size))
    summary = index(source, tokenizer, tmp_path / "out", DIALOGUES, shard_bytes=3000, max_bad_fraction=0.5)
    assert (summary.shards_done, summary.shards_reused) == (1, len(kept) - 1)
    index(source, tokenizer, tmp_path / "fresh", DIALOGUES, max_bad_fraction=0.5)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")


def test_other_options_are_another_dataset(tokenizer: Path, tmp_path: Path) -> None:
    generator = random.Random(2)
    source = write(tmp_path / "a.jsonl", [{"text": "a", "messages": conversation(generator, 3)} for _ in range(9)])
    prefix = tmp_path / "out"
    shorter = IndexOptions(kind="dialogues", template="chatml", max_length=40)
    plain = IndexOptions(kind="dialogues", template="aquila-chat")
    for options in (DIALOGUES, shorter, plain, DIALOGUES):
        assert index(source, tokenizer, prefix, options).shards_done == 1
        assert index(source, tokenizer, prefix, options).shards_reused == 1
    loss_mask_prefix(prefix).with_name("out.loss_mask.bin").write_bytes(b"")
    assert index(source, tokenizer, prefix, DIALOGUES).shards_done == 1
    index(source, tokenizer, prefix, IndexOptions())
    assert sorted(path.name for path in tmp_path.glob("out.*")) == ["out.bin", "out.idx", "out.manifest.json"]
    assert verify(prefix).kind == "documents"


def test_repeated_ids_and_other_columns(tokenizer: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [{**record, "id": number % 3, "note": "n"} for number, record in enumerate(random_pairs(7))]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    manifest = index(tmp_path / "a.parquet", tokenizer, tmp_path / "out", PAIRS).manifest
    assert read(tmp_path / "out") == [pair_sequences(tokenizer, record) for record in records]
    assert manifest["counts"]["duplicate_ids"] == 4


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.stderr.split()), result.stdout


def test_command_shows_what_was_kept_and_what_was_not(tokenizer: Path, tmp_path: Path) -> None:
    generator = random.Random(3)
    dialogues = [{"messages": conversation(generator, 3)} for _ in range(30)]
    dialogues += [{"messages": [message("user", "pain " * 200), message("assistant", "dose")]}] * 2
    source = write(tmp_path / "a.jsonl", [*dialogues, {"messages": [message("user", "fever")]}])
    command = ["index", source, "--tokenizer", tokenizer, "--output", tmp_path / "out", "--workers", 1]
    code, errors, _ = run(*command, "--kind", "dialogues", "--template", "chatml", "--max-length", 60)
    assert code == 0, errors
    manifest = read_manifest(manifest_path(tmp_path / "out"))
    assert manifest is not None
    counts = manifest["counts"]
    share = f"{counts['trained_tokens'] / counts['tokens']:.1%}"
    for row in (
        "dialogues │ 30 │",
        f"trained │ {counts['trained_tokens']:,} tokens, {share} │",
        "template │ chatml, at most 60 tokens │",
        f"truncated │ {counts['truncated']} ({counts['turns_dropped']} last exchanges dropped",
        "dropped: prompt-too-long │ 2 │",
        "quarantined: no-answer │ 1 │",
    ):
        assert row in errors
    code, _, output = run("verify", tmp_path / "out", "--tokenizer", tokenizer)
    assert (code, "30 dialogues" in output, "WRONG" in output) == (0, True, False)


def test_what_cannot_be_begun_is_one_sentence(tokenizer: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", random_pairs(3))
    bare = make_tokenizer(tmp_path / "bare")
    for options, sentence in {
        ("--kind", "pairs"): "give --template",
        ("--kind", "songs", "--template", "chatml"): "the kinds are documents, dialogues, pairs",
        ("--kind", "pairs", "--template", "chat"): "there is no chat template 'chat'",
        ("--kind", "pairs", "--template", "chatml", "--max-length", "1"): "no sample fits into 1 tokens",
        ("--kind", "pairs", "--template", "chatml", "--text-key", "body"): "leave --text-key out",
        ("--template", "chatml"): "give their --kind too",
        ("--max-length", "9"): "give their --kind too",
        ("--kind", "pairs", "--template", "aquila-v1"): "lacks <|startofpiece|>",
        ("--kind", "pairs", "--template", "chatml", "--max-length", "2"): "3 prompt-too-long, 0 bad records: raise",
    }.items():
        code, errors, _ = run("index", source, "--tokenizer", tokenizer, "--output", tmp_path / "out", *options)
        assert (code, sentence in errors) == (2, True), errors
    code, errors, _ = run(
        "index", source, "--tokenizer", bare, "--output", tmp_path / "out", "--kind", "pairs", "--template", "chatml"
    )
    assert (code, "lacks <|im_start|>" in errors) == (2, True)
    assert not idx_path(tmp_path / "out").exists()
    write_documents(tmp_path / "b.jsonl", 3)
    code, errors, _ = run(
        "index", tmp_path / "b.jsonl", "--tokenizer", tokenizer, "--output", tmp_path / "out", "--kind", "dialogues",
        "--template", "chatml",
    )  # fmt: skip
    assert (code, "no dialogues at all: all 3 records are bad (3 no-messages)" in errors) == (2, True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data are not beside this checkout")
def test_real_dialogues_with_the_aquila_tokenizer(tmp_path: Path) -> None:
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as file:
        chinese = [(row["ask"], row["answer"]) for row in csv.DictReader(file)]
    english = [(row["input"], row["output"]) for row in json.loads((SHARED / "chatdoctor5k.json").read_text())]
    exchanges = english[::4] + chinese[::4]
    records = [{"messages": [message("user", ask), message("assistant", answer)]} for ask, answer in exchanges]
    source, tokenizer = write(tmp_path / "a.jsonl", records), SHARED / "aquila_tokenizer"
    options = IndexOptions(kind="dialogues", template="aquila-v1")
    counts = index(source, tokenizer, tmp_path / "out", options).manifest["counts"]
    assert (counts["documents"], counts["truncated"], counts["dropped"]) == (len(exchanges), 0, {})
    encoder = load_tokenizer(tokenizer)
    samples = read(tmp_path / "out")
    for [(ids, mask)], (ask, answer) in list(zip(samples, exchanges))[::7]:
        assert encoder.decode(ids) == f"<|startofpiece|>{ask}<|endofpiece|>{answer}</s>"
        assert encoder.decode([token for token, bit in zip(ids, mask) if bit]) == f"{answer}</s>"
    assert verify(tmp_path / "out", encoder).problems == []
