"""Where the engine runs, and in which dtype."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from megatron_aquila.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: Literal["auto", "cuda", "cpu"]) -> torch.device:
    """The device of this process; on the CPU, `cpu_backend` is switched on for the life of the process.

    Raises:
        ConfigError: CUDA was asked for and there is none, or fewer devices than local ranks.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no CUDA device: run `aquila doctor`, or set device=cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        from megatron_aquila.engine import cpu_backend

        cpu_backend.activate()
        return cpu_backend.CPU
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local_rank} has no GPU: this machine has {torch.cuda.device_count()}; "
            "start one process per GPU"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: allocated by torch on a GPU, resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss, in which Linux leaves the peak of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
