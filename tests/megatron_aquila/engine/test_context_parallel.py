"""Ranks that share the tokens of a pack compute what one computes: attention, gradients, losses, weights, scores."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_aquila import metrics
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config import check_layout
from megatron_aquila.engine.context import ExchangePlan, chunks_of
from megatron_aquila.engine.varlen import Bounds
from megatron_aquila.launch import processes_needed
from tests.megatron_aquila.engine.runs import LENGTH, Engine, rows, tiny_run
from tests.megatron_aquila.test_conversations import first_gradients, global_gradients
from tests.megatron_aquila.test_resume import losses, run_training, weights
from tests.world import world


def bounds_of(lengths: list[int]) -> list[int]:
    return [0, *np.cumsum(lengths).tolist()]


TOTAL = 48
PACKS = {
    "one long document": [48],
    "a document of one token before a chunk's end, one after it": [11, 1, 1, 35],
    "documents end with the chunks": [12, 12, 12, 12],
    "no document crosses a chunk of eight": [6, 3, 3, 6, 6, 6, 2, 4, 6, 6],
    "short ones and one over three chunks": [2, 3, 1, 30, 4, 4, 4],
    "the last one is long": [1, 1, 1, 45],
    "all of one token": [1] * 48,
}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_token_finds_its_document_and_nothing_else(size: int) -> None:
    draw = random.Random(size)
    packs = list(PACKS.values())
    for _ in range(200):
        cuts = sorted(draw.sample(range(1, TOTAL), draw.randrange(0, 12)))
        packs.append([end - start for start, end in pairwise([0, *cuts, TOTAL])])
    for lengths in packs:
        bounds = bounds_of(lengths)
        document = np.repeat(np.arange(len(lengths)), lengths)
        for rank in range(size):
            plan = ExchangePlan.make(bounds, size, rank)
            chunk = TOTAL // (2 * size)
            held = np.concatenate(
                [np.arange((number + 1) * chunk - tokens, (number + 1) * chunk) for number, tokens in plan.pieces]
            )
            sent = {
                number: range((number + 1) * chunk - tail, (number + 1) * chunk)
                for number, tail in enumerate(plan.tails)
            }
            assert all(
                set(np.arange((number + 1) * chunk - tokens, (number + 1) * chunk)) <= set(sent[number])
                for number, tokens in plan.pieces
                if number not in chunks_of(rank, size)
            )
            for number, lookup in zip(chunks_of(rank, size), plan.lookups):
                own = range(number * chunk, (number + 1) * chunk)
                looked_at = held[lookup.first : lookup.first + lookup.before + chunk]
                first = np.flatnonzero(document == document[own[0]])[0]
                assert looked_at.tolist() == list(range(first, own[-1] + 1))
                parts = np.split(np.array(own), np.cumsum(lookup.lengths)[:-1])
                assert [set(document[part]) for part in parts] == [{d} for d in dict.fromkeys(document[own])]


def test_nothing_is_sent_where_no_document_crosses_a_chunk() -> None:
    assert ExchangePlan.make([0, 12, 24, 36, 48], 2, 0).longest == 0
    assert ExchangePlan.make([0, 10, 14, 24, 36, 48], 2, 0).longest == 2  # of 12
    assert ExchangePlan.make([0, 48], 2, 0).longest == 12
    with pytest.raises(ValueError, match="a pack of 50 tokens cannot be cut into 4 chunks"):
        ExchangePlan.make([0, 50], 2, 0)


HEADS, GROUPS, HEAD = 4, 2, 8


def dense_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: list[int]) -> torch.Tensor:
    """`[T, H, D]`, `[T, G, D]` → `[T, H·D]` in float64, by the mask of a whole pack."""
    places = torch.arange(len(query))
    document = torch.bucketize(places, torch.tensor(bounds[1:]), right=True)
    seen = (document[:, None] == document) & (places <= places[:, None])
    key, value = (x.repeat_interleave(HEADS // GROUPS, dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) / HEAD**0.5
    probabilities = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", probabilities, value).flatten(1)


def whole_inputs(lengths: list[int]) -> list[torch.Tensor]:
    """Query, key, value and the gradient of the output, of a whole pack, float64."""
    generator = torch.Generator().manual_seed(len(lengths))
    shapes = [(TOTAL, HEADS, HEAD), (TOTAL, GROUPS, HEAD), (TOTAL, GROUPS, HEAD), (TOTAL, HEADS * HEAD)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def documents_of(attention: Any) -> Any:
    """What stands on the CPU for a kernel that takes all documents in one call (`engine/varlen.py`)."""

    def kernel(query: Any, key: Any, value: Any, queries: Bounds, keys: Bounds, **_: Any) -> torch.Tensor:
        lengths = [bounds.cu_seqlens.diff().tolist() for bounds in (queries, keys)]
        assert [queries.longest, keys.longest] == list(map(max, lengths))
        out: torch.Tensor = attention._documents(query, key, value, *lengths)
        return out.unflatten(1, (HEADS, HEAD))

    return kernel


def attend(keep: bool, dtype: str, kernel: bool) -> list[list[np.ndarray[Any, Any]]]:
    """Of every pack this rank's output and its gradients of query, key and value."""
    from megatron.core import parallel_state
    from megatron.core.transformer.enums import AttnMaskType

    from megatron_aquila.engine.attention import DocumentAttention
    from megatron_aquila.engine.context import Context, ContextPack
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.model import transformer_config
    from megatron_aquila.engine.parallel import parallel_world

    size = int(os.environ["WORLD_SIZE"])
    run = tiny_run(parallel__context_parallel=size, data__sequence_length=TOTAL)
    found = []
    with parallel_world(run, choose_device("cpu")):
        config = transformer_config(run, run.model.resolve(), choose_device("cpu"))
        attention = DocumentAttention(config, 1, AttnMaskType.causal, "self")
        attention.keeps_exchanged = keep
        attention.varlen = documents_of(attention) if kernel else None
        context = Context.here()
        assert context.group is parallel_state.get_context_parallel_group()
        for lengths in PACKS.values():
            *inputs, gradient = (context._own(x[None])[0] for x in whole_inputs(lengths))
            leaves = [x.to(getattr(torch, dtype)).unsqueeze(1).requires_grad_() for x in inputs]
            plan = ExchangePlan.make(bounds_of(lengths), size, context.rank)
            packed = ContextPack(
                positions=torch.zeros(0),
                labelled=torch.zeros(0),
                plan=plan,
                group=context.group,
                bounds=plan.bounds(torch.device("cpu")),
            )
            output = attention(*leaves, packed_seq_params=packed)
            output.backward(gradient.to(output.dtype).unsqueeze(1))
            tensors = [output, *(leaf.grad for leaf in leaves)]
            found.append([tensor.detach().squeeze(1).double().numpy() for tensor in tensors])
    return found


