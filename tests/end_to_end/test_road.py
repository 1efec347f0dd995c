"""The commands of the README in a row: text, tokenizer, index, all stages of training, export, transformers.

They run in warm processes; that `aquila train` starts its own is a test beside it, and what becomes of such processes
is in `tests/megatron_aquila/test_launch.py` and `tests/megatron_aquila/launch`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from typer.testing import CliRunner

from data_tools.clinic import write_clinic
from megatron_aquila import launch, metrics
from megatron_aquila.cli import app
from megatron_aquila.stages.cpt import ContinuedPretraining
from tests.command import aquila_in_ranks
from tests.megatron_aquila.conversations import KINDS, conversation_recipe
from tests.megatron_aquila.corpora import recipe, write_recipe
from tests.megatron_aquila.datasets.test_batches import world_of_one

_TWO_LAYERS: dict[str, Any] = {"model__shape__num_layers": 2}


def command(*arguments: object, ranks: int = 1) -> str:
    return aquila_in_ranks(ranks, *arguments).stdout


def losses(run: Path, name: str) -> list[float]:
    return [record[name] for record in metrics.read(run / metrics.FILE) if name in record]


def test_from_text_to_a_model_in_transformers(tmp_path: Path) -> None:
    write_clinic(tmp_path / "text", dialogue_count=100, train_pairs=48)
    text = {name: tmp_path / "text" / f"{name}.jsonl" for name in ("medical_stage1", "medical_stage2", "general")}
    tokenizer = tmp_path / "tokenizer"
    control = ["--control-token", "<|im_start|>", "--control-token", "<|im_end|>"]
    command("data", "train-tokenizer", *text.values(), "--output", tokenizer, "--vocab-size", 1000, *control)
    for name, source in {"medical": "medical_stage1", "second": "medical_stage2", "general": "general"}.items():
        command("data", "index", text[source], "--tokenizer", tokenizer, "--output", tmp_path / name)
        assert "sound" in command("data", "verify", tmp_path / name, "--tokenizer", tokenizer)

    changes = {**_TWO_LAYERS, "model__hidden_dropout": 0.0}
    first = recipe(tmp_path, tmp_path / "first", parallel__tensor_parallel=2, **changes)
    command("train", write_recipe(first, tmp_path / "first.yaml"), ranks=2)
    second = recipe(
        tmp_path,
        tmp_path / "second_run",
        model__weights=str(tmp_path / "first"),
        data__train=[{"path": str(tmp_path / "second")}],
        data__reset_attention=False,  # transformers below sees whole rows
        parallel__pipeline_parallel=2,
        training__precision="bf16",
        evaluation__batches=1,
        **changes,
    )
    printed = command("train", write_recipe(second, tmp_path / "second.yaml"), "training.precision=fp32", ranks=2)
    assert "from step 0" in printed
    assert losses(second.output, "train/loss")[0] < losses(first.output, "train/loss")[0] - 0.2, "stage 1 was kept"

    export = tmp_path / "export"
    command("export", second.output, "--output", export)
    assert losses(second.output, "validation/loss")[-1] == pytest.approx(_transformers_loss(export, second), abs=1e-4)

    weights = second.output
    for stage, file in (("sft", "dialogues"), ("dpo", "pairs_train")):
        kind = KINDS[stage]
        options = ["--kind", kind, "--template", "chatml", "--max-length", 100, "--tokenizer", tokenizer]
        command("data", "index", tmp_path / "text" / f"{file}.jsonl", *options, "--output", tmp_path / kind)
        assert "sound" in command("data", "verify", tmp_path / kind, "--tokenizer", tokenizer)
        assert "⟦" in command("data", "preview", tmp_path / kind, "--tokenizer", tokenizer)
        run = conversation_recipe(tmp_path, tmp_path / stage, stage, parallel__tensor_parallel=2, **_TWO_LAYERS)
        file = write_recipe(run, tmp_path / f"{stage}.yaml")
        if stage == "dpo":  # apart, on another layout; training then finds them
            layout = ["parallel.tensor_parallel=1", "preference.reference_sequence_length=512"]
            assert "reference log-probs of" in command("reference", file, f"model.weights={weights}", *layout)
        printed = command("train", file, f"model.weights={weights}", ranks=2)
        assert "reference log-probs" not in printed
        weights = run.output
    assert losses(tmp_path / "sft", "train/loss")[-1] < losses(tmp_path / "sft", "train/loss")[0] - 0.5
    assert losses(tmp_path / "dpo", "train/loss")[0] == pytest.approx(math.log(2), abs=0.02)  # with dropout
    assert losses(tmp_path / "dpo", "train/loss")[-1] < 0.6
    command("export", tmp_path / "dpo", "--output", tmp_path / "chat")
    assert _renders_chatml(tmp_path / "chat")


def test_train_starts_a_process_a_rank_where_no_launcher_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[Any, ...]] = []

    def start(*arguments: Any, **settings: Any) -> int:
        started.append((*arguments, settings))
        return 75

    monkeypatch.setattr(launch, "run_processes", start)
    run = recipe(tmp_path, tmp_path / "run", parallel__tensor_parallel=2, resilience__max_restarts=4)
    file = str(write_recipe(run, tmp_path / "run.yaml"))
    with mock.patch.dict(os.environ):
        for name in ("RANK", "SLURM_PROCID"):
            os.environ.pop(name, None)
        ended = CliRunner().invoke(app, ["train", file, "parallel.pipeline_parallel=2"])
    assert ended.exit_code == 75, ended.output
    assert started == [(4, ["train", file, "parallel.pipeline_parallel=2"], {"max_restarts": 4})]
    assert not run.output.exists(), "it is the ranks that train"


def _renders_chatml(export: Path) -> bool:
    from transformers import AutoTokenizer

    text = AutoTokenizer.from_pretrained(export).apply_chat_template(
        [{"role": "user", "content": "发热三天"}], tokenize=False, add_generation_prompt=True
    )
    return bool(text == "<|im_start|>user\n发热三天<|im_end|>\n<|im_start|>assistant\n")


def _transformers_loss(export: Path, run: Any) -> float:
    """Mean loss of the exported model over the rows that the run validated on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stage = ContinuedPretraining(run)
    with world_of_one():
        _, valid = stage.datasets()
    rows = [valid[index] for index in range(run.training.global_batch_size)]
    model = AutoModelForCausalLM.from_pretrained(export).eval()
    with torch.no_grad():
        logits = model(torch.stack([row["tokens"] for row in rows])).logits
    labels = torch.stack([row["labels"] for row in rows])
    text = "患者发热三天。 The clinic opens at nine."
    assert AutoTokenizer.from_pretrained(export)(text, add_special_tokens=False)["input_ids"] == stage.tokenizer.encode(
        text
    )
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))
