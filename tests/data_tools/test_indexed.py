"""The format against Megatron's own writer and reader; the checker against damage of every kind."""

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

from data_tools.indexed import (
    IndexedDatasetError,
    IndexedReader,
    IndexedWriter,
    bin_path,
    idx_path,
    merge,
    token_dtype,
)
from data_tools.manifest import manifest_path, write_manifest
from data_tools.publish import sha256_file
from data_tools.verification import verify

EOD = 7
Documents = list[list[np.ndarray]]


@dataclass
class Facts:
    name: str = "small"
    digest: str = "d" * 64
    vocab_size: int = 1000
    eod_id: int = EOD


def make_documents(number: int, vocab_size: int, sequences: int = 1, seed: int = 0) -> Documents:
    """Documents of 1 to `sequences` sequences that hold no EOD but at the end of the document."""
    random = np.random.default_rng(seed)
    documents = []
    for _ in range(number):
        lengths = random.integers(1, 40, random.integers(1, sequences + 1))
        document = [random.integers(EOD + 1, vocab_size, length) for length in lengths]
        document[-1] = np.append(document[-1], EOD)
        documents.append(document)
    return documents


def write(prefix: Path, documents: Documents, dtype: Any) -> Path:
    with IndexedWriter(prefix, dtype) as writer:
        for begin in range(0, len(documents), 3):
            some = documents[begin : begin + 3]
            flat = [sequence for document in some for sequence in document]
            writer.add(np.concatenate(flat), np.array([len(s) for s in flat]), np.array([len(d) for d in some]))
    return prefix


def write_with_megatron(prefix: Path, documents: Documents, dtype: Any) -> Path:
    builder = IndexedDatasetBuilder(str(bin_path(prefix)), dtype=dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.from_numpy(sequence))
        builder.end_document()
    builder.finalize(str(idx_path(prefix)))
    return prefix


def same_bytes(one: Path, other: Path) -> bool:
    return all(path(one).read_bytes() == path(other).read_bytes() for path in (bin_path, idx_path))


@pytest.mark.parametrize(("dtype", "vocab_size"), [(np.uint16, 65499), (np.int32, 100008), (np.uint8, 200)])
@pytest.mark.parametrize("sequences", [1, 2])
def test_bytes_equal_megatrons_writer(tmp_path: Path, dtype: Any, vocab_size: int, sequences: int) -> None:
    documents = make_documents(50, vocab_size, sequences)
    ours = write(tmp_path / "ours.v1", documents, dtype)
    assert same_bytes(ours, write_with_megatron(tmp_path / "theirs", documents, dtype))
    assert sorted(path.name for path in tmp_path.glob("ours*")) == ["ours.v1.bin", "ours.v1.idx"]


def test_megatrons_reader_and_ours_read_it(tmp_path: Path) -> None:
    documents = make_documents(20, 100008, 3)
    prefix = write(tmp_path / "set", documents, np.int32)
    flat = [sequence for document in documents for sequence in document]
    dataset, reader = IndexedDataset(str(prefix)), IndexedReader(prefix)
    assert len(dataset) == len(reader) == len(flat)
    assert reader.documents == 20
    for index, sequence in enumerate(flat):
        np.testing.assert_array_equal(dataset[index], sequence)
        np.testing.assert_array_equal(reader.sequence(index), sequence)
    for index, document in enumerate(documents):
        assert [part.tolist() for part in reader.document(index)] == [part.tolist() for part in document]
    np.testing.assert_array_equal(dataset.document_indices, reader.document_indices)
    np.testing.assert_array_equal(np.concatenate(list(reader.blocks(7))), np.concatenate(flat))


def test_dtype_follows_megatrons_rule() -> None:
    assert [token_dtype(size).name for size in (65499, 65500, 65536)] == ["uint16", "int32", "int32"]


def test_merge_equals_one_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = make_documents(30, 900, 2)
    whole = write(tmp_path / "whole", documents, np.uint16)
    parts = [
        write(tmp_path / "a", documents[:11], np.uint16),
        write(tmp_path / "b", [], np.uint16),
        write(tmp_path / "c", documents[11:], np.uint16),
    ]
    merge(parts, tmp_path / "merged")
    assert same_bytes(tmp_path / "merged", whole)

    def refuse(*_: Any) -> int:
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    merge(parts, tmp_path / "by hand")
    assert same_bytes(tmp_path / "by hand", whole)


def test_offsets_beyond_int32(tmp_path: Path) -> None:
    """Three sparse parts of 1.5 GB each: offsets of the third lie past 2^31, where int32 arithmetic would
    wrap.
    """
    length = 400_000_000
    for name in "abc":
        write(tmp_path / name, [[np.array([1, EOD])]], np.int32)
        with bin_path(tmp_path / name).open("r+b") as file:
            file.truncate(length * 4)
        header = idx_path(tmp_path / name).read_bytes()
        idx_path(tmp_path / name).write_bytes(header[:34] + struct.pack("<i", length) + header[38:])
    index = IndexedReader(tmp_path / "a")
    assert index.bin_bytes == 1_600_000_000
    from data_tools.indexed import _Parts, _publish_index

    _publish_index(tmp_path / "joined", np.dtype("<i4"), _Parts([tmp_path / name for name in "abc"]), 3, 3, False)
    data = idx_path(tmp_path / "joined").read_bytes()
    assert np.frombuffer(data, "<i8", 3, 34 + 12).tolist() == [0, 1_600_000_000, 3_200_000_000]
    assert np.frombuffer(data, "<i8", 4, 34 + 36).tolist() == [0, 1, 2, 3]


