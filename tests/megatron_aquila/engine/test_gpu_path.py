"""The path on a GPU: how it is chosen, that each way gives the same numbers, and, marked `gpu`, the ways themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.parts import Part, PartError, run_parts
from benchmarks.gpu.table import render
from megatron_aquila.engine import gpu_path, varlen
from megatron_aquila.engine.gpu_path import Machine
from megatron_aquila.errors import ConfigError
from megatron_aquila.launch import environment_of
from megatron_aquila.shapes import SHAPES
from tests.megatron_aquila.engine.runs import Engine, loss, micro_batch, rows, tiny_run
from tests.world import _stop, world

ROOT = Path(__file__).parents[3]
A100, L40S, H100 = (8, 0), (8, 9), (9, 0)
BOTH = frozenset({"torch varlen", "flash-attn"})
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_engine = pytest.mark.skipif(
    not torch.cuda.is_available() or gpu_path.machine(torch.device("cuda")).transformer_engine is None,
    reason="needs a GPU and Transformer Engine",
)


# -- the choice ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "name", "reason"),
    [
        ({}, "torch varlen", ""),
        ({"available": frozenset({"flash-attn"})}, "flash-attn", ""),
        ({"dropout": 0.1}, "flash-attn", ""),
        ({"dropout": 0.1, "available": frozenset({"torch varlen"})}, None, "no dropout"),
        ({"available": frozenset()}, None, "torch 2.11"),
        ({"capability": None}, None, ""),
        ({"capability": (7, 5)}, None, "this GPU has 7.5"),
        ({"dtype": torch.float32}, None, "bf16 and fp16 only"),
        ({"head_dim": 100}, None, "multiple of 8"),
        ({"head_dim": 256}, "torch varlen", ""),
        ({"head_dim": 256, "capability": L40S}, None, "at most 192"),
        ({"head_dim": 264}, None, "at most 256"),
    ],
)
def test_which_attention(facts: dict[str, Any], name: str | None, reason: str) -> None:
    usual: dict[str, Any] = {
        "capability": A100,
        "dtype": torch.bfloat16,
        "head_dim": 128,
        "dropout": 0.0,
        "available": BOTH,
    }
    choice = varlen.choose(**usual | facts)
    assert choice.name == name
    assert reason in choice.reason and bool(choice.reason) == bool(reason)
    assert ("one call a pack" in str(choice)) == (name is not None)


def test_what_is_said_at_the_start() -> None:
    shape = SHAPES["aquila-7b"]
    bare = Machine(capability=H100, attention=BOTH, triton=True)
    engine = Machine(capability=H100, transformer_engine=(2, 8), attention=BOTH, triton=True)

    def said(here: Machine, **changes: Any) -> str:
        return "\n".join(gpu_path.describe(tiny_run(training__precision="bf16", **changes), shape, here))

    assert said(Machine()) == ""
    assert "own (Transformer Engine is not installed); attention: torch varlen, one call a pack" in said(bare)
    assert "torch's fused AdamW" in said(bare) and "SwiGLU: one kernel" in said(bare)
    assert "added by a kernel of their own" in said(bare)
    assert "Transformer Engine 2.8 (bf16)" in said(engine) and "added inside the matrix products" in said(engine)
    assert "own (training.layers is own)" in said(engine, training__layers="own")
    assert "own (context parallelism)" in said(engine, parallel__context_parallel=2)
    assert "SwiGLU: three kernels" in said(engine, training__compile=False)
    assert "one call a document (torch's varlen attention has no dropout" in said(
        Machine(capability=H100, attention=frozenset({"torch varlen"})), model__attention_dropout=0.1
    )


@pytest.mark.parametrize(
    ("here", "changes", "message"),
    [
        (Machine(), {"training__fp8": "hybrid"}, "this run is on the CPU"),
        (Machine(capability=H100), {"training__fp8": "hybrid"}, "is not installed"),
        (Machine(capability=A100, transformer_engine=(2, 8)), {"training__fp8": "e4m3"}, "this one has 8.0"),
        (Machine(capability=H100, transformer_engine=(2, 1)), {"training__fp8": "hybrid"}, "2.1 is installed"),
        (Machine(capability=(7, 5)), {}, "set training.precision=fp16"),
        (Machine(capability=H100), {"training__compile": True}, "needs triton"),
    ],
)
def test_what_the_machine_lacks_is_refused(here: Machine, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gpu_path.require_machine(_bf16(**changes), here)


def test_what_the_machine_has_is_not_refused() -> None:
    for here in (
        Machine(capability=L40S, transformer_engine=(2, 2)),
        Machine(capability=H100, transformer_engine=(99,)),
    ):
        gpu_path.require_machine(_bf16(training__fp8="hybrid"), here)
    old = Machine(capability=H100, transformer_engine=(1, 13))
    gpu_path.require_machine(_bf16(training__fp8="hybrid", training__fp8_recipe="delayed"), old)
    gpu_path.require_machine(tiny_run(), Machine())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__precision": "fp16"}, "goes with training.precision bf16"),
        ({"training__layers": "own"}, "training.layers is own"),
        ({"data__sequence_length": 24}, "data.sequence_length 24 to be a multiple of 16"),
        ({"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True, "data__sequence_length": 48}, "of 32"),
        ({"parallel__tensor_parallel": 2}, "ffn_hidden_size 48 is not a multiple of 16 x parallel.tensor_parallel"),
        ({"parallel__context_parallel": 2}, "does not go with parallel.context_parallel"),
    ],
)
def test_fp8_that_cannot_work_is_refused_on_loading(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _bf16(training__fp8="hybrid", **changes)


def _bf16(**changes: Any) -> Any:
    return tiny_run(**{"training__precision": "bf16", **changes})


def test_variables_that_the_libraries_read() -> None:
    run = tiny_run(device="cuda", parallel__tensor_parallel=2)
    assert environment_of(run, {}) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert environment_of(run, {"CUDA_DEVICE_MAX_CONNECTIONS": "8"}) == {}
    full = tiny_run(device="cuda", parallel__tensor_parallel=2, parallel__sharding="full", parallel__data_parallel=2)
    assert environment_of(full, {}) == {}
    exact = tiny_run(device="auto", training__deterministic=True)
    assert environment_of(exact, {})["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert environment_of(exact, {})["NVTE_ALLOW_NONDETERMINISTIC_ALGO"] == "0"
    assert environment_of(tiny_run(training__deterministic=True), {}) == {}  # on the CPU


# -- weights under Transformer Engine's names ----------------------------------------------------------------------


class _Layers(torch.nn.Module):
    """Parameters named as Transformer Engine's layers name them in Megatron's spec, and no more."""

    def __init__(self) -> None:
        super().__init__()
        for name in _THEIRS:
            *path, leaf = name.split(".")
            module: torch.nn.Module = self
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, torch.nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(leaf, torch.nn.Parameter(torch.zeros(4)))


# name → (global name, the dimension that tensor parallelism splits; None: a copy on each rank)
_THEIRS = {
    "embedding.word_embeddings.weight": ("embedding.word_embeddings.weight", 0),
    "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight": ("decoder.layers.2.input_layernorm.weight", None),
    "decoder.layers.0.self_attention.linear_qkv.weight": ("decoder.layers.2.self_attention.linear_qkv.weight", 0),
    "decoder.layers.0.self_attention.linear_qkv.bias": ("decoder.layers.2.self_attention.linear_qkv.bias", 0),
    "decoder.layers.0.self_attention.linear_proj.weight": ("decoder.layers.2.self_attention.linear_proj.weight", 1),
    "decoder.layers.0.mlp.linear_fc1.layer_norm_weight": ("decoder.layers.2.pre_mlp_layernorm.weight", None),
    "decoder.layers.0.mlp.linear_fc1.weight": ("decoder.layers.2.mlp.linear_fc1.weight", 0),
    "decoder.layers.0.mlp.linear_fc2.weight": ("decoder.layers.2.mlp.linear_fc2.weight", 1),
    "decoder.final_layernorm.weight": ("decoder.final_layernorm.weight", None),
    "output_layer.weight": ("output_layer.weight", 0),
}


def named_and_marked() -> tuple[dict[str, str], dict[str, tuple[bool, bool, int | None]]]:
    """Global names of `_THEIRS`, of a layer that is the third; and what each is marked as: split, seeing a part of the
    sequence, the dimension of the split.
    """
    from types import SimpleNamespace

    from megatron_aquila.engine.model import _mark_weights
    from megatron_aquila.engine.placement import global_name

    shape = tiny_run().model.resolve()
    model = _Layers()
    _mark_weights(model, SimpleNamespace(sequence_parallel=True))  # type: ignore[arg-type]
    marks = {
        name: (
            getattr(parameter, "tensor_model_parallel", False),
            getattr(parameter, "sequence_parallel", False),
            getattr(parameter, "partition_dim", None),
        )
        for name, parameter in model.named_parameters()
    }
    return {name: global_name(name, [3], shape) for name in _THEIRS}, marks


def test_transformer_engines_weights_are_named_and_marked_as_ours() -> None:
    """What is not marked as split counts as a copy, and the gradient norm leaves the other ranks' parts out."""
    from megatron_aquila.global_tensors import global_shapes

    [(names, marks)] = world(1, named_and_marked)
    assert names == {name: whole for name, (whole, _) in _THEIRS.items()}
    assert set(names.values()) <= set(global_shapes(tiny_run().model.resolve()))
    for name, (_, split) in _THEIRS.items():
        assert marks[name] == (split is not None, split is None, split), name


