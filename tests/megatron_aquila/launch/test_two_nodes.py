"""Two nodes train, one is killed, and the job goes on from the last checkpoint by itself."""

from __future__ import annotations

from pathlib import Path

import torch

from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config import RunConfig
from tests.megatron_aquila.launch.two_nodes import STEPS, lose_a_node, run_of
from tests.world import world


def run_training(run: RunConfig) -> None:
    from megatron_aquila.trainer import train

    train(run)


def test_the_job_goes_on_with_the_node_that_is_left(corpus: Path, tmp_path: Path) -> None:
    """The other layout rounds otherwise: what an uninterrupted run on two ranks has is met to 1e-6."""
    run, lost = lose_a_node(corpus, tmp_path, comes_back=False)
    assert STEPS // 3 <= lost < STEPS, "it was lost in the middle"
    whole = run_of(corpus, tmp_path / "whole")
    world(2, run_training, run=whole)
    found, expected = (open_checkpoint(one.output) for one in (run, whole))
    assert found.step == expected.step == STEPS
    names = [key for key in expected.reader().keys() if not key.startswith("random.")]  # noqa: SIM118
    for key in names:
        torch.testing.assert_close(found.reader().read(key), expected.reader().read(key), rtol=0, atol=1e-6)
