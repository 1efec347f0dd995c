"""The kernels beside their peers on this machine: tables, results.json and results.png.

Ratios are made of the least times of interleaved rounds, `÷ ours` above 1 where ours is faster. A peer that is not
installed, refuses the dtype or runs out of memory is named with the reason. Ends with 1 when a result of ours is
numerically wrong, and only then. Run on a machine at rest:

    python -m benchmarks.kernels [--device cpu|cuda] [--quick] [--threads N] [--rounds N] [--output DIR]
"""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import torch
import typer
from rich.console import Console

from benchmarks.kernels import plot, tables
from benchmarks.kernels.promises import promises, slower
from benchmarks.kernels.run import CPU, CPU_QUICK, CUDA, CUDA_QUICK, Sizes, run

_WIDTH = 160  # of tables that go to a file


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


def main(
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.cpu,
    output: Annotated[Path | None, typer.Option(help="Directory (build/benchmarks/kernels-<device>).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Log-probs from logits at few shapes only.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads (as many as torch takes).")] = 0,
    rounds: Annotated[int, typer.Option(min=3, help="Of each case, at least.")] = 5,
) -> None:
    """Measure, print, write."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no CUDA device")
    sizes = CPU if device is Device.cpu else CUDA
    if quick:
        sizes = replace(sizes, tokens=CPU_QUICK if device is Device.cpu else CUDA_QUICK)
    if threads:
        torch.set_num_threads(threads)
    measure(sizes, torch.device(device.value), rounds, output or Path("build/benchmarks") / f"kernels-{device.value}")


def measure(sizes: Sizes, device: torch.device, rounds: int, output: Path) -> None:
    """Raises typer.Exit(1) when a result of ours is wrong."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    report = run(sizes, device, rounds, lambda case: tables.show_case(console, case))
    tables.show_report(console, report)
    output.mkdir(parents=True, exist_ok=True)
    results = report.as_json()
    results["promises"] = [asdict(promise) for promise in promises(report)]
    results["slower"] = [asdict(loss) for loss in slower(report)]
    (output / "results.json").write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    plot.write(report, output / "results.png")
    console.print(f"written: {output / 'results.json'}, {output / 'results.png'}")
    if report.wrong():
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
