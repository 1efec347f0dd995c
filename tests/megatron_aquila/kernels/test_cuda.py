"""The CUDA kernels on a GPU. Without one, `tests/csrc` runs their sources under an emulation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_aquila import _kernels
from megatron_aquila.kernels import IGNORE_INDEX
from megatron_aquila.kernels.linear import Mode, linear_logps
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss, vocab_parallel_preference_loss
from megatron_aquila.kernels.token_logps import vocab_parallel_logps
from tests.megatron_aquila.kernels.problems import (
    TOLERANCE,
    float64_answer,
    float64_linear_answer,
    linear_problem,
    problem,
    relative,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and _kernels.with_cuda), reason="needs a GPU and kernels built with nvcc"
    ),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def cuda(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.cuda() for tensor in tensors]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("columns", "vocab_size"), [(1, 1), (17, 17), (4224, 4097), (12501, 12501), (100096, 100008)])
def test_values_and_gradients(columns: int, vocab_size: int, dtype: torch.dtype, inplace: bool) -> None:
    logits, targets, upstream = problem(23, columns, vocab_size, dtype)
    expected, expected_grad = float64_answer(logits, targets, vocab_size, upstream)
    leaf, targets, upstream = cuda(logits, targets, upstream)
    leaf.requires_grad_()
    logps = vocab_parallel_logps(leaf * 1, targets, vocab_size=vocab_size, inplace=inplace)
    (logps * upstream).sum().backward()
    assert leaf.grad is not None
    if columns > 1:
        assert relative(logps.detach().cpu(), expected) < 1e-6
        assert relative(leaf.grad.cpu(), expected_grad) < TOLERANCE[dtype]
    assert not leaf.grad[::5].any() and not leaf.grad[:, vocab_size:].any()


def test_offsets_beyond_two_to_the_31() -> None:
    logits, targets, upstream = problem(2, 1000, 1000, torch.bfloat16)
    targets[0] = 3
    expected, expected_grad = float64_answer(logits, targets, 1000, upstream)
    far = torch.empty(2**31 + 1000, dtype=torch.bfloat16, device="cuda").as_strided((2, 1000), (2**31, 1))
    far.copy_(logits)
    targets, upstream = cuda(targets, upstream)
    state = torch.ops.aquila.token_state(far, targets, 1000, IGNORE_INDEX)
    torch.ops.aquila.token_gradient_(far, targets, state, upstream, None, 1000, 0, IGNORE_INDEX)
    assert relative(state[2].cpu(), expected) < 1e-6
    assert relative(far.cpu(), expected_grad) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize(
    ("loss", "length_normalised"),
    [(loss, False) for loss in ("sigmoid", "robust", "hinge", "ipo", "simpo", "orpo")]
    + [(loss, True) for loss in ("sigmoid", "robust", "hinge")],
)
def test_preference_losses_equal_those_of_the_cpu(loss: Any, length_normalised: bool) -> None:
    settings = PreferenceLoss(loss, beta=0.2, sft_weight=0.3, length_normalised=length_normalised)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 900, (24,), generator=generator)
    cu_seqlens = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
    tokens = int(cu_seqlens[-1])
    logps = -torch.rand(tokens, generator=generator) * 3 - 0.01
    targets = torch.where(torch.rand(tokens, generator=generator) < 0.3, IGNORE_INDEX, 5)
    reference = -lengths.double() if settings.needs_reference else None
    here, there = logps.clone().requires_grad_(), logps.cuda().requires_grad_()
    expected = preference_loss(here, targets, cu_seqlens, reference, settings)
    for _ in range(3):  # the ticket is at zero again after each
        found = preference_loss(
            there, targets.cuda(), cu_seqlens.cuda(), None if reference is None else reference.cuda(), settings
        )
        assert torch.allclose(found.pairs.cpu(), expected.pairs, rtol=1e-11)
        assert torch.allclose(found.totals.cpu(), expected.totals, rtol=1e-11)
    expected.loss.backward()
    found.loss.backward()
    assert here.grad is not None and there.grad is not None
    assert torch.allclose(there.grad.cpu(), here.grad, rtol=1e-6)


def test_a_pack_of_padding_only_moves_nothing() -> None:
    states, weight, targets, _ = linear_problem(9, 16, 300, 300, torch.bfloat16)
    states, weight, targets = cuda(states, weight, torch.full_like(targets, IGNORE_INDEX))
    empty = torch.zeros(0, dtype=torch.int64, device="cuda")
    for rows in (None, empty):
        a, b = states.clone().requires_grad_(), weight.clone().requires_grad_()
        logps = linear_logps(a, b, targets, vocab_size=300, rows=rows)
        result = preference_loss(logps, targets, empty.new_zeros(1), empty.double(), PreferenceLoss())
        result.loss.backward()
        assert not result.totals.any() and not logps.any()
        assert a.grad is not None and b.grad is not None
        assert not a.grad.any() and not b.grad.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["store", "recompute", "frozen", "auto"])
def test_linear(mode: Mode, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False)
    states, weight, targets, upstream = linear_problem(200, 64, 2700, 2650, dtype)
    expected, expected_states, expected_weight = float64_linear_answer(states, weight, targets, 2650, upstream)
    states, weight, targets, upstream = cuda(states, weight, targets, upstream)
    states.requires_grad_()
    weight.requires_grad_(mode != "frozen")
    logps = linear_logps(states, weight, targets, vocab_size=2650, mode=mode, budget_bytes=1 << 18)
    (logps * upstream).sum().backward()
    assert relative(logps.detach().cpu(), expected) < {torch.bfloat16: 2e-3, torch.float16: 3e-4}.get(dtype, 2e-6)
    assert states.grad is not None
    assert relative(states.grad.cpu(), expected_states) < TOLERANCE[dtype] * 3
    if weight.grad is not None:
        assert relative(weight.grad.cpu(), expected_weight) < TOLERANCE[dtype] * 3


def test_graph_capture_and_replay_on_another_stream() -> None:
    """Nothing in the whole loss waits for the host, or allocates behind torch's back."""
    logits, targets, _ = problem(40, 1000, 1000, torch.bfloat16)
    cu_seqlens, reference = torch.tensor([0, 10, 15, 20, 40]), -torch.rand(4).double() * 50
    targets, cu_seqlens, reference = cuda(targets, cu_seqlens, reference)
    static = logits.cuda().requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        work = static * 1
        result = vocab_parallel_preference_loss(
            work, targets, cu_seqlens, reference, PreferenceLoss(), vocab_size=1000, inplace=True
        )
        (gradient,) = torch.autograd.grad(result.loss, work)
        return result.totals, gradient

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        totals, gradient = step()
    for seed in range(3):
        with torch.no_grad():
            static.copy_(problem(40, 1000, 1000, torch.bfloat16, scale=1.0 + seed)[0])
        graph.replay()
        expected_totals, expected_gradient = step()
        assert torch.equal(totals, expected_totals) and torch.equal(gradient, expected_gradient)


def test_repeated_runs_give_the_same_bits() -> None:
    logits, targets, upstream = problem(64, 100008, 100008, torch.bfloat16)
    logits, targets, upstream = cuda(logits, targets, upstream)
    runs = []
    for _ in range(3):
        state = torch.ops.aquila.token_state(logits, targets, 100008, IGNORE_INDEX)
        gradient = torch.ops.aquila.token_gradient(logits, targets, state, upstream, None, 100008, 0, IGNORE_INDEX)
        runs.append((state, gradient))
    for state, gradient in runs[1:]:
        assert torch.equal(state, runs[0][0]) and torch.equal(gradient, runs[0][1])
