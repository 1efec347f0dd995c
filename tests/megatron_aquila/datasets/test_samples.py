"""Dialogues and pairs in packs: every sample once an epoch, whatever happens to the run, and nothing mixed up."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.indexed import IndexedWriter
from data_tools.indexing import IndexOptions, build_index
from data_tools.manifest import loss_mask_prefix
from megatron_aquila.datasets.batch import IGNORE_INDEX
from megatron_aquila.datasets.sampler import deal
from megatron_aquila.datasets.samples import PackedSamples, Samples, collate, split

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def write_samples(prefix: Path, samples: list[list[list[int]]]) -> Path:
    """Samples of sequences of tokens; all but the first two tokens of a sequence are trained on."""
    flat = [token for sample in samples for sequence in sample for token in sequence]
    masks = [int(place >= 2) for sample in samples for sequence in sample for place in range(len(sequence))]
    lengths = np.array([len(sequence) for sample in samples for sequence in sample])
    counts = np.array([len(sample) for sample in samples])
    for path, values, dtype in ((prefix, flat, np.int32), (loss_mask_prefix(prefix), masks, np.uint8)):
        with IndexedWriter(path, dtype) as writer:
            writer.add(np.array(values, dtype), lengths, counts)
    return prefix


def dialogues(directory: Path, lengths: list[int]) -> Samples:
    """One-sequence samples in two datasets; the tokens of a sample are its number."""
    half = len(lengths) // 2
    parts = [
        write_samples(directory / str(start), [[[start + i] * length] for i, length in enumerate(part)])
        for start, part in ((0, lengths[:half]), (half, lengths[half:]))
    ]
    return Samples(parts)


@pytest.mark.parametrize("seed", range(12))
def test_every_sample_once_an_epoch_whatever_is_killed_and_laid_out_anew(seed: int, tmp_path: Path) -> None:
    """A run of random kills: each begins again from a checkpointed step, on another layout."""
    rng = random.Random(seed)
    count, capacity, packing = rng.randint(1, 80), rng.choice([16, 64]), seed % 3 != 0
    samples = dialogues(tmp_path, [rng.randint(3, 16) for _ in range(count)])
    data = PackedSamples(
        samples,
        np.arange(count),
        capacity=capacity,
        batch=rng.choice([8, 17, 40]),
        seed=seed,
        packing=packing,
        epochs=3,
    )
    kept: list[list[int]] = []  # the samples of each step that a checkpoint holds
    while len(kept) < data.steps:
        layout = {"micro_batch_size": rng.randint(1, 3), "data_size": rng.randint(1, 4), "multiple": rng.randint(1, 2)}
        done = kept.copy()
        for step in range(len(kept), min(data.steps, len(kept) + rng.randint(1, 5))):
            ranks = [deal(data.step(step), data_rank=rank, **layout) for rank in range(layout["data_size"])]
            seen = [sample.number for batches in ranks for batch in batches for row in batch for sample in data[row]]
            done.append(seen)
            if rng.random() < 0.4:
                kept = done.copy()
        if rng.random() < 0.3:
            kept = done
    assert len(kept) == 3 * data.steps_per_epoch
    for epoch in range(3):
        steps = kept[epoch * data.steps_per_epoch : (epoch + 1) * data.steps_per_epoch]
        assert all(steps), "no step is without a sample"
        assert sorted(number for step in steps for number in step) == list(range(count))
    if count > 10:
        assert kept[: data.steps_per_epoch] != kept[data.steps_per_epoch : 2 * data.steps_per_epoch]


def test_a_step_holds_the_batch_that_was_asked_for(tmp_path: Path) -> None:
    samples = dialogues(tmp_path, [5 + i % 9 for i in range(500)])
    common = {"capacity": 64, "batch": 32, "seed": 1, "epochs": 1}
    one_each = PackedSamples(samples, np.arange(500), packing=False, **common)
    assert [len(one_each.step(step)) for step in range(one_each.steps)] == [32] * 15 + [20]
    packed = PackedSamples(samples, np.arange(500), packing=True, **common)
    sizes = [sum(len(packed[row]) for row in packed.step(step)) for step in range(packed.steps)]
    most = max(len(packed[row]) for step in range(packed.steps) for row in packed.step(step))
    assert packed.steps == one_each.steps == 16
    assert all(abs(size - 32) < most for size in sizes[:-1]) and sum(sizes) == 500
    assert packed.fill > 0.95


def test_steps_beyond_an_epoch_go_on_with_the_next(tmp_path: Path) -> None:
    samples = dialogues(tmp_path, [8] * 20)
    data = PackedSamples(samples, np.arange(20), capacity=16, batch=4, seed=0, packing=True, steps=12)
    assert (data.steps, data.steps_per_epoch) == (12, 5)
    assert {epoch for step in range(12) for epoch, _ in data.step(step)} == {0, 1, 2}


def test_split_is_a_partition_and_depends_on_the_seed() -> None:
    train, valid = split(np.arange(100, 300), (90, 10, 0), seed=5)
    assert len(valid) == 20 and sorted([*train, *valid]) == list(range(100, 300))
    assert not np.array_equal(valid, split(np.arange(100, 300), (90, 10, 0), seed=6)[1])
    train, valid = split(np.arange(10), (80, 10, 10), seed=5)
    assert (len(train), len(valid)) == (8, 1)


def test_collation_by_hand(tmp_path: Path) -> None:
    pairs = [[[10, 11, 12, 13], [10, 11, 14]], [[20, 21, 22], [20, 21, 23, 24, 25]]]
    samples = Samples([write_samples(tmp_path / "pairs", pairs)])
    assert samples.lengths.tolist() == [7, 8] and samples.longest.tolist() == [4, 5]
    batch = collate([[samples[1], samples[0]], []], capacity=16, count=2, padding=9)
    none = IGNORE_INDEX
    assert batch.tokens[0, :16].tolist() == [20, 21, 22, 20, 21, 23, 24, 25, 10, 11, 12, 13, 10, 11, 14, 9]
    assert batch.labels[0, :16].tolist() == [
        *[none, 22, none],
        *[none, 23, 24, 25, none],
        *[none, 12, 13, none],
        *[none, 14, none, none],
    ]
    assert batch.positions[0, :16].tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 0]
    assert batch.cu_seqlens == [0, 3, 8, 12, 15, 16, 32]
    assert (batch.labels[0, 16:] == none).all() and (batch.tokens[0, 16:] == 9).all()
    assert batch.labelled.tolist() == [1, 4, 5, 6, 9, 10, 13]
    assert batch.extra["sequences"].tolist() == [0, 3, 8, 12, 32]
    assert batch.extra["samples"].tolist() == [1, 0]
    assert (batch.volume.samples, batch.volume.tokens, batch.volume.attended) == (2, 15, 9 + 25 + 16 + 9)


def test_a_pack_of_padding_has_no_sequences(tmp_path: Path) -> None:
    batch = collate([], capacity=8, count=1, padding=0)
    assert batch.extra["sequences"].tolist() == [8] and batch.extra["samples"].dtype == torch.int64
    assert (batch.volume.samples, batch.volume.tokens, batch.volume.attended) == (0, 0, 0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not on this machine")
def test_packs_of_real_dialogues_are_full(tmp_path: Path) -> None:
    records = json.loads((SHARED / "chatdoctor5k.json").read_text(encoding="utf-8"))
    with (tmp_path / "dialogues.jsonl").open("w", encoding="utf-8") as file:
        for record in records:
            messages = [
                {"role": "user", "content": record["input"]},
                {"role": "assistant", "content": record["output"]},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    options = IndexOptions(kind="dialogues", template="aquila-v1", max_length=2048)
    build_index([str(tmp_path / "dialogues.jsonl")], SHARED / "aquila_tokenizer", tmp_path / "index", options)
    samples = Samples([tmp_path / "index"])
    data = PackedSamples(samples, np.arange(len(samples)), capacity=2048, batch=128, seed=0, packing=True, epochs=1)
    assert len(samples) == 5452 and data.fill >= 0.97
    sizes = [sum(len(data[row]) for row in data.step(step)) for step in range(data.steps)]
    assert sum(sizes) == 5452 and abs(np.mean(sizes[:-1]) - 128) < 1
