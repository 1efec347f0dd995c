"""What ranks settle at the end of a step, in gloo worlds: one rank's signal, save or lost sample is everyone's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch.distributed as dist

from megatron_aquila.engine.parallel import Layout
from megatron_aquila.errors import TrainingError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience import ledger
from megatron_aquila.resilience.ledger import Ledger, LedgerError
from megatron_aquila.resilience.signals import StopSignals
from megatron_aquila.resilience.step_end import StepEnd, wanted_end
from tests.world import world

SAMPLES = [(5, 1), (9, 0), (2, 2), (7, 3)]


def layout_of(tensor: int, pipeline: int, context: int) -> Layout:
    """Of this rank, in Megatron's order: tensor, context, data, pipeline."""
    rank, size = dist.get_rank(), dist.get_world_size()
    data = size // (tensor * pipeline * context)
    return Layout(
        world_size=size,
        rank=rank,
        tensor_size=tensor,
        tensor_rank=rank % tensor,
        pipeline_size=pipeline,
        pipeline_rank=rank // (tensor * context * data),
        data_size=data,
        data_rank=rank // (tensor * context) % data,
        virtual_size=1,
        context_size=context,
        context_rank=rank // tensor % context,
    )


def settle_steps(path: Path, tensor: int = 1, pipeline: int = 1, context: int = 1) -> dict[str, Any]:
    """Steps 1 to 5; in 2 the last rank was asked to stop and rank 0 still writes, 3 is left out, in 4 one is lost,
    before the end of 5 another process begins in the folder.
    """
    dist.init_process_group("gloo")
    try:
        layout = layout_of(tensor, pipeline, context)
        own = SAMPLES[layout.data_rank :: layout.data_size]
        saves: Any = SimpleNamespace(unwritten=0)
        signals = StopSignals()
        record = Ledger(path if layout.is_main else None, 0, "ids")
        log = EventLog(path.with_name("events") if layout.is_main else None, 0)
        end = StepEnd(layout, record, log, saves, signals)
        found: dict[str, Any] = {1: end.settle(1, SAMPLES, own), "asked 1": wanted_end(layout, signals)}
        is_last = layout.rank == layout.world_size - 1
        signals.received, saves.unwritten = "SIGUSR1" if is_last else None, int(layout.is_main)
        found[2], found["asked 2"] = end.settle(2, SAMPLES, own), wanted_end(layout, signals)
        signals.received, saves.unwritten = None, 0
        found[3] = end.settle(3, SAMPLES, None)
        try:
            end.settle(4, SAMPLES, own[1:] if layout.data_rank == 0 else own)
        except LedgerError as error:
            found[4] = str(error)
        if layout.is_main:
            EventLog(path.with_name("events"), 0).close()
        try:
            end.settle(5, SAMPLES, own)
        except TrainingError as error:
            found[5] = str(error)
        record.close()
        log.close()
        return found
    finally:
        dist.destroy_process_group()


def assert_settled(path: Path, size: int, **layout: int) -> None:
    for rank, found in enumerate(world(size, settle_steps, path=path, **layout)):
        name = "SIGUSR1" if rank == size - 1 else "a signal to another rank"
        assert (found[1], found["asked 1"]) == (("", True), "")
        assert (found[2], found["asked 2"]) == ((name, False), name)
        assert found[3] == ("", True)
        assert "step 4: the ranks did not train on the 4 samples" in found[4]
        assert "another process has begun to train in the same folder" in found[5] and "step 5" in found[5]
    lines = ledger.read(path)
    assert [(line["step"], line.get("skipped", False)) for line in lines] == [(1, False), (2, False), (3, True)]
    assert all(line["ids"] == [list(sample) for sample in SAMPLES] for line in lines)
    assert ledger.verify(path) == []


def test_replicas_share_the_samples(tmp_path: Path) -> None:
    assert_settled(tmp_path / ledger.FILE, 2)


def test_of_the_ranks_of_a_replica_one_speaks_for_all(tmp_path: Path) -> None:
    assert_settled(tmp_path / "tensor", 4, tensor=2)
    assert_settled(tmp_path / "others", 4, pipeline=2, context=2)
