"""A run that is killed and started again is the run that was not: losses and weights bit by bit."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_aquila import metrics
from megatron_aquila.checkpoint import open_checkpoint
from tests.command import aquila_in_ranks
from tests.megatron_aquila.corpora import recipe, write_recipe
from tests.world import WorldError, kill, world


def run_training(corpus: str, output: str, **changes: Any) -> None:
    from megatron_aquila.trainer import train

    train(recipe(Path(corpus), Path(output), **changes))


def losses(output: Path) -> dict[int, tuple[float, float]]:
    return {
        record["step"]: (record["train/loss"], record["train/grad_norm"])
        for record in metrics.read(output / metrics.FILE)
        if "train/loss" in record
    }


def weights(output: Path) -> dict[str, torch.Tensor]:
    reader = open_checkpoint(output).reader()
    return {key: reader.read(key) for key in reader.keys() if not key.startswith("random.")}  # noqa: SIM118


def assert_same_run(output: Path, reference: Path, steps: int = 10) -> None:
    assert losses(output) == losses(reference)
    assert open_checkpoint(output).step == steps
    expected, found = weights(reference), weights(output)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.equal(value, expected[key]), key


# What a run that goes on has to show, two layers show as well as four, and three steps as well as ten.
_TWO_LAYERS: dict[str, Any] = {"model__shape__num_layers": 2}
_STEPS = 6
_SHORT: dict[str, Any] = {**_TWO_LAYERS, "training__steps": _STEPS, "checkpoint__every": 3, "evaluation__every": 2}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {"parallel__sharding": "none"}),
    "TP2+SP bf16": (
        2,
        {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True, "training__precision": "bf16"},
    ),
    # deterministic: torch then fills fresh memory with NaN, so that what a resume forgets to load cannot hide
    "fp16": (
        1,
        {"training__precision": "fp16", "training__deterministic": True, "parallel__sharding": "none"},
    ),
    "PP2": (2, {"parallel__pipeline_parallel": 2}),
    "DP2 sharded optimizer": (2, {}),
    "DP2 full bf16": (2, {"parallel__sharding": "full", "training__precision": "bf16"}),
    "DP2 overlap": (2, {"parallel__overlap_grad_reduce": True, "parallel__overlap_param_gather": True}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_resumed_run_equals_the_uninterrupted_one(name: str, corpus: Path, tmp_path: Path) -> None:
    """With dropout on, so that the random state counts too."""
    size, changes = LAYOUTS[name]
    changes = {**_SHORT, **changes}
    reference, resumed = tmp_path / "reference", tmp_path / "resumed"
    world(size, run_training, corpus=str(corpus), output=str(reference), **changes)
    shutil.copytree(reference, resumed)
    shutil.rmtree(resumed / "checkpoints" / f"step-{_STEPS:08d}")  # as if it had been killed in the middle
    world(size, run_training, corpus=str(corpus), output=str(resumed), **changes)
    assert_same_run(resumed, reference, _STEPS)
    assert losses(reference)[_STEPS] < losses(reference)[1]


RESHAPES: list[tuple[tuple[int, dict[str, Any]], tuple[int, dict[str, Any]]]] = [
    ((1, {}), (2, {"parallel__tensor_parallel": 2})),
    ((2, {"parallel__tensor_parallel": 2}), (2, {"parallel__pipeline_parallel": 2})),
    ((2, {}), (2, {"parallel__tensor_parallel": 2})),
    ((2, {"parallel__pipeline_parallel": 2}), (2, {"parallel__sharding": "none"})),
    ((2, {"parallel__sharding": "full"}), (2, {"parallel__tensor_parallel": 2})),
    ((2, {"parallel__pipeline_parallel": 2}), (2, {"parallel__sharding": "full"})),
]


_WITHOUT_NOISE: dict[str, Any] = {**_SHORT, "model__hidden_dropout": 0.0, "optimizer__eps": 1e-5}


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, dict[str, Any]], Path]:
    """Whole runs without dropout, one for each layout."""
    runs: dict[str, Path] = {}

    def run(size: int, changes: dict[str, Any]) -> Path:
        key = f"{size} {changes}"
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("trained")
            world(size, run_training, corpus=str(corpus), output=str(runs[key]), **_WITHOUT_NOISE, **changes)
        return runs[key]

    return run


@pytest.mark.parametrize(("before", "after"), RESHAPES)
def test_checkpoint_loads_on_another_layout(
    before: Any, after: Any, trained: Any, corpus: Path, tmp_path: Path
) -> None:
    """Optimizer state included: the losses go on as they would have."""
    reference, moved = trained(*before), tmp_path / "moved"
    shutil.copytree(reference, moved)
    shutil.rmtree(moved / "checkpoints" / f"step-{_STEPS:08d}")
    world(after[0], run_training, corpus=str(corpus), output=str(moved), **_WITHOUT_NOISE, **after[1])
    expected, found = losses(reference), losses(moved)
    assert found.keys() == expected.keys()
    for step, (loss, norm) in found.items():
        assert loss == pytest.approx(expected[step][0], abs=1e-5), step
        assert norm == pytest.approx(expected[step][1], rel=1e-3), step
    expected_weights = weights(reference)
    for key, value in weights(moved).items():
        assert (value - expected_weights[key]).abs().max() < 1e-5, key


def wait_until(condition: Callable[[], bool], ended: Callable[[], str | None], pause: float) -> None:
    """`ended` says why it did, once it has. `pause`: seconds between two looks, each of which takes time of a core."""
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "it did not get there"
        why = ended()
        assert why is None, why
        time.sleep(pause)


_UNINTERRUPTED: dict[str, Any] = {**_TWO_LAYERS, "parallel__tensor_parallel": 2}


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "uninterrupted"
    world(2, run_training, corpus=str(corpus), output=str(output), **_UNINTERRUPTED)
    return output


def test_sigkill_at_a_random_step_and_during_a_save(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Of ranks that were forked warm; `tests/faults` has every point of a save, and machines that are lost."""
    output = tmp_path / "killed"
    # a checkpoint every step: many chances to be killed while one is written
    run = recipe(corpus, output, **_UNINTERRUPTED, checkpoint__every=1)
    run_file = write_recipe(run, tmp_path / "run.yaml")
    step = random.randint(1, 6)  # any will do
    _kill(run_file, lambda: step in losses(output), pause=0.002)
    after_first_kill = max(losses(output))

    checkpoints = output / "checkpoints"

    def unfinished() -> set[Path]:
        return set(checkpoints.glob(".tmp-[0-9]*"))

    left = unfinished()  # by the first kill, if that was in a save too
    _kill(run_file, lambda: bool(unfinished() - left), pause=0.0005)
    assert unfinished() - left, "it was not in the middle of a save"
    assert not (checkpoints / "step-00000010").exists()

    aquila_in_ranks(2, "train", run_file)
    assert_same_run(output, uninterrupted)
    assert not list(checkpoints.glob(".tmp-*"))
    assert 1 <= after_first_kill < 10


