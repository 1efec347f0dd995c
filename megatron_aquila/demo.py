"""The whole road in small: a raw corpus of a synthetic clinic, its cleaning and mixing, two stages of continued
pre-training; raw dialogues, their selection, fine-tuning; preference pairs, preference training; evaluation, export.

Everything that runs here is what runs at scale: the recipes are `recipes/tiny/*.yaml`, started by `aquila train`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from data_tools.tokenizers import load_tokenizer
from megatron_aquila import metrics
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config_loader import load_config
from megatron_aquila.demo_chat import prepare_dialogues, prepare_pairs
from megatron_aquila.demo_data import emptied, moves, prepare_data, tiny_recipe
from megatron_aquila.demo_evaluation import ask, compare, have_judged, look_for_leaks, prepare_questions, write_page
from megatron_aquila.demo_table import Row, answers, evaluation_table, training_table
from megatron_aquila.errors import AquilaError
from megatron_aquila.huggingface import write_model
from megatron_aquila.release.export import ReleaseOptions, release


@dataclass(frozen=True)
class Stage:
    """A recipe of `recipes/tiny`, the run it makes, and what people call it, in a table and in a heading."""

    recipe: str
    run: str
    name: str
    title: str
    answers: bool  # whether its model takes part in a chat
    prepare: Callable[[Path, Console], Any] | None = None  # its data, where they are not there from the beginning


STAGES = (
    Stage("cpt_stage1", "stage1", "stage 1", "continued pre-training, stage 1", answers=False),
    Stage("cpt_stage2", "stage2", "stage 2", "continued pre-training, stage 2", answers=False),
    Stage("sft", "sft", "SFT", "supervised fine-tuning", answers=True, prepare=prepare_dialogues),
    Stage("dpo", "dpo", "DPO", "preference training (DPO)", answers=True, prepare=prepare_pairs),
)


def run_demo(directory: Path) -> int:
    """Run the demo under `directory`, or go on with what an earlier one left there; prints as it goes.

    Returns an exit code.

    Raises:
        AquilaError: a stage of training failed.
    """
    began = time.perf_counter()
    console = Console()
    console.rule("A synthetic clinic: every condition, drug and fact below is invented", style="dim")
    prepare_data(directory, console)
    prepare_questions(directory)

    rows = [Row("before", ask(directory, untrained(directory), chats=False))]
    for stage in STAGES:
        console.rule(stage.title, style="dim")
        if stage.prepare is not None:
            stage.prepare(directory, console)
        row = _train(directory, stage)
        rows.append(row)
        if row.answers.words:
            console.print(answers(row.answers.words, _questions_in_words(directory)))

    console.rule("evaluation", style="dim")
    sft, dpo = (directory / "runs" / stage.run for stage in STAGES[-2:])
    look_for_leaks(directory, dpo, console)
    have_judged(directory, (sft, dpo), console)
    compare(sft, dpo, console)
    released = release(dpo, emptied(directory / "export" / STAGES[-1].run), ReleaseOptions(licence="apache-2.0"))
    page = write_page(directory, dpo)
    console.print(training_table(rows, pairs=len(_pairs(directory))))
    console.print(evaluation_table(rows))
    console.print(f"{time.perf_counter() - began:.0f} s in all, on the CPU.")
    console.print(f"The model, in Hugging Face form, with its card: {released.directory}", soft_wrap=True)
    console.print(f"All of this in a page: {page}", soft_wrap=True)
    return 0


def overrides(directory: Path, stage: str) -> list[str]:
    """What moves a recipe, written for the directory `demo`, to `directory`."""
    return moves(stage, load_config, directory)


def untrained(directory: Path) -> Path:
    """The very weights that stage 1 starts from, exported."""
    from megatron_aquila.engine.device import choose_device

    choose_device("cpu")
    from megatron_aquila.engine.weights import RandomWeights

    run = load_config(tiny_recipe(STAGES[0].recipe), overrides(directory, STAGES[0].recipe))
    shape = run.model.resolve()
    weights = RandomWeights(shape, run.seed, run.model.init_std)
    output = emptied(directory / "export" / "before")
    return write_model(output, shape, weights, "", load_tokenizer(directory / "tokenizer"))


def _train(directory: Path, stage: Stage) -> Row:
    """Train a stage, export its model, ask it."""
    began = time.perf_counter()
    moves = overrides(directory, stage.recipe)
    command = [sys.executable, "-m", "megatron_aquila", "train", str(tiny_recipe(stage.recipe)), *moves]
    code = subprocess.run(command, env={**os.environ}, check=False).returncode
    if code:
        raise AquilaError(f"training of {stage.run} ended with exit code {code}")
    seconds = time.perf_counter() - began

    output = load_config(tiny_recipe(stage.recipe), moves).output
    release(output, emptied(directory / "export" / stage.run), ReleaseOptions(card=False))
    records = metrics.read(output / metrics.FILE)
    reports = [record for record in records if "train/loss" in record]
    rates = sorted(record["throughput/tokens_per_second"] for record in reports)
    exported = open_checkpoint(output, "sizes").step  # the best one, where the run keeps it
    validation = next(r for r in records if r["step"] == exported and "validation/loss" in r)
    return Row(
        stage.name,
        ask(directory, output, chats=stage.answers),
        preference=validation.get("validation/rewards/accuracies"),
        train_loss=reports[-1]["train/loss"],
        validation_loss=validation["validation/loss"],
        tokens_per_second=rates[len(rates) // 2],
        seconds=seconds,
    )


def _questions_in_words(directory: Path) -> dict[str, str]:
    asked = _records(directory / "data" / "exact_match.jsonl")
    return {question["id"]: question["messages"][-1]["content"] for question in asked}


def _pairs(directory: Path) -> list[dict[str, Any]]:
    return _records(directory / "pairs" / "pairs_valid.jsonl")


def _records(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
