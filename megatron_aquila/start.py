"""What a stage may do with the model before training begins: run it forward with one set of weights or another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import MicroBatch
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.step import run_schedule
from megatron_aquila.engine.weights import load_weights
from megatron_aquila.initial_weights import fingerprint, open_weights
from megatron_aquila.resilience.signals import Stopped, StopSignals
from megatron_aquila.resilience.step_end import wanted_end
from megatron_aquila.shapes import ModelShape


class Preparation:
    """A `stages.Start`, over bare model chunks: there are no gradient buffers and no optimizer yet."""

    def __init__(
        self,
        run: RunConfig,
        shape: ModelShape,
        chunks: Sequence[torch.nn.Module],
        layout: Layout,
        device: torch.device,
        signals: StopSignals,
    ) -> None:
        self._run, self._shape, self._chunks, self._device, self._signals = run, shape, chunks, device, signals
        self._loaded: list[Path | None] = []  # the weights in the model, once there are any
        self.layout = layout

    def fingerprint(self, weights: Path | None) -> str:
        return fingerprint(self._run, weights or self._run.model.weights, self._shape, self.layout)

    def load(self, weights: Path | None) -> None:
        """Fill the model with the weights at `weights`, or those that training starts from, unless it has them."""
        path = weights or self._run.model.weights
        if self._loaded != [path]:
            found = open_weights(self._run, path, self._shape, self.layout)
            load_weights(self._chunks, self._shape, self.layout, found.reader, found.prefix)
            self._loaded = [path]

    def forward(
        self,
        weights: Path | None,
        batches: Sequence[MicroBatch],
        record: Callable[[torch.Tensor, MicroBatch], None],
    ) -> None:
        """Raises Stopped instead, on all ranks, where a signal has asked one of them to end."""
        stop = wanted_end(self.layout, self._signals)
        if stop:
            raise Stopped(f"stopped by {stop} while {self._run.stage} prepares its start: the same command goes on")
        self.load(weights)

        def keep(logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
            record(logps, batch)
            return logps.sum(), torch.ones((), dtype=torch.int64, device=logps.device), {}

        run_schedule(self._chunks, batches, keep, metric_names=(), device=self._device, forward_only=True)
