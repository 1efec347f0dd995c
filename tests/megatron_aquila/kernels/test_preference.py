"""Losses on pairs against float64 formulas and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from megatron_aquila.kernels import IGNORE_INDEX, ops, reference
from megatron_aquila.kernels.linear import linear_logps
from megatron_aquila.kernels.preference import PreferenceLoss, preference_loss, vocab_parallel_preference_loss
from megatron_aquila.kernels.token_logps import vocab_parallel_logps
from tests.megatron_aquila.kernels.problems import linear_problem, problem, relative
from tests.world import world

SETTINGS = [
    PreferenceLoss("sigmoid", beta=0.1),
    PreferenceLoss("sigmoid", beta=0.5, label_smoothing=0.2),
    PreferenceLoss("sigmoid", beta=0.1, sft_weight=0.7),
    PreferenceLoss("robust", beta=0.3, label_smoothing=0.1),
    PreferenceLoss("hinge", beta=0.05),
    PreferenceLoss("ipo", beta=0.1),
    PreferenceLoss("simpo", beta=2.0, margin=0.5),
    PreferenceLoss("simpo", beta=2.0, margin=0.5, label_smoothing=0.1, sft_weight=0.3),
    PreferenceLoss("orpo", beta=0.25),
    PreferenceLoss("sigmoid", beta=5.0, length_normalised=True),
    PreferenceLoss("sigmoid", beta=2.0, label_smoothing=0.2, sft_weight=0.7, length_normalised=True),
    PreferenceLoss("robust", beta=3.0, label_smoothing=0.1, length_normalised=True),
    PreferenceLoss("hinge", beta=2.0, length_normalised=True),
]
WITH_REFERENCE = [settings for settings in SETTINGS if settings.needs_reference]
LENGTHS = (5, 9, 1, 200, 33, 2, 0, 4)  # one token, very uneven, empty


def pack(
    lengths: tuple[int, ...] = LENGTHS, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probs, targets, cu_seqlens and reference sums; every third token of a longer answer is prompt, and the pack
    ends in padding."""
    generator = torch.Generator().manual_seed(sum(lengths))
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0)
    tokens = int(cu_seqlens[-1]) + 3
    logps = -torch.rand(tokens, generator=generator, dtype=dtype) * 3 - 0.01
    targets = torch.randint(0, 100, (tokens,), generator=generator)
    for first, length in zip(cu_seqlens.tolist(), lengths):
        if length > 4:
            targets[first : first + length : 3] = IGNORE_INDEX
    sums, _ = sequence_sums(logps, targets, cu_seqlens)
    return logps, targets, cu_seqlens, sums.double() + torch.randn(len(lengths), generator=generator)


