"""Log-probabilities and their gradients against float64, whole and split over ranks.

Many of these are defects that others have reported: the comment at a test names where.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_aquila import _kernels
from megatron_aquila.kernels import IGNORE_INDEX, reference
from megatron_aquila.kernels.token_logps import vocab_parallel_logps
from tests.megatron_aquila.kernels.problems import TOLERANCE, float64_answer, problem, relative
from tests.world import world

FORMS: dict[str, Callable[..., torch.Tensor]] = {
    "fused": vocab_parallel_logps,
    "plain torch": reference.vocab_parallel_logps,
}


def solve(
    logits: torch.Tensor, targets: torch.Tensor, upstream: torch.Tensor, vocab_size: int, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs, and the gradient of the logits as they were."""
    leaf = logits.detach().clone().requires_grad_()
    # A copy that autograd follows: what the backward overwrites must not be the leaf.
    logps = vocab_parallel_logps(leaf * 1, targets, vocab_size=vocab_size, **options)
    (logps * upstream).sum().backward()
    assert leaf.grad is not None
    return logps.detach(), leaf.grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("columns", "vocab_size"), [(1, 1), (17, 17), (64, 50), (4224, 4097), (12501, 12501)])
def test_values_and_gradients(form: str, dtype: torch.dtype, columns: int, vocab_size: int) -> None:
    logits, targets, upstream = problem(23, columns, vocab_size, dtype)
    expected, expected_grad = float64_answer(logits, targets, vocab_size, upstream)
    logits.requires_grad_()
    logps = FORMS[form](logits, targets, vocab_size=vocab_size)
    assert logps.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    (logps * upstream).sum().backward()
    assert logits.grad is not None and logits.grad.dtype == dtype
    if columns == 1:
        assert not logps.any() and not logits.grad.any()
        return
    assert relative(logps.detach(), expected) < 1e-6
    assert relative(logits.grad, expected_grad) < TOLERANCE[dtype]
    assert not logits.grad[::5].any(), "ignored rows have no gradient"
    assert not logits.grad[:, vocab_size:].any(), "padding columns have no gradient"


PROCESSOR_FLAGS = {
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "bmi1", "bmi2", "f16c", "fma"},
    "baseline": set(),
}


def processor_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


@pytest.mark.parametrize("name", PROCESSOR_FLAGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_instruction_set(name: str, dtype: torch.dtype) -> None:
    missing = PROCESSOR_FLAGS[name] - processor_flags()
    if missing:
        pytest.skip(f"the processor lacks {', '.join(sorted(missing))}")
    before = _kernels.instruction_set()
    _kernels.use_instruction_set(name)
    try:
        assert _kernels.instruction_set() == name
        logits, targets, upstream = problem(23, 4224, 4097, dtype)
        expected, expected_grad = float64_answer(logits, targets, 4097, upstream)
        logps, grad = solve(logits, targets, upstream, 4097)
        assert relative(logps, expected) < 1e-6
        assert relative(grad, expected_grad) < TOLERANCE[dtype]
        if dtype is not torch.float32:
            assert_conversions_are_exact(dtype)
    finally:
        _kernels.use_instruction_set(before)


def assert_conversions_are_exact(dtype: torch.dtype) -> None:
    """All 65,536 values are read as torch reads them, and floats are rounded to them as torch rounds."""
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype).unsqueeze(1)
    stats = torch.ops.aquila.token_stats(every, torch.zeros(65536, dtype=torch.int64), 1, 0, IGNORE_INDEX)
    assert torch.equal(stats[2].nan_to_num(7.25), every[:, 0].float().nan_to_num(7.25))
    # A target whose logit is −inf has the gradient c itself.
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(20000, generator=generator) * 10.0 ** torch.randint(-9, 9, (20000,), generator=generator)
    logits = torch.tensor([-torch.inf, 0.0]).to(dtype).repeat(20000, 1)
    state = torch.stack((torch.zeros(20000), torch.ones(20000)))
    found = torch.ops.aquila.token_gradient(
        logits, torch.zeros(20000, dtype=torch.int64), state, c, None, 2, 0, IGNORE_INDEX
    )
    assert torch.equal(found[:, 0], c.to(dtype))
    assert torch.equal(found[:, 1], (-c).to(dtype))


