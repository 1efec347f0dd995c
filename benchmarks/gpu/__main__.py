"""All of it on one GPU, or in small on the CPU; `benchmarks/gpu.sh` makes the environment and calls this.

    python -m benchmarks.gpu OUTPUT [--minutes 25] [--device cuda|cpu] [--tiny] [--only PREFIX …]

Writes OUTPUT/results.json and OUTPUT/results.md after every part. Run again, it goes on where it stopped. Ends with 1
when a part failed.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.gpu.case import Case
from benchmarks.gpu.parts import Part, case_part, command_part, run_parts
from benchmarks.gpu.table import render

_PACKAGES = ("torch", "triton", "megatron-core", "transformer-engine", "flash-attn", "apex", "megatron-aquila")
_TESTS = tuple(
    f"tests/megatron_aquila/{name}.py" for name in ("kernels/test_cuda", "engine/test_gpu_path", "engine/test_fsdp")
)
_ASKED = ("name", "driver_version", "compute_cap", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")


def main(
    output: Annotated[Path, typer.Argument(help="Folder of the results; one that is there is gone on with.")],
    minutes: Annotated[float, typer.Option(help="Of all parts together.")] = 25.0,
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="A small shape, all in one process: whether it works.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Parts whose name begins like this.")] = None,
) -> None:
    """Measure, print, write."""
    if device not in ("cuda", "cpu"):
        raise typer.BadParameter("--device is cuda or cpu")
    if device == "cpu" and not tiny:
        raise typer.BadParameter("the whole shape takes a GPU: --device cpu goes with --tiny")
    if not measure_all(output, minutes, "cuda" if device == "cuda" else "cpu", tiny=tiny, only=tuple(only or ())):
        raise typer.Exit(1)


def measure_all(
    output: Path, minutes: float, device: Literal["cuda", "cpu"], *, tiny: bool, only: tuple[str, ...] = ()
) -> bool:
    """Run the parts and write what they gave; whether none failed."""
    output.mkdir(parents=True, exist_ok=True)
    facts = machine(device)
    parts = [part for part in all_parts(output, device, tiny=tiny) if not only or part.name.startswith(only)]
    results = run_parts(parts, output / "parts", minutes * 60, lambda found: _write(output, facts, found))
    print((output / "results.md").read_text())
    return all(found["status"] != "failed" for found in results.values())


def all_parts(output: Path, device: Literal["cuda", "cpu"], *, tiny: bool) -> list[Part]:
    """What is run, the most wanted first."""
    layers: dict[str, int] = {}
    parts = [case_part(case, layers, apart=not tiny) for case in cases(device, tiny=tiny)]
    if device == "cpu":
        return parts
    tests = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *_TESTS]
    kernels = ["-m", "benchmarks.kernels", "--device", "cuda", "--quick", "--output", str(output / "kernels")]
    return [
        command_part("tests", tests, output / "tests.log", 480.0),
        *parts,
        command_part("kernels", kernels, output / "kernels.log", 480.0),
    ]


def cases(device: Literal["cuda", "cpu"], *, tiny: bool) -> list[Case]:
    """The rows of the table. The first holds the most memory: as many layers as it has are in all of them."""
    small: dict[str, Any] = {"length": 128, "micro_batches": 2, "seconds": 0.0, "shape": "tiny"} if tiny else {}
    engine = device == "cuda" and importlib.util.find_spec("transformer_engine") is not None
    found = [
        Case(stage, logits=logits, device=device, **small)
        for logits in ("stored", "recomputed")
        for stage in ("cpt", "sft", "dpo")
    ]
    if engine:
        found += [Case(stage, layers="transformer engine", device=device, **small) for stage in ("cpt", "sft", "dpo")]
    if engine and _capability() >= (8, 9):
        found.append(Case("cpt", layers="transformer engine", fp8="hybrid", device=device, **small))
    return found


def machine(device: str) -> dict[str, Any]:
    """What the figures are good for: device, driver, clocks, versions."""
    facts: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    if device != "cuda":
        return {"device": "cpu", **facts}
    if shutil.which("nvidia-smi") is None:
        return {"device": "cuda", "gpu": "nvidia-smi is not there", **facts}
    asked = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader", "--id=0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    values = [value.strip() for value in asked.stdout.split(",")]
    if asked.returncode or len(values) != len(_ASKED):
        return {"device": "cuda", "gpu": f"nvidia-smi said: {(asked.stdout + asked.stderr).strip()}", **facts}
    return {"device": "cuda", **{f"gpu_{name}": value for name, value in zip(_ASKED, values)}, **facts}


def _capability() -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)


def _write(output: Path, facts: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    (output / "results.json").write_text(json.dumps({"machine": facts, "parts": results}, indent=2))
    (output / "results.md").write_text(render(facts, results), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
