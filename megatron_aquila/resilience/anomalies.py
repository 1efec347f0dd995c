"""Losses and gradients that a run should not train on: not finite, or far above what came before.

Pure: loss and gradient norm are the same on every rank, hence so is the answer, and no rank has to tell another.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from megatron_aquila.config_resilience import ResilienceConfig

# 1 / Φ⁻¹(3/4): times the median absolute deviation, the standard deviation of normal noise (Rousseeuw, Croux 1993).
_NORMAL = 1.4826
# Losses that agree to the last digit or two have a deviation of about 0, and the next digit would be a spike. The
# deviation counts as one per cent of the median at least, and of 0.01 where the median is smaller.
_FLOOR = 0.01
_SMALL = 0.01

Kind = Literal["loss not finite", "gradient not finite", "loss spike"]
Policy = Literal["record", "skip", "rollback", "halt"]

_DONE: dict[Policy, str] = {
    "record": "it is trained on all the same",
    "skip": "the batch is left out",
    "rollback": "the run goes back to its last checkpoint and leaves the batch out",
    "halt": "the weights were not updated with it",
}


@dataclass(frozen=True)
class Anomaly:
    """What is wrong with step `step`, and what the configuration wants done about it.

    value: the loss or the gradient norm. expected: the highest loss that would have been no spike; None for the others.
    """

    kind: Kind
    step: int
    value: float
    expected: float | None
    policy: Policy

    def __str__(self) -> str:
        if self.kind == "gradient not finite":
            found = f"the gradient norm is {self.value}"
        elif self.expected is None:
            found = f"the loss is {self.value}"
        else:
            found = f"the loss is {self.value:.6g}, where at most {self.expected:.6g} was to be expected"
        return f"step {self.step}: {found}; {_DONE[self.policy]}"


class Anomalies:
    """The detector of a run, with the losses of the last `spike_window` steps.

    A loss is a spike where it lies above the median of the window by more than `spike_factor` standard deviations; the
    deviation is taken from the median absolute deviation, so that spikes in the window do not raise the bar for the
    next, as they do with Megatron's running maximum, and the noise of the run sets it, not a fixed rise (FlagScale:
    20 %). Its floor is 1 % of the median (see `_FLOOR`): by default, no rise of less than 10 % is a spike. Losses that
    fall, or rise slowly, move the median and widen the deviation, and do not alarm: of 30,000 steps of a noisy falling
    loss none did with normal noise, 19 with Student's t of 3 degrees of freedom. No loss is a spike before the window
    is full.
    """

    def __init__(self, settings: ResilienceConfig) -> None:
        self._settings = settings
        self._losses: deque[float] = deque(maxlen=settings.spike_window)

    def of_loss(self, step: int, loss: float) -> Anomaly | None:
        """What is wrong with the mean loss of step `step`, if anything is."""
        settings = self._settings
        if not math.isfinite(loss):
            return Anomaly("loss not finite", step, loss, None, settings.nonfinite)
        if settings.spike == "off":
            return None
        expected = self._bound()
        if expected is None or loss <= expected:
            return None
        return Anomaly("loss spike", step, loss, expected, settings.spike)

    def of_gradient(self, step: int, norm: float) -> Anomaly | None:
        """What is wrong with the norm of the reduced gradient, before clipping.

        With fp16, an infinite norm is how Megatron's loss scaler finds an overflow: it leaves the update out by itself
        and lowers the scale, and nothing is wrong. Ask there of updates that were applied only.
        """
        if math.isfinite(norm):
            return None
        return Anomaly("gradient not finite", step, norm, None, self._settings.nonfinite)

    def accept(self, loss: float) -> None:
        """Take the loss of a step whose update was applied into the window.

        A batch that was left out does not belong there; a spike that was only recorded does: should the loss stay up
        there, it is the new level after half a window.
        """
        if not math.isfinite(loss):
            raise ValueError(f"a loss of {loss} cannot be compared with")
        self._losses.append(loss)

    def state(self) -> dict[str, Any]:
        """What `load` needs to go on as if nothing had happened. JSON keeps every bit of it."""
        return {"losses": list(self._losses)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the window from `state`: its newest losses, where this run's window is shorter."""
        self._losses.clear()
        self._losses.extend(float(loss) for loss in state["losses"])

    def _bound(self) -> float | None:
        """The highest loss that is no spike; None before the window is full."""
        if len(self._losses) < self._settings.spike_window:
            return None
        middle = median(self._losses)
        deviation = _NORMAL * median(abs(loss - middle) for loss in self._losses)
        return middle + self._settings.spike_factor * max(deviation, _FLOOR * max(abs(middle), _SMALL))
