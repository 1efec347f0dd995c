"""The operators as torch sees them: schemas, fakes, compilation; and the memory that they take."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from megatron_aquila.kernels import IGNORE_INDEX, ops
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss, vocab_parallel_preference_loss
from megatron_aquila.kernels.token_logps import vocab_parallel_logps
from tests.megatron_aquila.kernels.problems import problem


def arguments() -> dict[str, tuple[Any, ...]]:
    logits, targets, upstream = problem(8, 40, 36, torch.bfloat16)
    stats = ops.token_stats(logits, targets, 36, 0, IGNORE_INDEX)
    state = ops.merge_stats(stats[None], targets, 36, IGNORE_INDEX, True)
    scale = torch.tensor(0.5)
    return {
        "token_stats": (logits, targets, 36, 0, IGNORE_INDEX),
        "merge_stats": (torch.stack((stats, stats)), targets, 36, IGNORE_INDEX, False),
        "token_state": (logits, targets, 36, IGNORE_INDEX),
        "token_gradient": (logits, targets, state, upstream, scale, 36, 0, IGNORE_INDEX),
        "token_gradient_": (logits, targets, state, upstream, None, 36, 0, IGNORE_INDEX),
        "preference": (
            state[2],
            targets,
            torch.tensor([0, 2, 5, 6, 8]),
            torch.zeros(4).double(),
            *PreferenceLoss().arguments(),
        ),
    }


@pytest.mark.parametrize("name", arguments())
def test_schema_and_fake(name: str) -> None:
    torch.library.opcheck(
        getattr(torch.ops.aquila, name).default,
        arguments()[name],
        test_utils=("test_schema", "test_faketensor"),
    )


def test_compiles_without_a_break() -> None:
    """aiter#5165: a value read back to the host in the hot path would break the graph here."""

    def loss(logits: torch.Tensor, targets: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        logps = vocab_parallel_logps(logits, targets, vocab_size=36)
        return preference_loss(logps, targets, cu_seqlens, torch.zeros(4).double(), PreferenceLoss(beta=0.3)).loss

    logits, targets, _ = problem(8, 40, 36, torch.float32)
    cu_seqlens = torch.tensor([0, 2, 5, 6, 8])
    expected, found = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss(expected, targets, cu_seqlens).backward()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(found, targets, cu_seqlens)
    value.backward()
    assert expected.grad is not None and found.grad is not None
    assert torch.equal(found.grad, expected.grad)


def test_kernels_of_the_whole_loss() -> None:
    """Three passes forward and one backward over what matters; the logits' gradient is the only large tensor."""
    logits, targets, _ = problem(40, 130, 100, torch.bfloat16)
    leaf = logits.requires_grad_()
    with torch.profiler.profile() as profile:
        vocab_parallel_preference_loss(
            leaf * 1,
            targets,
            torch.tensor([0, 10, 15, 20, 40]),
            torch.zeros(4).double(),
            PreferenceLoss(),
            vocab_size=100,
            inplace=True,
        ).loss.backward()
    ours = sorted(event.key for event in profile.key_averages() if event.key.startswith("aquila::"))
    assert ours == ["aquila::preference", "aquila::token_gradient_", "aquila::token_state"]


def imported_with(instruction_set: str) -> subprocess.CompletedProcess[str]:
    code = "import torch; from megatron_aquila import _kernels; print(_kernels.instruction_set())"
    environment = {**os.environ, "AQUILA_INSTRUCTION_SET": instruction_set}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_environment_chooses_the_instruction_set() -> None:
    assert imported_with("baseline").stdout.strip() == "baseline"
    unknown = imported_with("avx1024")
    assert unknown.returncode != 0 and "no CPU kernels for the instruction set 'avx1024'" in unknown.stderr


_MEMORY = """
import sys, torch
from megatron_aquila.kernels.token_logps import vocab_parallel_logps

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

tokens, columns = 1 << 23, 8
for count in (64, tokens):  # the first time, threads and libraries settle
    logits = torch.ones(count, columns, dtype=torch.bfloat16).requires_grad_()
    targets, upstream = torch.ones(count, dtype=torch.int64), torch.ones(count)
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    logps = vocab_parallel_logps(logits, targets, vocab_size=columns, inplace=True)
    forward = peak()
    gradient, = torch.autograd.grad(logps, logits, upstream)  # not accumulated anywhere: that would be a copy
    both = peak()
print((forward - before) / tokens, (both - before) / tokens)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
def test_memory_beside_the_logits() -> None:
    """At most 16 bytes a token: (m, 1/s, log p), and the log-prob that is returned."""
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True)
    forward, both = map(float, done.stdout.split())
    # Half a byte a token is 4 MiB: what threads and the interpreter do meanwhile.
    assert 11.5 <= forward <= 16.5
    assert both <= 16.5
