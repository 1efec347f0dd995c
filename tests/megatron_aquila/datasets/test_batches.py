"""Which samples a rank reads, where documents begin and end in a pack, and what counts as a label."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from data_tools.indexing import IndexOptions, build_index
from megatron_aquila.datasets.batch import IGNORE_INDEX, document_bounds, restarting_positions
from megatron_aquila.datasets.sampler import deal
from megatron_aquila.errors import ConfigError
from megatron_aquila.stages.cpt import ContinuedPretraining
from tests.data_tools.small_tokenizer import make_tokenizer
from tests.megatron_aquila.corpora import recipe


@pytest.mark.parametrize(("data_size", "micro_batch_size"), [(1, 1), (1, 4), (2, 2), (4, 1), (3, 4)])
@pytest.mark.parametrize(("rows", "multiple"), [(24, 1), (25, 1), (23, 2), (1, 4), (0, 1)])
def test_every_layout_reads_the_same_rows_once(data_size: int, micro_batch_size: int, rows: int, multiple: int) -> None:
    dealt = [
        deal(
            range(48, 48 + rows),
            micro_batch_size=micro_batch_size,
            data_rank=rank,
            data_size=data_size,
            multiple=multiple,
        )
        for rank in range(data_size)
    ]
    assert sorted(row for batches in dealt for batch in batches for row in batch) == list(range(48, 48 + rows))
    assert len({len(batches) for batches in dealt}) == 1
    assert len(dealt[0]) % multiple == 0 and len(dealt[0]) >= 1
    assert all(len(batch) <= micro_batch_size for batches in dealt for batch in batches)


def test_bounds_and_positions() -> None:
    rows = torch.tensor([[5, 9, 6, 7], [9, 8, 8, 9], [9, 9, 1, 1]])
    assert document_bounds(rows, end_of_document=9) == [0, 2, 4, 5, 8, 9, 10, 12]
    assert document_bounds(rows, end_of_document=None) == [0, 4, 8, 12]
    assert restarting_positions([0, 2, 4, 5, 8]).tolist() == [0, 1, 0, 1, 0, 0, 1, 2]


@contextmanager
def world_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_the_end_of_a_document_is_learned_and_predicts_nothing(corpus: Path, tmp_path: Path) -> None:
    stage = ContinuedPretraining(recipe(corpus, tmp_path))
    end = stage.tokenizer.eod_id
    tokens = torch.tensor([4, 5, end, 7, 8])
    batch = stage.collate([{"tokens": tokens[:-1], "labels": tokens[1:]}])
    assert batch.labels.tolist() == [[5, end, IGNORE_INDEX, 8]]
    assert batch.cu_seqlens == [0, 3, 4]
    across = ContinuedPretraining(recipe(corpus, tmp_path, data__reset_attention=False))
    batch = across.collate([{"tokens": tokens[:-1], "labels": tokens[1:]}])
    assert batch.labels.tolist() == [[5, end, 7, 8]]
    assert batch.cu_seqlens == [0, 4]


def test_samples_are_the_documents_end_to_end(corpus: Path, tmp_path: Path) -> None:
    """Every row of a blend is a stretch of one corpus, documents joined in Megatron's shuffled order."""
    stage = ContinuedPretraining(recipe(corpus, tmp_path, evaluation__every=0))
    with world_of_one():
        train, valid = stage.datasets()
    assert valid is None and train.steps == 10 and list(train.step(9)) == list(range(72, 80))
    texts = b"".join((corpus / f"{name}.bin").read_bytes() for name in ("medical", "general"))
    end = stage.tokenizer.eod_id
    pieces = 0
    for index in range(80):
        row = np.append(train[index]["tokens"].numpy(), train[index]["labels"][-1].numpy()).astype(np.uint16)
        for piece in np.split(row, np.flatnonzero(row == end) + 1):
            assert piece.tobytes() in texts
            pieces += len(piece) > 0
    assert pieces > 80 + 10, "some rows must cross documents"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": [{"path": "nowhere/medical"}]}, "nowhere/medical.manifest.json does not exist"),
        ({"data__sequence_length": 64, "data__split": [99.99, 0.01, 0]}, "less than one row of"),
        ({"model__shape__vocab_size": 900}, "has 1000 ids, but the model's vocabulary has 900: set model.vocab_size"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ContinuedPretraining(recipe(corpus, tmp_path, **changes)).datasets()


def test_corpus_of_another_tokenizer_is_refused(corpus: Path, tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "other")
    with pytest.raises(ConfigError, match="was indexed with another tokenizer"):
        ContinuedPretraining(recipe(corpus, tmp_path, data__tokenizer=str(tmp_path / "other")))


def test_truncated_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    for file in corpus.glob("medical.*"):
        shutil.copy(file, tmp_path / file.name)
    with (tmp_path / "medical.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ConfigError, match=r"medical\.bin is not the \d+ bytes that its manifest says"):
        ContinuedPretraining(recipe(corpus, tmp_path, data__train=[{"path": str(tmp_path / "medical")}]))


def test_padding_that_is_the_end_of_document_is_said_and_harmless(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Megatron masks labels by the pad id: with pad == eos a model never learns to stop."""
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    roles = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")
    build_index([str(corpus / "text" / "general.jsonl")], tokenizer, tmp_path / "general", IndexOptions())
    run = recipe(
        corpus,
        tmp_path,
        data__train=[{"path": str(tmp_path / "general")}],
        data__tokenizer=str(tokenizer),
        evaluation__every=0,
    )
    stage = ContinuedPretraining(run)
    assert stage.tokenizer.pad_id == stage.tokenizer.eod_id
    assert "for padding and for the end of a document" in caplog.text
    with world_of_one():
        train, _ = stage.datasets()
    labels = torch.cat([stage.collate([train[index]]).labels for index in range(20)])
    assert (labels == stage.tokenizer.eod_id).any(), "the end of a document stays a label"
