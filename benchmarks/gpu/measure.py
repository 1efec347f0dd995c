"""Training steps of one case, timed: the loop's own schedule, loss, clipping and optimizer, on one device.

    python -m benchmarks.gpu.measure '{"stage": "cpt", …}'      (a `Case` as JSON; a line of `RESULT` and JSON)

Ends with `OUT_OF_MEMORY` where the layers do not fit: the caller asks for fewer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.gpu.case import OUT_OF_MEMORY, RESULT, Case, layers_that_fit
from benchmarks.gpu.workload import Workload, with_reference, workload
from megatron_aquila import metrics
from megatron_aquila.config import RunConfig
from megatron_aquila.engine import gpu_path
from megatron_aquila.engine.device import choose_device, memory_bytes
from megatron_aquila.engine.model import build_model, is_norm
from megatron_aquila.engine.optimizer import DataParallel, build_optimizer, wrap_data_parallel
from megatron_aquila.engine.parallel import parallel_world
from megatron_aquila.engine.step import StepReport, apply_update, clear_gradients, run_schedule
from megatron_aquila.shapes import SHAPES, ModelShape

_STD = 0.02
_WARM_UP = 3
_LEAST_STEPS = 2
_TINY = ModelShape(
    hidden_size=64,
    num_layers=2,
    num_attention_heads=4,
    num_query_groups=2,
    ffn_hidden_size=96,
    vocab_size=515,
    max_position_embeddings=128,
)


def measure(case: Case) -> dict[str, Any]:
    """The case and what was found: rates are of real tokens, padding left out."""
    device = choose_device(case.device)
    shape = _shape(case, device)
    run = _run(case, shape)
    with parallel_world(run, device):
        here = gpu_path.machine(device)
        if case.layers != "own" and not gpu_path.uses_transformer_engine(here, run):
            raise RuntimeError("Transformer Engine is not installed")
        chunks, config = build_model(run, shape, device)
        _initialise(chunks)
        found = workload(case.stage, length=case.length, vocab_size=shape.vocab_size, micro_batches=case.micro_batches)
        reference_seconds = 0.0
        if found.reference_pass:
            _forward(chunks, found, device, lambda *_: None)  # warm
            began = _now(device)
            found = with_reference(found, lambda keep: _schedule(chunks, found, keep, device, forward_only=True))
            reference_seconds = _now(device) - began
        wrapped = wrap_data_parallel(run, config, chunks)
        optimizer = build_optimizer(run, config, wrapped)

        def step() -> tuple[StepReport, float]:
            clear_gradients(wrapped, optimizer)
            report = _schedule(wrapped, found, found.loss, device, forward_only=False)
            return report, apply_update(optimizer).grad_norm

        first, norm = step()
        for _ in range(_WARM_UP - 1):
            step()
        began, steps, last = _now(device), 0, first
        while steps < _LEAST_STEPS or _now(device) - began < case.seconds:
            last, _ = step()
            steps += 1
        seconds = _now(device) - began
    flops = last.tokens * shape.flops_per_token(last.attended / last.tokens)
    peak = metrics.peak_tflops(None, device)
    return {
        **asdict(case),
        "name": case.name,
        "path": gpu_path.describe(run, shape, here),
        "num_layers": shape.num_layers,
        "parameters": shape.parameters(),
        "steps": steps,
        "step_seconds": seconds / steps,
        "tokens_per_second": last.tokens * steps / seconds,
        "samples_per_second": last.samples * steps / seconds,
        "fill": last.tokens / (case.length * case.micro_batches),
        "tflops": flops * steps / seconds / 1e12,
        "peak_tflops": peak,
        "mfu": flops * steps / seconds / (peak * 1e12) if peak else None,
        "reference_pass_seconds": reference_seconds,
        "peak_bytes": memory_bytes(device),
        "first_loss": first.means["loss"],
        "last_loss": last.means["loss"],
        "first_grad_norm": norm,
    }


def _shape(case: Case, device: torch.device) -> ModelShape:
    shape = _TINY if case.shape == "tiny" else SHAPES[case.shape]
    layers = case.num_layers
    if layers is None and device.type == "cuda":
        layers = layers_that_fit(torch.cuda.mem_get_info(device)[0], shape, case.length)
    length = max(case.length, shape.max_position_embeddings)
    return shape.model_copy(update={"num_layers": layers or shape.num_layers, "max_position_embeddings": length})


def _run(case: Case, shape: ModelShape) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "gpu",
            "device": case.device,
            "model": {"shape": shape.model_dump()},
            "data": {"train": [{"path": "none"}], "tokenizer": "none", "sequence_length": case.length},
            "training": {
                "steps": 1,
                "global_batch_size": case.micro_batches,
                "precision": "bf16",
                "layers": "own" if case.layers == "own" else "auto",
                "fp8": case.fp8,
                "logits_mib": 1 << 20 if case.logits == "stored" else 0,
            },
            "optimizer": {"lr": 1e-5, "schedule": {"kind": "constant"}},
            "checkpoint": {"every": 1},
            "evaluation": {"every": 0, "batches": 1},
        }
    )


@torch.no_grad()
def _initialise(chunks: Sequence[torch.nn.Module]) -> None:
    """On the device: drawing billions of numbers on the CPU would take most of the time."""
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if is_norm(name):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, _STD)


def _schedule(
    chunks: Sequence[torch.nn.Module] | Sequence[DataParallel],
    found: Workload,
    loss: Any,
    device: torch.device,
    *,
    forward_only: bool,
) -> StepReport:
    return run_schedule(
        chunks,  # type: ignore[arg-type]
        found.batches,
        loss,
        metric_names=(),
        device=device,
        forward_only=forward_only,
    )


def _forward(
    chunks: Sequence[torch.nn.Module], found: Workload, device: torch.device, record: Callable[..., None]
) -> None:
    def keep(logps: torch.Tensor, batch: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        record(logps, batch)
        return logps.sum(), torch.ones((), dtype=torch.int64, device=logps.device), {}

    _schedule(chunks, found, keep, device, forward_only=True)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    try:
        print(RESULT + json.dumps(measure(Case(**json.loads(sys.argv[1])))), flush=True)
    except torch.cuda.OutOfMemoryError as error:
        print(error, file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
