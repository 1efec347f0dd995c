"""No false alarm on noise, drift and plateaus; every planted spike found; the same after a resume, bit by bit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from megatron_aquila.config_resilience import ResilienceConfig
from megatron_aquila.resilience.anomalies import Anomalies, Anomaly


def noisy_losses(steps: int, seed: int, *, noise: float = 0.03, tails: float | None = None) -> list[float]:
    """A loss from 11 nats to about 2, with the waves that a learning rate and a blend of corpora leave in it."""
    generator = np.random.default_rng(seed)
    place = np.arange(steps)
    smooth = 1.9 + 9.0 * (1 + place / 60) ** -0.7 + 0.05 * np.sin(place / 700) + 0.02 * np.sin(place / 45)
    drawn = generator.standard_normal(steps) if tails is None else generator.standard_t(tails, steps)
    return [float(loss) for loss in smooth * (1 + noise * drawn)]


def feed(detector: Anomalies, losses: list[float]) -> list[Anomaly]:
    """Alarms of a run that leaves spikes out."""
    found = []
    for step, loss in enumerate(losses, 1):
        anomaly = detector.of_loss(step, loss)
        if anomaly is None:
            detector.accept(loss)
        else:
            found.append(anomaly)
    return found


def detector(**settings: object) -> Anomalies:
    return Anomalies(ResilienceConfig.model_validate({"spike": "skip", **settings}))


@pytest.mark.parametrize("noise", [1e-4, 0.01, 0.05])
def test_noise_that_falls_and_drifts_raises_no_alarm(noise: float) -> None:
    assert feed(detector(), noisy_losses(10_000, 1, noise=noise)) == []


def test_every_planted_spike_is_found_and_no_other_step() -> None:
    losses = noisy_losses(4_000, 2)
    planted = sorted(np.random.default_rng(3).choice(np.arange(400, 4_000), 40, replace=False).tolist())
    for place in planted:
        losses[place] *= 1.6  # 20 standard deviations of the noise
    assert [anomaly.step for anomaly in feed(detector(), losses)] == [place + 1 for place in planted]


def test_spikes_that_were_recorded_do_not_hide_the_next() -> None:
    """A mean and a standard deviation, or a running maximum, would take them for the usual."""
    found = detector(spike="record", spike_window=32)
    for step, loss in enumerate(noisy_losses(200, 4)):
        found.accept(loss * (3.0 if step % 5 == 0 else 1.0))
    assert found.of_loss(201, 3.0 * 6.0) is not None


def test_losses_that_agree_to_the_last_digits_raise_no_alarm() -> None:
    """The median absolute deviation is 0 there, and any digit would be infinitely many of it."""
    constant = detector()
    assert feed(constant, [2.5] * 200 + [math.nextafter(2.5, 3), 2.5001, 2.74]) == []
    assert [anomaly.step for anomaly in feed(constant, [2.76])] == [1], "10 times 1 % of the median"
    converged = detector()
    assert feed(converged, [1e-7] * 200 + [3e-7, 9e-4]) == [], "a preference loss near 0"
    assert converged.of_loss(203, 0.01) is not None


def test_a_new_level_is_learned_when_it_is_only_recorded() -> None:
    found = detector(spike="record", spike_window=16)
    alarms = []
    for step, loss in enumerate([1.0] * 16 + [5.0] * 16, 1):
        alarms.append(found.of_loss(step, loss) is not None)
        found.accept(loss)
    assert alarms == [False] * 16 + [True] * 8 + [False] * 8


def test_no_loss_is_a_spike_before_the_window_is_full_or_when_switched_off() -> None:
    early = detector(spike_window=8)
    assert feed(early, [1.0] * 7 + [100.0]) == []
    off = detector(spike="off", spike_window=8)
    assert feed(off, [1.0] * 8 + [100.0]) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["halt", "skip", "rollback"])
def test_what_is_not_finite_is_found_at_once(value: float, policy: str) -> None:
    found = detector(nonfinite=policy, spike="off")
    loss, gradient = found.of_loss(1, value), found.of_gradient(2, value)
    assert loss is not None and (loss.kind, loss.step, loss.policy) == ("loss not finite", 1, policy)
    assert gradient is not None and (gradient.kind, gradient.step, gradient.policy) == (
        "gradient not finite",
        2,
        policy,
    )
    assert str(value) in str(loss) and "step 1" in str(loss) and "gradient norm" in str(gradient)
    with pytest.raises(ValueError, match="cannot be compared"):
        found.accept(value)
    assert found.of_loss(3, 1e30) is None and found.of_gradient(3, 1e30) is None


def test_the_sentence_of_a_spike_says_what_was_expected() -> None:
    found = detector(spike_window=8, spike="rollback")
    assert feed(found, [2.0] * 8) == []
    spike = found.of_loss(9, 7.5)
    assert spike is not None and spike.expected == pytest.approx(2.2)
    assert "step 9: the loss is 7.5, where at most 2.2" in str(spike) and "last checkpoint" in str(spike)


@pytest.mark.parametrize("cut", [3, 127, 128, 700])
def test_a_resumed_run_answers_as_one_that_went_on(cut: int) -> None:
    losses = noisy_losses(1_200, 5, tails=3)
    whole, first, resumed = detector(spike_factor=3), detector(spike_factor=3), detector(spike_factor=3)
    expected = feed(whole, losses)
    assert len(expected) > 5, "or equality shows nothing"
    found = feed(first, losses[:cut])
    text = json.dumps(first.state())
    resumed.load(json.loads(text))
    assert json.dumps(resumed.state()) == text
    later = feed(resumed, losses[cut:])
    assert [(alarm.value, alarm.expected) for alarm in found + later] == [
        (alarm.value, alarm.expected) for alarm in expected
    ]
    assert resumed.state() == whole.state()


def test_a_shorter_window_takes_the_newest_losses() -> None:
    long, short = detector(spike_window=32), detector(spike_window=8)
    assert feed(long, [float(loss) for loss in range(100, 68, -1)]) == []
    short.load(long.state())
    assert short.state() == {"losses": [76.0, 75.0, 74.0, 73.0, 72.0, 71.0, 70.0, 69.0]}