# -- attention behind one interface --------------------------------------------------------------------------------


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: varlen.Bounds,
    keys: varlen.Bounds,
    *,
    scale: float | None,
    dropout: float,
    deterministic: bool,
) -> torch.Tensor:
    """A `varlen.Kernel` by the definition, in float64, with one mask for the pack, whose keys are all there."""
    assert keys is queries
    lengths = queries.cu_seqlens.diff()
    assert queries.cu_seqlens.dtype == torch.int32 and int(lengths.max()) == queries.longest and dropout == 0.0
    group = query.shape[1] // key.shape[1]
    q, k, v = query.double(), *(x.double().repeat_interleave(group, dim=1) for x in (key, value))
    document = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths.long())
    seen = (document[:, None] == document[None, :]).tril()
    scores = torch.einsum("thd,shd->hts", q, k) * (scale or query.shape[-1] ** -0.5)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hts,shd->thd", weights, v).to(query.dtype)


def losses_and_gradients(kernel: bool = False, **changes: Any) -> tuple[list[float], dict[str, Any]]:
    """Two steps' losses, and the gradients of the first; `kernel`: attention by `reference`."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.engine.step import apply_update, clear_gradients, run_schedule

    run = tiny_run(**changes)
    device = choose_device(run.device)
    data = rows(16)
    data[:, 5::9] = 2
    with parallel_world(run, device) as layout:
        engine = Engine(run, layout)
        if kernel:
            for chunk in engine.chunks:
                for module in chunk.modules():
                    if hasattr(module, "varlen"):
                        module.varlen = reference
        losses: list[float] = []
        grads: dict[str, Any] = {}
        for step in range(2):
            clear_gradients(engine.chunks, engine.optimizer)
            report = run_schedule(
                engine.chunks,
                engine.batches(8 * step, data),
                loss,
                metric_names=(),
                device=device,
                forward_only=False,
            )
            losses.append(report.means["loss"])
            grads = grads or {
                _ours(name): p.main_grad.float().cpu().numpy().copy() for name, p in engine.chunks[0].named_parameters()
            }
            apply_update(engine.optimizer)
    return losses, grads


def _ours(name: str) -> str:
    """Transformer Engine keeps a norm inside the product that follows it."""
    name = name.replace("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight")
    return name.replace("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight").removeprefix("module.module.")


@pytest.fixture(scope="module")
def expected() -> tuple[list[float], dict[str, Any]]:
    return world(1, losses_and_gradients)[0]


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Losses, and gradients relative to the largest of their tensor."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, value in found[1].items():
        assert abs(value - expected[1][name]).max() <= tolerance * abs(expected[1][name]).max(), name


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_a_kernel_for_the_pack_gives_what_one_call_a_document_gives(expected: Any, recompute: str) -> None:
    (found,) = world(1, losses_and_gradients, kernel=True, training__recompute=recompute)
    assert_close(found, expected, 2e-5)


def test_torchs_kernel_takes_our_arguments() -> None:
    """torch's own shapes-only implementation stands in for the GPU: the call fits the installed version."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        query, key = torch.empty(48, 8, 64, dtype=torch.bfloat16), torch.empty(48, 2, 64, dtype=torch.bfloat16)
        bounds = varlen.Bounds(torch.empty(4, dtype=torch.int32), 20)
        out = varlen.torch_varlen(query, key, key, bounds, bounds, scale=None, dropout=0.0, deterministic=False)
    assert out.shape == query.shape and out.dtype == query.dtype
    with pytest.raises(ValueError, match="no dropout"):
        varlen.torch_varlen(query, key, key, bounds, bounds, scale=None, dropout=0.1, deterministic=False)
    with pytest.raises(ValueError, match="use_deterministic_algorithms"):
        varlen.torch_varlen(query, key, key, bounds, bounds, scale=None, dropout=0.0, deterministic=True)


