"""The loss on pairs of answers, from log-probs: forward and backward, beside the formula in eager torch.

Axes: N tokens, S = 2P sequences, P pairs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.kernels.measure import AGAIN, OURS, Case, Labels, Variant, interleave, relative_error
from megatron_aquila.kernels import IGNORE_INDEX, reference
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss

SETTINGS = PreferenceLoss("sigmoid", beta=0.1)
LAUNCHES = "launches included"
_Result = tuple[torch.Tensor, torch.Tensor]


def measure(pairs: int, tokens: int, device: torch.device, *, rounds: int) -> list[Case]:
    """On a GPU two cases: what the device works, and what a caller waits."""
    torch.manual_seed(pairs)
    sequences = 2 * pairs
    logps_N = torch.rand(sequences * tokens, device=device).mul_(-2)
    targets_N = torch.randint(0, 1000, (sequences, tokens), device=device)
    targets_N[:, : tokens // 4] = IGNORE_INDEX  # the prompt
    targets_N = targets_N.flatten()
    cu_seqlens = torch.arange(sequences + 1, device=device) * tokens
    exact = logps_N.double().masked_fill(targets_N == IGNORE_INDEX, 0.0)
    reference_S = exact.view(sequences, tokens).sum(1) + torch.randn(sequences, device=device) * 5
    references = {dtype: reference_S.to(dtype) for dtype in (torch.float32, torch.float64)}

    def ours(logps: torch.Tensor) -> _Result:
        loss = preference_loss(logps, targets_N, cu_seqlens, reference_S, SETTINGS).loss
        return loss, torch.autograd.grad(loss, logps)[0]

    def eager(sums: Callable[..., torch.Tensor], *, metrics: bool = False) -> Callable[[torch.Tensor], _Result]:
        def call(logps: torch.Tensor) -> _Result:
            counted_N = targets_N != IGNORE_INDEX
            logps_S = sums(logps * counted_N, cu_seqlens)
            lengths_S = sums(counted_N.float(), cu_seqlens)
            losses_P = reference.preference_loss(logps_S, lengths_S, references[logps.dtype], SETTINGS)
            if metrics:
                with torch.no_grad():
                    _metrics(losses_P, logps_S, lengths_S, references[logps.dtype])
            loss = losses_P.sum()
            return loss, torch.autograd.grad(loss, logps)[0]

        return call

    expected_loss, expected_gradient = eager(_segments)(logps_N.double().requires_grad_())

    def check(result: _Result) -> float:
        errors = relative_error(result[0], expected_loss), relative_error(result[1], expected_gradient)
        return sum(errors)  # a NaN in either stays one

    calls = {
        OURS: ours,
        "eager torch, cumsum": eager(_running),
        "eager torch, cumsum, with metrics": eager(_running, metrics=True),
        AGAIN: ours,
        "eager torch, segment_reduce": eager(_segments),
    }
    variants = {name: Variant(lambda: logps_N.detach().requires_grad_(), call, check) for name, call in calls.items()}
    notes = {f"{name}, {kind}": count for name, call in calls.items() if name != AGAIN
             for kind, count in _count(call, logps_N).items()}  # fmt: skip
    cases = []
    for launches in (False, True) if device.type == "cuda" else (True,):
        results = interleave(variants, device, rounds, launches=launches)
        labels: Labels = {"pairs": pairs, "tokens": tokens, "clock": LAUNCHES if launches else "device"}
        cases.append(Case("preference", labels, 1e-4, results, notes))
    return cases


def _running(values_N: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    running = F.pad(values_N.cumsum(0), (1, 0))
    return running[cu_seqlens[1:]] - running[cu_seqlens[:-1]]


def _segments(values_N: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    return torch.segment_reduce(values_N, "sum", offsets=cu_seqlens)


def _metrics(
    losses_P: torch.Tensor, logps_S: torch.Tensor, lengths_S: torch.Tensor, reference_S: torch.Tensor
) -> torch.Tensor:
    """What ours yields beside the loss, and a trainer logs."""
    rewards_S = SETTINGS.beta * (logps_S - reference_S)
    chosen, rejected = rewards_S[0::2], rewards_S[1::2]
    margin = chosen - rejected
    columns = (losses_P, chosen, rejected, margin, margin > 0, logps_S[0::2], logps_S[1::2])
    return torch.stack([*(column.sum() for column in columns), lengths_S.sum()])


def _count(call: Callable[[torch.Tensor], _Result], logps_N: torch.Tensor) -> dict[str, float]:
    """Operators that a call runs, and, on a GPU, kernels."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write two lines for each profile
    activities = [torch.profiler.ProfilerActivity.CPU]
    if logps_N.is_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    argument = logps_N.detach().requires_grad_()
    call(argument)
    with torch.profiler.profile(activities=activities) as profile:
        call(argument)
        if logps_N.is_cuda:
            torch.cuda.synchronize()
    events = list(profile.events())
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    counts = {"aten": sum(event.name.startswith("aten::") for event in events)}
    if logps_N.is_cuda:
        counts["kernels"] = len(on_device)
    return {kind: float(count) for kind, count in counts.items()}
