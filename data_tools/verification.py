"""Is a token dataset whole, and does it fit its manifest and its tokenizer? Read as a stream, in bounded
memory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_tools.indexed import Array, IndexedReader, bin_path, idx_path
from data_tools.loss_masks import check_loss_masks
from data_tools.manifest import dataset_files, loss_mask_prefix, manifest_path, read_manifest
from data_tools.publish import sha256_file


class TokenizerFacts(Protocol):
    """What a check needs of a tokenizer."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def eod_id(self) -> int: ...


@dataclass
class Verification:
    """The result: `problems` is empty when every check in `passed` held; `skipped` were not possible, and
    why.
    """

    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    kind: str = "documents"
    problems: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def check(self, name: str, problem: str | None) -> None:
        """Note one check: passed without a problem, else the problem as a sentence."""
        if problem is None:
            self.passed.append(name)
        else:
            self.problems.append(problem)


def verify(prefix: Path, tokenizer: TokenizerFacts | None = None) -> Verification:
    """Check `prefix`.bin and .idx, against `prefix`.manifest.json if there is one and `tokenizer` if it is
    given; dialogues and pairs with their loss masks.

    Raises:
        IndexedDatasetError: an index cannot be read at all.
        ManifestError: the manifest is not JSON.
    """
    reader = IndexedReader(prefix)
    manifest = read_manifest(manifest_path(prefix))
    result = Verification(reader.documents, len(reader), int(reader.lengths.sum(dtype=np.int64)))
    result.passed.append("header, version, dtype and size of .idx")
    sound = _check_structure(reader, result)
    kind = manifest.get("kind", "documents") if manifest else None
    masked = idx_path(loss_mask_prefix(prefix)).exists() if kind is None else kind != "documents"
    result.kind = kind or ("samples" if masked else "documents")

    facts = manifest["tokenizer"] if manifest else {}
    if tokenizer is not None and facts:
        same = facts["digest"] == tokenizer.digest
        result.check(
            "tokenizer digest",
            None
            if same
            else f"the dataset was made with tokenizer {facts['name']} ({facts['digest'][:12]}…), this is "
            f"{tokenizer.name} ({tokenizer.digest[:12]}…): train with the one it was made with",
        )
    elif tokenizer is None:
        result.skipped.append("tokenizer digest (no tokenizer given)")
    else:
        result.skipped.append("tokenizer digest (no manifest)")
    vocab_size = tokenizer.vocab_size if tokenizer is not None else facts.get("vocab_size")
    eod_id = tokenizer.eod_id if tokenizer is not None else facts.get("eod_id")
    if vocab_size is None:
        result.skipped.append("ids below the vocabulary size, EOD at document ends (no manifest, no tokenizer)")

    digests = {"bin": _check_tokens(reader, result, vocab_size, eod_id if sound and not masked else None)}
    trained = None
    if masked:
        _check_template(manifest, result)
        digests["loss_mask.bin"], trained = check_loss_masks(reader, kind, result.check)
    if manifest is None:
        result.skipped.append("checksums and counts (no manifest)")
        return result
    for name, path in dataset_files(prefix, masked=masked).items():
        found = digests.get(name) or sha256_file(path)
        result.check(
            f"SHA-256 of .{name}",
            None
            if found == manifest["files"][name]["sha256"]
            else f"{path} does not have the SHA-256 of the manifest: it is damaged or replaced",
        )
    counts = manifest["counts"]
    names = ("documents", "tokens", "trained_tokens")[: 2 if trained is None else 3]
    said, held = [counts[name] for name in names], [result.documents, result.tokens, trained][: len(names)]
    result.check(
        "counts of the manifest",
        None
        if said == held
        else f"the manifest counts {_listed(said, result.kind)}, the files hold {_listed(held, result.kind)}",
    )
    return result


