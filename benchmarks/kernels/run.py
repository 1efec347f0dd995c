"""All parts in order, at the sizes of a machine; what they measured, as one object."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from benchmarks.kernels import linear, memory, pairs, tokens
from benchmarks.kernels.ceilings import DTYPES, copy_rate, machine
from benchmarks.kernels.measure import OURS, Absent, Case, Timing
from benchmarks.kernels.memory import Peak, Task
from benchmarks.kernels.peers import CROSS_ENTROPY, LINEAR_CROSS_ENTROPY, OURS_KEPT, one_rank_world

_TOKEN_MEMORY = {
    "forward": ((OURS, CROSS_ENTROPY), False),
    "forward + backward": ((OURS, OURS_KEPT, CROSS_ENTROPY), True),
}
_LINEAR_MEMORY = (
    (OURS, True),
    ("ours, recompute", True),
    (LINEAR_CROSS_ENTROPY, True),
    ("F.linear_cross_entropy, chunked", True),
    (OURS, False),
    (LINEAR_CROSS_ENTROPY, False),
)


@dataclass(frozen=True)
class Sizes:
    """What to measure.

    tokens: rows, columns and the masked share of the logits; `shown` is the shape of the summary and the plot.
    linear, linear_memory: rows, columns, hidden. dpo: pairs, tokens of an answer, columns, hidden.
    """

    tokens: tuple[tuple[int, int, float], ...]
    shown: tuple[int, int]
    token_memory: tuple[int, int]
    pairs: tuple[int, ...]
    pair_tokens: int
    linear: tuple[int, int, int]
    linear_memory: tuple[int, int, int]
    linear_memory_dtype: str
    dpo: tuple[int, int, int, int]
    copied: int  # elements
    compiled: bool = True


CPU = Sizes(
    tokens=tuple((rows, columns, 0.0) for rows in (16, 256, 2048) for columns in (32000, 100008, 151851)),
    shown=(256, 100008),
    token_memory=(1 << 22, 8),
    pairs=(2, 16, 64),
    pair_tokens=512,
    linear=(512, 32008, 1024),
    linear_memory=(2048, 100008, 1024),
    linear_memory_dtype="fp32",
    dpo=(2, 128, 32008, 1024),
    copied=1 << 27,
)
CUDA = Sizes(
    tokens=tuple(
        (rows, columns, masked)
        for rows in (512, 2048, 8192, 16384)
        for columns in (100008, 128256, 151936, 12501, 50004)
        for masked in (0.0, 0.3, 0.6)
    ),
    shown=(8192, 100008),
    token_memory=(1 << 22, 8),
    pairs=(2, 16, 64),
    pair_tokens=512,
    linear=(8192, 100008, 4096),
    linear_memory=(8192, 100008, 4096),
    linear_memory_dtype="bf16",
    dpo=(4, 1024, 100008, 4096),
    copied=1 << 30,
)
CPU_QUICK = ((16, 32000, 0.0), (256, 100008, 0.0))
CUDA_QUICK = ((512, 12501, 0.0), (8192, 100008, 0.0), (8192, 100008, 0.6))


@dataclass
class Report:
    """Everything measured. `peaks` is by part, then by what was run; sizes of peaks are bytes."""

    machine: dict[str, str | int]
    sizes: Sizes
    copy: dict[str, float] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    peaks: dict[str, dict[str, Peak | Absent]] = field(default_factory=dict)

    def token_bytes(self, name: str) -> float | Absent:
        """Bytes a token beyond the logits and their returned gradient: by how much the second half of the tokens
        raises the peak. What a call takes once, whatever its size, is not in it."""
        whole, half = self.peaks["token_logps"][name], self.peaks["token_logps, half"][name]
        for peak in (whole, half):
            if isinstance(peak, Absent):
                return peak
        assert isinstance(whole, Peak) and isinstance(half, Peak)
        rows = self.sizes.token_memory[0]
        return (whole.beyond_gradients - half.beyond_gradients) / (rows - rows // 2)

    def of(self, part: str) -> list[Case]:
        return [case for case in self.cases if case.part == part]

    def wrong(self) -> list[str]:
        return [line for case in self.cases for line in case.wrong()]

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "sizes": asdict(self.sizes),
            "copy_bytes_per_second": self.copy,
            "cases": [_case(case) for case in self.cases],
            "peak_bytes": {
                part: {name: {"absent": peak.reason} if isinstance(peak, Absent) else asdict(peak)
                       for name, peak in peaks.items()}
                for part, peaks in self.peaks.items()
            },
            "wrong": self.wrong(),
        }  # fmt: skip


def _case(case: Case) -> dict[str, Any]:
    variants: dict[str, dict[str, Any]] = {}
    for name, outcome in case.results.items():
        if isinstance(outcome, Timing):
            variants[name] = {**asdict(outcome), "spread": outcome.spread, "ratio": case.ratio(name)}
        else:
            variants[name] = {"absent": outcome.reason}
    return {"part": case.part, **case.labels, "variants": variants, "notes": case.notes, "noise": case.noise()}


def run(sizes: Sizes, device: torch.device, rounds: int, on_case: Callable[[Case], None] = lambda _: None) -> Report:
    """Measure all parts; `on_case` sees each case as it is done."""
    report = Report(machine(device), sizes)

    def done(*cases: Case) -> None:
        report.cases += cases
        for case in cases:
            on_case(case)

    with one_rank_world(device):
        for name, dtype in DTYPES.items():
            report.copy[name] = copy_rate(dtype, device, sizes.copied, rounds)
        for rows, columns, masked in sizes.tokens:
            for name in DTYPES:
                rate = report.copy[name]
                # On a GPU each shape is worth seconds, and each compilation of a peer many.
                compiled = sizes.compiled and (device.type == "cpu" or (rows, columns) == sizes.shown)
                done(
                    *tokens.measure(
                        rows, columns, masked, name, device, rounds=rounds, compiled=compiled, copy_rate=rate
                    )
                )
                _release(device)
        for count in sizes.pairs:
            done(*pairs.measure(count, sizes.pair_tokens, device, rounds=rounds))
        for name in DTYPES:
            done(*linear.measure(*sizes.linear, name, device, rounds=rounds, compiled=sizes.compiled))
            _release(device)
            done(linear.measure_dpo(*sizes.dpo, name, device, rounds=rounds, compiled=sizes.compiled))
            _release(device)
    rows = sizes.token_memory[0]
    report.peaks = {
        "token_logps": _token_peaks(sizes, rows, device),
        "token_logps, half": _token_peaks(sizes, rows // 2, device),
        "linear_logps": _linear_peaks(sizes, device),
    }
    return report


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # a shape's blocks are of no use to the next


def _token_peaks(sizes: Sizes, rows: int, device: torch.device) -> dict[str, Peak | Absent]:
    columns, threads = sizes.token_memory[1], torch.get_num_threads()
    return {
        f"{name}, {step}": memory.measure(Task(name, rows, columns, 0, "bf16", device.type, threads, gradient))
        for step, (names, gradient) in _TOKEN_MEMORY.items()
        for name in names
    }


def _linear_peaks(sizes: Sizes, device: torch.device) -> dict[str, Peak | Absent]:
    rows, columns, hidden = sizes.linear_memory
    dtype, threads = sizes.linear_memory_dtype, torch.get_num_threads()
    return {
        f"{name}, {linear.TRAINED if trained else linear.FROZEN}": memory.measure(
            Task(name, rows, columns, hidden, dtype, device.type, threads, trained=trained)
        )
        for name, trained in _LINEAR_MEMORY
    }
