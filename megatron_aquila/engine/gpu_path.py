"""Which of the fast parts that a GPU may have are used in a run, and what keeps the others out.

The facts of the machine are gathered once (`machine`), the decisions are pure functions of them and of the recipe, and
`describe` says them in a few lines at the start of a run: nothing falls back in silence.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import torch

from megatron_aquila.config import RunConfig
from megatron_aquila.engine import varlen
from megatron_aquila.engine.device import DTYPES
from megatron_aquila.errors import ConfigError
from megatron_aquila.shapes import ModelShape

# Megatron-core 0.16.1 offers the recipe from this version of Transformer Engine on (`fp8_utils.get_fp8_recipe`).
_TENSORWISE_SINCE = (2, 2)
_FUSED_ROPE_SINCE = (1, 4)


@dataclass(frozen=True)
class Machine:
    """What is here. capability: of this process's GPU, None on the CPU. The others: whether, or in which version."""

    capability: tuple[int, int] | None = None
    transformer_engine: tuple[int, ...] | None = None
    attention: frozenset[str] = frozenset()  # names of `varlen.KERNELS`
    apex_gradients: bool = False  # Apex's fused_weight_gradient_mlp_cuda
    apex_adam: bool = False
    triton: bool = False


def machine(device: torch.device) -> Machine:
    """The facts for a process that computes on `device`."""
    if device.type != "cuda":
        return Machine()
    return Machine(
        capability=torch.cuda.get_device_capability(device),
        transformer_engine=_version("transformer_engine"),
        attention=varlen.available(),
        apex_gradients=importlib.util.find_spec("fused_weight_gradient_mlp_cuda") is not None,
        apex_adam=importlib.util.find_spec("apex") is not None,
        triton=importlib.util.find_spec("triton") is not None,
    )


def uses_transformer_engine(here: Machine, run: RunConfig) -> bool:
    """Whether the layers are Transformer Engine's. With context parallelism they are ours (`engine/context.py`)."""
    return (
        here.capability is not None
        and here.transformer_engine is not None
        and run.training.layers == "auto"
        and run.parallel.context_parallel == 1
    )


def fuses_gradients(here: Machine, run: RunConfig, *, engine_layers: bool) -> bool:
    """Whether the layers' matrix products add weight gradients to the float32 buffers themselves.

    Transformer Engine's do so by themselves, Megatron's through Apex's kernel. Not with Megatron-FSDP, whose buffers
    come and go.
    """
    if here.capability is None or run.parallel.sharding == "full":
        return False
    return engine_layers or here.apex_gradients


def fuses_rope(here: Machine, *, engine_layers: bool) -> bool:
    """Whether rotary embeddings are one kernel, Transformer Engine's."""
    return engine_layers and here.transformer_engine is not None and here.transformer_engine >= _FUSED_ROPE_SINCE


def compiles(here: Machine, run: RunConfig) -> bool:
    """Whether SwiGLU is one compiled kernel, as is Megatron's own default, which also keeps only its input for the
    backward, and dropout with its residual another. On a GPU that takes triton, on the CPU a C++ compiler.
    """
    wanted = run.training.compile
    return here.triton if wanted is None else wanted


def adam(here: Machine) -> str:
    """Whose AdamW it is: the order is Megatron's (`megatron.core.optimizer`)."""
    if here.transformer_engine is not None:
        return "Transformer Engine's fused AdamW"
    return "Apex's fused AdamW" if here.apex_adam else "torch's fused AdamW"


def require_machine(run: RunConfig, here: Machine) -> None:
    """Raise ConfigError where the recipe asks for what this machine has not."""
    problems = list(_problems(run, here))
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(run: RunConfig, here: Machine) -> Iterator[str]:
    training = run.training
    if training.precision == "bf16" and here.capability is not None and here.capability < (8, 0):
        yield (
            f"training.precision is bf16, and this GPU (compute capability {here.capability[0]}.{here.capability[1]}) "
            "computes it in software only: set training.precision=fp16"
        )
    if training.compile and here.capability is not None and not here.triton:
        yield "training.compile needs triton on a GPU, and it is not installed: pip install triton, or compile=false"
    if training.fp8 is None:
        return
    if here.capability is None:
        yield "training.fp8 needs a GPU, and this run is on the CPU: set `training.fp8=` (bf16)"
        return
    if here.capability < (8, 9):
        yield (
            f"training.fp8 needs a GPU of compute capability 8.9 or later (L40S, H100), and this one has "
            f"{here.capability[0]}.{here.capability[1]}: set `training.fp8=` (bf16)"
        )
    if here.transformer_engine is None:
        yield "training.fp8 needs Transformer Engine, which is not installed: pip install transformer-engine[pytorch]"
    elif training.fp8_recipe == "tensorwise" and here.transformer_engine < _TENSORWISE_SINCE:
        found = ".".join(map(str, here.transformer_engine))
        yield (
            f"training.fp8_recipe tensorwise needs Transformer Engine 2.2, and {found} is installed: update it, or set "
            "fp8_recipe=delayed"
        )


def describe(run: RunConfig, shape: ModelShape, here: Machine) -> list[str]:
    """The path of this run on a GPU, a line a part; nothing on the CPU, where there is no choice."""
    if here.capability is None:
        return []
    training = run.training
    engine_layers = uses_transformer_engine(here, run)
    if engine_layers:
        assert here.transformer_engine is not None
        version = ".".join(map(str, here.transformer_engine))
        precision = f"fp8 {training.fp8}, {training.fp8_recipe}" if training.fp8 else training.precision
        lines = [f"layers: Transformer Engine {version} ({precision}), its attention"]
    else:
        attention = varlen.choose(
            capability=here.capability,
            dtype=DTYPES[training.precision],
            head_dim=shape.head_dim,
            dropout=run.model.attention_dropout,
            available=here.attention,
        )
        if training.layers == "own":
            reason = "training.layers is own"
        elif run.parallel.context_parallel > 1:
            reason = "context parallelism"
        else:
            reason = "Transformer Engine is not installed"
        lines = [f"layers: own ({reason}); attention: {attention}"]
    fused = fuses_gradients(here, run, engine_layers=engine_layers)
    lines.append(
        f"weight gradients: {'added inside the matrix products' if fused else 'added by a kernel of their own'}; "
        f"optimizer: {adam(here)}; SwiGLU: {'one kernel' if compiles(here, run) else 'three kernels'}"
    )
    return lines


def _version(distribution: str) -> tuple[int, ...] | None:
    """The numbers of an installed version; None where it is not installed."""
    if importlib.util.find_spec(distribution) is None:
        return None
    try:
        text = metadata.version(distribution)
    except metadata.PackageNotFoundError:  # installed from its source tree: new enough to be asked no question
        return (99,)
    numbers = []
    for part in text.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
