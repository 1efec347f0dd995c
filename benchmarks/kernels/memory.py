"""Peak memory of one call, each in a process of its own.

On a CPU the peak is the kernel's high-water mark of resident memory, reset just before the call, less what was resident
then; on a GPU it is what torch's allocator had at most, less what it had. Inputs are not in it; `beyond_gradients` is
without the gradients that the call returns.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.kernels.ceilings import DTYPES
from benchmarks.kernels.measure import Absent
from benchmarks.kernels.peers import linear_peers, token_peers

_ROOT = Path(__file__).parents[2]
_TIMEOUT = 1200


@dataclass(frozen=True)
class Task:
    """What to run: a peer by its name. `hidden` is 0 for a peer that takes logits."""

    peer: str
    rows: int
    columns: int
    hidden: int
    dtype: str
    device: str
    threads: int
    gradient: bool = True
    trained: bool = True


@dataclass(frozen=True)
class Peak:
    """Bytes beyond the inputs, and beyond those and the returned gradients."""

    beyond_inputs: int
    beyond_gradients: int


def measure(task: Task) -> Peak | Absent:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.kernels.memory", json.dumps(asdict(task))]
    try:
        finished = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return Absent(f"no result after {_TIMEOUT} s")
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        return Absent(lines[-1][:200])
    return Peak(**json.loads(finished.stdout.splitlines()[-1]))


def main(task: Task) -> Peak:
    if task.device == "cpu":
        torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    if task.hidden:
        peer = linear_peers(device, trained=task.trained, compiled=False)[task.peer]
    else:
        peer = token_peers(device, gradient=task.gradient, compiled=False)[task.peer]

    def call(inputs: list[torch.Tensor], outer_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = peer.call(*inputs)
        leaves = [leaf for leaf in inputs if leaf.requires_grad]
        if not leaves:
            return (result,)
        return result, *torch.autograd.grad(result, leaves, outer_N.to(result.dtype))

    call(*_inputs(task, min(task.rows, 64), min(task.columns, 512), device))  # libraries and threads are there after it
    inputs, outer_N = _inputs(task, task.rows, task.columns, device)
    before = _start(device)
    result = call(inputs, outer_N)
    peak = _high_water(device) - before
    held = {leaf.data_ptr() for leaf in inputs}
    returned = sum(gradient.nbytes for gradient in result[1:] if gradient.data_ptr() not in held)
    return Peak(peak, peak - returned)


def _inputs(task: Task, rows: int, columns: int, device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
    dtype = DTYPES[task.dtype]
    targets = torch.randint(0, columns, (rows,), device=device)
    outer_N = torch.ones(rows, device=device)
    if not task.hidden:
        return [torch.randn(rows, columns, device=device).to(dtype).requires_grad_(task.gradient), targets], outer_N
    hidden_NH = torch.randn(rows, task.hidden, device=device).to(dtype).requires_grad_()
    weight_VH = torch.randn(columns, task.hidden, device=device).mul_(task.hidden**-0.5).to(dtype)
    return [hidden_NH, weight_VH.requires_grad_(task.trained), targets], outer_N


def _start(device: torch.device) -> int:
    """Begin to watch the high-water mark; bytes in use now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # Memory that the allocator keeps for later would hide what the call needs.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _high_water(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    print(json.dumps(asdict(main(Task(**json.loads(sys.argv[1]))))))
