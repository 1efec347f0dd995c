"""What a trainer held is given back before another is built in its place."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from megatron_aquila.config import RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.fsdp import FullySharded, to_local
from megatron_aquila.engine.optimizer import chained
from megatron_aquila.engine.parallel import parallel_world
from tests.megatron_aquila.corpora import recipe
from tests.world import world

if TYPE_CHECKING:
    from megatron_aquila.trainer import Trainer


def storages(trainer: Trainer) -> Iterator[torch.UntypedStorage]:
    """What holds weights, gradients, float32 values and moments."""
    tensors: list[torch.Tensor | None] = []
    for chunk in trainer.chunks:
        for parameter in chunk.parameters():
            tensors += [parameter, parameter.grad]
        if isinstance(chunk, FullySharded):
            for group in chunk.param_and_grad_buffer.parameter_groups:
                for held in (group.model_weight_buffer, group.main_weight_buffer, group.main_grad_buffer):
                    tensors.append(held and held.data)
        else:
            for buffer in chunk.buffers:
                tensors += [buffer.param_data, buffer.grad_data]
    for inner in chained(trainer.optimizer):
        for group in inner.optimizer.param_groups:
            tensors += group["params"]
        for state in inner.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    for tensor in tensors:
        if tensor is not None:
            yield to_local(tensor.detach()).untyped_storage()


def bytes_with_and_after(run: RunConfig) -> tuple[int, int]:
    from megatron_aquila.trainer import Trainer

    with parallel_world(run, choose_device("cpu")) as layout:
        trainer = Trainer(run, choose_device("cpu"), layout)
        trainer._train_step()
        held = {StorageWeakRef(storage): storage.nbytes() for storage in storages(trainer)}
        trainer.close()
        trainer.release()
        del trainer
        gc.collect()
        return sum(held.values()), sum(size for storage, size in held.items() if not storage.expired())


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel__sharding": "none", "training__precision": "bf16"},
        {},  # the optimizer's float32 parts are views of the weights
        {"parallel__sharding": "full"},
    ],
    ids=lambda changes: str(changes.get("parallel__sharding", "optimizer")),
)
def test_weights_gradients_and_optimizer_are_given_back(changes: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", model__shape__hidden_size=128, resilience__step_timeout=0, **changes)
    for held, left in world(2, bytes_with_and_after, run=run):
        assert held > 2_000_000, "nothing was held"
        assert left == 0
