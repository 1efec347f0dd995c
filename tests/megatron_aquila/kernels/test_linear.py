"""Log-probabilities from hidden states: every schedule against float64, alone and split over ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_aquila.kernels import IGNORE_INDEX
from megatron_aquila.kernels.linear import Mode, linear_logps
from tests.megatron_aquila.kernels.problems import (
    TOLERANCE,
    float64_linear_answer,
    linear_problem,
    relative,
    targets_and_upstream,
)
from tests.world import world

# Budgets in bytes: everything fits; some slices are stored and the others computed again.
SCHEDULES: list[tuple[Mode, int]] = [
    ("store", 1 << 30),
    ("recompute", 1 << 30),
    ("auto", 1 << 30),
    ("auto", 200_000),
    ("auto", 1),
]
HIDDEN_SLACK = {torch.float32: 2.0, torch.float64: 20.0}  # of the tolerance, for the products' own rounding


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("mode", "budget"), SCHEDULES)
def test_schedules(mode: Mode, budget: int, dtype: torch.dtype) -> None:
    states, weight, targets, upstream = linear_problem(37, 48, 2700, 2650, dtype)
    expected, expected_states, expected_weight = float64_linear_answer(states, weight, targets, 2650, upstream)
    states.requires_grad_()
    weight.requires_grad_()
    logps = linear_logps(states, weight, targets, vocab_size=2650, mode=mode, budget_bytes=budget)
    (logps * upstream).sum().backward()
    # The logits are rounded to the operands' dtype, as those of any output layer are.
    assert relative(logps.detach(), expected) < {torch.bfloat16: 2e-3, torch.float16: 3e-4}.get(dtype, 1e-6)
    tolerance = TOLERANCE[dtype] * HIDDEN_SLACK.get(dtype, 1.5)
    assert states.grad is not None and weight.grad is not None
    assert relative(states.grad, expected_states) < tolerance
    assert relative(weight.grad, expected_weight) < tolerance
    assert not states.grad[::5].any() and not weight.grad[2650:].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("budget", [1 << 30, 40_000])
def test_frozen_weight(dtype: torch.dtype, budget: int) -> None:
    states, weight, targets, upstream = linear_problem(37, 48, 2700, 2650, dtype)
    expected, expected_states, _ = float64_linear_answer(states, weight, targets, 2650, upstream)
    for mode in ("frozen", "auto", "store"):
        leaf = states.clone().requires_grad_()
        logps = linear_logps(leaf, weight, targets, vocab_size=2650, mode=mode, budget_bytes=budget)
        (logps * upstream).sum().backward()
        assert relative(logps.detach(), expected) < {torch.bfloat16: 2e-3, torch.float16: 3e-4}.get(dtype, 1e-6)
        assert leaf.grad is not None
        assert relative(leaf.grad, expected_states) < TOLERANCE[dtype] * HIDDEN_SLACK.get(dtype, 1.5)


@pytest.mark.parametrize("slices", [4, 32])
def test_partial_sums_are_not_rounded(slices: int) -> None:
    """Megatron#2739, axolotl#1601, Liger#512: bfloat16 sums over slices lose as many digits as there are slices."""
    states, weight, targets, upstream = linear_problem(600, 32, 128 * slices, 128 * slices, torch.bfloat16)
    _, expected_states, expected_weight = float64_linear_answer(states, weight, targets, 128 * slices, upstream)
    states.requires_grad_()
    weight.requires_grad_()
    logps = linear_logps(states, weight, targets, vocab_size=128 * slices, mode="auto", budget_bytes=1)
    (logps * upstream).sum().backward()
    assert states.grad is not None and weight.grad is not None
    assert relative(states.grad, expected_states) < 4e-3
    assert relative(weight.grad, expected_weight) < 4e-3