def sequence_sums(
    logps: torch.Tensor, targets: torch.Tensor, cu_seqlens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    counts = targets != IGNORE_INDEX
    bounds = [slice(a, b) for a, b in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:])]
    sums = torch.stack([torch.where(counts[part], logps[part], 0.0).sum() for part in bounds])
    return sums, torch.stack([counts[part].sum() for part in bounds])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loss_and_gradient(settings: PreferenceLoss) -> None:
    logps, targets, cu_seqlens, reference_sums = pack((5, 9, 1, 200, 33, 2, 7, 4))
    reference_S = reference_sums if settings.needs_reference else None
    x = logps.clone().requires_grad_()
    sums, lengths = sequence_sums(x, targets, cu_seqlens)
    losses = reference.preference_loss(sums, lengths, reference_S, settings)
    (losses.sum() * 1.7).backward()

    y = logps.clone().requires_grad_()
    result = preference_loss(y, targets, cu_seqlens, reference_S, settings)
    (result.loss * 1.7).backward()
    assert relative(result.loss.detach(), losses.sum().detach()) < 1e-12
    assert relative(result.pairs[:, ops.PAIR_COLUMNS.index("loss")], losses.detach()) < 1e-12
    assert x.grad is not None and y.grad is not None
    assert relative(y.grad, x.grad) < 1e-12
    assert not y.grad[targets == IGNORE_INDEX].any() and not y.grad[-3:].any()

    weights = 1 / lengths.double() if reference_S is None else torch.ones_like(sums)
    rewards = settings.beta * (sums - (0 if reference_S is None else reference_S)).detach() * weights
    margins = rewards[0::2] - rewards[1::2]
    assert torch.allclose(result.sequences, torch.stack((sums.detach(), rewards, lengths.double()), dim=1))
    assert torch.allclose(result.pairs[:, ops.PAIR_COLUMNS.index("margin")], margins)
    totals = {
        "loss": losses.sum(),
        "chosen_reward": rewards[0::2].sum(),
        "rejected_reward": rewards[1::2].sum(),
        "margin": margins.sum(),
        "accuracy": (margins > 0).sum(),
        "chosen_logps": sums[0::2].sum(),
        "rejected_logps": sums[1::2].sum(),
        "tokens": lengths.sum(),
    }
    assert totals.keys() == set(ops.TOTALS)
    for name, value in totals.items():
        assert result.total(name).item() == pytest.approx(value.item(), rel=1e-12), name


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradcheck(settings: PreferenceLoss) -> None:
    logps, targets, cu_seqlens, reference_sums = pack((3, 4, 2, 1))
    reference_S = reference_sums if settings.needs_reference else None
    assert torch.autograd.gradcheck(
        lambda x: preference_loss(x, targets, cu_seqlens, reference_S, settings).loss, logps.requires_grad_()
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_float32_logps_lose_nothing_in_the_sums(settings: PreferenceLoss) -> None:
    """Sums and losses are formed, and returned, in double precision."""
    logps, targets, cu_seqlens, reference_sums = pack((4000, 9, 1, 3000), torch.float32)
    reference_S = reference_sums if settings.needs_reference else None
    exact = preference_loss(logps.double(), targets, cu_seqlens, reference_S, settings)
    found = preference_loss(logps, targets, cu_seqlens, reference_S, settings)
    assert torch.equal(found.pairs, exact.pairs) and torch.equal(found.sequences, exact.sequences)


@pytest.mark.parametrize("settings", [s for s in SETTINGS if s.loss != "orpo"], ids=str)
def test_empty_answers_move_nothing(settings: PreferenceLoss) -> None:
    """The last pair's chosen answer is empty; then all answers are."""
    logps, targets, cu_seqlens, reference_sums = pack()
    for hidden in (targets, torch.full_like(targets, IGNORE_INDEX)):
        y = logps.clone().requires_grad_()
        result = preference_loss(y, hidden, cu_seqlens, reference_sums if settings.needs_reference else None, settings)
        result.loss.backward()
        assert y.grad is not None
        assert torch.isfinite(result.pairs).all() and torch.isfinite(y.grad).all()
        assert not y.grad[hidden == IGNORE_INDEX].any()
        assert result.total("tokens").item() == (hidden[:-3] != IGNORE_INDEX).sum()


def test_orpo_of_certain_answers_is_finite() -> None:
    """log p = 0 has infinite odds."""
    for first, second in ((0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e-9, -800.0)):
        x = torch.tensor([first, second], dtype=torch.float64, requires_grad=True)
        result = preference_loss(
            x, torch.tensor([1, 1]), torch.tensor([0, 1, 2]), None, PreferenceLoss("orpo", beta=0.1)
        )
        result.loss.backward()
        assert x.grad is not None and torch.isfinite(x.grad).all() and torch.isfinite(result.pairs).all()


@pytest.mark.parametrize("length_normalised", [False, True])
@pytest.mark.parametrize("name", ["sigmoid", "robust", "hinge", "ipo"])
def test_policy_equal_to_reference(name: Any, length_normalised: bool) -> None:
    """NeMo-Aligner#228, trl#1962: log 2 to the last bit, and a reference that is heeded."""
    logps, targets, cu_seqlens, other = pack((5, 9, 1, 200), torch.float32)
    settings = PreferenceLoss(name, beta=0.1, length_normalised=length_normalised and name != "ipo")
    sums = preference_loss(logps, targets, cu_seqlens, torch.zeros(4).double(), settings).sequences[:, 0]
    result = preference_loss(logps, targets, cu_seqlens, sums, settings)
    expected = {"sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0, "ipo": 25.0}[name]
    assert result.pairs[:, 0].tolist() == [expected] * 2
    assert not result.pairs[:, 2].any()
    assert not torch.allclose(
        preference_loss(logps, targets, cu_seqlens, other, settings).pairs[:, 0], result.pairs[:, 0]
    )


@pytest.mark.parametrize("settings", WITH_REFERENCE, ids=str)
def test_policy_equal_to_reference_has_the_logit_0(settings: PreferenceLoss) -> None:
    """Wherever in whatever pack the reference saw an answer: here alone, and without gradients."""
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(0, 40, (2 * (1 + seed),), generator=generator)
        cu_seqlens = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        logits, targets, _ = problem(int(cu_seqlens[-1]) + 3, 130, 100, [torch.bfloat16, torch.float32][seed % 2])
        with torch.no_grad():
            alone = [
                vocab_parallel_preference_loss(
                    logits[first:last],
                    targets[first:last],
                    torch.tensor([0, last - first, last - first]),
                    torch.zeros(2).double(),
                    PreferenceLoss(),
                    vocab_size=100,
                ).sequences[0, 0]
                for first, last in zip(cu_seqlens.tolist(), cu_seqlens.tolist()[1:])
            ]
        result = vocab_parallel_preference_loss(
            logits.requires_grad_(), targets, cu_seqlens, torch.stack(alone), settings, vocab_size=100
        )
        assert not result.pairs[:, ops.PAIR_COLUMNS.index("logit")].any()
        assert not result.pairs[:, ops.PAIR_COLUMNS.index("margin")].any() and not result.sequences[:, 1].any()
        assert result.total("accuracy").item() == 0


def test_length_normalised_by_hand() -> None:
    """TRL 1.16.0's "sigmoid_norm", dpo_trainer.py: β times the difference of the mean log-ratios, over the tokens that
    are trained on and not over the prompt's. Rewards stay those of whole answers, and may disagree with the loss."""
    logps = torch.tensor([-7.0, -1.0, -2.0, -1.0, -2.0, -7.0, -2.5], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([IGNORE_INDEX, 1, 2, 3, 4, IGNORE_INDEX, 5])
    cu_seqlens, reference_S = torch.tensor([0, 5, 7]), torch.tensor([-10.0, -4.5], dtype=torch.float64)
    settings = PreferenceLoss("sigmoid", beta=0.5, length_normalised=True)
    result = preference_loss(logps, targets, cu_seqlens, reference_S, settings)
    # ρ_c = −6 + 10 = 4 over 4 tokens, ρ_r = −2.5 + 4.5 = 2 over 1: means 1 and 2.
    h = 0.5 * (1.0 - 2.0)
    expected = [math.log1p(math.exp(-h)), h, 0.5 * (4.0 - 2.0)]
    assert result.pairs[0].tolist() == pytest.approx(expected, rel=1e-14)
    assert result.sequences.tolist() == [[-6.0, 2.0, 4.0], [-2.5, 1.0, 1.0]]
    assert result.total("accuracy").item() == 1
    result.loss.backward()
    slope = -0.5 / (1 + math.exp(h))
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([0.0, *[slope / 4] * 4, 0.0, -slope], rel=1e-14)


@pytest.mark.parametrize("tokens", [0, 7])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_pairs(settings: PreferenceLoss, tokens: int) -> None:
    """A pack of padding only, whether its tokens are marked as such or merely outside every sequence."""
    none, reference_S = torch.tensor([0]), torch.zeros(0).double() if settings.needs_reference else None
    logits, targets, _ = problem(tokens, 130, 100, torch.bfloat16)
    for hidden in (targets, torch.full_like(targets, IGNORE_INDEX)):
        x, y, z = (
            (-torch.rand(tokens)).requires_grad_(),
            logits.clone().requires_grad_(),
            logits.clone().requires_grad_(),
        )
        for leaf, result in (
            (x, preference_loss(x, hidden, none, reference_S, settings)),
            (y, vocab_parallel_preference_loss(y, hidden, none, reference_S, settings, vocab_size=100)),
            (
                z,
                vocab_parallel_preference_loss(
                    z * 1, hidden, none, reference_S, settings, vocab_size=100, inplace=True
                ),
            ),
        ):
            assert result.totals.tolist() == [0.0] * 8 and result.loss.item() == 0
            assert result.sequences.shape == result.pairs.shape == (0, 3)
            result.loss.backward()
            assert leaf.grad is not None and leaf.grad.shape == leaf.shape and not leaf.grad.any()


def test_a_pack_of_padding_only_has_no_gradient_of_the_weight() -> None:
    states, weight, targets, _ = linear_problem(9, 16, 300, 300, torch.float32)
    states.requires_grad_()
    weight.requires_grad_()
    targets = torch.full_like(targets, IGNORE_INDEX)
    logps = linear_logps(states, weight, targets, vocab_size=300)
    preference_loss(logps, targets, torch.tensor([0]), torch.zeros(0).double(), PreferenceLoss()).loss.backward()
    for leaf in (states, weight):
        assert leaf.grad is not None and leaf.grad.shape == leaf.shape and not leaf.grad.any()


def test_extreme_margins() -> None:
    logps, targets, cu_seqlens, _ = pack((3, 3))
    for far in (1e4, -1e4):
        x = logps.clone().requires_grad_()
        result = preference_loss(x, targets, cu_seqlens, torch.tensor([far, -far]).double(), PreferenceLoss(beta=1.0))
        result.loss.backward()
        h = -2 * far + float(result.sequences[0, 0] - result.sequences[1, 0])
        assert result.loss.item() == pytest.approx(max(0.0, -h), rel=1e-12)
        assert x.grad is not None and x.grad.abs().max().item() == pytest.approx(1.0 if far > 0 else 0.0)


def test_last_turn_only() -> None:
    """unsloth#5230: a mask that leaves the end of each answer still has gradients, there and nowhere else."""
    logps, targets, cu_seqlens, reference_sums = pack((40, 50))
    targets = torch.full_like(targets, IGNORE_INDEX)
    targets[37:40] = 1
    targets[86:90] = 1
    x = logps.clone().requires_grad_()
    preference_loss(x, targets, cu_seqlens, reference_sums, PreferenceLoss()).loss.backward()
    assert x.grad is not None
    assert x.grad.nonzero().squeeze(1).tolist() == [37, 38, 39, 86, 87, 88, 89]


@pytest.mark.parametrize("inplace", [False, True])
def test_from_logits_equals_the_two_steps(inplace: bool) -> None:
    logits, targets, _ = problem(40, 130, 100, torch.bfloat16)
    cu_seqlens, reference_sums = torch.tensor([0, 10, 15, 20, 40]), -torch.rand(4).double() * 50
    settings = PreferenceLoss("sigmoid", beta=0.1, label_smoothing=0.1, sft_weight=0.2)
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    logps = vocab_parallel_logps(a, targets, vocab_size=100)
    two = preference_loss(logps, targets, cu_seqlens, reference_sums, settings)
    one = vocab_parallel_preference_loss(
        b * 1, targets, cu_seqlens, reference_sums, settings, vocab_size=100, inplace=inplace
    )
    (two.loss * -0.5).backward()
    (one.loss * -0.5).backward()
    assert torch.equal(two.loss, one.loss) and torch.equal(two.sequences, one.sequences)
    assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def from_split_logits(size: int) -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        logits, targets, _ = problem(40, 64, 60, torch.float32)
        mine = logits.chunk(size, dim=1)[dist.get_rank()].clone().requires_grad_()
        result = vocab_parallel_preference_loss(
            mine,
            targets,
            torch.tensor([0, 10, 15, 20, 40]),
            torch.tensor([-30.0, -9.0, -12.0, -50.0]).double(),
            PreferenceLoss(),
            vocab_size=60,
            group=dist.group.WORLD if size > 1 else None,
        )
        result.loss.backward()
        assert mine.grad is not None
        return result.totals.numpy(), mine.grad.numpy()
    finally:
        dist.destroy_process_group()


def test_from_split_logits() -> None:
    ((totals, whole),) = world(1, from_split_logits, size=1)
    results = world(2, from_split_logits, size=2)
    for other, _ in results:
        assert relative(torch.from_numpy(other), torch.from_numpy(totals)) < 1e-6
    assert relative(torch.cat([torch.from_numpy(part) for _, part in results], dim=1), torch.from_numpy(whole)) < 1e-6


def test_settings_that_mean_nothing_are_refused() -> None:
    for wrong, message in (
        ({"loss": "dpo"}, "none of sigmoid"),
        ({"beta": 0.0}, "above 0"),
        ({"beta": math.nan}, "not finite"),
        ({"label_smoothing": 0.5}, r"\[0, 0.5\)"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "no meaning"),
        ({"margin": 0.5}, "no meaning"),
        ({"sft_weight": -1.0}, "negative"),
        ({"loss": "ipo", "length_normalised": True}, "'ipo' is normalised by length already"),
        ({"loss": "simpo", "length_normalised": True}, "'simpo' is normalised by length already"),
        ({"loss": "orpo", "length_normalised": True}, "'orpo' is normalised by length already"),
    ):
        with pytest.raises(ValueError, match=message):
            PreferenceLoss(**wrong)  # type: ignore[arg-type]


def test_wrong_arguments_are_named() -> None:
    logps, targets, cu_seqlens, reference_sums = pack((3, 4))
    with pytest.raises(ValueError, match="needs log-probs of a reference"):
        preference_loss(logps, targets, cu_seqlens, None, PreferenceLoss())
    with pytest.raises(ValueError, match="takes no log-probs of a reference"):
        preference_loss(logps, targets, cu_seqlens, reference_sums, PreferenceLoss("simpo"))
    with pytest.raises(ValueError, match="bounds 1 sequences"):
        preference_loss(logps, targets, cu_seqlens[:2], reference_sums, PreferenceLoss())
    with pytest.raises(ValueError, match="reference is"):
        preference_loss(logps, targets, cu_seqlens, reference_sums[:1], PreferenceLoss())
    with pytest.raises(ValueError, match="do not fit"):
        preference_loss(logps, targets[1:], cu_seqlens, reference_sums, PreferenceLoss())
