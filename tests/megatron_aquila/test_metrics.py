"""What is logged can be read back, and a resumed run logs no step twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from megatron_aquila import metrics
from megatron_aquila.datasets.batch import volume_of
from megatron_aquila.shapes import SHAPES


def test_resuming_drops_what_was_logged_after_the_checkpoint_and_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / metrics.FILE
    log = metrics.JsonLines(path, 0)
    for step in range(1, 6):
        log.write(step, {"train/loss": step / 2, "train/grad_norm": math.inf})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 6, "train/lo')
    log = metrics.JsonLines(path, 3)
    log.write(4, {"train/loss": 9.0})
    log.close()
    records = metrics.read(path)
    assert [(record["step"], record["train/loss"]) for record in records] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 9.0)]
    assert records[0]["train/grad_norm"] is None


def test_tensorboard_holds_the_same(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = metrics.TensorBoard(tmp_path, 0)
    board.write(7, {"train/loss": 1.25})
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(7, 1.25)]


def test_mfu_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices of 100 TFLOP/s, 40 TFLOP in 0.5 s."""
    now = iter([10.0, 10.5, 10.5])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(now))
    throughput = metrics.Throughput(100.0, devices=2, sample_name="pairs")
    throughput.add(samples=5, tokens=1000, computed=1250, flops=40e12)
    assert throughput.report() == {
        "throughput/tokens_per_second": 2000.0,
        "throughput/pairs_per_second": 10.0,
        "throughput/fill": 0.8,
        "throughput/step_seconds": 0.5,
        "throughput/mfu": pytest.approx(0.4),
    }


def test_time_between_steps_is_left_out_wherever_the_report_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 2 s and 4 s, 30 s of evaluation after the first; 7 s of saving after the report, and a step of 1 s."""
    now = iter([0.0, 2.0, 32.0, 36.0, 36.0, 43.0, 44.0, 44.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(now))
    throughput = metrics.Throughput(None, devices=1, sample_name="pairs")
    throughput.add(samples=1, tokens=30, computed=30, flops=0)
    throughput.restart()
    throughput.add(samples=1, tokens=30, computed=30, flops=0)
    found = throughput.report()
    assert (found["throughput/step_seconds"], found["throughput/tokens_per_second"]) == (3.0, 10.0)
    throughput.restart()
    throughput.add(samples=1, tokens=5, computed=5, flops=0)
    assert throughput.report()["throughput/step_seconds"] == 1.0


def test_attention_counts_per_document() -> None:
    """Documents of 2 and 6 tokens attend to (4 + 36) / 8 = 5 tokens on average, not to 8."""
    volume = volume_of(1, [0, 2, 8])
    assert (volume.tokens, volume.attended / volume.tokens) == (8, 5.0)
    shape = SHAPES["aquila-tiny"]
    attention = shape.flops_per_token(5) - shape.flops_per_token(0)
    assert attention == 12 * shape.num_layers * shape.hidden_size * 5
