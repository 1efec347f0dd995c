"""What the machine can do: bytes copied, products of matrices, with the same threads and at the very sizes used."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path

import torch

from benchmarks.kernels.measure import Timing, Variant, interleave
from megatron_aquila import _kernels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_FORWARD, _HIDDEN, _WEIGHT = "logits", "hidden gradient", "weight gradient"


def machine(device: torch.device) -> dict[str, str | int]:
    """The names under which results are worth keeping."""
    facts: dict[str, str | int] = {"device": device.type, "torch": torch.__version__, "cpu": _cpu_model()}
    facts["threads"] = torch.get_num_threads()
    facts["instruction_set"] = _kernels.instruction_set()
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_count_of_multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count
        facts["cuda"] = str(torch.version.cuda)
        facts["driver"] = _driver()
    return facts


def describe(facts: dict[str, str | int]) -> str:
    if facts["device"] == "cuda":
        return f"{facts['gpu']}, driver {facts['driver']}, CUDA {facts['cuda']}, torch {facts['torch']}"
    return f"{facts['cpu']}, {facts['threads']} threads, {facts['instruction_set']}, torch {facts['torch']}"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    if not version.is_file():
        return "unknown"
    words = version.read_text().splitlines()[0].split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def copy_rate(dtype: torch.dtype, device: torch.device, elements: int, rounds: int) -> float:
    """Bytes a second, read and written, of one large copy of warm memory."""
    source = torch.ones(elements, dtype=dtype, device=device)
    target = torch.empty_like(source).fill_(0)
    variant = Variant(lambda: None, lambda _: target.copy_(source), lambda _: 0.0)
    timing = interleave({"copy": variant}, device, rounds)["copy"]
    assert isinstance(timing, Timing)
    return 2 * source.nbytes / timing.least


class ProductTimes:
    """Seconds of the three products of a linear layer [N, H] · [H, V], on random data."""

    def __init__(
        self, rows: int, columns: int, hidden: int, dtype: torch.dtype, device: torch.device, rounds: int
    ) -> None:
        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=device).to(dtype)

        h_NH, w_VH, x_NV = random(rows, hidden), random(columns, hidden), random(rows, columns)
        calls = {_FORWARD: (h_NH, w_VH.t()), _HIDDEN: (x_NV, w_VH), _WEIGHT: (x_NV.t(), h_NH)}
        variants = {
            name: Variant(partial(tuple, (a, b)), lambda factors: torch.mm(*factors), lambda _: 0.0)
            for name, (a, b) in calls.items()
        }
        timings = interleave(variants, device, rounds)
        self.seconds = {name: timing.least for name, timing in timings.items() if isinstance(timing, Timing)}
        self.flop = 2.0 * rows * columns * hidden

    def ideal(self, *, forwards: int, trained: bool) -> float:
        """Seconds of the products alone of a pass that forms the logits so many times."""
        return forwards * self.seconds[_FORWARD] + self.seconds[_HIDDEN] + trained * self.seconds[_WEIGHT]

    def rates(self) -> dict[str, float]:
        """FLOP a second."""
        return {name: self.flop / seconds for name, seconds in self.seconds.items()}
