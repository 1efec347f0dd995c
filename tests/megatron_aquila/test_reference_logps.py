"""The reference pass: resumable, the same on any layout, never taken for another's, and checked at step 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.megatron_aquila.conversations import conversation_recipe
from tests.world import WorldError, world


def compute(data: str, output: str, **changes: Any) -> None:
    from megatron_aquila.trainer import prepare

    prepare(conversation_recipe(Path(data), Path(output), "dpo", **changes))


def train(data: str, output: str, **changes: Any) -> None:
    from megatron_aquila.trainer import train as train_model

    train_model(conversation_recipe(Path(data), Path(output), "dpo", **changes))


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete cache, made by one process."""
    directory = tmp_path_factory.mktemp("reference") / "cache"
    world(1, compute, data=str(data), output=str(directory.parent / "run"), preference__reference_cache=str(directory))
    return directory


@pytest.fixture(scope="module")
def policy(data: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained the policy away from its start."""
    output = tmp_path_factory.mktemp("policy")
    world(1, train, data=str(data), output=str(output), preference__reference_cache=str(reference))
    return output


def values(directory: Path) -> Any:
    return np.load(directory / "logps.npy")


def copy_of(reference: Path, directory: Path, change: Any = None) -> Path:
    directory.mkdir()
    (directory / "key.json").write_bytes((reference / "key.json").read_bytes())
    copied = values(reference)
    if change is not None:
        change(copied)
    np.save(directory / "logps.npy", copied)
    return directory


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (2, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
        (2, {"parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
        (2, {"training__micro_batch_size": 3}),
        (1, {"preference__reference_sequence_length": 1024}),
    ],
    ids=["TP2+SP", "PP2+VPP2", "DP2", "longer packs"],
)
def test_any_layout_and_pack_gives_the_same(
    size: int, changes: dict[str, Any], data: Path, reference: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "cache"
    world(
        size,
        compute,
        data=str(data),
        output=str(tmp_path / "run"),
        preference__reference_cache=str(directory),
        **changes,
    )
    expected = values(reference)
    assert np.isfinite(expected).all() and expected.max() < -10
    assert np.abs(values(directory) - expected).max() < 1e-4
    assert (directory / "key.json").read_bytes() == (reference / "key.json").read_bytes()


def test_an_interrupted_pass_goes_on_where_it_was(data: Path, reference: Path, tmp_path: Path) -> None:
    """What is there is not computed again: an entry that was altered stays as it is."""

    def interrupt(copied: Any) -> None:
        copied[10:] = np.nan
        copied[3] += 0.5

    directory = copy_of(reference, tmp_path / "cache", interrupt)
    world(1, compute, data=str(data), output=str(tmp_path / "run"), preference__reference_cache=str(directory))
    found, expected = values(directory), values(reference)
    assert (found[3] == expected[3] + 0.5).all()
    found[3] -= 0.5
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"seed": 5}, "weights"), ({"training__precision": "bf16"}, "dtype")],
)
def test_a_cache_of_something_else_is_refused(
    changes: dict[str, Any], field: str, data: Path, reference: Path, tmp_path: Path
) -> None:
    with pytest.raises(WorldError, match=f"holds reference log-probs of something else \\({field} is "):
        world(
            1,
            compute,
            data=str(data),
            output=str(tmp_path / "run"),
            preference__reference_cache=str(reference),
            **changes,
        )


def test_without_a_folder_named_each_key_has_its_own(data: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        world(1, compute, data=str(data), output=str(tmp_path / "run"), seed=seed)
    keys = sorted((tmp_path / "run" / "cache").glob("reference-*/key.json"))
    assert len(keys) == 2
    weights = {json.loads(path.read_text())["weights"] for path in keys}
    assert len(weights) == 2


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_training_does_not_begin_from_another_reference(loss: str, data: Path, reference: Path, tmp_path: Path) -> None:
    def alter(copied: Any) -> None:
        copied[:, 0] -= 0.1  # chosen answers seem 0.1 nats more likely under the policy

    directory = copy_of(reference, tmp_path / "cache", alter)
    with pytest.raises(WorldError, match=r"training was not begun: .* rewards/margins 0\.01 instead of 0"):
        world(
            1,
            train,
            data=str(data),
            output=str(tmp_path / "run"),
            preference__reference_cache=str(directory),
            preference__loss=loss,
        )


def test_another_reference_model_needs_no_second_copy(data: Path, policy: Path, tmp_path: Path) -> None:
    """The start of the policy is its reference."""
    one_step = {"training__epochs": None, "training__steps": 1, "optimizer__schedule__warmup_steps": 0}
    changes = {"model__weights": str(policy), "model__hidden_dropout": 0.0, **one_step}
    world(1, train, data=str(data), output=str(tmp_path / "two"), **changes)
    start = {**changes, "preference__reference_weights": str(policy / "checkpoints" / "step-00000001")}
    world(1, train, data=str(data), output=str(tmp_path / "three"), **start)
    from megatron_aquila import metrics

    first = {name: metrics.read(tmp_path / name / metrics.FILE)[0] for name in ("two", "three")}
    assert abs(first["two"]["train/rewards/margins"]) < 1e-6
    assert first["three"]["train/rewards/margins"] > 0.1


def opened(data: str, output: str, **changes: Any) -> list[str]:
    """Where a trainer that is made read weights from, in order."""
    from unittest import mock

    from megatron_aquila import start
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.trainer import Trainer

    run = conversation_recipe(Path(data), Path(output), "dpo", **changes)
    device = choose_device("cpu")
    with mock.patch.object(start, "open_weights", wraps=start.open_weights) as opening:
        with parallel_world(run, device) as layout:
            Trainer(run, device, layout).close()
        return [str(call.args[1]) for call in opening.call_args_list]


def test_weights_are_read_once_where_the_policy_is_its_own_reference(data: Path, policy: Path, tmp_path: Path) -> None:
    """Verifying and reading 7B weights takes minutes."""
    other = str(policy / "checkpoints" / "step-00000001")
    common = {"data": str(data), "model__weights": str(policy)}
    assert world(1, opened, output=str(tmp_path / "a"), **common) == [[str(policy)]]
    found = world(1, opened, output=str(tmp_path / "b"), preference__reference_weights=other, **common)
    assert found == [[other, str(policy)]]