def _listed(counts: Sequence[int | None], kind: str) -> str:
    parts = [f"{count:,} {noun}" for count, noun in zip(counts, (kind, "tokens", "trained tokens"))]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _check_template(manifest: dict[str, Any] | None, result: Verification) -> None:
    if manifest is None:
        result.skipped.append("template digest (no manifest)")
        return
    from data_tools.chat import TEMPLATES

    name, digest = manifest["template"]["name"], manifest["template"]["digest"]
    problem = None
    if name not in TEMPLATES:
        problem = f"the dataset was rendered with the chat template {name}, which is not known here"
    elif TEMPLATES[name].digest != digest:
        problem = (
            f"the dataset was rendered with another form of the chat template {name} ({digest[:12]}…) than is known "
            f"here ({TEMPLATES[name].digest[:12]}…): index it again"
        )
    result.check("template digest", problem)


def _check_structure(reader: IndexedReader, result: Verification) -> bool:
    index, tokens_file = idx_path(reader.prefix), bin_path(reader.prefix)
    itemsize = reader.dtype.itemsize
    negative = bool(len(reader)) and int(reader.lengths.min()) < 0
    result.check(
        "sequence lengths",
        f"{index} holds a negative sequence length" if negative else None,
    )
    expected = np.cumsum(reader.lengths, dtype=np.int64) * itemsize
    wrong = np.flatnonzero(reader.offsets[1:] != expected[:-1])
    bad_offset = (int(wrong[0]) + 1) if len(wrong) else 0 if len(reader) and reader.offsets[0] != 0 else None
    result.check(
        "sequence offsets",
        None if bad_offset is None else f"{index}: sequence {bad_offset} does not begin where the one before it ends",
    )
    indices = reader.document_indices
    fits = len(indices) > 0 and indices[0] == 0 and indices[-1] == len(reader) and bool(np.all(np.diff(indices) > 0))
    result.check(
        "document indices",
        None if fits else f"{index}: the document indices do not climb from 0 to {len(reader):,} sequences",
    )
    needed = result.tokens * itemsize
    result.check(
        "length of .bin",
        None
        if reader.bin_bytes == needed
        else f"{tokens_file} has {reader.bin_bytes:,} bytes, the index asks for {needed:,}: it is "
        f"{'cut short' if reader.bin_bytes < needed else 'too long'}",
    )
    return not result.problems


def _check_tokens(reader: IndexedReader, result: Verification, vocab_size: int | None, eod_id: int | None) -> str:
    """One pass over .bin: ids, ends of documents, SHA-256 (returned as hex)."""
    tokens_file = bin_path(reader.prefix)
    ends: Array = np.zeros(0, np.int64)
    if eod_id is not None:
        ends = np.cumsum(reader.lengths, dtype=np.int64)[reader.document_indices[1:] - 1] - 1
    digest = hashlib.sha256()
    position = first_end = eods = 0
    outside: str | None = None
    unended: str | None = None
    for block in reader.blocks():
        digest.update(block.data)
        if vocab_size is not None and outside is None:
            beyond = np.flatnonzero((block < 0) | (block >= vocab_size))
            if len(beyond):
                outside = (
                    f"{tokens_file}: token {position + int(beyond[0]):,} is {block[beyond[0]]}, outside "
                    f"the vocabulary of {vocab_size:,}"
                )
        if eod_id is not None:
            last_end = int(np.searchsorted(ends, position + len(block)))
            missing = np.flatnonzero(block[ends[first_end:last_end] - position] != eod_id)
            if len(missing) and unended is None:
                unended = f"{tokens_file}: document {first_end + int(missing[0]):,} does not end in {eod_id}"
            eods += int(np.count_nonzero(block == eod_id))
            first_end = last_end
        position += len(block)
    with tokens_file.open("rb") as file:  # bytes after the last whole token count in the checksum too
        file.seek(position * reader.dtype.itemsize)
        digest.update(file.read())
    if vocab_size is not None:
        result.check("ids below the vocabulary size", outside)
    if eod_id is not None:
        if unended is None and eods != len(ends):
            unended = (
                f"{tokens_file} holds the end-of-document id {eod_id} {eods:,} times for {len(ends):,} "
                "documents: some documents hold it inside"
            )
        result.check("one end-of-document id per document, at its end", unended)
    return digest.hexdigest()
