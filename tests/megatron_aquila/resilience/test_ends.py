"""How the trainer ends and begins again within one process: asked by a signal, sent back by a policy, refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from megatron_aquila import checkpoint, events, metrics, trainer
from megatron_aquila.config import RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.parallel import parallel_world
from megatron_aquila.errors import TrainingError
from megatron_aquila.events import goodput
from megatron_aquila.resilience import ledger
from megatron_aquila.resilience.ledger import LedgerError
from megatron_aquila.resilience.signals import Stopped, StopSignals
from megatron_aquila.trainer import Trainer, train
from tests.megatron_aquila.corpora import recipe
from tests.megatron_aquila.test_resume import assert_same_run
from tests.world import world


def named(output: Path) -> list[tuple[str, int]]:
    return [(event["event"], event["step"]) for event in events.read(output / events.FILE)]


# -- signals ------------------------------------------------------------------------------------------------


def end_when_asked(run: RunConfig, at: tuple[int, int] | None) -> str:
    """Train on; the last rank is asked to end before the first step, or at batch `at[1]` of evaluation `at[0]`."""
    with parallel_world(run, choose_device("cpu")) as layout:
        signals = StopSignals()
        asked = layout.rank == layout.world_size - 1
        if at is None and asked:
            signals.received = "SIGTERM"
        begun = Trainer(run, torch.device("cpu"), layout, signals)
        schedule, batches = begun._run_schedule, 0

        def evaluating(*arguments: Any, forward_only: bool) -> Any:
            nonlocal batches
            batches += forward_only and at is not None and begun.step == at[0]
            if at is not None and asked and batches == at[1]:
                signals.received = "SIGUSR1"
            return schedule(*arguments, forward_only=forward_only)

        begun._run_schedule = evaluating  # type: ignore[method-assign]
        try:
            begun.run()
        except Stopped as stopped:
            return str(stopped)
        finally:
            begun.close()
    return ""


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    world(2, train, run=recipe(corpus, output, **_CHANGES))
    return output


_CHANGES: dict[str, Any] = {
    "training__steps": 4,
    "checkpoint__every": 3,
    "checkpoint__best": True,
    "evaluation__every": 2,
    "evaluation__batches": 3,
}


def test_asked_before_the_first_step_nothing_is_trained(corpus: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", **_CHANGES)
    said = world(2, end_when_asked, run=run, at=None)
    assert said == [
        f"stopped by {name} after step 0 of 4, before another: the same command goes on"
        for name in ("a signal to another rank", "SIGTERM")
    ]
    assert named(run.output) == [("start", 0), ("stopped", 0)]
    assert ledger.read(run.output / ledger.FILE) == [] == list(run.output.glob("checkpoints/step-*"))


@pytest.mark.parametrize("step", [2, 4])
def test_asked_in_an_evaluation_it_is_broken_off_and_made_again(
    step: int, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    """Weights, validation losses and the best checkpoint of a run that nobody asked to end."""
    run = recipe(corpus, tmp_path / "run", **_CHANGES)
    said = world(2, end_when_asked, run=run, at=(step, 2))
    assert all(f"after step {step} of 4, and saved" in sentence for sentence in said)
    assert named(run.output)[-2:] == [("saved", step), ("stopped", step)]
    assert checkpoint.open_checkpoint(run.output / "checkpoints" / f"step-{step:08d}").state["measured"] is False
    assert world(2, end_when_asked, run=run, at=None if step > 4 else (9, 9)) == ["", ""]
    assert_same_run(run.output, whole, steps=4)
    best, expected = (checkpoint.open_checkpoint(output) for output in (run.output, whole))
    assert (best.step, best.state["best"]) == (expected.step, expected.state["best"])
    evaluated = [record["step"] for record in metrics.read(run.output / metrics.FILE) if "validation/loss" in record]
    assert evaluated == [2, 4]


# -- two processes in one folder -----------------------------------------------------------------------------


def train_beside(run: RunConfig) -> str:
    """Train; a second run of the same recipe begins, and ends, while the third step of the first is under way."""
    with parallel_world(run, choose_device("cpu")) as layout:
        first = Trainer(run, torch.device("cpu"), layout)
        step = first._train_step

        def stepping() -> dict[str, float]:
            if first.step == 2:
                second = Trainer(run, torch.device("cpu"), layout)
                second.run()
                second.close()
            return step()

        first._train_step = stepping  # type: ignore[method-assign]
        with pytest.raises(TrainingError) as refused:
            first.run()
        first.close()
        return str(refused.value)


def test_of_two_processes_in_one_folder_the_last_to_begin_goes_on(corpus: Path, whole: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", **_CHANGES)
    for said in world(2, train_beside, run=run):
        assert "another process has begun to train in the same folder" in said and "at step 3" in said
    assert_same_run(run.output, whole, steps=4)
    assert ledger.verify(run.output / ledger.FILE) == []


# -- going back ---------------------------------------------------------------------------------------------


def go_back(run: RunConfig) -> None:
    """Train with a loss at step 4 that is no number."""
    calls = 0

    class Watched(Trainer):
        def _run_schedule(self, *arguments: Any, forward_only: bool) -> Any:
            nonlocal calls
            report = super()._run_schedule(*arguments, forward_only=forward_only)
            calls += not forward_only
            if calls == 4 and not forward_only:
                report.means["loss"] = float("nan")
            return report

    with mock.patch.object(trainer, "Trainer", Watched):
        train(run)


@pytest.mark.parametrize("sharding", ["optimizer", "full"])
def test_going_back_takes_the_runs_own_checkpoints(sharding: str, corpus: Path, tmp_path: Path) -> None:
    """Also with resume=never, which is said of what was there before; and the seconds of all add up."""
    run = recipe(
        corpus,
        tmp_path / "run",
        **{**_CHANGES, "checkpoint__every": 2, "checkpoint__best": False},
        parallel__sharding=sharding,
        checkpoint__resume="never",
        checkpoint__asynchronous=True,
        resilience__nonfinite="rollback",
    )
    world(2, go_back, run=run)
    told = events.read(run.output / events.FILE)
    assert [(event["event"], event["step"]) for event in told if event["event"] in ("anomaly", "resume", "end")] == [
        ("anomaly", 4),
        ("resume", 2),
        ("end", 4),
    ]
    assert [line["step"] for line in ledger.read(run.output / ledger.FILE) if line.get("skipped")] == [4]
    spent = goodput(told, metrics.read(run.output / metrics.FILE))
    assert spent is not None and (spent.restarts, spent.steps_repeated) == (1, 2)
    began = told[0]["time"] - told[0]["seconds"]
    assert spent.total_seconds == pytest.approx(told[-1]["time"] - began, abs=0.02)
    assert sum(spent.by_kind.values()) == pytest.approx(spent.total_seconds, abs=0.02)


# -- refused ------------------------------------------------------------------------------------------------


def refused(run: RunConfig) -> tuple[str, list[str]]:
    """What a trainer says that cannot be built, and the threads that it leaves."""
    try:
        train(run)
    except LedgerError as error:
        return str(error), [thread.name for thread in threading.enumerate() if "watchdog" in thread.name]
    return "", []


def test_a_trainer_that_cannot_be_built_leaves_no_threads(corpus: Path, whole: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", **_CHANGES)
    world(1, train, run=run)
    path = run.output / ledger.FILE
    lines = path.read_text().splitlines()
    altered = {**json.loads(lines[1]), "samples": 9}
    path.write_text("\n".join([lines[0], json.dumps(altered), *lines[2:], ""]))
    [(said, threads)] = world(1, refused, run=run)
    assert "line 2 was altered" in said and threads == []
