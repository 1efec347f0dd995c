"""Bytes and times against published figures, Megatron's own schedule, and a checkpoint on disk.

That weights, gradients and optimizer agree with the built objects is in `tests/megatron_aquila/test_plan_exact.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from megatron_aquila.gpus import GPUS, peak_of
from megatron_aquila.plan.buffers import Bucket
from megatron_aquila.plan.memory import rank_bytes
from megatron_aquila.plan.peak import CONTEXT_BYTES, in_flight, stage_bytes
from megatron_aquila.plan.planning import Plan, make_plan
from megatron_aquila.plan.sizes import Sizes
from megatron_aquila.plan.timing import Machine, bubble_fraction
from megatron_aquila.plan.workload import Samples
from megatron_aquila.shapes import SHAPES
from tests.megatron_aquila.engine.runs import tiny_run
from tests.world import world


def big(**changes: Any) -> Any:
    return tiny_run(**{"model__shape": "aquila-7b", "data__sequence_length": 2048, **changes})


@pytest.mark.parametrize("pipeline_rank", range(4))
def test_bytes_of_a_parameter(pipeline_rank: int) -> None:
    """Megatron-Bridge's rule: 18 bytes a parameter, or 6 + 12 / data-parallel ranks with the distributed optimizer."""
    shape = SHAPES["aquila-7b"]
    layout = {"parallel__tensor_parallel": 2, "parallel__pipeline_parallel": 4, "training__precision": "bf16"}
    whole = rank_bytes(big(**layout), shape, 32, pipeline_rank)
    assert whole.total == 18 * whole.parameters
    # A multiple of the alignments, so that no buffer is padded by more than a few elements a bucket.
    divided = rank_bytes(big(**layout, parallel__sharding="optimizer"), shape, 32, pipeline_rank, data_rank=None)
    assert divided.total == pytest.approx((6 + 12 / 4) * whole.parameters, rel=1e-5)
    single = rank_bytes(big(**{**layout, "training__precision": "fp32"}), shape, 32, pipeline_rank)
    assert single.total == 16 * whole.parameters


@pytest.mark.parametrize("sharding", ["optimizer", "full"])
@pytest.mark.parametrize("replicas", [2, 3, 24])
def test_every_element_is_owned_once(sharding: str, replicas: int) -> None:
    shape = tiny_run().model.resolve()
    run = tiny_run(
        parallel__sharding=sharding, training__global_batch_size=48, training__micro_batch_size=1
    )  # fp32: 8 bytes an owned element
    ranks = [rank_bytes(run, shape, replicas, 0, data_rank=rank) for rank in range(replicas)]
    assert sum(rank.optimizer for rank in ranks) == 8 * ranks[0].parameters
    assert rank_bytes(run, shape, replicas, 0, data_rank=None).optimizer == max(rank.optimizer for rank in ranks)
    rows = 208 - 203  # of padding, in embedding and output: up to a multiple of 16
    assert ranks[0].parameters == shape.parameters() + 2 * rows * shape.hidden_size


def test_parts_of_a_bucket() -> None:
    # Two parameters of 10 and 6 elements with a gap, in 4 parts of 8: by hand.
    assert Bucket(0, 32, ((0, 10), (16, 22))).owned(4) == [8, 2, 6, 0]
    assert Bucket(32, 64, ((32, 42), (48, 54))).owned(2) == [10, 6]


def warm_up(pipeline: int, virtual: int | None, rank: int, micro_batches: int) -> int:
    """Megatron's own count of forward passes before the first backward."""
    from types import SimpleNamespace

    from megatron.core.pipeline_parallel.schedules import get_pp_rank_microbatches

    group = SimpleNamespace(size=lambda: pipeline, rank=lambda: rank)
    communicator = SimpleNamespace(pp_group=group, virtual_pipeline_model_parallel_size=virtual)
    found = get_pp_rank_microbatches(micro_batches, virtual or 1, pipeline, p2p_communicator=communicator)
    return found[2]


def warm_ups(cases: list[tuple[int, int | None, int, int]]) -> list[int]:
    return [warm_up(*case) for case in cases]


def test_micro_batches_in_flight() -> None:
    """One more than Megatron's warm-up, where the first forward of the steady state precedes the first backward."""
    cases = [
        (pipeline, virtual, rank, micro_batches)
        for pipeline, virtual in ((2, None), (4, None), (8, None), (2, 2), (4, 2), (4, 4))
        for rank in range(pipeline)
        for micro_batches in (pipeline, 4 * pipeline)
    ]
    (counted,) = world(1, warm_ups, cases=cases)
    for (pipeline, virtual, rank, micro_batches), before in zip(cases, counted):
        expected = min(before + 1, micro_batches * (virtual or 1))
        assert in_flight(Sizes(1, pipeline, virtual or 1, 1, 1), rank, micro_batches) == expected


def test_bubble() -> None:
    """Narayanan et al. 2021: (p − 1) / m of the ideal time, (p − 1) / (v m) interleaved."""
    for virtual in (1, 4):
        share = bubble_fraction(Sizes(1, 8, virtual, 1, 1), 64)
        assert share / (1 - share) == pytest.approx(7 / 64 / virtual)


def plan(gpu: str, gpus: int, mfu: float, **changes: Any) -> Plan:
    run = big(training__precision="bf16", training__micro_batch_size=1, **changes)
    machine = Machine(GPUS[gpu], 8, mfu)
    return make_plan(run, gpus=gpus, machine=machine, memory=80 << 30, samples=Samples(12727, 1000.0), top=0)


