"""The loop: from a configuration to a trained model, one stage at a time.

Read it top to bottom: `train` joins the world, `Trainer.__init__` builds everything, `Trainer.run` steps.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch

from megatron_aquila import checkpoint, events, metrics
from megatron_aquila.config import RunConfig
from megatron_aquila.config_loader import config_hash, dump_config
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.engine import gpu_path
from megatron_aquila.engine.device import choose_device, memory_bytes
from megatron_aquila.engine.model import build_model
from megatron_aquila.engine.optimizer import (
    OptimizerState,
    build_optimizer,
    gather_parameters,
    release,
    set_learning_rate,
    wrap_data_parallel,
)
from megatron_aquila.engine.parallel import Layout, parallel_world, seed_ranks
from megatron_aquila.engine.replicas import differing_replicas
from megatron_aquila.engine.snapshot import Snapshot
from megatron_aquila.engine.step import StepReport, apply_update, clear_gradients, run_schedule
from megatron_aquila.engine.weights import load_weights
from megatron_aquila.errors import ConfigError, TrainingError
from megatron_aquila.evaluation.questions import TrainingQuestions
from megatron_aquila.events import EventLog
from megatron_aquila.initial_weights import weights_of
from megatron_aquila.layout import schedule_problems
from megatron_aquila.output import prepare_output
from megatron_aquila.resilience import ledger
from megatron_aquila.resilience.anomalies import Anomalies, Anomaly
from megatron_aquila.resilience.policy import Policy, RollBack
from megatron_aquila.resilience.signals import Stopped, StopSignals
from megatron_aquila.resilience.step_end import StepEnd, wanted_end
from megatron_aquila.resilience.watchdog import Watchdog
from megatron_aquila.saves import Saves, find_checkpoint
from megatron_aquila.schedule import learning_rate
from megatron_aquila.stages import Dataset, Stage, load_stage
from megatron_aquila.start import Preparation

logger = logging.getLogger(__name__)


def train(run: RunConfig) -> None:
    """Train as `run` says, from the newest sound checkpoint of `run.output` if there is one.

    Every process of the world calls it. Writes checkpoints, `metrics.jsonl`, `events.jsonl`, `ledger.jsonl`, answers to
    questions, TensorBoard events and the resolved configuration under `run.output`.

    Raises:
        Stopped: a signal asked for an end; the run is saved.
        TrainingError: it cannot go on without becoming wrong.
    """
    device = choose_device(run.device)
    with parallel_world(run, device) as layout, StopSignals() as signals:
        goes_back = False
        while True:
            trainer = Trainer(run, device, layout, signals, goes_back=goes_back)
            try:
                trainer.run()
                return
            except RollBack:
                goes_back = True
            finally:
                trainer.close()
            trainer.release()  # its weights go before the next one's come
            seed_ranks(run.seed)


def prepare(run: RunConfig) -> None:
    """Do what the stage does before training, and no more. Every process of the world calls it.

    Raises:
        ConfigError: the stage does nothing before training.
        Stopped: a signal asked for an end; what is computed is kept.
    """
    kind = load_stage(run.stage)
    if kind.prepare is Stage.prepare:
        raise ConfigError(f"the stage {run.stage} has nothing to compute before training")
    device = choose_device(run.device)
    with parallel_world(run, device) as layout, StopSignals() as signals:
        torch.use_deterministic_algorithms(run.training.deterministic)
        stage = kind(run)
        stage.datasets()
        chunks, _ = build_model(run, stage.shape, device)
        stage.prepare(Preparation(run, stage.shape, chunks, layout, device, signals))


class Trainer:
    def __init__(
        self,
        run: RunConfig,
        device: torch.device,
        layout: Layout,
        signals: StopSignals | None = None,
        *,
        goes_back: bool = False,
    ) -> None:
        """`goes_back`: to the last checkpoint of this very process, whatever `checkpoint.resume` says."""
        self._began = time.perf_counter()
        self.settings, self.device, self.layout = run, device, layout
        self._signals = signals or StopSignals()
        torch.use_deterministic_algorithms(run.training.deterministic)

        self.stage = load_stage(run.stage)(run)
        self.shape = self.stage.shape
        self.train_data, self.valid_data = self.stage.datasets()
        self.total_steps = self.train_data.steps
        problems = schedule_problems(run, self.total_steps)
        if problems:
            raise ConfigError("\n".join(problems))
        self.questions = TrainingQuestions(run, self.stage.tokenizer, self.shape, layout)

        chunks, config = build_model(run, self.shape, device)
        resumed = find_checkpoint(run, layout, goes_back=goes_back)
        preparation = Preparation(run, self.shape, chunks, layout, device, self._signals)
        self.stage.prepare(preparation)
        # Before the optimizer is built: its float32 values start as a copy of the weights, vocabulary padding included.
        if resumed is None:
            preparation.load(None)
        else:
            weights = weights_of(resumed, self.shape)
            load_weights(chunks, self.shape, layout, weights.reader, weights.prefix)
        self.chunks = wrap_data_parallel(run, config, chunks)
        self.optimizer = build_optimizer(run, config, self.chunks)
        self.snapshot = Snapshot(
            self.chunks, self.shape, layout, OptimizerState(self.optimizer, self.chunks, self.shape, layout)
        )
        self.step = 0  # the position in the data, too: a step's samples follow from its number
        self.updates = 0  # applied optimizer steps: fewer than `step` where fp16 overflowed
        self.samples = 0.0
        self.tokens = 0.0  # supervised, or pairs
        self.best = math.inf  # lowest validation loss so far
        self.anomalies = Anomalies(run.resilience)
        self._measured = True  # what is due after `step` has been measured
        self._trained_on: list[Any] | None = None  # this rank's rows of the last step; None: its batch was left out
        if resumed is not None:
            self._resume(resumed)
        self.questions.go_on(self.step)

        if layout.is_main:
            prepare_output(run, self.stage.tokenizer)
        layout.barrier()  # now there is a folder
        self.throughput = metrics.Throughput(
            metrics.peak_tflops(run.logging.peak_tflops, device), layout.world_size, self.stage.sample_name
        )
        with ExitStack() as opened:
            self.watchdog = Watchdog(run.output, layout.rank, world_size=layout.world_size)
            opened.callback(self.watchdog.close)
            self.events = self._open_events()
            opened.callback(self.events.close)
            past = events.read(run.output / events.FILE) if layout.is_main else []
            path = run.output / ledger.FILE if layout.is_main else None
            self.ledger = ledger.Ledger(path, self.step, run.resilience.ledger)
            opened.callback(self.ledger.close)
            anomalies = layout.broadcast([event for event in past if event["event"] == "anomaly"])
            self.policy = Policy(run.resilience, self.events, anomalies, layout.is_main)
            self.saves = Saves(run, layout, self.snapshot, self.events, self.watchdog)
            self.step_end = StepEnd(layout, self.ledger, self.events, self.saves, self._signals)
            self.sinks = metrics.open_sinks(run, self.step, self.total_steps) if layout.is_main else []
            for sink in self.sinks:
                opened.callback(sink.close)
            self._opened = opened.pop_all()

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        run, total = self.settings, self.total_steps
        self._announce()
        self._heed_signals(save=False)
        if self.step == 0 and self.stage.checks_start:
            self._check_start()
        if self.questions.without_start:
            self._ask(save=False)
        if not self._measured:
            self._measure_and_save(save=False)
        self.throughput.restart()
        while self.step < total:
            # The watchdog sees all of it: a device that hangs after the update is only waited for when ranks settle.
            with self.events.training(), self._limited("step", self.step + 1):
                values = self._train_step()
                own = None if self._trained_on is None else self._samples(self._trained_on)
                settled = self.step_end.settle(self.step, self._samples(self.train_data.step(self.step - 1)), own)
            if settled.written:
                self.saves.finish(self.step)
            if values and (self.step % run.logging.every == 0 or self.step == total):
                self._report({**values, **self.throughput.report(), **self._memory()})
            if settled.stop and self.step < total:
                self._stop(settled.stop)
            self._compare_replicas()
            self._measure_and_save(save=self.step % run.checkpoint.every == 0 or self.step == total)
        self.saves.finish(self.step)
        self.events.write("end", self.step)

    def _measure_and_save(self, *, save: bool) -> None:
        """Evaluate and ask what is due after this step, and save, if that is due or the step is the best so far."""
        run, total = self.settings, self.total_steps
        better, worse, best = False, "", self.best
        if run.evaluation.every and (self.step % run.evaluation.every == 0 or self.step == total):
            evaluated = self._evaluate()
            better = run.checkpoint.best and evaluated["validation/loss"] < self.best
            best = min(best, evaluated["validation/loss"])
            self._report(evaluated)
            self.throughput.restart()
        if run.evaluation.asks_at(self.step, total):
            worse = self._ask(save=True)
            self.throughput.restart()
        self.best, self._measured = best, True  # together: a stop before saves neither, and all is measured again
        halts = bool(worse) and run.evaluation.halt_when_worse and self.step < total
        if better or halts or save:
            self._save(best=better)
            self.throughput.restart()
        if halts:
            self.saves.finish(self.step)
            raise TrainingError(
                f"training was stopped at step {self.step}, which is saved: {worse}. Go on with "
                "evaluation.halt_when_worse=false, or train with more general text or a lower learning rate"
            )

    def _train_step(self) -> dict[str, float]:
        """The metrics of the next step; none where its batch was left out."""
        run, number = self.settings, self.step + 1
        if number in self.policy.gone_back_from:
            self._count_step(applied=False)
            return {}
        lr = learning_rate(number, self.total_steps, run.optimizer)
        set_learning_rate(self.optimizer, lr)
        clear_gradients(self.chunks, self.optimizer)
        own = self._own_rows(self.train_data, self.step)
        batches = self._collated(self.train_data, own)
        report = self._run_schedule(batches, forward_only=False)
        loss = report.means["loss"]
        anomaly = self.anomalies.of_loss(number, loss)
        if self._leaves_out(anomaly):
            return {}
        update = apply_update(self.optimizer)
        if not math.isfinite(update.grad_norm) and self._leaves_out(
            self.anomalies.of_gradient(number, update.grad_norm)
        ):
            return {}
        self.anomalies.accept(loss)
        self._count_step(applied=update.applied)
        self._trained_on = [row for rows in own for row in rows]
        self.samples += report.samples
        self.tokens += report.count
        computed = len(batches) * batches[0].tokens.numel() * self.layout.data_size
        flops = report.tokens * self.shape.flops_per_token(report.attended / report.tokens)
        self.throughput.add(report.samples, report.tokens, computed, flops)
        return {
            **{f"train/{name}": value for name, value in report.means.items()},
            "train/lr": lr,
            "train/grad_norm": update.grad_norm,
            "train/supervised_tokens": self.tokens,
            f"train/{self.stage.sample_name}": self.samples,
        }

    def _count_step(self, *, applied: bool) -> None:
        self.step += 1
        self.updates += applied
        self._measured = False
        self._trained_on = None

    def _leaves_out(self, anomaly: Anomaly | None) -> bool:
        """Whether the batch of the step under way is left out. Nothing has touched the weights yet."""
        if anomaly is None:
            return False
        try:
            leaves_out = self.policy.leaves_out(anomaly, self._samples(self.train_data.step(self.step)))
        except TrainingError:
            self.saves.finish(self.step)  # the one under way is of a step before
            raise
        if not leaves_out:
            return False
        if anomaly.policy == "rollback":
            self.saves.finish(self.step)
            raise RollBack
        self._count_step(applied=False)
        return True

    def _heed_signals(self, *, save: bool) -> None:
        """End the run, if any rank was asked to. Every rank calls it, before what takes long beside the steps."""
        stop = wanted_end(self.layout, self._signals)
        if stop and not (self.step == self.total_steps and self._measured):
            self._stop(stop, save=save)

    def _stop(self, signal: str, *, save: bool = True) -> None:
        """Save and end; what is due after this step is measured by the process that goes on."""
        if save:
            self._save(best=False)
        self.saves.finish(self.step)
        self.events.write("stopped", self.step, message=signal)
        raise Stopped(
            f"stopped by {signal} after step {self.step} of {self.total_steps}"
            f"{', and saved' if save else ', before another'}: the same command goes on"
        )

    def _limited(self, phase: str, step: int) -> AbstractContextManager[None]:
        return self.watchdog.phase(phase, step, self.settings.resilience.step_timeout)

    def _part(self, phase: str, *, save: bool) -> AbstractContextManager[None]:
        """Around a part of what takes long beside the steps: signals are heeded before it, the watchdog sees it."""
        self._heed_signals(save=save)
        return self._limited(phase, self.step)

    def _compare_replicas(self) -> None:
        every = self.settings.resilience.replica_check_every
        if not every or self.step % every:
            return
        with self._limited("replicas", self.step):
            gather_parameters(self.chunks)
            differing = differing_replicas(self.chunks, self.layout)
        if differing:
            message = (
                f"step {self.step}: ranks that must hold the same weights hold different ones: "
                f"{'; '.join(differing[:5])}{' …' if len(differing) > 5 else ''}. A device fails, or a library does "
                "not compute the same everywhere: start again from the last checkpoint, without that device"
            )
            self.events.write("replicas", self.step, message=message)
            raise TrainingError(message)

    def _evaluate(self) -> dict[str, float]:
        """Means over the first `evaluation.batches` global batches of the validation data, or over all: always the
        same samples.
        """
        data, wanted = self.valid_data, self.settings.evaluation.batches
        assert data is not None  # a stage gives it where evaluation is asked for
        count, sums = 0.0, dict.fromkeys(("loss", *self.stage.metric_names), 0.0)
        with self.events.timed("evaluated", self.step):
            gather_parameters(self.chunks)
            for number in range(data.steps if wanted is None else min(wanted, data.steps)):
                with self._part("evaluation", save=True):
                    report = self._run_schedule(self._micro_batches(data, number), forward_only=True)
                count += report.count
                for name, value in report.means.items():
                    sums[name] += value * report.count
        return {f"validation/{name}": total / count for name, total in sums.items()}

    def _ask(self, *, save: bool) -> str:
        """Put the questions; what became worse of general ability, or nothing. `save`: before a signal ends the run."""
        part = partial(self._part, "questions", save=save)
        with self.events.timed("questions", self.step):
            gather_parameters(self.chunks)
            standings = self.questions.ask(self.chunks, self.device, self.step, part)
        self._report({name: value for found in standings for name, value in found.metrics().items()})
        if self.layout.is_main:
            print("  ".join(["questions", *map(str, standings)]), flush=True)
        worse = [str(found) for found in standings if found.is_alarm]
        for sentence in worse:
            self.events.write("warning", self.step, message=sentence)
        return "; ".join(worse)

    def _check_start(self) -> None:
        with self._limited("evaluation", 0):
            gather_parameters(self.chunks)
            report = self._run_schedule(self._micro_batches(self.train_data, 0), forward_only=True)
        wrong = self.stage.check_start(report.means)
        if wrong:
            raise TrainingError(f"training was not begun: {wrong}")

    def _run_schedule(self, batches: list[MicroBatch], *, forward_only: bool) -> StepReport:
        return run_schedule(
            self.chunks,
            batches,
            self.stage.loss,
            metric_names=self.stage.metric_names,
            device=self.device,
            forward_only=forward_only,
        )

    def _own_rows(self, data: Dataset, step: int) -> list[list[Any]]:
        """This rank's rows of the global batch of step `step`, one list a micro-batch."""
        return self.layout.deal(data.step(step), self.settings.training.micro_batch_size)

    def _collated(self, data: Dataset, rows: list[list[Any]]) -> list[MicroBatch]:
        return [self.stage.collate([data[row] for row in micro_batch]) for micro_batch in rows]

    def _micro_batches(self, data: Dataset, step: int) -> list[MicroBatch]:
        return self._collated(data, self._own_rows(data, step))

    def _samples(self, rows: Sequence[Any]) -> list[tuple[int, ...]]:
        return [sample for row in rows for sample in self.train_data.samples(row)]

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _resume(self, source: checkpoint.Checkpoint) -> None:
        state = source.state
        if state["data"] != self.stage.digest():
            raise ConfigError(
                f"{source.path} was trained on other data, or in another order, than this recipe gives: "
                "restore data, seed, batch size and steps, or start another run with model.weights"
            )
        self.step, self.updates = state["step"], state["updates"]
        self.samples, self.tokens = state["samples"], state["tokens"]
        self.best = math.inf if state["best"] is None else state["best"]
        self.anomalies.load(state.get("anomalies", {"losses": ()}))  # version 0.1 knew neither
        self._measured = state.get("measured", True)
        self.snapshot.load(source.reader(), state)

    def _save(self, *, best: bool) -> None:
        run = self.settings
        with self.watchdog.phase("save", self.step, run.resilience.save_timeout):
            gather_parameters(self.chunks)
            self.ledger.sync()
        state = {
            "step": self.step,
            "updates": self.updates,
            "samples": self.samples,
            "tokens": self.tokens,
            "best": None if math.isinf(self.best) else self.best,
            "measured": self._measured,
            "anomalies": self.anomalies.state(),
            "data": self.stage.digest(),
            "chat_template": self.stage.chat_template,
            "shape": self.shape.model_dump(),
            "tokenizer": self.stage.tokenizer.digest,
            "config": dump_config(run),
            "config_hash": config_hash(run),
            **self.snapshot.state(),
        }
        self.saves.begin(self.step, state, best=best)

    # -- output -----------------------------------------------------------------------------------------------

    def _open_events(self) -> EventLog:
        """The run's events, of which the first of this process has just come."""
        path = self.settings.output / events.FILE
        log = EventLog(path if self.layout.is_main else None, self.step)
        reached = max((record["step"] for record in metrics.read(path.with_name(metrics.FILE))), default=0)
        began = "resume" if self.step else "start"
        log.write(began, self.step, time.perf_counter() - self._began, reached=reached)
        return log

    def _announce(self) -> None:
        if not self.layout.is_main:
            return
        start = f"resumed at step {self.step}" if self.step else "from step 0"
        print(
            f"{self.settings.name}: {self.settings.stage} of {self.shape.parameters():,} parameters for "
            f"{self.total_steps} steps on {self.layout.describe()} ({self.device.type}), {start}",
            flush=True,
        )
        for line in gpu_path.describe(self.settings, self.shape, gpu_path.machine(self.device)):
            print(line, flush=True)
        about = self.stage.describe()
        if about:
            print(about, flush=True)

    def _report(self, values: dict[str, float]) -> None:
        if values:
            for sink in self.sinks:
                sink.write(self.step, values)

    def release(self) -> None:
        """Let go of weights, gradients and optimizer state; nothing can be done with this object afterwards."""
        release(self.chunks, self.optimizer)

    def close(self) -> None:
        """Close files and threads; whatever was saved or logged stays."""
        try:
            self._opened.close()
        except OSError as error:  # every line was flushed when it was written; what ended the run is said elsewhere
            logger.warning("a file under %s could not be closed: %s", self.settings.output, error)

    def _memory(self) -> dict[str, float]:
        return {"memory/peak_gib": memory_bytes(self.device) / 2**30}
