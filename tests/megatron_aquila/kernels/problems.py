"""Random problems and their float64 answers."""

from __future__ import annotations

import torch

from megatron_aquila.kernels import IGNORE_INDEX, reference

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 1e-3}


def targets_and_upstream(tokens: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every fifth token ignored, the edges of the vocabulary among the others; upstream gradients of both signs."""
    generator = torch.Generator().manual_seed(tokens * 131 + vocab_size)
    targets = torch.randint(0, vocab_size, (tokens,), generator=generator)
    targets[::5] = IGNORE_INDEX
    targets[1:2], targets[-1:] = 0, vocab_size - 1
    return targets, torch.randn(tokens, generator=generator)


def problem(
    tokens: int, columns: int, vocab_size: int, dtype: torch.dtype, scale: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits `[tokens, columns]`, targets and upstream gradients."""
    generator = torch.Generator().manual_seed(columns)
    logits = (torch.randn(tokens, columns, generator=generator) * scale).to(dtype)
    return logits, *targets_and_upstream(tokens, vocab_size)


def linear_problem(
    tokens: int, hidden: int, columns: int, vocab_size: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weight, targets and upstream gradients."""
    generator = torch.Generator().manual_seed(columns)
    states = torch.randn(tokens, hidden, generator=generator).to(dtype)
    weight = (torch.randn(columns, hidden, generator=generator) * 0.3).to(dtype)
    return states, weight, *targets_and_upstream(tokens, vocab_size)


def float64_answer(
    logits: torch.Tensor, targets: torch.Tensor, vocab_size: int, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and logit gradients by float64 log-softmax and autograd over the real columns."""
    x = logits.detach().double().clone().requires_grad_()
    logps = x[..., :vocab_size].log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    logps = torch.where(targets == IGNORE_INDEX, 0.0, logps)
    (logps * upstream.double()).sum().backward()
    assert x.grad is not None
    return logps.detach(), x.grad


def float64_linear_answer(
    states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, vocab_size: int, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, and the gradients of hidden states and weight."""
    h, w = (x.detach().double().clone().requires_grad_() for x in (states, weight))
    logps = reference.vocab_parallel_logps(h @ w.t(), targets, vocab_size=vocab_size)
    (logps * upstream.double()).sum().backward()
    assert h.grad is not None and w.grad is not None
    return logps.detach(), h.grad, w.grad


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖. What is not finite never passes."""
    assert torch.isfinite(found).all()
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())