@pytest.mark.parametrize("columns", [4097, 12501, 100008])
def test_the_last_vector_is_not_filled_up_with_zeros(columns: int) -> None:
    """verl#2656, #2899: beside logits of −50, zeros of an unmasked tail would take all the mass."""
    logits, targets, upstream = problem(4, columns, columns, torch.bfloat16)
    logits -= 50
    expected, expected_grad = float64_answer(logits, targets, columns, upstream)
    logps, grad = solve(logits, targets, upstream, columns)
    assert (logps <= 0).all()
    assert relative(logps, expected) < 1e-6
    assert relative(grad, expected_grad) < TOLERANCE[torch.bfloat16]


def test_large_offsets_lose_nothing() -> None:
    """pytorch#195829: t − lse loses digits at offset 10,000, (t − m) − log s keeps them."""
    logits, targets, upstream = problem(11, 400, 400, torch.float32, scale=1.0)
    for offset in (1e4, -1e4):
        rounded = (logits + offset) - offset  # what float32 can hold of the logits at that offset
        shifted = solve(rounded + offset, targets, upstream, 400)
        for found, wanted in zip(shifted, solve(rounded, targets, upstream, 400)):
            assert relative(found, wanted) < 1e-6


@pytest.mark.parametrize("length", [1, 17, 4096, 4999])
def test_leading_minus_infinities(length: int) -> None:
    """flash-attention#1930: −inf − −inf in an online softmax is NaN."""
    logits, targets, upstream = problem(7, 5000, 5000, torch.float32)
    logits[:, :length] = -torch.inf
    targets[1:] = 4999
    expected, expected_grad = float64_answer(logits, targets, 5000, upstream)
    logps, grad = solve(logits, targets, upstream, 5000)
    assert torch.allclose(logps.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.allclose(grad.double(), expected_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("columns", [5, 40, 1000])
def test_nan_and_infinities_are_never_a_plausible_number(columns: int) -> None:
    for position in range(0, columns, max(1, columns // 40)):
        logits = torch.randn(3, columns)
        logits[0, position] = torch.nan
        logits[1, position] = torch.inf
        logits[2] = -torch.inf
        logps = vocab_parallel_logps(logits, torch.tensor([0, 1, 2]), vocab_size=columns)
        assert logps.isnan().all(), position


def test_infinite_logits_beside_others() -> None:
    logits = torch.zeros(3, 5)
    logits[0, 2] = -torch.inf
    logits[1] = torch.nan  # ignored below: must not be read
    targets = torch.tensor([0, IGNORE_INDEX, 2])
    logits[2, 2] = -torch.inf
    logps, grad = solve(logits, targets, torch.tensor([1.0, 1.0, 0.0]), 5)
    assert logps[0].item() == pytest.approx(-torch.log(torch.tensor(4.0)).item())
    assert logps[1].item() == 0.0
    assert logps[2].item() == -torch.inf
    assert torch.isfinite(grad[0]).all()
    assert not grad[1].any() and not grad[2].any(), "rows of upstream 0 are written as 0"


@pytest.mark.parametrize("kept", [[], [0], [6], [3]])
def test_all_but_some_rows_ignored(kept: list[int]) -> None:
    """aiter#5165, Megatron#1764: nothing to divide by, still no NaN."""
    logits, targets, upstream = problem(7, 33, 33, torch.bfloat16)
    targets = torch.where(torch.isin(torch.arange(7), torch.tensor(kept, dtype=torch.int64)), 5, IGNORE_INDEX)
    logits[targets == IGNORE_INDEX] = torch.nan
    logps, grad = solve(logits, targets, upstream, 33)
    assert torch.isfinite(logps).all() and torch.isfinite(grad).all()
    assert grad.any(dim=1).nonzero().squeeze(1).tolist() == kept


def test_no_tokens() -> None:
    logps, grad = solve(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), torch.zeros(0), 9)
    assert logps.shape == (0,) and grad.shape == (0, 9)


def test_gradient_is_scaled_before_it_is_rounded() -> None:
    """TE#3193, TE#2325: a gradient kept in float16 and scaled afterwards has lost what underflowed."""
    logits, targets, _ = problem(5, 3000, 3000, torch.float16, scale=6.0)
    upstream = torch.full((5,), 3e4)
    _, expected = float64_answer(logits, targets, 3000, upstream)
    _, grad = solve(logits, targets, upstream, 3000)
    assert relative(grad, expected) < TOLERANCE[torch.float16]
    small = (expected.abs() > 1e-5) & (expected.abs() < 1e-3)  # p below 2^-24, float16's last step
    assert small.any() and grad[small].ne(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inplace_is_the_same_gradient_in_the_logits_place(dtype: torch.dtype) -> None:
    logits, targets, upstream = problem(23, 130, 100, dtype)
    logps, grad = solve(logits, targets, upstream, 100)
    leaf = logits.clone().requires_grad_()
    work = leaf * 1
    place = work.data_ptr()
    again = vocab_parallel_logps(work, targets, vocab_size=100, inplace=True)
    (again * upstream).sum().backward(retain_graph=True)
    assert torch.equal(again.detach(), logps) and torch.equal(leaf.grad, grad)
    assert work.data_ptr() == place and torch.equal(work.detach(), grad)
    with pytest.raises(RuntimeError, match="backward ran twice"):
        (again * upstream).sum().backward()


def test_logits_changed_before_the_backward_are_noticed() -> None:
    logits, targets, upstream = problem(4, 8, 8, torch.float32)
    work = logits.requires_grad_() * 1
    loss = (vocab_parallel_logps(work, targets, vocab_size=8) * upstream).sum()
    work.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_strides_and_alignments() -> None:
    """Rows at every offset of two bytes within a vector, rows further apart than they are long, columns not adjacent,
    targets and gradients not contiguous."""
    logits, targets, upstream = problem(6, 101, 101, torch.bfloat16)
    expected, expected_grad = solve(logits, targets, upstream, 101)
    for offset in range(33):
        memory = torch.full((6 * 150 + 40,), torch.nan, dtype=torch.bfloat16)
        rows = memory.as_strided((6, 101), (150, 1), offset)
        rows.copy_(logits)
        logps, grad = solve(rows, targets, upstream, 101)
        assert torch.equal(logps, expected) and torch.equal(grad, expected_grad)
        work = rows.requires_grad_(False)
        torch.ops.aquila.token_gradient_(
            work,
            targets.repeat_interleave(2)[::2],
            torch.ops.aquila.merge_stats(
                torch.ops.aquila.token_stats(work, targets, 101, 0, IGNORE_INDEX)[None],
                targets,
                101,
                IGNORE_INDEX,
                True,
            ),
            upstream.repeat_interleave(3)[::3],
            None,
            101,
            0,
            IGNORE_INDEX,
        )
        assert torch.equal(work, expected_grad)
        assert int(memory.isnan().sum()) == memory.numel() - 6 * 101, "nothing beside the rows is written"
    columns_apart = torch.empty(101, 6, dtype=torch.bfloat16).t().copy_(logits)
    assert torch.equal(vocab_parallel_logps(columns_apart, targets, vocab_size=101), expected)
    three = vocab_parallel_logps(logits.view(2, 3, 101).transpose(0, 1), targets.view(2, 3).t(), vocab_size=101)
    assert torch.equal(three, expected.view(2, 3).t())


def test_offsets_beyond_two_to_the_31(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the pages of the two rows are ever touched."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    logits, targets, upstream = problem(2, 1000, 1000, torch.bfloat16)
    targets[0] = 3
    expected, expected_grad = solve(logits, targets, upstream, 1000)
    far = torch.empty(2**31 + 1000, dtype=torch.bfloat16).as_strided((2, 1000), (2**31, 1))
    far.copy_(logits)
    state = torch.ops.aquila.token_state(far, targets, 1000, IGNORE_INDEX)
    assert torch.equal(state[2], expected)
    torch.ops.aquila.token_gradient_(far, targets, state, upstream, None, 1000, 0, IGNORE_INDEX)
    assert torch.equal(far, expected_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_threads_or_on_other_rows(dtype: torch.dtype) -> None:
    """NeMo-Aligner#228: policy and reference differed because their batches did."""
    logits, targets, upstream = problem(19, 12501, 12501, dtype)
    logps, grad = solve(logits, targets, upstream, 12501)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for part in (slice(0, 19), slice(0, 1), slice(4, 11)):
                again = solve(logits[part], targets[part], upstream[part], 12501)
                assert torch.equal(again[0], logps[part]) and torch.equal(again[1], grad[part])
    finally:
        torch.set_num_threads(before)


def test_small_probabilities_are_not_filtered() -> None:
    """CCE#18, #42: a gradient of entries below 2^-12 dropped harms training."""
    logits = torch.randn(3, 20000) * 0.1
    targets, upstream = torch.tensor([1, 2, 3]), torch.ones(3)
    _, grad = solve(logits, targets, upstream, 20000)
    assert grad.ne(0).all() and grad.sum(dim=1).abs().max() < 1e-5


def test_gradcheck() -> None:
    logits, targets, _ = problem(6, 13, 11, torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: vocab_parallel_logps(x, targets, vocab_size=11), logits.requires_grad_(), fast_mode=False
    )


@pytest.mark.parametrize("form", FORMS)
def test_wrong_targets_and_shapes_are_named(form: str) -> None:
    run = FORMS[form]
    with pytest.raises(ValueError, match="do not fit"):
        run(torch.zeros(2, 8), torch.tensor([1]), vocab_size=8)
    if form == "plain torch":
        return
    with pytest.raises(ValueError, match="target 7 is outside the vocabulary of 6 tokens"):
        run(torch.zeros(1, 8), torch.tensor([7]), vocab_size=6)
    with pytest.raises(ValueError, match="cannot hold a vocabulary of 9"):
        run(torch.zeros(1, 8), torch.tensor([7]), vocab_size=9)
    with pytest.raises(TypeError, match=r"targets are torch\.int32"):
        run(torch.zeros(1, 8), torch.tensor([7], dtype=torch.int32), vocab_size=8)
    with pytest.raises(TypeError, match=r"no kernel for logits of torch\.int64"):
        run(torch.zeros(1, 8, dtype=torch.int64), torch.tensor([7]), vocab_size=8)


def test_where_targets_are_not_looked_at_a_wrong_one_gives_nan() -> None:
    """As on a GPU, where looking would mean waiting."""
    state = torch.ops.aquila.token_state(torch.zeros(3, 8), torch.tensor([7, 8, -1]), 8, IGNORE_INDEX)
    assert state[2].isnan().tolist() == [False, True, True]


def split(form: str, size: int, columns: int, vocab_size: int) -> Any:
    """One rank's values and gradient of the shared problem."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        logits, targets, upstream = shared_problem(size, columns, vocab_size)
        mine = logits[:, rank * columns : (rank + 1) * columns].clone().requires_grad_()
        logps = FORMS[form](mine, targets, vocab_size=vocab_size, group=dist.group.WORLD)
        (logps * upstream).sum().backward()
        assert mine.grad is not None
        return logps.detach().numpy(), mine.grad.numpy()
    finally:
        dist.destroy_process_group()


def shared_problem(size: int, columns: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Targets at the shards' edges; one row whose first shard is −inf throughout."""
    logits, targets, upstream = problem(23, columns * size, vocab_size, torch.float32)
    logits[3, :columns] = -torch.inf
    targets[3] = vocab_size - 1
    targets[6:9] = torch.tensor([columns - 1, columns, vocab_size - 1])
    return logits, targets, upstream


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "columns", "vocab_size"), [(2, 32, 64), (3, 16, 41), (3, 16, 31), (4, 16, 61)])
def test_ranks_agree_with_the_whole(form: str, size: int, columns: int, vocab_size: int) -> None:
    """(3, 16, 31) leaves the last rank nothing but padding. ms-swift#9947: remote shards have their gradient too."""
    results = world(size, split, form=form, size=size, columns=columns, vocab_size=vocab_size)
    logits, targets, upstream = shared_problem(size, columns, vocab_size)
    expected, expected_grad = float64_answer(logits, targets, vocab_size, upstream)
    for logps, _ in results:
        assert relative(torch.from_numpy(logps), expected) < 1e-6
    grad = torch.cat([torch.from_numpy(part) for _, part in results], dim=1)
    assert relative(grad, expected_grad) < 1e-6


def split_without_labels(form: str, size: int) -> Any:
    """One rank's values and gradient where no token counts, of logits that must not be read."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        mine = torch.full((5, 16), torch.nan, requires_grad=True)
        targets = torch.full((5,), IGNORE_INDEX)
        logps = FORMS[form](mine, targets, vocab_size=16 * size - 3, group=dist.group.WORLD)
        logps.sum().backward()
        assert mine.grad is not None
        return logps.tolist(), mine.grad.tolist()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("form", FORMS)
def test_no_label_on_any_rank(form: str) -> None:
    for logps, grad in world(2, split_without_labels, form=form, size=2):
        assert logps == [0.0] * 5 and grad == [[0.0] * 16] * 5


def whole_logits_on_every_rank() -> str:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        vocab_parallel_logps(torch.zeros(2, 64), torch.tensor([1, 2]), vocab_size=60, group=dist.group.WORLD)
    except ValueError as error:
        return str(error)
    finally:
        dist.destroy_process_group()
    return ""


def test_gathered_logits_are_refused() -> None:
    """Megatron#7452: the loss was off by log(TP), the gradient wrong."""
    for message in world(2, whole_logits_on_every_rank):
        assert "not gathered logits" in message
