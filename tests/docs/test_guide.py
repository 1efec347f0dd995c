"""The guide and the page for a GPU box, followed to the letter: every command runs, in order, in one folder.

What is changed for the tests are sizes: the base model has two layers, and training two steps on the CPU.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from typer.testing import CliRunner

import data_tools.clinic
from data_tools.corpus.batch import Batch
from megatron_aquila import metrics
from megatron_aquila.datasets.batch import IGNORE_INDEX
from tests.docs.commands import commands, parse
from tests.docs.pages import ROOT, blocks
from tests.megatron_aquila.conversations import build_conversations, conversation_recipe
from tests.world import world

PAGES = [ROOT / "docs/gpu_box.md", ROOT / "docs/guide.md"]
# Verbs that are run elsewhere (test_commands.RUN_BY), because here they would cost seconds and show no more.
ELSEWHERE = ("doctor", "chat", "plan", "eval run", "eval compare", "eval contamination", "judge pair")
SIZES = {
    "cpt": ["training.steps=2", "training.global_batch_size=4", "data.sequence_length=64", "evaluation.batches=1"],
    "sft": ["training.epochs=", "training.steps=2", "training.global_batch_size=8", "data.sequence_length=512"],
    "dpo": ["training.epochs=", "training.steps=2", "training.global_batch_size=4", "data.sequence_length=512"],
}
EVERYWHERE = ["device=cpu", "training.precision=fp32", "evaluation.every=2", "logging.tensorboard=false"]


def in_folder(directory: str, arguments: list[str]) -> str:
    """A rank that runs `aquila` in a folder, where packages of the reader's own are installed."""
    from megatron_aquila.cli import main

    before, said = Path.cwd(), io.StringIO()
    os.chdir(directory)
    sys.path.insert(0, str(Path(directory) / "site"))
    try:
        with mock.patch.object(sys, "argv", ["aquila", *arguments]), redirect_stdout(said):
            main()
    except SystemExit as end:
        assert end.code == 0, said.getvalue()
    finally:
        sys.path.pop(0)
        os.chdir(before)
    return said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: a base model, and the files that the pages show."""
    directory = tmp_path_factory.mktemp("reader")
    conversations = build_conversations(tmp_path_factory.mktemp("base"))
    run = conversation_recipe(
        conversations, directory / "base", "sft", model__shape__num_layers=2, model__shape__max_position_embeddings=512,
        training__epochs=None, training__steps=3, evaluation__every=0,
    )  # fmt: skip
    world(1, _make_base, config=run.model_dump(mode="json"), output=str(directory / "models/base"))
    for page in PAGES:
        for block in blocks(page):
            if block.file_name and "data_tools/" not in block.file_name:
                path = directory / block.file_name
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
    installed = directory / "site/aquila_alike-0.1.dist-info"  # what pip makes of the package
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aquila-alike\nVersion: 0.1\n", encoding="utf-8")
    project = (directory / "aquila_alike/pyproject.toml").read_text(encoding="utf-8")
    entry = project.partition('"megatron_aquila.stages"]\n')[2].replace('"', "")
    (installed / "entry_points.txt").write_text(f"[megatron_aquila.stages]\n{entry}", encoding="utf-8")
    (directory / "site/aquila_alike.py").symlink_to(directory / "aquila_alike/aquila_alike.py")
    return directory


def _make_base(config: dict[str, Any], output: str) -> None:
    from megatron_aquila.config import RunConfig
    from megatron_aquila.release.export import ReleaseOptions, release
    from megatron_aquila.trainer import train

    run = RunConfig.model_validate(config)
    train(run)
    Path(output).parent.mkdir()
    release(run.output, Path(output), ReleaseOptions(card=False, check=False))


@pytest.fixture(scope="module")
def followed(folder: Path) -> dict[str, str]:
    """What each command of the two pages printed, by its words."""
    said: dict[str, str] = {}
    small = functools.partial(
        data_tools.clinic.write_clinic, stage1_documents=60, general_count=30, dialogue_count=40, train_pairs=24,
        stage2_documents=1, valid_pairs=1, question_limit=8,
    )  # fmt: skip
    before = Path.cwd()
    os.chdir(folder)
    try:
        with mock.patch.object(data_tools.clinic, "write_clinic", small):
            for page in PAGES:
                for block in blocks(page):
                    if block.language == "sh" and block.needs is None:
                        for command in commands(block):
                            line = " ".join(command.words)
                            if line not in said or command.words[1] == "train":
                                said[line] = _follow(folder, list(command.words))
    finally:
        os.chdir(before)
    return said


def _follow(folder: Path, words: list[str]) -> str:
    program, *arguments = words
    if program == "python" and arguments[0] == "-c":
        exec(compile(arguments[1], "<page>", "exec"), {})
        return ""
    if program == "mkdir":
        (folder / arguments[-1]).mkdir(exist_ok=True)
        return ""
    assert program == "aquila", f"no test follows {program}"
    if any(" ".join(arguments).startswith(verb) for verb in ELSEWHERE):
        return ""
    verb, given = parse(arguments)
    if verb == "train":
        kind = given["recipe"].stem.replace("alike", "sft")
        ranks = 2 if any("parallel=2" in override for override in given["overrides"] or ()) else 1
        return "".join(
            world(ranks, in_folder, directory=str(folder), arguments=[*arguments, *SIZES[kind], *EVERYWHERE])
        )
    from data_tools.cli import app as data_app
    from megatron_aquila.cli import app

    if verb.startswith("data "):
        found = CliRunner().invoke(
            data_app, [*arguments[1:], *(["--workers", "1"] if verb in ("data index", "data corpus") else [])]
        )
    else:
        found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, f"{' '.join(words)}: {found.output} {found.exception}"
    return found.output


def test_a_reader_reaches_a_dpo_run_and_a_model(followed: dict[str, str], folder: Path) -> None:
    """The whole page, and its promises: DPO begins at ln 2, the export is there, the report tells of every run."""
    losses = {
        name: [row["train/loss"] for row in metrics.read(folder / f"runs/{name}/metrics.jsonl") if "train/loss" in row]
        for name in ("my-cpt", "my-sft", "my-dpo")
    }
    assert {name: len(values) for name, values in losses.items()} == dict.fromkeys(losses, 2)
    assert losses["my-dpo"][0] == pytest.approx(0.6931, abs=1e-3)
    assert (folder / "my-model/model.safetensors").exists() and (folder / "my-model/chat_template.jinja").exists()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in losses)
    assert "sound" in followed["aquila data verify data/text --tokenizer models/base"]
    assert "resumed at step 2" in followed["aquila train sft.yaml"], "the guide runs it again, which goes on"


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stage_of_the_guide_weighs_dialogues_alike(followed: dict[str, str], folder: Path) -> None:
    """By hand in float64, on two dialogues of unequal length and a pack's padding; and it trained, from its package."""
    from megatron_aquila.datasets.batch import Volume, make_batch

    ignored = IGNORE_INDEX
    labels = torch.tensor([ignored, 5, 6, 7, ignored, 8, ignored, ignored])
    batch = make_batch(
        torch.zeros(8, dtype=torch.int64), labels, [0, 4, 6, 8], Volume(2, 6, 20),
        {"sequences": torch.tensor([0, 4, 8])},
    )  # fmt: skip
    logps = torch.tensor([[9.0, -1.0, -2.0, -6.0, 9.0, -0.5, 9.0, 9.0]], dtype=torch.float64, requires_grad=True)
    stage = _load(folder / "aquila_alike/aquila_alike.py", "alike_by_hand").Alike
    total, count, sums = stage.loss(mock.sentinel.stage, logps, batch)
    assert total.item() == pytest.approx((1 + 2 + 6) / 3 + 0.5) and count.item() == 2 and not count.is_floating_point()
    assert sums["answer_tokens"].item() == 4
    total.backward()
    assert torch.allclose(logps.grad[0], torch.tensor([0, -1, -1, -1, 0, -3, 0, 0], dtype=torch.float64) / 3)
    rows = metrics.read(folder / "runs/my-alike/metrics.jsonl")
    assert [row["train/answer_tokens"] > 1 for row in rows if "train/loss" in row] == [True, True]


def test_the_filter_of_the_guide(tmp_path: Path) -> None:
    block = next(block for block in blocks(ROOT / "docs/guide.md") if block.file_name == "data_tools/corpus/figures.py")
    (tmp_path / "figures.py").write_text(block.text, encoding="utf-8")
    module = _load(tmp_path / "figures.py", "figures_of_the_guide")
    step = module.FiguresConfig.model_validate({"step": "figures", "most": 0.5}).build(None)
    texts = ["12 34 5", "12 ab", "血压 120/80", "", "1"]
    outcome = step(Batch([*"abcde"], texts, ["zh"] * 5, ["s"] * 5, [{} for _ in texts]))
    assert outcome.measures["digits"].tolist() == pytest.approx([1, 0.5, 5 / 8, 0, 1])
    assert [drop and (drop.reason, drop.detail["value"]) for drop in outcome.drops] == [
        ("figures", 1), None, ("figures", 0.625), None, ("figures", 1),
    ]  # fmt: skip