def test_compiled_parts_give_the_same_numbers(expected: Any) -> None:
    """SwiGLU forward and backward, and dropout with its residual, compiled for the CPU."""
    (found,) = world(1, losses_and_gradients, training__compile=True)
    assert_close(found, expected, 2e-5)


# -- benchmarks/gpu ------------------------------------------------------------------------------------------------


def test_the_benchmark_runs_from_its_script(tmp_path: Path) -> None:
    """One command, three stages, on the CPU with a tiny shape; DPO begins at ln 2, as policy and reference are one."""
    wanted = [
        f"--only=train-{case}" for case in ("cpt-own-layers-logits-stored", "sft-own-layers-logits-stored", "dpo")
    ]
    finished = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path), "--device", "cpu", "--tiny", *wanted],
        env=os.environ | {"PREPARED": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert {found["stage"] for found in results["parts"].values()} == {"cpt", "sft", "dpo"}
    by_case = {(found["stage"], found["logits"]): found for found in results["parts"].values()}
    assert len(by_case) == 4
    for (stage, logits), found in by_case.items():
        assert found["status"] == "ok" and found["tokens_per_second"] > 0 and found["mfu"] is None
        assert found["first_loss"] == pytest.approx(by_case[stage, "stored"]["first_loss"], abs=1e-5), logits
        assert found["last_loss"] < found["first_loss"]
    assert by_case["dpo", "stored"]["first_loss"] == pytest.approx(0.6931472, abs=1e-4)
    page = (tmp_path / "results.md").read_text()
    assert "12·L·a·s̄" in page and page.count("| dpo, own layers") == 2


def test_a_part_that_fails_stops_no_other_and_what_is_done_stays_done(tmp_path: Path) -> None:
    calls: list[str] = []

    def works(_: float) -> dict[str, Any]:
        calls.append("works")
        return {"output": ["all well"]}

    def fails(_: float) -> dict[str, Any]:
        calls.append("fails")
        raise PartError("Traceback …\nRuntimeError: no such kernel")

    parts = [Part("a", fails, 60.0), Part("b", works, 60.0)]
    seen: list[int] = []
    for _ in range(2):
        found = run_parts(parts, tmp_path, 1000.0, lambda results: seen.append(len(results)))
        assert {name: part["status"] for name, part in found.items()} == {"a": "failed", "b": "ok"}
    assert calls == ["fails", "works", "fails"]
    assert seen == [1, 2, 1, 2]
    (late,) = run_parts([Part("c", works, 60.0)], tmp_path, 5.0, lambda _: None).values()
    assert late["status"] == "not run"
    page = render({"device": "cpu"}, {**found, "c": late})
    assert "- a (failed): RuntimeError: no such kernel" in page and "- c (not run)" in page and "all well" in page


@pytest.mark.parametrize(("gib", "layers"), [(20, 1), (38, 3), (78, 12), (139, 24), (600, 32)])
def test_how_many_layers_fit(gib: int, layers: int) -> None:
    """By hand for 78 GiB: 70.2 − 3 − 13.7 of embedding and output − 1.5 of logits leave 52.0 GiB; a layer has 3.39 of
    state and 0.89 of activations."""
    from benchmarks.gpu.case import layers_that_fit

    assert layers_that_fit(gib << 30, SHAPES["aquila-7b"], 4096) == layers


# -- on a GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", sorted(varlen.KERNELS))
@pytest.mark.parametrize(("heads", "groups", "width"), [(8, 8, 128), (8, 2, 64)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_against_float64(name: str, heads: int, groups: int, width: int, dtype: torch.dtype) -> None:
    if name not in varlen.available():
        pytest.skip(f"{name} is not installed")
    generator = torch.Generator("cuda").manual_seed(0)
    bounds = varlen.bounds([1, 129, 127, 443, 324], torch.device("cuda"))

    def random(count: int) -> torch.Tensor:
        return torch.randn(1024, count, width, device="cuda", generator=generator).to(dtype).requires_grad_()

    leaves = [random(heads), random(groups), random(groups)]
    upstream = torch.randn(1024, heads, width, device="cuda", generator=generator)
    answers = []
    for kernel in (reference, varlen.KERNELS[name]):
        torch.use_deterministic_algorithms(False)
        out = kernel(*leaves, bounds, bounds, scale=None, dropout=0.0, deterministic=False)
        answers.append([out, *torch.autograd.grad((out * upstream).sum(), leaves)])
    tolerance = 3e-2 if dtype == torch.bfloat16 else 4e-3
    for exact, found in zip(*answers):
        assert float((found.float() - exact.float()).abs().max() / exact.float().abs().max()) < tolerance


_last_device = ""


def world_on(device: str, size: int, function: Any, **arguments: Any) -> list[Any]:
    """`world`, in processes that have computed on no other kind of device: those of the CPU give CUDA calls another
    meaning for good.
    """
    global _last_device
    if device != _last_device:
        _stop()
    _last_device = device
    return world(size, function, **arguments)


@pytest.fixture(scope="module", autouse=True)
def processes_that_saw_a_gpu_end() -> Iterator[None]:
    yield
    if _last_device == "cuda":
        _stop()


def gpu_answer(**changes: Any) -> Any:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product
    return losses_and_gradients(device="cuda", training__precision="bf16", **_GPU_SHAPE, **changes)


_GPU_SHAPE: dict[str, Any] = {
    "model__shape": {
        "hidden_size": 128,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_query_groups": 2,
        "ffn_hidden_size": 192,
        "vocab_size": 203,
        "max_position_embeddings": 64,
        "qkv_bias": True,
    }
}


@pytest.fixture(scope="module")
def on_cpu() -> Any:
    """In float32, from the same weights."""
    return world_on("cpu", 1, losses_and_gradients, **_GPU_SHAPE)[0]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"training__layers": "own"},
        {"training__layers": "own", "training__compile": True},
        {"training__layers": "own", "training__compile": False},
        {"training__layers": "own", "training__recompute": "full"},
        {"training__layers": "own", "training__logits_mib": 0},
    ],
    ids=["own", "compiled", "not compiled", "recomputed", "logits recomputed"],
)
def test_own_layers_on_a_gpu_give_what_the_cpu_gives(on_cpu: Any, changes: dict[str, Any]) -> None:
    (found,) = world_on("cuda", 1, gpu_answer, **changes)
    assert_close(found, on_cpu, 5e-2)


