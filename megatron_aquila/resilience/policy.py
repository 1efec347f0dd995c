"""What is done about an anomaly: an event with the samples it came with, and the policy of the configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

from megatron_aquila import events
from megatron_aquila.config_resilience import ResilienceConfig
from megatron_aquila.errors import TrainingError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience.anomalies import Anomaly


class RollBack(Exception):
    """Training goes on from the last checkpoint, without the batches that `Policy.gone_back_from` names."""


class Policy:
    """The same on every rank; rank 0 writes and prints."""

    def __init__(self, settings: ResilienceConfig, log: EventLog, past: Sequence[events.Event], is_main: bool) -> None:
        """`past`: the run's events so far, whose batches left out count too.

        `gone_back_from`: steps at which the run went back to a checkpoint; their batches are not tried again.
        """
        self._settings, self._log, self._is_main = settings, log, is_main
        anomalies = [event for event in past if event["event"] == "anomaly"]
        self.gone_back_from = {event["step"] for event in anomalies if event["policy"] == "rollback"}
        self._left_out = self.gone_back_from | {event["step"] for event in anomalies if event["policy"] == "skip"}

    def leaves_out(self, anomaly: Anomaly, samples: Sequence[tuple[int, ...]]) -> bool:
        """Whether the batch is left out, here or after a return to the last checkpoint.

        Raises:
            TrainingError: training is to halt, or has left out as many batches as it may.
        """
        self._log.write(
            "anomaly",
            anomaly.step,
            kind=anomaly.kind,
            value=anomaly.value if math.isfinite(anomaly.value) else str(anomaly.value),
            expected=anomaly.expected,
            policy=anomaly.policy,
            samples=samples,
            message=str(anomaly),
        )
        if self._is_main:
            print(anomaly, flush=True)
        if anomaly.policy == "record":
            return False
        if anomaly.policy == "halt":
            raise TrainingError(
                f"{anomaly}. Its samples are in {events.FILE}; resilience.nonfinite and resilience.spike can leave "
                "such batches out"
            )
        self._left_out.add(anomaly.step)
        most = self._settings.most_anomalies
        if len(self._left_out) > most:
            raise TrainingError(
                f"{anomaly}; but {most} batches have been left out already (resilience.most_anomalies): something is "
                "wrong with more than a batch"
            )
        return True