def test_parts_of_different_types_are_not_joined(tmp_path: Path) -> None:
    one = write(tmp_path / "one", make_documents(2, 900), np.uint16)
    two = write(tmp_path / "two", make_documents(2, 900), np.int32)
    with pytest.raises(IndexedDatasetError, match=r"int32.*uint16: different vocabularies"):
        merge([one, two], tmp_path / "joined")
    with pytest.raises(IndexedDatasetError, match="nothing to join"):
        merge([], tmp_path / "joined")


def test_writer_refuses_what_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(IndexedDatasetError, match="complex"):
        IndexedWriter(tmp_path / "set", np.complex64)
    for tokens, lengths in ((np.array([70000]), [1]), (np.array([-1]), [1]), (np.array([1, 2]), [1])):
        with pytest.raises(ValueError), IndexedWriter(tmp_path / "set", np.uint16) as writer:
            writer.add(tokens, np.array(lengths))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_dataset(tmp_path: Path) -> None:
    prefix = write(tmp_path / "set", make_documents(3, 900), np.uint16)
    before = bin_path(prefix).read_bytes(), idx_path(prefix).read_bytes()
    with pytest.raises(KeyError), IndexedWriter(prefix, np.uint16) as writer:
        writer.add(np.array([1, 2]), np.array([2]))
        raise KeyError
    assert (bin_path(prefix).read_bytes(), idx_path(prefix).read_bytes()) == before


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A dataset with a manifest: 40 documents, 1 sequence each."""
    prefix = write(tmp_path / "set", make_documents(40, 1000), np.uint16)
    reader = IndexedReader(prefix)
    write_manifest(
        manifest_path(prefix),
        {
            "tokenizer": {"name": "small", "digest": "d" * 64, "vocab_size": 1000, "eod_id": EOD},
            "counts": {"documents": 40, "tokens": int(reader.lengths.sum())},
            "files": {path.suffix[1:]: {"sha256": sha256_file(path)} for path in (bin_path(prefix), idx_path(prefix))},
        },
    )
    return prefix


def patch(path: Path, offset: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def resign(prefix: Path) -> None:
    """Without a manifest only the structure can speak."""
    manifest_path(prefix).unlink()


def test_a_sound_dataset_passes_every_check(sound: Path) -> None:
    result = verify(sound, Facts())
    assert (result.problems, result.skipped) == ([], [])
    assert len(result.passed) == 11
    assert (result.documents, result.sequences) == (40, 40)
    resign(sound)
    without = verify(sound)
    assert without.problems == []
    assert len(without.skipped) == 3
    assert len(without.passed) == 5


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda p: patch(bin_path(p), 30, b"\x21\x01"), "SHA-256"),
        (
            lambda p: patch(bin_path(p), 30, struct.pack("<H", 1000)),
            "token 15 is 1000, outside the vocabulary of 1,000",
        ),
        (
            lambda p: patch(bin_path(p), bin_path(p).stat().st_size - 2, b"\x21\x01"),
            "document 39 does not end in 7",
        ),
        (lambda p: patch(bin_path(p), 0, struct.pack("<H", EOD)), "41 times for 40 documents"),
        (lambda p: bin_path(p).write_bytes(bin_path(p).read_bytes()[:-2]), "cut short"),
        (lambda p: bin_path(p).write_bytes(bin_path(p).read_bytes() + b"\0\0"), "too long"),
        (lambda p: patch(idx_path(p), 34, struct.pack("<i", -5)), "negative sequence length"),
        (
            lambda p: patch(idx_path(p), 34 + 160 + 24, struct.pack("<q", 2)),
            "sequence 3 does not begin where",
        ),
        (lambda p: patch(idx_path(p), 34 + 160, struct.pack("<q", 2)), "sequence 0 does not begin where"),
        (lambda p: patch(idx_path(p), 34 + 480 + 8, struct.pack("<q", 9)), "document indices do not climb"),
        (
            lambda p: patch(idx_path(p), 34 + 480 + 320, struct.pack("<q", 39)),
            "document indices do not climb",
        ),
    ],
)
def test_every_damage_is_named(sound: Path, damage: Callable[[Path], None], problem: str) -> None:
    damage(sound)
    assert any(problem in found for found in verify(sound).problems), verify(sound).problems


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: idx_path(p).unlink(), "there is no .*idx"),
        (lambda p: bin_path(p).unlink(), "there is no .*bin"),
        (lambda p: patch(idx_path(p), 0, b"X"), "not a Megatron index"),
        (lambda p: idx_path(p).write_bytes(b"MMID"), "not a Megatron index"),
        (lambda p: patch(idx_path(p), 9, b"\x02"), "format version 2"),
        (lambda p: patch(idx_path(p), 17, b"\x09"), "unknown dtype code 9"),
        (lambda p: idx_path(p).write_bytes(idx_path(p).read_bytes()[:-1]), "its header asks for"),
    ],
)
def test_an_unreadable_index_is_one_sentence(sound: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(sound)
    with pytest.raises(IndexedDatasetError, match=sentence):
        verify(sound)


def test_another_tokenizer_is_noticed(sound: Path) -> None:
    result = verify(sound, Facts(name="other", digest="e" * 64))
    assert [problem for problem in result.problems if "made with tokenizer small" in problem and "other" in problem]


def test_damage_is_found_without_a_manifest(sound: Path) -> None:
    resign(sound)
    patch(bin_path(sound), 30, struct.pack("<H", 1000))
    assert verify(sound).problems == []
    assert ["token 15" in problem for problem in verify(sound, Facts()).problems] == [True]
