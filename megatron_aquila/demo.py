"""The whole road in small: a synthetic clinic's texts, tokenizer, index, two stages of continued pre-training, export.

Everything that runs here is what runs at scale: the recipes are `recipes/tiny/*.yaml`, started by `aquila train`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from data_tools.clinic import continuations, write_clinic
from data_tools.indexing import IndexOptions, build_index
from data_tools.tokenizer_training import train_sentencepiece
from data_tools.tokenizers import load_tokenizer
from megatron_aquila import metrics
from megatron_aquila.config_loader import load_config
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.cloze import cloze_accuracy
from megatron_aquila.huggingface import export, write_model

VOCAB_SIZE = 2048
STAGES = ("stage1", "stage2")


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    name: str
    accuracy: float
    train_loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    seconds: float | None = None


def run_demo(directory: Path) -> int:
    """Run the demo under `directory`, an empty one; prints as it goes. Returns an exit code.

    Raises:
        AquilaError: a stage of training failed.
    """
    began = time.perf_counter()
    console = Console()
    console.rule("A synthetic clinic: every condition, drug and fact below is invented", style="dim")
    counts = write_clinic(directory / "data")
    documents = sum(number for name, number in counts.items() if name != "questions.jsonl")
    console.print(f"{documents:,} synthetic documents, zh and en; {counts['questions.jsonl']:,} cloze questions")

    texts = {name: directory / "data" / f"{name}.jsonl" for name in ("medical_stage1", "medical_stage2", "general")}
    train_sentencepiece(list(texts.values()), directory / "tokenizer", vocab_size=VOCAB_SIZE)
    tokens = 0
    for name, text in texts.items():
        index = build_index([str(text)], directory / "tokenizer", directory / "data" / name, IndexOptions())
        tokens += index.manifest["counts"]["tokens"]
    console.print(f"{tokens:,} tokens of a sentencepiece vocabulary of {VOCAB_SIZE:,}, indexed in Megatron's format")

    questions = [orjson.loads(line) for line in (directory / "data" / "questions.jsonl").read_bytes().splitlines()]
    rows = [Row("before", _accuracy(_untrained(directory), questions))]
    for number, stage in enumerate(STAGES, 1):
        console.rule(f"continued pre-training, stage {number}", style="dim")
        rows.append(_train(directory, stage, questions))
    console.print(_table(rows, len(questions)))
    console.print(
        f"{time.perf_counter() - began:.0f} s in all, on the CPU. The model, in Hugging Face form: "
        f"{directory / 'export' / STAGES[-1]}"
    )
    return 0


def recipe(stage: str) -> Path:
    """The recipe of a stage: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    for root in (here, here.parent):
        path = root / "recipes" / "tiny" / f"cpt_{stage}.yaml"
        if path.is_file():
            return path
    raise AquilaError(f"recipes/tiny/cpt_{stage}.yaml is not installed beside {here}")


def overrides(directory: Path, stage: str) -> list[str]:
    """What moves a recipe, written for the directory `demo`, to `directory`."""
    config = load_config(recipe(stage))

    def moved(path: Path) -> str:
        return str(directory / path.relative_to("demo"))

    changes = [f"output={moved(config.output)}", f"data.tokenizer={moved(config.data.tokenizer)}"]
    changes += [f"data.train.{index}.path={moved(corpus.path)}" for index, corpus in enumerate(config.data.train)]
    if config.model.weights is not None:
        changes.append(f"model.weights={moved(config.model.weights)}")
    return changes


def _untrained(directory: Path) -> Path:
    """The very weights that stage 1 starts from, exported."""
    from megatron_aquila.engine.device import choose_device

    choose_device("cpu")
    from megatron_aquila.engine.weights import RandomWeights

    run = load_config(recipe(STAGES[0]), overrides(directory, STAGES[0]))
    shape = run.model.resolve()
    weights = RandomWeights(shape, run.seed, run.model.init_std)
    return write_model(directory / "export" / "before", shape, weights, "", load_tokenizer(directory / "tokenizer"))


def _train(directory: Path, stage: str, questions: Sequence[dict[str, Any]]) -> Row:
    began = time.perf_counter()
    command = [sys.executable, "-m", "megatron_aquila", "train", str(recipe(stage)), *overrides(directory, stage)]
    code = subprocess.run(command, env={**os.environ}, check=False).returncode
    if code:
        raise AquilaError(f"training of {stage} ended with exit code {code}")
    seconds = time.perf_counter() - began
    output = load_config(recipe(stage), overrides(directory, stage)).output
    records = metrics.read(output / metrics.FILE)
    reports = [record for record in records if "train/loss" in record]
    rates = sorted(record["throughput/tokens_per_second"] for record in reports)
    return Row(
        f"after {stage.replace('stage', 'stage ')}",
        _accuracy(export(output, directory / "export" / stage), questions),
        reports[-1]["train/loss"],
        next(record["validation/loss"] for record in reversed(records) if "validation/loss" in record),
        rates[len(rates) // 2],
        seconds,
    )


def _accuracy(model: Path, questions: Sequence[dict[str, Any]]) -> float:
    return cloze_accuracy(model, questions, continuations)


def _table(rows: Sequence[Row], questions: int) -> Table:
    table = Table(
        title="What the model learned of the synthetic clinic",
        caption=f"{questions} synthetic cloze questions of 4 options, scored in transformers; chance is 25 %",
    )
    table.add_column("")
    for heading in ("cloze", "train loss", "valid loss", "tokens/s", "time"):
        table.add_column(heading, justify="right")

    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        table.add_row(
            row.name,
            f"{row.accuracy:.1%}",
            shown(row.train_loss, ".3f"),
            shown(row.validation_loss, ".3f"),
            shown(row.tokens_per_second, ",.0f"),
            "" if row.seconds is None else f"{row.seconds:.0f} s",
        )
    return table