@pytest.mark.parametrize(
    ("size", "keep", "dtype", "kernel"),
    [(2, False, "float64", False), (4, True, "float64", True), (4, False, "bfloat16", False)],
)
def test_attention_and_its_gradients_are_those_of_the_whole_pack(
    size: int, keep: bool, dtype: str, kernel: bool
) -> None:
    found = world(size, attend, keep=keep, dtype=dtype, kernel=kernel)
    tolerance = 1e-12 if dtype == "float64" else 0.03
    for number, lengths in enumerate(PACKS.values()):
        *inputs, gradient = whole_inputs(lengths)
        leaves = [x.requires_grad_() for x in inputs]
        output = dense_attention(leaves[0], leaves[1], leaves[2], bounds_of(lengths))
        output.backward(gradient)
        for place, expected in enumerate([output.detach(), *(leaf.grad for leaf in leaves)]):
            assert expected is not None
            chunks = np.split(expected.numpy(), 2 * size)
            for rank in range(size):
                wanted = np.concatenate([chunks[chunk] for chunk in chunks_of(rank, size)])
                assert abs(found[rank][number][place] - wanted).max() <= tolerance * (1 + abs(wanted).max()), (
                    number,
                    place,
                )


STEPS = 6
CONTEXT = {"parallel__context_parallel": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "CP2, logits in slices": (2, {**CONTEXT, "training__logits_mib": 0}),
    "CP4 full recompute": (4, {"parallel__context_parallel": 4, "training__recompute": "full"}),
    "CP2 selective recompute, full": (2, {**CONTEXT, "training__recompute": "selective", "parallel__sharding": "full"}),
    "CP2xTP2+SP+tied": (
        4,
        {
            **CONTEXT,
            "parallel__tensor_parallel": 2,
            "parallel__sequence_parallel": True,
            "model__shape__tie_embeddings": True,
        },
    ),
    "CP2xPP2+VPP2": (4, {**CONTEXT, "parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
    "CP2xPP2+tied": (4, {**CONTEXT, "parallel__pipeline_parallel": 2, "model__shape__tie_embeddings": True}),
    "CP2xDP2 sharded optimizer, overlap": (
        4,
        {
            **CONTEXT,
            "parallel__sharding": "optimizer",
            "parallel__overlap_grad_reduce": True,
            "parallel__overlap_param_gather": True,
        },
    ),
}


def few_steps(**changes: Any) -> tuple[list[dict[str, float]], dict[str, Any], list[float]]:
    """Reports, weights, and the report of a forward without gradients after them."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.optimizer import gather_parameters
    from megatron_aquila.engine.parallel import parallel_world

    # a row is a pack of 32 tokens: one document, or two of 12 and 20, which end in no chunk's end
    settings = {"training__steps": STEPS, "training__global_batch_size": 4, "training__micro_batch_size": 1}
    run = tiny_run(**settings, **changes)
    with parallel_world(run, choose_device("cpu")) as layout:
        engine = Engine(run, layout)
        data = rows(run.training.global_batch_size * STEPS)
        reports = [engine.step(step, data) for step in range(STEPS)]
        gather_parameters(engine.chunks)
        after = engine.step(0, data, update=False)
        found = engine.weights()
    assert found is not None
    return reports, {name: value.numpy() for name, value in found.items()}, [after["loss"], after["count"]]


_baselines: dict[tuple[bool, int], Any] = {}


def baseline(tied: bool, num_layers: int) -> Any:
    key = tied, num_layers
    if key not in _baselines:
        model = {"model__shape__tie_embeddings": tied, "model__shape__num_layers": num_layers}
        (_baselines[key],) = world(1, few_steps, **model)
    return _baselines[key]


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_agrees_with_one_process(name: str) -> None:
    size, changes = LAYOUTS[name]
    num_layers = 4 if "VPP" in name else 2
    expected, expected_weights, expected_after = baseline("tied" in name, num_layers)
    for reports, found, after in world(size, few_steps, model__shape__num_layers=num_layers, **changes):
        for step, (report, wanted) in enumerate(zip(reports, expected, strict=True)):
            assert report["count"] == wanted["count"]
            assert report["loss"] == pytest.approx(wanted["loss"], abs=1e-5), f"step {step}"
            assert report["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4), f"step {step}"
        assert found.keys() == expected_weights.keys()
        for tensor, value in found.items():
            assert abs(value - expected_weights[tensor]).max() < 1e-5, tensor
        assert after == pytest.approx(expected_after, abs=1e-5)
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.05, "the run must learn, or equality shows nothing"


def test_the_rows_cross_chunks() -> None:
    """What the comparison above rests on."""
    for size in (2, 4):
        assert ExchangePlan.make([0, 12, LENGTH], size, 0).longest > 0


_whole_samples: dict[str, Any] = {}  # of one process


@pytest.mark.parametrize(
    ("stage", "size", "changes"),
    [
        ("dpo", 4, {"parallel__context_parallel": 4, "training__micro_batch_size": 2}),
        ("dpo", 4, {**CONTEXT, "parallel__pipeline_parallel": 2, "training__micro_batch_size": 3}),
        ("sft", 4, {**CONTEXT, "training__micro_batch_size": 3}),
    ],
)
def test_gradients_of_packed_dialogues_and_pairs(
    stage: str, size: int, changes: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    """Packs of 256 tokens hold several samples; chosen and rejected of one may lie on different ranks."""
    common = {"data": str(data), "stage": stage, "preference__loss": "simpo", "preference__beta": 2.0}
    if stage not in _whole_samples:
        _whole_samples[stage] = world(1, first_gradients, output=str(tmp_path / "one"), **common)
    one = _whole_samples[stage]
    found = world(size, first_gradients, output=str(tmp_path / "cut"), **common, **changes)
    for report, _ in found:
        assert (report.count, report.samples, report.tokens) == (one[0][0].count, one[0][0].samples, one[0][0].tokens)
        assert report.attended == one[0][0].attended
        assert report.means == pytest.approx(one[0][0].means, abs=1e-5)
    expected = global_gradients(one)
    for name, value in global_gradients(found).items():
        wanted = expected[name]
        assert np.isfinite(value).all(), name
        assert abs(value - wanted).max() <= 1e-4 * abs(wanted).max(), name


def saved_bytes() -> int:
    """What one rank keeps of a forward pass over one document for its backward, without the weights."""
    from torch.autograd.graph import saved_tensors_hooks

    from megatron_aquila.engine import context
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world

    run = tiny_run(parallel__context_parallel=int(os.environ["WORLD_SIZE"]), data__sequence_length=LENGTH)
    found: dict[int, int] = {}
    weights: set[int] = set()

    def count(tensor: Any) -> Any:
        if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in weights:
            found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    def counted(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Any:
        """In place of the hooks of the exchange, which hide from those around them what they let pass."""
        return saved_tensors_hooks(lambda tensor: count(pack(tensor)), unpack)

    with parallel_world(run, choose_device("cpu")) as layout, pytest.MonkeyPatch.context() as patch:
        engine = Engine(run, layout)
        patch.setattr(context, "saved_tensors_hooks", counted)
        weights = {parameter.untyped_storage()._cdata for parameter in engine.chunks[0].parameters()}
        batch = engine.batches(0, rows(8)[1:2].repeat(8, 1))[0]
        assert batch.cu_seqlens[:2] == [0, LENGTH]
        here = context.Context.here()
        if here.size > 1:
            part = here.part(batch)
            packed: Any = here.pack(part)
        else:
            part, packed = batch, packed_sequences(batch)
        with saved_tensors_hooks(count, lambda tensor: tensor):
            logps = engine.chunks[0](part.tokens, part.positions, None, labels=part.labels, packed_seq_params=packed)
        total = sum(found.values())
        logps.sum().backward()  # all ranks take part in it
    return total


def packed_sequences(batch: Any) -> Any:
    from megatron_aquila.engine import attention

    return attention.packed_sequences(batch.cu_seqlens, batch.labelled, torch.device("cpu"))


def test_what_a_rank_keeps_falls_with_their_number() -> None:
    (alone,) = world(1, saved_bytes)
    assert max(world(2, saved_bytes)) < 1.02 * alone / 2
    assert max(world(4, saved_bytes)) < 1.02 * alone / 4


_SHORT: dict[str, Any] = {
    "model__shape__num_layers": 2,
    "training__steps": 4,
    "training__global_batch_size": 4,
    "training__micro_batch_size": 2,
    "evaluation__every": 0,
}


def continued(run: Path, output: Path) -> Path:
    """A copy of a run as if it had been killed after step 2."""
    shutil.copytree(run, output)
    shutil.rmtree(output / "checkpoints" / "step-00000004")
    return output


def test_resumed_run_equals_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    """With dropout, of which every rank has its own."""
    settings = {"corpus": str(corpus), **_SHORT, **CONTEXT, "model__attention_dropout": 0.1}
    settings |= {"training__precision": "bf16", "data__reset_attention": False}
    world(2, run_training, output=str(tmp_path / "reference"), **settings)
    resumed = continued(tmp_path / "reference", tmp_path / "resumed")
    world(2, run_training, output=str(resumed), **settings)
    assert losses(resumed) == losses(tmp_path / "reference")
    expected = weights(tmp_path / "reference")
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    reader = open_checkpoint(resumed).reader()
    states = [reader.read(f"random.{rank}.device") for rank in (0, 1)]
    assert not torch.equal(*states)


def test_checkpoints_move_between_context_parallel_and_others(corpus: Path, tmp_path: Path) -> None:
    quiet = {"corpus": str(corpus), **_SHORT, "model__hidden_dropout": 0.0, "optimizer__eps": 1e-5}
    alone = {"parallel__sharding": "none"}
    world(1, run_training, output=str(tmp_path / "one"), **quiet, **alone)
    world(2, run_training, output=str(tmp_path / "two"), **quiet, **CONTEXT)
    assert (tmp_path / "one" / "checkpoints" / "step-00000004").exists()
    split = continued(tmp_path / "one", tmp_path / "split")
    world(2, run_training, output=str(split), **quiet, **CONTEXT)
    joined = continued(tmp_path / "two", tmp_path / "joined")
    world(1, run_training, output=str(joined), **quiet, **alone)
    expected, expected_losses = weights(tmp_path / "one"), losses(tmp_path / "one")
    for output in (tmp_path / "two", split, joined):
        for step, values in losses(output).items():
            assert values == pytest.approx(expected_losses[step], abs=1e-5, rel=1e-4), (output.name, step)
        found = weights(output)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert (value - expected[name]).abs().max() < 1e-5, (output.name, name)
    one, two = (list(metrics.read(tmp_path / name / metrics.FILE)) for name in ("one", "two"))
    for record, wanted in zip(two, one, strict=True):
        counts = ("train/supervised_tokens", "train/samples", "performance/padding")
        assert [record.get(name) for name in counts] == [wanted.get(name) for name in counts]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__sequence_length": 34}, "data.sequence_length 34 is not a multiple of 2 x parallel.context_parallel"),
        (
            {
                "data__sequence_length": 36,
                "parallel__tensor_parallel": 4,
                "parallel__sequence_parallel": True,
                "model__shape__num_query_groups": 4,
            },
            "hence of 8: packs are cut into parts of one length",
        ),
        (
            {"stage": "dpo", "training__steps": 1, "preference": {"reference_sequence_length": 50}},
            "preference.reference_sequence_length 50 is not a multiple of",
        ),
    ],
)
def test_a_pack_that_cannot_be_cut_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_run(parallel__context_parallel=2, **changes)


def test_processes_are_counted() -> None:
    run = tiny_run(parallel__context_parallel=2, parallel__tensor_parallel=2, parallel__data_parallel=2)
    assert processes_needed(run, gpus=0) == 8
    assert check_layout(run, 8) == []
    (problem,) = check_layout(run, 6)
    assert "replicas of parallel.tensor_parallel 2 x pipeline_parallel 1 x context_parallel 2" in problem
    assert check_layout(tiny_run(parallel__context_parallel=2, parallel__sharding="full"), 2) == []
