"""The CUDA preference kernel, emulated, against the papers' formulas in float64 under autograd."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.csrc import emulated
from tests.csrc.emulated import IGNORE_INDEX, LOSSES, SEEDS, Kernels, Options, Preference, bits, relative

GAP = 5  # tokens before the first answer
# (chosen, rejected): alike, one token, very uneven, an empty answer, two of them
LENGTHS = [(40, 37), (1, 1), (3, 1700), (0, 9), (600, 1), (0, 0), (21, 33)]
ALL_IGNORED = 6  # a pair


class Problem:
    def __init__(self, lengths: list[tuple[int, int]], ignored_share: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(len(lengths))
        sizes = [0, *(length for pair in lengths for length in pair)]
        self.cu_seqlens = torch.tensor(sizes).cumsum(0) + GAP
        self.tokens = int(self.cu_seqlens[-1]) + 3
        logps = -2 * torch.rand(self.tokens, generator=generator) - 0.01
        self.ids = torch.randint(0, 1000, (self.tokens,), generator=generator)
        self.ids[torch.rand(self.tokens, generator=generator) < ignored_share] = IGNORE_INDEX
        for start, end in pairwise(self.cu_seqlens):
            if end - start == 1:
                self.ids[start] = 7
        if len(lengths) > ALL_IGNORED:
            first = 2 * ALL_IGNORED
            self.ids[int(self.cu_seqlens[first]) : int(self.cu_seqlens[first + 2])] = IGNORE_INDEX
        logps[self.ids == IGNORE_INDEX] = math.nan  # not to be used
        self.logps = logps
        sums = torch.stack([part.nansum() for part in self.segments(logps)]) if lengths else torch.zeros(0)
        self.reference = sums.double() + torch.randn(len(sums), generator=generator) * 5

    def segments(self, values: torch.Tensor) -> list[torch.Tensor]:
        bounds = self.cu_seqlens.tolist()
        return [values[start:end] for start, end in pairwise(bounds)]

    def run(self, kernels: Kernels, options: Options, with_reference: bool) -> Preference:
        reference = self.reference if with_reference else None
        return kernels.preference(self.logps, self.ids, self.cu_seqlens, reference, options)


def needs_reference(loss: str) -> bool:
    return loss not in ("simpo", "orpo")


def options_of(loss: str, **changes: float) -> Options:
    beta = {"sigmoid": 0.1, "robust": 0.3, "hinge": 0.05, "ipo": 0.2, "simpo": 2.0, "orpo": 0.25}[loss]
    values = {"beta": beta, "label_smoothing": 0.0, "margin": 0.0, "sft_weight": 0.0, "length_normalised": 0, **changes}
    return Options(LOSSES.index(loss), *values.values())


def formula(
    loss: str, options: Options, policy: torch.Tensor, reference: torch.Tensor, n: torch.Tensor
) -> torch.Tensor:
    """Losses [P] from sums of log-probs [P, 2], those of the reference model, and numbers of tokens."""
    beta, epsilon = options.beta, options.label_smoothing
    ratio = policy - reference
    if options.length_normalised:
        ratio = ratio / n.clamp(min=1)
    logit = beta * (ratio[:, 0] - ratio[:, 1])  # r̂(x, y_w) − r̂(x, y_l)
    mean = policy / n.clamp(min=1)
    if loss == "sigmoid":
        losses = -(1 - epsilon) * logsigmoid(logit) - epsilon * logsigmoid(-logit)
    elif loss == "robust":
        losses = ((1 - epsilon) * -logsigmoid(logit) - epsilon * -logsigmoid(-logit)) / (1 - 2 * epsilon)
    elif loss == "hinge":
        losses = torch.relu(1 - logit)
    elif loss == "ipo":
        mean_ratio = ratio / n.clamp(min=1)
        losses = (mean_ratio[:, 0] - mean_ratio[:, 1] - 1 / (2 * beta)) ** 2
    elif loss == "simpo":
        logit = beta * mean[:, 0] - beta * mean[:, 1] - options.margin
        losses = -(1 - epsilon) * logsigmoid(logit) - epsilon * logsigmoid(-logit)
    else:
        p = mean.clamp(max=-1e-6).exp()  # an empty answer would have infinite odds
        odds = p / (1 - p)
        losses = -p[:, 0].log() - beta * logsigmoid((odds[:, 0] / odds[:, 1]).log())
    return losses - options.sft_weight * mean[:, 0]


VARIANTS = [(loss, {}) for loss in LOSSES]
VARIANTS += [
    ("sigmoid", {"label_smoothing": 0.2, "sft_weight": 0.5}),
    ("robust", {"label_smoothing": 0.15}),
    ("hinge", {"sft_weight": 1.5}),
    ("simpo", {"margin": 0.6, "label_smoothing": 0.1}),
    ("orpo", {"sft_weight": 0.25}),
    ("sigmoid", {"length_normalised": 1, "beta": 2.0, "label_smoothing": 0.2, "sft_weight": 0.5}),
    ("robust", {"length_normalised": 1, "beta": 2.0, "label_smoothing": 0.15}),
    ("hinge", {"length_normalised": 1, "beta": 2.0}),
]


@pytest.mark.parametrize(("loss", "changes"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_losses_and_coefficients(kernels: Kernels, loss: str, changes: dict[str, float]) -> None:
    problem, options = Problem(LENGTHS), options_of(loss, **changes)
    found = problem.run(kernels, options, needs_reference(loss))
    kept = problem.ids != IGNORE_INDEX
    logps = torch.where(kept, problem.logps, 0.0).double().requires_grad_()
    policy = torch.stack([part.sum() for part in problem.segments(logps)]).view(-1, 2)
    n = torch.stack([part.sum() for part in problem.segments(kept)]).view(-1, 2)
    reference = problem.reference.view(-1, 2) * needs_reference(loss)
    losses = formula(loss, options, policy, reference, n)
    losses.sum().backward()
    assert logps.grad is not None
    assert relative(found.coefficients, torch.where(kept, logps.grad, 0.0)) < 1e-6
    assert not found.coefficients[~kept].any()
    assert not found.coefficients[:GAP].any() and not found.coefficients[-3:].any()

    policy, losses = policy.detach(), losses.detach()
    rewards = options.beta * (policy - reference if needs_reference(loss) else policy / n.clamp(min=1))
    margins = rewards[:, 0] - rewards[:, 1]
    assert relative(found.pairs[:, 0], losses) < 1e-12
    assert relative(found.pairs[:, 2], margins) < 1e-12
    wanted = torch.stack([policy, rewards, n.double()], -1).view(-1, 3)
    for column in range(3):
        assert relative(found.sequences[:, column], wanted[:, column]) < 1e-12
    sums = [losses.sum(), rewards[:, 0].sum(), rewards[:, 1].sum(), margins.sum(), (margins > 0).sum()]
    sums += [policy[:, 0].sum(), policy[:, 1].sum(), n.sum()]
    for index, total in enumerate(sums):
        assert float(found.totals[index]) == pytest.approx(float(total), rel=1e-12)
    assert found.counter == 0
    if loss in ("sigmoid", "robust", "hinge") and not options.length_normalised:
        assert relative(found.pairs[:, 1], margins) < 1e-12


@pytest.mark.parametrize("length_normalised", [0, 1])
def test_equal_policies_lose_log_2(kernels: Kernels, length_normalised: int) -> None:
    problem = Problem([(5, 7), (1, 9)], ignored_share=0)
    problem.reference = problem.run(kernels, options_of("sigmoid"), False).sequences[:, 0].contiguous()
    found = problem.run(kernels, options_of("sigmoid", length_normalised=length_normalised), True)
    assert found.pairs[:, 0].tolist() == [math.log(2)] * 2
    coefficient = -0.05 / (5 if length_normalised else 1)
    assert relative(found.coefficients[GAP : GAP + 5], torch.full((5,), coefficient)) < 1e-6


@pytest.mark.parametrize(
    ("loss", "changes"),
    [variant for variant in VARIANTS if needs_reference(variant[0])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_policy_equal_to_reference_has_the_logit_0(kernels: Kernels, loss: str, changes: dict[str, float]) -> None:
    problem, options = Problem(LENGTHS), options_of(loss, **changes)
    problem.reference = problem.run(kernels, options, False).sequences[:, 0].contiguous()
    found = problem.run(kernels, options, True)
    assert not found.pairs[:, 1:].any() and not found.sequences[:, 1].any() and found.totals[4] == 0


def test_strided_inputs(kernels: Kernels) -> None:
    problem = Problem(LENGTHS)
    wanted = problem.run(kernels, options_of("ipo"), True)
    problem.logps = torch.stack([problem.logps, torch.zeros(problem.tokens)], 1)[:, 0]
    problem.ids = torch.stack([problem.ids, torch.zeros_like(problem.ids)], 1)[:, 0]
    found = problem.run(kernels, options_of("ipo"), True)
    assert bits(found.coefficients) == bits(wanted.coefficients)
    assert bits(found.totals) == bits(wanted.totals)


def test_more_pairs_than_threads(kernels: Kernels) -> None:
    problem = Problem([(2, 1)] * 600)
    found = problem.run(kernels, options_of("sigmoid"), True)
    assert found.totals[0] == pytest.approx(float(found.pairs[:, 0].sum()), rel=1e-12)
    assert found.totals[4] == int((found.pairs[:, 2] > 0).sum())
    assert found.totals[7] == int(found.sequences[:, 2].sum())
    assert found.counter == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_no_pairs(kernels: Kernels, loss: str) -> None:
    found = Problem([]).run(kernels, options_of(loss, sft_weight=0.5), needs_reference(loss))
    assert found.totals.tolist() == [0.0] * 8
    assert found.coefficients.tolist() == [0.0] * (GAP + 3)
    assert found.counter == 0


def test_nan_reaches_its_pair_only(kernels: Kernels) -> None:
    problem = Problem([(4, 5), (6, 7), (2, 3)], ignored_share=0)
    problem.logps[int(problem.cu_seqlens[2])] = math.nan
    for loss in LOSSES:
        found = problem.run(kernels, options_of(loss), needs_reference(loss))
        assert found.pairs[:, 0].isnan().tolist() == [False, True, False]
        assert found.totals[0].isnan()
        first, last = problem.cu_seqlens[2], problem.cu_seqlens[4]
        assert found.coefficients[first:last].isnan().all(), "no update from it goes unnoticed"


@pytest.mark.parametrize("lengths", [LENGTHS, [(9, 4)]], ids=["several", "one"])
def test_any_order_of_threads_gives_the_same_bits(kernels: Kernels, lengths: list[tuple[int, int]]) -> None:
    problem = Problem(lengths)
    found = set()
    for seed in SEEDS:
        kernels.schedule(seed)
        result = problem.run(kernels, options_of("simpo", sft_weight=0.1), False)
        found.add(b"".join(map(bits, (result.coefficients, result.sequences, result.pairs, result.totals))))
        assert result.counter == 0
    assert len(found) == 1


def test_refusals(kernels: Kernels) -> None:
    problem = Problem([(1, 1)])
    for loss in (-1, len(LOSSES)):
        with pytest.raises(RuntimeError, match=f"^{emulated.BAD_ARGUMENT}$"):
            problem.run(kernels, Options(loss, 0.1, 0, 0, 0, 0), True)