@pytest.mark.parametrize("mode", ["recompute", "frozen"])  # a gradient check needs more than one backward
def test_gradcheck(mode: Mode) -> None:
    states, weight, targets, _ = linear_problem(5, 4, 200, 190, torch.float64)
    weight.requires_grad_(mode != "frozen")
    assert torch.autograd.gradcheck(
        lambda h, w: linear_logps(h, w, targets, vocab_size=190, mode=mode),
        (states.requires_grad_(), weight),
        fast_mode=True,
    )


def test_only_the_rows_that_count_are_multiplied() -> None:
    """Hidden states of ignored tokens are NaN here: they reach nothing."""
    states, weight, targets, upstream = linear_problem(37, 16, 300, 300, torch.float32)
    expected = linear_logps(states, weight, targets, vocab_size=300)
    states[targets == IGNORE_INDEX] = torch.nan
    states.requires_grad_()
    weight.requires_grad_()
    rows = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    for given in (None, rows):
        states.grad = weight.grad = None
        logps = linear_logps(states[None], weight, targets[None], vocab_size=300, rows=given, mode="recompute")
        assert logps.shape == (1, 37) and torch.allclose(logps[0], expected, atol=1e-6)
        (logps[0] * upstream).sum().backward()
        assert states.grad is not None and weight.grad is not None
        assert torch.isfinite(states.grad).all() and torch.isfinite(weight.grad).all()


# Rows to give where no token counts: none given, as from a loader; an empty list; all, as on a GPU that does not look.
NO_ROWS = {"none given": None, "empty": [], "all": [*range(6)]}


