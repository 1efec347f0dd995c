"""Log-probabilities and their gradients against float64, whole and split over ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_aquila.kernels.vocab_parallel import IGNORE_INDEX, vocab_parallel_logps
from tests.world import world


def reference(
    logits: torch.Tensor, targets: torch.Tensor, vocab_size: int, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 log-softmax and autograd over the real columns."""
    x = logits.double().requires_grad_()
    kept = targets != IGNORE_INDEX
    logps = x[..., :vocab_size].log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    logps = torch.where(kept, logps, 0.0)
    (logps * upstream.double()).sum().backward()
    assert x.grad is not None
    return logps.detach(), x.grad


def problem(
    tokens: int, columns: int, vocab_size: int, dtype: torch.dtype, scale: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens * 131 + columns)
    logits = (torch.randn(tokens, columns, generator=generator) * scale).to(dtype)
    targets = torch.randint(0, vocab_size, (tokens,), generator=generator)
    targets[::5] = IGNORE_INDEX
    targets[1], targets[-1] = 0, vocab_size - 1
    upstream = torch.randn(tokens, generator=generator)  # negative and positive, not one
    return logits, targets, upstream


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert torch.isfinite(found).all()
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-3), (torch.float16, 1e-3)])
@pytest.mark.parametrize(("columns", "vocab_size"), [(17, 17), (64, 50), (4224, 4097)])
def test_values_and_gradients(dtype: torch.dtype, tolerance: float, columns: int, vocab_size: int) -> None:
    logits, targets, upstream = problem(23, columns, vocab_size, dtype)
    expected, expected_grad = reference(logits, targets, vocab_size, upstream)
    logits.requires_grad_()
    logps = vocab_parallel_logps(logits, targets, vocab_size=vocab_size)
    assert logps.dtype == torch.float32
    assert relative(logps.detach(), expected) < 1e-6
    (logps * upstream).sum().backward()
    assert logits.grad is not None and logits.grad.dtype == dtype
    assert relative(logits.grad, expected_grad) < tolerance
    assert not logits.grad[::5].any(), "ignored rows have no gradient"
    assert not logits.grad[:, vocab_size:].any(), "padding columns have no gradient"


def test_large_offsets_lose_nothing() -> None:
    """Subtracting the maximum first: log p = (t - m) - log s keeps its digits at offset 10,000."""
    logits, targets, _ = problem(11, 40, 40, torch.float32, scale=1.0)
    rounded = (logits + 1e4) - 1e4  # what float32 can hold of the logits at that offset
    shifted = vocab_parallel_logps(rounded + 1e4, targets, vocab_size=40)
    assert torch.allclose(shifted, vocab_parallel_logps(rounded, targets, vocab_size=40), atol=1e-6)


def test_infinities_and_nan() -> None:
    logits = torch.zeros(4, 5)
    logits[0, 2] = -torch.inf
    logits[1] = -torch.inf  # ignored below: must stay out of the gradient
    logits[2, 0] = torch.nan
    logits.requires_grad_()
    targets = torch.tensor([0, IGNORE_INDEX, 1, 4])
    logps = vocab_parallel_logps(logits, targets, vocab_size=5)
    assert logps[0].item() == pytest.approx(-torch.log(torch.tensor(4.0)).item())
    assert logps[1].item() == 0.0
    assert logps[2].isnan()
    logps[torch.tensor([0, 1, 3])].sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad[[0, 1, 3]]).all()


def test_target_outside_the_vocabulary_is_named() -> None:
    with pytest.raises(ValueError, match="target 7 is outside the vocabulary of 6 tokens"):
        vocab_parallel_logps(torch.zeros(1, 8), torch.tensor([7]), vocab_size=6)


def split(size: int, columns: int, vocab_size: int) -> Any:
    """One rank's values and gradient of the shared problem."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        rank = dist.get_rank()
        logits, targets, upstream = problem(23, columns * size, vocab_size, torch.float32)
        logits[3, :columns] = -torch.inf  # all of the first rank's columns
        targets[3] = vocab_size - 1
        mine = logits[:, rank * columns : (rank + 1) * columns].clone().requires_grad_()
        logps = vocab_parallel_logps(mine, targets, vocab_size=vocab_size, group=dist.group.WORLD)
        (logps * upstream).sum().backward()
        assert mine.grad is not None
        return logps.detach().numpy(), mine.grad.numpy()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("size", "columns", "vocab_size"), [(2, 32, 64), (3, 16, 41), (3, 16, 31)])
def test_ranks_agree_with_the_whole(size: int, columns: int, vocab_size: int) -> None:
    """(3, 16, 31) leaves the last rank nothing but padding."""
    results = world(size, split, size=size, columns=columns, vocab_size=vocab_size)
    logits, targets, upstream = problem(23, columns * size, vocab_size, torch.float32)
    logits[3, :columns] = -torch.inf
    targets[3] = vocab_size - 1
    expected, expected_grad = reference(logits, targets, vocab_size, upstream)
    for logps, _ in results:
        assert relative(torch.from_numpy(logps), expected) < 1e-6
    grad = torch.cat([torch.from_numpy(part) for _, part in results], dim=1)
    assert relative(grad, expected_grad) < 1e-6
