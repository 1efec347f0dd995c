"""What is refused before an sft or dpo run begins, and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_tools.indexing import IndexOptions, build_index
from megatron_aquila.errors import ConfigError
from megatron_aquila.stages.dpo import PreferenceTraining
from megatron_aquila.stages.sft import SupervisedFineTuning
from tests.megatron_aquila.conversations import conversation_recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__sequence_length": 60}, r"of 90 dialogues are longer than data.sequence_length 60 \(the longest has"),
        ({"model__shape__max_position_embeddings": 50}, "more than the model's max_position_embeddings 50"),
        ({"training__global_batch_size": 2}, "hold 3.* dialogues on average, more than training.global_batch_size 2"),
        ({"data__split": [100, 0.1, 0]}, "there are no dialogues for validation"),
    ],
)
def test_samples_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        SupervisedFineTuning(conversation_recipe(data, tmp_path, "sft", **changes))


def test_a_weight_and_another_kind_are_refused(data: Path, tmp_path: Path) -> None:
    weighted = [{"path": str(data / "dialogues"), "weight": 2}]
    with pytest.raises(ConfigError, match="weight 2 has no meaning here: an epoch has every sample once"):
        SupervisedFineTuning(conversation_recipe(data, tmp_path, "sft", data__train=weighted))
    with pytest.raises(ConfigError, match="holds dialogues, and this stage trains on pairs: `aquila data index --kind"):
        PreferenceTraining(conversation_recipe(data, tmp_path, "dpo", data__train=[{"path": str(data / "dialogues")}]))


def test_two_templates_are_refused(data: Path, tmp_path: Path) -> None:
    options = IndexOptions(kind="dialogues", template="aquila", max_length=200)
    build_index([str(data / "text" / "dialogues.jsonl")], data / "tokenizer", tmp_path / "aquila", options)
    both = [{"path": str(data / "dialogues")}, {"path": str(tmp_path / "aquila")}]
    with pytest.raises(ConfigError, match="rendered with different chat templates: aquila, chatml"):
        SupervisedFineTuning(conversation_recipe(data, tmp_path, "sft", data__train=both))


def test_a_damaged_loss_mask_is_refused(data: Path, tmp_path: Path) -> None:
    for file in data.glob("dialogues.*"):
        shutil.copy(file, tmp_path / file.name)
    with (tmp_path / "dialogues.loss_mask.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ConfigError, match=r"dialogues\.loss_mask\.bin is not the \d+ bytes that its manifest says"):
        SupervisedFineTuning(
            conversation_recipe(data, tmp_path, "sft", data__train=[{"path": str(tmp_path / "dialogues")}])
        )


def test_the_digest_changes_with_what_decides_the_samples_of_a_step(data: Path, tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return SupervisedFineTuning(conversation_recipe(data, tmp_path, "sft", **changes)).digest()

    same = digest()
    assert digest(training__micro_batch_size=4, training__epochs=3, optimizer__lr=1.0) == same
    manifest = json.loads((data / "dialogues.manifest.json").read_text())
    assert manifest["counts"]["documents"] == 100
    for change in (
        {"seed": 9},
        {"training__global_batch_size": 20},
        {"data__packing": False},
        {"data__sequence_length": 300},
        {"data__split": [80, 20, 0]},
    ):
        assert digest(**change) != same, change


def test_a_stage_without_a_reference_has_nothing_to_prepare(data: Path, tmp_path: Path) -> None:
    from megatron_aquila.trainer import prepare

    with pytest.raises(ConfigError, match="the stage sft has nothing to compute before training"):
        prepare(conversation_recipe(data, tmp_path, "sft"))
