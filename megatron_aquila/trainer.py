"""The loop: from a configuration to a trained model, one stage at a time.

Read it top to bottom: `train` joins the world, `Trainer.__init__` builds everything, `Trainer.run` steps.
"""

from __future__ import annotations

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from megatron_aquila import checkpoint, metrics
from megatron_aquila.config import RunConfig
from megatron_aquila.config_loader import config_hash, dump_config
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.datasets.sampler import micro_batch_indices
from megatron_aquila.engine.device import choose_device, memory_bytes
from megatron_aquila.engine.model import build_model
from megatron_aquila.engine.optimizer import (
    OptimizerState,
    build_optimizer,
    gather_parameters,
    set_learning_rate,
    wrap_data_parallel,
)
from megatron_aquila.engine.parallel import Layout, parallel_world
from megatron_aquila.engine.snapshot import Snapshot
from megatron_aquila.engine.step import apply_update, clear_gradients, run_schedule
from megatron_aquila.engine.weights import RandomWeights, load_weights
from megatron_aquila.errors import AquilaError, ConfigError
from megatron_aquila.global_tensors import TensorReader
from megatron_aquila.huggingface import HuggingFaceReader, is_huggingface
from megatron_aquila.schedule import learning_rate
from megatron_aquila.shapes import ModelShape
from megatron_aquila.stages import Dataset, load_stage


class TrainingError(AquilaError):
    """Training cannot go on without becoming wrong."""


def train(run: RunConfig) -> None:
    """Train as `run` says, from the newest sound checkpoint of `run.output` if there is one.

    Every process of the world calls it. Writes checkpoints, `metrics.jsonl`, TensorBoard events and the resolved
    configuration under `run.output`.
    """
    device = choose_device(run.device)
    with parallel_world(run, device) as layout:
        Trainer(run, device, layout).run()


