"""Tiny runs to break: data, layouts, runs that nothing happened to, and what a run must have in common with one."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from megatron_aquila import events, metrics
from megatron_aquila.checkpoint import FOLDER, open_checkpoint
from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.resilience import ledger
from tests.faults.injection import Fault
from tests.faults.ranks import End, RanksRunning, run_ranks
from tests.megatron_aquila.conversations import build_conversations, conversation_recipe
from tests.megatron_aquila.corpora import build_corpus, recipe, write_recipe

STEPS = 8
TOLERANCE = 1e-6
"""How far a weight may be from the reference's where a run was laid out anew on the way."""


@dataclass(frozen=True)
class Layout:
    name: str
    size: int
    changes: dict[str, Any] = field(hash=False)


def _layout(name: str, size: int, **parallel: Any) -> Layout:
    changes = {f"parallel__{key}": value for key, value in parallel.items()}
    replicas = size // (
        parallel.get("tensor_parallel", 1) * parallel.get("pipeline_parallel", 1) * parallel.get("context_parallel", 1)
    )
    return Layout(name, size, {**changes, "training__micro_batch_size": 1 if replicas == 4 else 2})


ONE = _layout("one rank", 1)
TP2 = _layout("TP2", 2, tensor_parallel=2)
PP2 = _layout("PP2", 2, pipeline_parallel=2)
DP2 = _layout("DP2", 2)
DP2_UNSHARDED = _layout("DP2 unsharded", 2, sharding="none")
FULL2 = _layout("DP2 full", 2, sharding="full")
TP2_DP2 = _layout("TP2+SP×DP2", 4, tensor_parallel=2, sequence_parallel=True)
TP2_PP2 = _layout("TP2×PP2", 4, tensor_parallel=2, pipeline_parallel=2)
LAYOUTS: tuple[Layout, ...] = (
    ONE,
    TP2,
    _layout("TP2+SP", 2, tensor_parallel=2, sequence_parallel=True),
    PP2,
    _layout("PP2×VPP2", 2, pipeline_parallel=2, virtual_pipeline=2),
    DP2,
    DP2_UNSHARDED,
    FULL2,
    TP2_PP2,
    TP2_DP2,
    _layout("PP2×DP2", 4, pipeline_parallel=2),
    _layout("TP2×DP2 full", 4, tensor_parallel=2, sharding="full"),
    _layout("TP4", 4, tensor_parallel=4),
    _layout("PP4", 4, pipeline_parallel=4),
    _layout("DP4", 4),
    *([_layout("CP2", 2, context_parallel=2)] if "context_parallel" in ParallelConfig.model_fields else []),
)

_SHAPE = {
    "hidden_size": 16,
    "num_layers": 4,
    "num_attention_heads": 4,
    "num_query_groups": 4,
    "ffn_hidden_size": 32,
    "vocab_size": 1000,
    "max_position_embeddings": 128,
}
# eps: Adam divides by the root of the gradient's square, and a larger one keeps rounding of zeros from being learned
_CHANGES: dict[str, Any] = {
    "model__shape": _SHAPE,
    "model__hidden_dropout": 0.0,
    "optimizer__lr": 1e-3,
    "optimizer__eps": 1e-5,
    "checkpoint__every": 2,
    "evaluation__every": 0,
    "resilience__ledger": "ids",
}
_TEXT: dict[str, Any] = {
    "training__steps": STEPS,
    "training__global_batch_size": 4,
    "data__sequence_length": 16,
}
DROPOUT: dict[str, Any] = {"model__hidden_dropout": 0.1}


