"""What a trainer held is given back before another is built in its place."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_aquila.config import RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.fsdp import to_local
from megatron_aquila.engine.parallel import parallel_world
from tests.megatron_aquila.corpora import recipe
from tests.world import world


def alive() -> int:
    """Bytes of all tensors there are, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.layout is torch.strided and type(thing).__name__ != "FakeTensor":
            storage = to_local(thing.detach()).untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def bytes_before_with_and_after(run: RunConfig) -> tuple[int, int, int]:
    from megatron_aquila.trainer import Trainer

    with parallel_world(run, choose_device("cpu")) as layout:
        before = alive()
        trainer = Trainer(run, choose_device("cpu"), layout)
        trainer._train_step()
        built = alive()
        trainer.close()
        trainer.release()
        del trainer
        return before, built, alive()


@pytest.mark.parametrize(
    "changes",
    [
        {"parallel__sharding": "none", "training__precision": "bf16"},
        {"training__precision": "bf16"},
        {"parallel__sharding": "full"},
    ],
    ids=lambda changes: str(changes.get("parallel__sharding", "optimizer")),
)
def test_weights_gradients_and_optimizer_are_given_back(changes: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run", model__shape__hidden_size=128, resilience__step_timeout=0, **changes)
    for before, built, after in world(2, bytes_before_with_and_after, run=run):
        assert built - before > 2_000_000, "nothing was held"
        assert after - before < 0.1 * (built - before)
