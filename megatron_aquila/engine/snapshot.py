"""Everything that training needs to go on: weights, optimizer state and random state, as global tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

from megatron_aquila.engine.fsdp import held_parts
from megatron_aquila.engine.optimizer import OptimizerState
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.placement import place_parameters
from megatron_aquila.shapes import ModelShape
from megatron_aquila.shards import Shard, ShardReader, shard_path, write_shards


class Snapshot:
    """Writes this rank's part of a checkpoint, and restores what is not weights from a checkpoint of any layout.

    Weights are loaded earlier, by `load_weights`: the optimizer copies them when it is built. Optimizer state is cut
    anew where the layout differs. Random states belong to a rank of a layout: on the same layout they are restored,
    on another they keep this run's seeds.
    """

    def __init__(
        self,
        chunks: Sequence[torch.nn.Module],
        shape: ModelShape,
        layout: Layout,
        optimizer: OptimizerState,
    ) -> None:
        self._chunks, self._shape, self._layout, self._optimizer = chunks, shape, layout, optimizer

    def write(self, directory: Path) -> None:
        write_shards(shard_path(directory, self._layout.rank), self._shards())

    def copied(self) -> Callable[[Path], None]:
        """What `write` would write now, copied to the host: to be written while training goes on."""
        shards = [replace(shard, data=shard.data.detach().to("cpu", copy=True)) for shard in self._shards()]
        path = partial(shard_path, rank=self._layout.rank)
        return lambda directory: write_shards(path(directory), shards)

    def state(self) -> dict[str, Any]:
        """The part that is not tensors; JSON-able."""
        return {"layout": self._layout.describe(), "loss_scaler": self._optimizer.scaler()}

    def load(self, reader: ShardReader, state: dict[str, Any]) -> None:
        self._optimizer.load(reader, state["updates"])
        self._optimizer.load_scaler(state["loss_scaler"])
        if state["layout"] == self._layout.describe():
            for name, set_state in self._random_setters():
                key = self._random_key(name)
                set_state(reader.read(key, (0,), reader.shape(key)))

    def _shards(self) -> Iterator[Shard]:
        held = held_parts(self._chunks)
        if held or self._layout.copy_rank == 0:
            for parameter, placement in place_parameters(self._chunks, self._shape, self._layout):
                if placement.writes:
                    flat, start = parameter.detach().view(-1), 0
                    if parameter in held:
                        flat, start = held[parameter].model, held[parameter].start
                    for view, offset in placement.views(flat, start):
                        yield Shard(f"model.{placement.name}", placement.global_shape, offset, view)
        for name, shape, offset, view in self._optimizer.blocks():
            yield Shard(name, shape, offset, view)
        for name, values in self._random_states().items():
            yield Shard(self._random_key(name), tuple(values.shape), (0,), values)

    def _random_key(self, name: str) -> str:
        return f"random.{self._layout.rank}.{name}"

    @staticmethod
    def _random_states() -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state(), "device": torch.cuda.get_rng_state()}
        return states | get_cuda_rng_tracker().get_states()

    @staticmethod
    def _random_setters() -> Iterator[tuple[str, Any]]:
        yield "device", torch.cuda.set_rng_state
        yield "cpu", torch.set_rng_state
        tracker = get_cuda_rng_tracker()
        states = tracker.get_states()
        for name in list(states):
            yield name, lambda value, name=name: tracker.set_states({**tracker.get_states(), name: value})
