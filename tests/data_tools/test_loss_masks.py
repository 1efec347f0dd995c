"""`aquila data verify` on dialogues and pairs: what does not fit is found, wherever it stands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.indexed import IndexedReader, IndexedWriter, bin_path
from data_tools.manifest import loss_mask_prefix, manifest_path
from data_tools.verification import verify

from .chat_samples import PAIRS, chat_tokenizer, index, random_pairs, write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_tokenizer(tmp_path_factory.mktemp("tokenizer") / "chat")


def rewritten(prefix: Path, change: Callable[[np.ndarray], None]) -> None:
    """The loss masks again, changed."""
    twin = loss_mask_prefix(prefix)
    reader = IndexedReader(twin)
    lengths, counts = reader.lengths.copy(), np.diff(reader.document_indices)
    mask = np.fromfile(bin_path(twin), np.uint8)
    change(mask)
    with IndexedWriter(twin, np.uint8) as writer:
        writer.add(mask, lengths, counts)


def two(mask: np.ndarray) -> None:
    mask[4] = 2


def idle(mask: np.ndarray) -> None:
    mask[:] = 0


def first(mask: np.ndarray) -> None:
    mask[0] = 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (two, "the mask of token 4 is neither 0 nor 1"),
        (idle, "sequence 0 trains nothing"),
        (first, "sequence 0 trains its first token"),
    ],
)
def test_verify_finds_bad_masks(
    tokenizer: Path, tmp_path: Path, change: Callable[[np.ndarray], None], sentence: str
) -> None:
    index(write(tmp_path / "a.jsonl", random_pairs(5)), tokenizer, tmp_path / "out", PAIRS)
    rewritten(tmp_path / "out", change)
    problems = "\n".join(verify(tmp_path / "out").problems)
    assert sentence in problems
    assert "out.loss_mask.bin does not have the SHA-256 of the manifest" in problems


def test_verify_finds_what_does_not_fit(tokenizer: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "out"
    index(write(tmp_path / "a.jsonl", random_pairs(5)), tokenizer, prefix, PAIRS)
    manifest = json.loads(manifest_path(prefix).read_text())

    def problems(**changes: Any) -> str:
        manifest_path(prefix).write_text(json.dumps(manifest | changes))
        return "\n".join(verify(prefix).problems)

    assert problems() == ""
    assert "sample 0 does not have 1" in problems(kind="dialogues")
    assert "another form of the chat template chatml" in problems(template={"name": "chatml", "digest": "0" * 64})
    assert "x, which is not known here" in problems(template={"name": "x", "digest": "0" * 64})
    counts = manifest["counts"]
    assert "trained tokens" in problems(counts=counts | {"trained_tokens": counts["trained_tokens"] + 1})
    manifest_path(prefix).unlink()
    assert verify(prefix).problems == []  # the masks are seen without a manifest, and no end of document is missed
    tokens = IndexedReader(prefix)
    ids = np.concatenate([tokens.sequence(number) for number in range(len(tokens))])
    with IndexedWriter(prefix, tokens.dtype) as writer:  # the same tokens, each sequence a document
        writer.add(ids, tokens.lengths.copy())
    assert "does not hold the sequences and documents" in "\n".join(verify(prefix).problems)


def test_verify_in_blocks_finds_the_same(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(write(tmp_path / "a.jsonl", random_pairs(20)), tokenizer, tmp_path / "out", PAIRS)
    whole = verify(tmp_path / "out")
    blocks = IndexedReader.blocks
    for size in (1, 7, 64):
        monkeypatch.setattr(IndexedReader, "blocks", lambda self, size=size: blocks(self, size))
        assert verify(tmp_path / "out") == whole
    assert whole.problems == []