def without_labels(mode: Mode, rows: list[int] | None, dtype: torch.dtype, budget: int, **split: Any) -> list[Any]:
    """Log-probs, and the gradients of hidden states and weight, of six tokens that do not count."""
    states, weight, _, upstream = linear_problem(6, 16, 300, 300, dtype)
    states = states[:3].clone() if split.get("sequence_parallel") else states
    states.requires_grad_()
    weight.requires_grad_(mode != "frozen")
    logps = linear_logps(
        states,
        weight,
        torch.full((6,), IGNORE_INDEX),
        mode=mode,
        budget_bytes=budget,
        rows=None if rows is None else torch.tensor(rows, dtype=torch.int64),
        **split,
    )
    (logps * upstream).sum().backward()
    assert states.grad is not None and states.grad.shape == states.shape
    assert (weight.grad is None) == (mode == "frozen")
    found = [logps.detach(), states.grad] + ([] if weight.grad is None else [weight.grad])
    assert weight.grad is None or weight.grad.shape == weight.shape
    return [part.float().abs().nan_to_num(torch.inf).max().item() for part in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", NO_ROWS)
@pytest.mark.parametrize(("mode", "budget"), [*SCHEDULES, ("frozen", 1 << 30), ("frozen", 1)])
def test_no_row_counts(mode: Mode, budget: int, rows: str, dtype: torch.dtype) -> None:
    assert not any(without_labels(mode, NO_ROWS[rows], dtype, budget, vocab_size=300))


def split_without_labels() -> list[list[Any]]:
    """Everything in one world: starting its group takes longer than the products."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        return [
            without_labels(
                mode,
                rows,
                torch.float32,
                budget,
                vocab_size=590,
                group=dist.group.WORLD,
                sequence_parallel=sequence_parallel,
            )
            for mode, budget in (*SCHEDULES, ("frozen", 1 << 30))
            for rows in NO_ROWS.values()
            for sequence_parallel in (False, True)
        ]
    finally:
        dist.destroy_process_group()


def test_no_row_counts_on_any_rank() -> None:
    for largest in world(2, split_without_labels):
        assert len(largest) == 36 and not any(value for run in largest for value in run)


def test_a_reference_pass_gives_the_same_bits() -> None:
    """NeMo-Aligner#228: at equal weights policy and reference must agree to the last bit, whatever is stored."""
    states, weight, targets, _ = linear_problem(37, 48, 2700, 2650, torch.bfloat16)
    for mode, budget in SCHEDULES:
        with torch.no_grad():
            alone = linear_logps(states, weight, targets, vocab_size=2650, mode=mode, budget_bytes=budget)
        trained = linear_logps(
            states.clone().requires_grad_(),
            weight.clone().requires_grad_(),
            targets,
            vocab_size=2650,
            mode=mode,
            budget_bytes=budget,
        )
        assert torch.equal(alone, trained)


def test_second_backward() -> None:
    states, weight, targets, upstream = linear_problem(7, 16, 300, 300, torch.float32)
    for mode in ("store", "recompute"):
        leaf = weight.clone().requires_grad_()
        loss = (linear_logps(states, leaf, targets, vocab_size=300, mode=mode) * upstream).sum()
        loss.backward(retain_graph=True)
        assert leaf.grad is not None
        once = leaf.grad.clone()
        if mode == "store":
            with pytest.raises(RuntimeError, match="backward ran twice"):
                loss.backward()
        else:
            loss.backward()
            assert torch.equal(leaf.grad, 2 * once)


def test_wrong_arguments_are_named() -> None:
    states, weight, targets, _ = linear_problem(7, 16, 300, 300, torch.float32)
    with pytest.raises(ValueError, match="mode 'fast' is none of"):
        linear_logps(states, weight, targets, vocab_size=300, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not fit"):
        linear_logps(states, weight.bfloat16(), targets, vocab_size=300)
    with pytest.raises(ValueError, match="7 hidden states for 6 targets"):
        linear_logps(states, weight, targets[1:], vocab_size=300)
    with pytest.raises(ValueError, match="the weight requires one"):
        linear_logps(states, weight.requires_grad_(), targets, vocab_size=300, mode="frozen")
    with pytest.raises(ValueError, match="sequence_parallel needs"):
        linear_logps(states, weight, targets, vocab_size=300, sequence_parallel=True)


def split(size: int, mode: Mode, sequence_parallel: bool, vocab_size: int) -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        states, weight, targets, upstream = linear_problem(12 * size, 16, 160 * size, vocab_size, torch.float32)
        mine = weight[rank * 160 : (rank + 1) * 160].clone().requires_grad_(mode != "frozen")
        if sequence_parallel:
            states = states[rank * 12 : (rank + 1) * 12].clone()
        states.requires_grad_()
        logps = linear_logps(
            states,
            mine,
            targets,
            vocab_size=vocab_size,
            group=dist.group.WORLD,
            sequence_parallel=sequence_parallel,
            mode=mode,
        )
        (logps * upstream).sum().backward()
        assert states.grad is not None
        return logps.detach().numpy(), states.grad.numpy(), None if mine.grad is None else mine.grad.numpy()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("mode", ["store", "recompute", "frozen"])
@pytest.mark.parametrize(("size", "vocab_size"), [(2, 320), (3, 290)])
def test_ranks_agree_with_the_whole(size: int, vocab_size: int, mode: Mode, sequence_parallel: bool) -> None:
    """(3, 290) leaves the last rank nothing but padding. verl#3723: wrong under sequence parallelism; CCE#14: the
    gradient of the hidden states not summed over the ranks."""
    results = world(size, split, size=size, mode=mode, sequence_parallel=sequence_parallel, vocab_size=vocab_size)
    states, weight, _, _ = linear_problem(12 * size, 16, 160 * size, vocab_size, torch.float32)
    targets, upstream = targets_and_upstream(12 * size, vocab_size)
    expected, expected_states, expected_weight = float64_linear_answer(states, weight, targets, vocab_size, upstream)
    for logps, _, _ in results:
        assert relative(torch.from_numpy(logps), expected) < 1e-6
    gradients = [torch.from_numpy(states_grad) for _, states_grad, _ in results]
    for found in [torch.cat(gradients)] if sequence_parallel else gradients:
        assert relative(found, expected_states) < 2e-6
    if mode != "frozen":
        assert relative(torch.cat([torch.from_numpy(grad) for _, _, grad in results]), expected_weight) < 2e-6