class Workplace:
    """A folder in which runs are broken; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._references: dict[str, Path] = {}
        self._busy: dict[str, threading.Lock] = {}

    @cached_property
    def _corpus(self) -> Path:
        return build_corpus(self.directory / "corpus")

    @cached_property
    def _conversations(self) -> Path:
        return build_conversations(self.directory / "conversations")

    def folder(self, name: str) -> Path:
        """A new one."""
        return self.directory / "runs" / f"{next(self._numbers):04d}-{name}"

    def recipe(self, output: Path, layout: Layout, stage: str = "cpt", **changes: Any) -> RunConfig:
        merged = {**_CHANGES, **layout.changes, **changes}
        with self._lock:
            if stage == "cpt":
                merged = {"data__cache": str(self.directory / "cache"), **_TEXT, **merged}
                return recipe(self._corpus, output, **merged)
            merged = {"data__cache": str(self.directory / f"cache-{stage}"), **merged}
            if stage == "dpo":
                # What both answers of a pair have cancels in the gradient, but for its rounding, which Adam takes for a
                # direction: a step of the learning rate must be small beside the tolerance, or it is met by luck.
                merged["optimizer__lr"] = 1e-4
            return conversation_recipe(self._conversations, output, stage, **merged)

    def start(
        self, output: Path, layout: Layout, stage: str = "cpt", faults: Sequence[Fault] = (), **changes: Any
    ) -> RanksRunning:
        output.parent.mkdir(parents=True, exist_ok=True)
        run = write_recipe(self.recipe(output, layout, stage, **changes), output.with_suffix(".json"))
        return RanksRunning(layout.size, ["train", run], output.with_suffix(".logs"), faults)

    def train(
        self,
        output: Path,
        layout: Layout,
        stage: str = "cpt",
        faults: Sequence[Fault] = (),
        *,
        patience: float = 20.0,
        **changes: Any,
    ) -> list[End]:
        """`aquila train` in `output`, to whatever end."""
        return self.start(output, layout, stage, faults, **changes).ends(patience=patience)

    def train_at(self, run: RunConfig, file: Path, layout: Layout) -> list[End]:
        """`aquila train` of a recipe that is kept elsewhere than beside the run."""
        return run_ranks(layout.size, ["train", write_recipe(run, file)], file.with_suffix(".logs"))

    def finish(self, output: Path, layout: Layout, stage: str = "cpt", **changes: Any) -> str:
        """`aquila train` in `output`, which must end well; what it printed."""
        ends = self.train(output, layout, stage, **changes)
        assert [end.code for end in ends] == [0] * layout.size, tail(ends)
        return "".join(end.output for end in ends)

    def reference(self, layout: Layout, stage: str = "cpt", **changes: Any) -> Path:
        """A run that nothing happened to. Made once."""
        key = json.dumps([layout.name, stage, changes], sort_keys=True, default=str)
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            if key not in self._references:
                output = self.folder(f"reference-{stage}")
                self.finish(output, layout, stage, **changes)
                self._references[key] = output
        return self._references[key]


def tail(ends: Sequence[End]) -> str:
    """What ranks said last, for a failure's message."""
    return "\n".join(f"rank {rank}: {end.code}: …{end.output[-1500:]}" for rank, end in enumerate(ends))


def losses(output: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm by step."""
    return {
        record["step"]: (record["train/loss"], record["train/grad_norm"])
        for record in metrics.read(output / metrics.FILE)
        if "train/loss" in record
    }


def tensors(output: Path) -> dict[str, torch.Tensor]:
    """Weights and optimizer state of the newest checkpoint."""
    reader = open_checkpoint(output).reader()
    return {key: reader.read(key) for key in reader.keys() if not key.startswith("random.")}  # noqa: SIM118


def saved_steps(output: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (output / FOLDER).glob("step-*") if path.name[5:].isdigit())


def difference(output: Path, reference: Path, *, exact: bool) -> float:
    """How far the weights and optimizer states of the last step are apart; with `exact`, every bit must agree.

    The losses must, too, and the samples that were trained on; each must have been trained on once (an epoch).
    """
    assert open_checkpoint(output).step == open_checkpoint(reference).step
    expected_losses, found_losses = losses(reference), losses(output)
    if exact:
        assert found_losses == expected_losses
    else:
        assert found_losses.keys() == expected_losses.keys()
        for step, (loss, norm) in found_losses.items():
            assert abs(loss - expected_losses[step][0]) < 1e-5, step
            assert abs(norm - expected_losses[step][1]) < 1e-3 * expected_losses[step][1], step
    expected, found = tensors(reference), tensors(output)
    assert found.keys() == expected.keys()
    furthest = 0.0
    for key, value in found.items():
        if exact:
            assert torch.equal(value, expected[key]), key
        else:
            furthest = max(furthest, float((value.double() - expected[key].double()).abs().max()))
    assert furthest < TOLERANCE, furthest
    trained = samples(output)
    assert trained == samples(reference)
    assert_each_once(trained)
    return furthest


def samples(output: Path) -> list[list[tuple[int, ...]]]:
    """What every step was trained on, of a ledger without a fault."""
    path = output / ledger.FILE
    assert ledger.verify(path) == []
    lines = ledger.read(path)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [sorted(tuple(sample) for sample in line["ids"]) for line in lines]


def assert_each_once(trained: Sequence[Sequence[tuple[int, ...]]]) -> None:
    """No sample twice; of dialogues and pairs, (epoch, number): the epochs have the same ones."""
    counts = Counter(itertools.chain.from_iterable(trained))
    assert counts and max(counts.values()) == 1, [sample for sample, count in counts.items() if count > 1]
    if len(next(iter(counts))) == 2:
        epochs: dict[int, set[int]] = {}
        for epoch, number in counts:
            epochs.setdefault(epoch, set()).add(number)
        assert len({frozenset(members) for members in epochs.values()}) == 1


def repeated(output: Path) -> int:
    """Steps that were trained again, over all restarts of a run."""
    found = events.goodput(events.read(output / events.FILE), metrics.read(output / metrics.FILE))
    assert found is not None
    return found.steps_repeated