@pytest.mark.gpu
@needs_engine
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_transformer_engines_layers_give_what_ours_give(on_cpu: Any, recompute: str) -> None:
    """Through its fused norms, its attention in packs, its rotary kernel and gradients added inside the products."""
    (found,) = world_on("cuda", 1, gpu_answer, training__recompute=recompute)
    assert_close(found, on_cpu, 5e-2)


@pytest.mark.gpu
@needs_engine
@pytest.mark.parametrize("recipe", ["tensorwise", "delayed"])
def test_fp8_is_near(on_cpu: Any, recipe: str) -> None:
    if torch.cuda.get_device_capability() < L40S:
        pytest.skip("fp8 needs compute capability 8.9")
    (found,) = world_on("cuda", 1, gpu_answer, training__fp8="hybrid", training__fp8_recipe=recipe)
    assert found[0] == pytest.approx(on_cpu[0], rel=0.05)


def twice(**changes: Any) -> Any:
    torch.use_deterministic_algorithms(True)
    try:
        return [gpu_answer(training__deterministic=True, training__layers="own", **changes) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@needs_gpu
def test_deterministic_means_bit_equal() -> None:
    ((first, second),) = world_on("cuda", 1, twice)
    assert first[0] == second[0]
    for name, value in first[1].items():
        assert (value == second[1][name]).all(), name


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("overlap", [False, True])
def test_overlapped_reduction_gives_what_one_gpu_gives(overlap: bool) -> None:
    flags = {"parallel__overlap_grad_reduce": overlap, "parallel__overlap_param_gather": overlap}
    alone = world_on("cuda", 1, gpu_answer, training__layers="own")[0]
    for found in world_on("cuda", 2, gpu_answer, training__layers="own", parallel__sharding="optimizer", **flags):
        assert found[0] == pytest.approx(alone[0], rel=2e-2)


@pytest.mark.gpu
@needs_gpu
def test_a_micro_batch_arrives_whole() -> None:
    batch = micro_batch(rows(4))
    there = batch.to(torch.device("cuda"))
    torch.cuda.synchronize()
    for name in ("tokens", "labels", "positions", "labelled"):
        assert torch.equal(getattr(there, name).cpu(), getattr(batch, name)), name
