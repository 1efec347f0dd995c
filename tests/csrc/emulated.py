"""The CUDA kernels on a machine without a GPU: built by g++ against the emulation of csrc/tests/cuda_emulation."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
EMULATION = CSRC / "tests" / "cuda_emulation"
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
IGNORE_INDEX = -100
LOSSES = ("sigmoid", "robust", "hinge", "ipo", "simpo", "orpo")
SEEDS = (0, 1, 2, 3)  # schedules: ascending, descending, two shuffles
BAD_DTYPE, BAD_ARGUMENT, TOO_LARGE, CUDA_ERROR = 1, 2, 3, 1000


def build(directory: Path) -> Path:
    library = directory / "libaquila_emulated.so"
    # The fibers jump from stack to stack, which a fortified longjmp takes for an attack.
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-U_FORTIFY_SOURCE"]
    include = [f"-I{folder}" for folder in (CSRC, CSRC / "include", EMULATION)]
    sources = [EMULATION / "emulated.cpp", EMULATION / "scheduler.cpp"]
    subprocess.run(["g++", *flags, *include, *sources, "-o", library], check=True)
    return library


class Targets(Structure):
    _fields_ = [("ids", c_void_p), ("stride", c_int64), ("ignore_index", c_int64)]


class Logits(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("row_stride", c_int64),
        ("rows", c_int64),
        ("columns", c_int64),
        ("width", c_int64),
        ("first_column", c_int64),
        ("dtype", c_int),
    ]


class Options(Structure):
    _fields_ = [
        ("loss", c_int),
        ("beta", c_double),
        ("label_smoothing", c_double),
        ("margin", c_double),
        ("sft_weight", c_double),
        ("length_normalised", c_int),
    ]


@dataclass
class Preference:
    coefficients: torch.Tensor
    sequences: torch.Tensor
    pairs: torch.Tensor
    totals: torch.Tensor
    counter: int


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖, of which NaN and infinity are no part."""
    assert torch.isfinite(found).all()
    size = float(wanted.double().norm())
    return float((found.double() - wanted).norm()) / (size if size > 0 else 1.0)


class Kernels:
    """The C functions on torch tensors; any status but 0 raises RuntimeError with the code."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        pointer, index = c_void_p, c_int64
        logits, targets = POINTER(Logits), POINTER(Targets)
        signatures = {
            "token_stats": [logits, targets, pointer],
            "merge_stats": [pointer, index, index, c_int, targets, index, c_int, pointer],
            "token_gradient": [logits, targets, pointer, pointer, index, pointer, pointer, index],
            "preference": [pointer, index, index, targets, pointer, index, pointer, POINTER(Options), c_int]
            + [pointer] * 5,
        }
        for name, arguments in signatures.items():
            getattr(self.library, f"aquila_cuda_{name}").argtypes = [*arguments, c_int, c_void_p]
        self.device = 0

    def schedule(self, seed: int) -> None:
        """Order in which the emulation runs threads and blocks: 0 ascending, 1 descending, else shuffled."""
        self.library.aquila_emulation_schedule(seed)

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self.library, f"aquila_cuda_{name}")(*arguments, self.device, None)
        if status != 0:
            raise RuntimeError(status)

    @staticmethod
    def targets(ids: torch.Tensor) -> Targets:
        return Targets(ids.data_ptr(), ids.stride(0) if ids.dim() else 1, IGNORE_INDEX)

    @staticmethod
    def logits(x: torch.Tensor, columns: int | None, first_column: int) -> Logits:
        rows, width = x.shape
        used = width if columns is None else columns
        return Logits(x.data_ptr(), x.stride(0), rows, used, width, first_column, DTYPES[x.dtype])

    def stats(
        self, x: torch.Tensor, ids: torch.Tensor, columns: int | None = None, first_column: int = 0
    ) -> torch.Tensor:
        out = poisoned(3, x.shape[0])
        self.call("token_stats", byref(self.logits(x, columns, first_column)), byref(self.targets(ids)), out.data_ptr())
        return out

    def merge(self, parts: list[torch.Tensor], ids: torch.Tensor, vocab_size: int, finish: bool = True) -> torch.Tensor:
        stacked = torch.stack(parts)
        out = stacked if len(parts) == 1 else poisoned(*stacked.shape[1:])
        rows = stacked.shape[2]
        arguments = (byref(self.targets(ids)), vocab_size, int(finish), out.data_ptr())
        self.call("merge_stats", stacked.data_ptr(), len(parts), rows, 0, *arguments)
        return out[0] if len(parts) == 1 else out

    def gradient(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        state: torch.Tensor,
        upstream: torch.Tensor,
        *,
        scale: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
        columns: int | None = None,
        first_column: int = 0,
    ) -> torch.Tensor:
        out = torch.full_like(x, float("nan")) if out is None else out
        self.call(
            "token_gradient",
            byref(self.logits(x, columns, first_column)),
            byref(self.targets(ids)),
            state.data_ptr(),
            upstream.data_ptr(),
            upstream.stride(0),
            None if scale is None else scale.data_ptr(),
            out.data_ptr(),
            out.stride(0),
        )
        return out

    def preference(
        self,
        logps: torch.Tensor,
        ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        reference: torch.Tensor | None,
        options: Options,
    ) -> Preference:
        pair_count = (cu_seqlens.numel() - 1) // 2
        coefficients, totals = poisoned(logps.numel()), poisoned(8, dtype=torch.float64)
        sequences, pairs = (poisoned(count, 3, dtype=torch.float64) for count in (2 * pair_count, pair_count))
        assert reference is None or reference.dtype == torch.float64
        counter = torch.zeros(1, dtype=torch.int32)
        self.call(
            "preference",
            logps.data_ptr(),
            logps.stride(0),
            logps.numel(),
            byref(self.targets(ids)),
            cu_seqlens.data_ptr(),
            pair_count,
            None if reference is None else reference.data_ptr(),
            byref(options),
            0,
            *(tensor.data_ptr() for tensor in (coefficients, sequences, pairs, totals, counter)),
        )
        return Preference(coefficients, sequences, pairs, totals, int(counter))


def guarded(count: int, dtype: torch.dtype, at_end: bool) -> torch.Tensor:
    """`count` elements between two pages that fault when touched, up against the last one or the first."""
    page = mmap.PAGESIZE
    size = count * dtype.itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the mapping alive
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (0, pages + 1):
        failed = libc.mprotect(c_void_p(data.data_ptr() + guard * page), ctypes.c_size_t(page), 0)
        assert not failed, ctypes.get_errno()
    start = (pages + 1) * page - size if at_end else page
    return data[start : start + size].view(dtype)