class Trainer:
    def __init__(self, run: RunConfig, device: torch.device, layout: Layout) -> None:
        self.settings, self.device, self.layout = run, device, layout
        torch.use_deterministic_algorithms(run.training.deterministic)

        self.stage = load_stage(run.stage)(run)
        self.shape = self.stage.shape
        self.train_data, self.valid_data = self.stage.datasets()

        chunks, config = build_model(run, self.shape, device)
        self.checkpoints = run.output / checkpoint.FOLDER
        resumed = self._find_checkpoint()
        # Before the optimizer is built: its float32 values start as a copy of the weights, vocabulary padding included.
        reader, prefix = self._initial_weights() if resumed is None else self._weights_of(resumed)
        load_weights(chunks, self.shape, layout, reader, prefix)
        self.chunks = wrap_data_parallel(run, config, chunks)
        self.optimizer = build_optimizer(run, config, self.chunks)
        self.snapshot = Snapshot(
            self.chunks, self.shape, layout, OptimizerState(self.optimizer, self.chunks, self.shape, layout)
        )
        self.step = 0
        self.updates = 0  # applied optimizer steps: fewer than `step` where fp16 overflowed
        self.samples = 0
        self.tokens = 0.0  # supervised
        if resumed is not None:
            self._resume(resumed)

        self._prepare_output()
        self.throughput = metrics.Throughput(metrics.peak_tflops(run.logging.peak_tflops, device), layout.world_size)
        self.sinks: list[metrics.Sink] = self._open_sinks() if layout.is_main else []

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        run, total = self.settings, self.settings.total_steps
        self._announce(total)
        while self.step < total:
            values = self._train_step()
            if self.step % run.logging.every == 0 or self.step == total:
                self._report({**values, **self.throughput.report(), **self._memory()})
            if run.evaluation.every and (self.step % run.evaluation.every == 0 or self.step == total):
                self._report(self._evaluate())
                self.throughput.restart()
            if self.step % run.checkpoint.every == 0 or self.step == total:
                self._save()
                self.throughput.restart()
        for sink in self.sinks:
            sink.close()

    def _train_step(self) -> dict[str, float]:
        run = self.settings
        lr = learning_rate(self.step + 1, run.total_steps, run.optimizer)
        set_learning_rate(self.optimizer, lr)
        clear_gradients(self.chunks, self.optimizer)
        batches = self._micro_batches(self.train_data, self.samples)
        means = self._run_schedule(batches, forward_only=False)
        if not math.isfinite(means["loss"]):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {means['loss']} on samples {self.samples} to "
                f"{self.samples + run.training.global_batch_size - 1}; the weights were not updated with it"
            )
        update = apply_update(self.optimizer)
        if update.applied and not math.isfinite(update.grad_norm):
            raise TrainingError(f"step {self.step + 1}: the gradient norm is {update.grad_norm}")

        self.step += 1
        self.updates += update.applied
        self.samples += run.training.global_batch_size
        count = means.pop("count")
        self.tokens += count
        total_tokens = run.training.global_batch_size * run.data.sequence_length
        self.throughput.add(total_tokens, total_tokens * self.shape.flops_per_token(_mean_attended(batches)))
        return {
            **{f"train/{name}": value for name, value in means.items()},
            "train/lr": lr,
            "train/grad_norm": update.grad_norm,
            "train/supervised_tokens": self.tokens,
            "train/samples": float(self.samples),
        }

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Mean loss over the first `evaluation.batches` global batches of the validation data: always the same."""
        if self.valid_data is None:
            return {}
        gather_parameters(self.chunks)
        for chunk in self.chunks:
            chunk.eval()
        batches = [
            batch
            for index in range(self.settings.evaluation.batches)
            for batch in self._micro_batches(self.valid_data, index * self.settings.training.global_batch_size)
        ]
        means = self._run_schedule(batches, forward_only=True)
        for chunk in self.chunks:
            chunk.train()
        means.pop("count")
        return {f"validation/{name}": value for name, value in means.items()}

    def _run_schedule(self, batches: list[MicroBatch], *, forward_only: bool) -> dict[str, float]:
        run = self.settings
        return run_schedule(
            self.chunks,
            batches,
            self.stage.loss,
            metric_names=self.stage.metric_names,
            tokens_per_micro_batch=run.training.micro_batch_size * run.data.sequence_length,
            device=self.device,
            forward_only=forward_only,
        )

    def _micro_batches(self, dataset: Dataset, first: int) -> list[MicroBatch]:
        """This rank's micro-batches of the global batch that begins at sample `first`."""
        training = self.settings.training
        indices = micro_batch_indices(
            first,
            global_batch_size=training.global_batch_size,
            micro_batch_size=training.micro_batch_size,
            data_rank=self.layout.data_rank,
            data_size=self.layout.data_size,
        )
        return [self.stage.collate([dataset[index] for index in micro_batch]) for micro_batch in indices]

    # -- weights and checkpoints ------------------------------------------------------------------------------

    def _initial_weights(self) -> tuple[TensorReader, str]:
        run = self.settings
        path = run.model.weights
        if path is None:
            return RandomWeights(self.shape, run.seed, run.model.init_std), ""
        if is_huggingface(path):
            reader = HuggingFaceReader(path)
            _require_same_shape(path, reader.shape, self.shape)
            return reader, ""
        chosen = checkpoint.open_checkpoint(path, run.checkpoint.verify).path if self.layout.is_main else None
        source = checkpoint.open_checkpoint(self.layout.broadcast(chosen), "sizes")  # rank 0 has verified it
        return self._weights_of(source)

    def _weights_of(self, source: checkpoint.Checkpoint) -> tuple[TensorReader, str]:
        _require_same_shape(source.path, ModelShape.model_validate(source.state["shape"]), self.shape)
        return source.reader(), "model."

    def _find_checkpoint(self) -> checkpoint.Checkpoint | None:
        """The checkpoint to go on from, as `checkpoint.resume` says."""
        run = self.settings
        if run.checkpoint.resume == "never":
            found = self.layout.broadcast(any(self.checkpoints.glob("step-*")) if self.checkpoints.exists() else False)
            if found:
                raise ConfigError(
                    f"checkpoint.resume=never, but {self.checkpoints} holds checkpoints: give another output, "
                    "or remove them"
                )
            return None
        checkpoint.sweep(self.checkpoints, self.layout)
        found = checkpoint.find(self.checkpoints, verify=run.checkpoint.verify, communicator=self.layout)
        if found is None and run.checkpoint.resume == "required":
            raise ConfigError(f"checkpoint.resume=required, but {self.checkpoints} holds no checkpoint")
        return found

    def _resume(self, source: checkpoint.Checkpoint) -> None:
        state = source.state
        if state["data"] != self.stage.digest():
            raise ConfigError(
                f"{source.path} was trained on other data, or in another order, than this recipe gives: "
                "restore data, seed, batch size and steps, or start another run with model.weights"
            )
        self.step, self.updates = state["step"], state["updates"]
        self.samples, self.tokens = state["samples"], state["tokens"]
        self.snapshot.load(source.reader(), state)

    def _save(self) -> None:
        gather_parameters(self.chunks)
        run = self.settings
        state = {
            "step": self.step,
            "updates": self.updates,
            "samples": self.samples,
            "tokens": self.tokens,
            "data": self.stage.digest(),
            "shape": self.shape.model_dump(),
            "tokenizer": self.stage.tokenizer.digest,
            "config": dump_config(run),
            "config_hash": config_hash(run),
            **self.snapshot.state(),
        }
        checkpoint.save(
            self.checkpoints,
            self.step,
            self.snapshot.write,
            state=state,
            keep=run.checkpoint.keep,
            communicator=self.layout,
        )

    # -- output -----------------------------------------------------------------------------------------------

    def _prepare_output(self) -> None:
        """The run's folder, with the resolved configuration and its own copy of the tokenizer."""
        if not self.layout.is_main:
            return
        output = self.settings.output
        (output / "tokenizer").mkdir(parents=True, exist_ok=True)
        (output / "config.yaml").write_text(dump_config(self.settings), encoding="utf-8")
        for file in self.stage.tokenizer.files:
            shutil.copyfile(file, output / "tokenizer" / Path(file).name)

    def _open_sinks(self) -> list[metrics.Sink]:
        run = self.settings
        sinks: list[metrics.Sink] = [
            metrics.JsonLines(run.output / metrics.FILE, self.step),
            metrics.ProgressLine(run.total_steps),
        ]
        if run.logging.tensorboard:
            sinks.append(metrics.TensorBoard(run.output / "tensorboard", self.step))
        return sinks

    def _announce(self, total: int) -> None:
        if self.layout.is_main:
            start = f"resumed at step {self.step}" if self.step else "from step 0"
            print(
                f"{self.settings.name}: {self.settings.stage} of {self.shape.parameters():,} parameters for {total} "
                f"steps on {self.layout.describe()} ({self.device.type}), {start}",
                flush=True,
            )

    def _report(self, values: dict[str, float]) -> None:
        if values:
            for sink in self.sinks:
                sink.write(self.step, values)

    def _memory(self) -> dict[str, float]:
        return {"memory/peak_gib": memory_bytes(self.device) / 2**30}


def _mean_attended(batches: list[MicroBatch]) -> float:
    """Token-weighted mean length of the documents: Σ len² / Σ len, of this rank's micro-batches."""
    lengths = [b - a for batch in batches for a, b in pairwise(batch.cu_seqlens)]
    return sum(length * length for length in lengths) / sum(lengths)


def _require_same_shape(where: Path, found: ModelShape, wanted: ModelShape) -> None:
    """Raise ConfigError naming each size that differs; token ids and the longest sequence may."""
    free = {"bos_id", "eos_id", "pad_id", "max_position_embeddings"}
    theirs: dict[str, Any] = found.model_dump(exclude=free)
    ours: dict[str, Any] = wanted.model_dump(exclude=free)
    differing = [f"{name} {theirs[name]} (not {ours[name]})" for name in ours if theirs[name] != ours[name]]
    if differing:
        raise ConfigError(f"{where} holds another model than model.shape says: {', '.join(differing)}")
