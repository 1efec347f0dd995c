"""What is done about an anomaly, over the processes of a run: by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest

from megatron_aquila import events
from megatron_aquila.config_resilience import ResilienceConfig
from megatron_aquila.errors import TrainingError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience.anomalies import Anomaly
from megatron_aquila.resilience.policy import Policy

SAMPLES = [(3,), (1,)]


def spike(step: int, policy: Literal["record", "skip", "rollback", "halt"]) -> Anomaly:
    return Anomaly("loss spike", step, 9.0, 2.5, policy)


def policy_of(log: EventLog, past: list[dict[str, Any]] | None = None, most: int = 2) -> Policy:
    return Policy(ResilienceConfig(most_anomalies=most), log, past or [], is_main=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / events.FILE


def test_the_event_says_all_and_is_there_before_the_run_ends(path: Path) -> None:
    policy = policy_of(EventLog(path, 0))
    assert not policy.leaves_out(spike(5, "record"), SAMPLES)
    assert policy.leaves_out(Anomaly("loss not finite", 6, math.inf, None, "skip"), SAMPLES)
    with pytest.raises(TrainingError, match=r"step 7: the gradient norm is nan.*events\.jsonl") as raised:
        policy.leaves_out(Anomaly("gradient not finite", 7, math.nan, None, "halt"), SAMPLES)
    assert raised.value.exit_code == 2
    known = ("event", "step", "kind", "value", "expected", "policy", "samples")
    assert [tuple(event[name] for name in known) for event in events.read(path)] == [
        ("anomaly", 5, "loss spike", 9.0, 2.5, "record", [[3], [1]]),
        ("anomaly", 6, "loss not finite", "inf", None, "skip", [[3], [1]]),
        ("anomaly", 7, "gradient not finite", "nan", None, "halt", [[3], [1]]),
    ]


def test_batches_left_out_are_counted_over_all_processes_and_each_once(path: Path) -> None:
    """Steps 3 and 5 were left out; 5 again, after a kill, is no third; what was only recorded is none."""
    before = policy_of(EventLog(path, 0), most=3)
    for anomaly in (spike(3, "skip"), spike(4, "record"), spike(5, "rollback")):
        before.leaves_out(anomaly, SAMPLES)
    after = policy_of(EventLog(path, 2), events.read(path), most=2)
    assert after.leaves_out(spike(5, "rollback"), SAMPLES)
    with pytest.raises(TrainingError, match=r"2 batches have been left out already .*most_anomalies"):
        after.leaves_out(spike(8, "skip"), SAMPLES)


def test_other_ranks_come_to_the_same_without_a_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = policy_of(EventLog(None, 0), most=1)
    assert silent.leaves_out(spike(1, "skip"), SAMPLES)
    with pytest.raises(TrainingError):
        silent.leaves_out(spike(2, "skip"), SAMPLES)
    assert not path.exists() and capsys.readouterr().out == ""