def test_tokens_per_second_of_published_conventions() -> None:
    # NeMo 24.12: Llama2-7B (Aquila-7B's sizes, 32,000 tokens), 4096: 16,934 tokens/s a GPU are 780 TFLOP/s.
    llama = {**SHAPES["aquila-7b"].model_dump(exclude={"bos_id", "eos_id", "pad_id"}), "vocab_size": 32000}
    llama["max_position_embeddings"] = 4096
    made = plan("h100", 8, 780 / 989, model__shape=llama, data__sequence_length=4096)
    assert made.tokens_per_second / 8 == pytest.approx(16934, rel=2e-3)


def test_memory_of_a_published_run() -> None:
    """ms-swift's quick start: Qwen2.5-14B, 8 × A800, TP4 with sequence parallelism, packs of 8,192: 64 GB a GPU."""
    qwen = {
        "hidden_size": 5120,
        "num_layers": 48,
        "num_attention_heads": 40,
        "num_query_groups": 8,
        "ffn_hidden_size": 13824,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "qkv_bias": True,
    }
    made = plan(
        "a800-80g",
        8,
        0.49,
        model__shape=qwen,
        data__sequence_length=8192,
        parallel={"tensor_parallel": 4, "sequence_parallel": True, "sharding": "optimizer"},
    )
    assert made.assessment is not None
    assert made.assessment.worst.total / 1e9 == pytest.approx(64, rel=0.05)


def test_a_run_of_pairs() -> None:
    """12,727 pairs of 1,000 tokens, two epochs: the reference pass is a forward over one of them."""
    run = {"stage": "dpo", "training__steps": None, "training__epochs": 2, "training__global_batch_size": 64}
    work = plan("a100-80g", 8, 0.45, **run).work
    assert (work.steps, work.tokens) == (2 * 199, 64_000)
    assert work.sequences == 64 * 1000 / 2048
    shape = SHAPES["aquila-7b"]
    flops = (398 * 64_000 + 12_727_000 / 3) * shape.flops_per_token(500)  # an answer is 500 tokens
    assert work.flops(shape) == pytest.approx(flops)
    simpo = plan("a100-80g", 8, 0.45, **run, preference={"loss": "simpo"}).work
    assert simpo.reference_tokens == 0


def written(**changes: Any) -> int:
    """Bytes of weights and optimizer state in the files of a checkpoint after one step."""
    import tempfile
    from pathlib import Path

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.shards import ShardReader
    from tests.megatron_aquila.engine.runs import Engine, rows

    run = tiny_run(**changes)
    with parallel_world(run, choose_device("cpu")) as layout, tempfile.TemporaryDirectory() as folder:
        engine = Engine(run, layout)
        engine.step(0, rows(run.training.global_batch_size))
        engine.snapshot.write(Path(folder))
        reader = ShardReader(Path(folder))
        kept = [name for name in reader.keys() if not name.startswith("random.")]  # noqa: SIM118 - no dict
        return sum(reader.read(name).nbytes for name in kept)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_has_the_planned_size(precision: str, tied: bool) -> None:
    changes = {"training__precision": precision, "model__shape__tie_embeddings": tied}
    made = make_plan(tiny_run(**changes), gpus=1, machine=Machine(GPUS["h100"], 8, 0.4), memory=1 << 33, top=0)
    assert world(1, written, **changes) == [made.checkpoint_bytes]


def test_peaks_by_the_name_that_cuda_gives() -> None:
    assert peak_of("NVIDIA A100-SXM4-40GB") == 312.0
    assert peak_of("NVIDIA H200") == peak_of("NVIDIA H800") == 989.0
    assert peak_of("NVIDIA H20") == 148.0
    assert peak_of("NVIDIA L40S") == 362.0
    assert peak_of("Tesla T4") is None


GPU_SHAPE = {
    "hidden_size": 2048,
    "num_layers": 4,
    "num_attention_heads": 16,
    "num_query_groups": 4,
    "ffn_hidden_size": 7168,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def peak_on_gpu(**changes: Any) -> int:
    import torch

    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from tests.megatron_aquila.engine.runs import Engine

    run = tiny_run(**changes)
    with parallel_world(run, choose_device("cuda")) as layout:
        engine = Engine(run, layout)
        data = torch.randint(3, 32000, (run.training.global_batch_size, run.data.sequence_length + 1))
        engine.step(0, data)  # Adam makes its moments in the first
        torch.cuda.reset_peak_memory_stats()
        engine.step(0, data)
        return torch.cuda.max_memory_allocated()


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_peak_on_a_gpu(recompute: str) -> None:
    changes = {
        "device": "cuda",
        "model": {"shape": GPU_SHAPE},
        "data__sequence_length": 4096,
        "parallel__sharding": "optimizer",
        "training": {
            "steps": 20, "global_batch_size": 4, "micro_batch_size": 2, "precision": "bf16", "recompute": recompute,
        },
    }  # fmt: skip
    run = tiny_run(**changes)
    planned = stage_bytes(run, run.model.resolve(), Sizes(1, 1, 1, 1, 1), 0, 2)
    (measured,) = world(1, peak_on_gpu, **changes)
    assert measured == pytest.approx(planned.total - CONTEXT_BYTES, rel=0.15)