def _kill(run_file: Path, when: Callable[[], bool], pause: float) -> None:
    """Train on two ranks, and SIGKILL both as soon as `when()` holds; see `wait_until` for `pause`."""
    with ThreadPoolExecutor() as pool:
        ranks = pool.submit(aquila_in_ranks, 2, "train", run_file)
        wait_until(lambda: kill(when), lambda: str(ranks.exception()) if ranks.done() else None, pause)
        with pytest.raises(WorldError, match="died"):
            ranks.result()


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def damage_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = (len(content) // 2) // 4096 * 4096
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_bit, damage_page])
def test_damaged_checkpoint_is_found_and_the_one_before_used(
    damage: Callable[[Path], None], corpus: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "damaged"
    shutil.copytree(uninterrupted, output)
    damage(output / "checkpoints" / "step-00000010" / "shard-00001.safetensors")
    run_file = write_recipe(recipe(corpus, output, **_UNINTERRUPTED), tmp_path / "run.yaml")
    done = aquila_in_ranks(2, "train", run_file)
    assert "shard-00001.safetensors" in done.stderr and "step-00000008" in done.stderr
    assert "resumed at step 8" in done.stdout
    assert (output / "checkpoints" / "damaged-step-00000010").is_dir()
    assert_same_run(output, uninterrupted)


def test_resume_on_other_data_is_refused(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    output = tmp_path / "other"
    shutil.copytree(uninterrupted, output)
    with pytest.raises(AssertionError, match="trained on other data, or in another order"):
        world(2, run_training, corpus=str(corpus), output=str(output), **_UNINTERRUPTED, seed=99)
