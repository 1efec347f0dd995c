"""What nvcc makes of the CUDA sources: registers and spills, on which the number of blocks per SM depends."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.csrc.emulated import CSRC

NVCC = shutil.which("nvcc")
ARCHITECTURES = ("80", "90a")
# (source, instantiations of each kernel, registers it may have). 65536 registers an SM, in blocks of 512 threads:
# two blocks at 64, one at 128.
SOURCES = [
    ("token_logps.cu", {"stats_kernel": 3, "gradient_kernel": 3, "merge_kernel": 1}, 64),
    ("preference.cu", {"preference_kernel": 1}, 128),
]


class Compiled(NamedTuple):
    registers: int
    spilled_bytes: int


def compile_source(source: str, directory: Path) -> dict[tuple[str, str], Compiled]:
    """(mangled kernel name, architecture) to what ptxas says of it."""
    assert NVCC is not None
    generate = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in ARCHITECTURES]
    command = [NVCC, "-std=c++17", "-O3", *generate, "-c", "-Xptxas", "-v", f"-I{CSRC / 'include'}"]
    outcome = subprocess.run(
        [*command, CSRC / "cuda" / source, "-o", directory / "object.o"], capture_output=True, text=True
    )
    log = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, log
    assert "warning" not in log, log
    pattern = (
        r"Compiling entry function '(\w+)' for 'sm_(\w+)'.*?"
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    return {
        (kernel, architecture): Compiled(int(registers), int(stores) + int(loads))
        for kernel, architecture, stores, loads, registers in re.findall(pattern, log, re.DOTALL)
    }


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(("source", "kernels", "limit"), SOURCES, ids=[source for source, _, _ in SOURCES])
def test_registers(source: str, kernels: dict[str, int], limit: int, tmp_path: Path) -> None:
    compiled = compile_source(source, tmp_path)
    for kernel, instantiations in kernels.items():
        for architecture in ARCHITECTURES:
            found = [value for key, value in compiled.items() if kernel in key[0] and key[1] == architecture]
            assert len(found) == instantiations
            for value in found:
                assert value.spilled_bytes == 0
                assert value.registers <= limit
