"""Small runs on synthetic rows, for tests of the engine."""

from __future__ import annotations

from typing import Any

import torch

from megatron_aquila.config import RunConfig
from megatron_aquila.datasets.batch import IGNORE_INDEX, MicroBatch, document_bounds, make_batch, volume_of
from megatron_aquila.losses.language_modelling import negative_log_likelihood

TINY = {
    "hidden_size": 32,
    "num_layers": 4,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 48,
    "vocab_size": 203,
    "max_position_embeddings": 64,
    "qkv_bias": True,
}
LENGTH = 32
END_OF_DOCUMENT = 2


def tiny_run(**changes: Any) -> RunConfig:
    """A run of `TINY` over rows of `LENGTH` tokens; `changes` are dotted keys with `__` for the dot."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "device": "cpu",
        "model": {"shape": dict(TINY), "vocab_divisible_by": 16},
        "data": {"train": [{"path": "unused"}], "tokenizer": "unused", "sequence_length": LENGTH},
        "parallel": {"sharding": "none"},
        "training": {"steps": 20, "global_batch_size": 8, "micro_batch_size": 2, "precision": "fp32"},
        # Adam divides by the root of the gradient's square: a larger eps keeps rounding of zeros from being learned
        "optimizer": {"lr": 5e-3, "eps": 1e-5, "schedule": {"kind": "constant"}},
        "checkpoint": {"every": 1000},
        "evaluation": {"every": 0, "batches": 1},
    }
    for key, value in changes.items():
        section = tree
        *parents, leaf = key.split("__")
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return RunConfig.model_validate(tree)


def rows(count: int, vocab_size: int = TINY["vocab_size"]) -> torch.Tensor:  # type: ignore[assignment]
    """`[count, LENGTH + 1]` tokens with a structure to learn, and an end of document in every third row."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(3, vocab_size, (count, 1), generator=generator)
    stride = torch.randint(1, 4, (count, 1), generator=generator)
    tokens = 3 + (start + stride * torch.arange(LENGTH + 1)) % (vocab_size - 3)
    tokens[::3, 11] = END_OF_DOCUMENT
    return tokens


def micro_batch(tokens: torch.Tensor) -> MicroBatch:
    """Rows `[R, LENGTH + 1]` as one pack."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    labels = labels.masked_fill(inputs == END_OF_DOCUMENT, IGNORE_INDEX)
    bounds = document_bounds(inputs, END_OF_DOCUMENT)
    return make_batch(inputs.reshape(-1), labels.reshape(-1), bounds, volume_of(len(tokens), bounds))


def loss(logps: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    total, count = negative_log_likelihood(logps, batch.labels, IGNORE_INDEX)
    return total, count, {}


class Engine:
    """Model, optimizer and a step, as the trainer wires them."""

    def __init__(self, run: RunConfig, layout: Any, reader: Any = None, prefix: str = "") -> None:
        from megatron_aquila.engine.device import choose_device
        from megatron_aquila.engine.model import build_model
        from megatron_aquila.engine.optimizer import OptimizerState, build_optimizer, wrap_data_parallel
        from megatron_aquila.engine.snapshot import Snapshot
        from megatron_aquila.engine.weights import RandomWeights, load_weights

        self.run, self.layout = run, layout
        self.device = choose_device(run.device)
        self.shape = run.model.resolve()
        chunks, config = build_model(run, self.shape, self.device)
        load_weights(chunks, self.shape, layout, reader or RandomWeights(self.shape, 7, 0.05), prefix)
        self.chunks = wrap_data_parallel(run, config, chunks)
        self.optimizer = build_optimizer(run, config, self.chunks)
        state = OptimizerState(self.optimizer, self.chunks, self.shape, layout)
        self.snapshot = Snapshot(self.chunks, self.shape, layout, state)

    def batches(self, first: int, data: torch.Tensor) -> list[MicroBatch]:
        training = self.run.training
        return [
            micro_batch(data[indices])
            for indices in self.layout.deal(range(first, first + training.global_batch_size), training.micro_batch_size)
        ]

    def step(self, step: int, data: torch.Tensor, *, update: bool = True) -> dict[str, float]:
        """One step on the global batch number `step`, from 0."""
        from megatron_aquila.engine.optimizer import set_learning_rate
        from megatron_aquila.engine.step import apply_update, clear_gradients, run_schedule
        from megatron_aquila.schedule import learning_rate

        set_learning_rate(self.optimizer, learning_rate(step + 1, self.run.training.steps, self.run.optimizer))
        clear_gradients(self.chunks, self.optimizer)
        report = run_schedule(
            self.chunks,
            self.batches(step * self.run.training.global_batch_size, data),
            loss,
            metric_names=(),
            device=self.device,
            forward_only=not update,
        )
        norm = apply_update(self.optimizer).grad_norm if update else 0.0
        return {**report.means, "count": report.count, "grad_norm": norm}

    def weights(self) -> dict[str, torch.Tensor] | None:
        """All global tensors, gathered to every rank."""
        import tempfile
        from pathlib import Path

        from megatron_aquila.engine.optimizer import gather_parameters
        from megatron_aquila.shards import ShardReader

        gather_parameters(self.chunks)

        directory = Path(self.layout.broadcast(tempfile.mkdtemp()))
        self.snapshot.write(directory)
        self.layout.barrier()
        reader = ShardReader(directory)
        names = [key for key in reader.keys() if key.startswith("model.")]  # noqa: SIM118 - a reader is not a dict
        return {name: reader.read(name).clone() for name in names}
