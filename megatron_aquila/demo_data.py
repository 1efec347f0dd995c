"""The demo's text: a raw general corpus of the clinic becomes two stages of continued pre-training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from rich.console import Console

from data_tools.chat import get_template
from data_tools.clinic import make_world, write_clinic
from data_tools.clinic.raw_write import write_raw
from data_tools.corpus.page_terminal import plants_table, terminal_summary
from data_tools.corpus.plants_report import report_plants
from data_tools.corpus.recipe import Recipe, load_recipe
from data_tools.corpus.run import build_corpus
from data_tools.scorers.training import train_scorer
from data_tools.tokenizer_training import train_from_texts
from megatron_aquila.errors import AquilaError

VOCAB_SIZE = 2048
TEMPLATE = "chatml"
SCORERS = {"domain": "classification", "quality": "regression"}  # directory → task
RAW_DOCUMENTS, SEEDS = 7000, 1200
# What the raw corpus and the raw dialogues have among everything else.
_CLEAN = (
    *("medical_stage1.jsonl", "medical_stage2.jsonl", "general.jsonl"),
    *("dialogues.jsonl", "pairs_train.jsonl", "pairs_valid.jsonl"),
)


def prepare_data(
    directory: Path,
    console: Console,
    *,
    raw_documents: int = RAW_DOCUMENTS,
    seeds: int = SEEDS,
    workers: int | None = None,
) -> dict[str, Any]:
    """Make everything under `directory` that pre-training reads, and the questions; prints what became of the raw
    corpus.

    workers: processes that the corpus is made with; None: one a core. Returns the corpus's funnel, with "plants".
    """
    data = directory / "data"
    counts = {name.removesuffix(".jsonl"): count for name, count in write_clinic(data, leave_out=_CLEAN).items()}
    counts |= write_raw(data, make_world(seed=0), count=raw_documents, seed_count=seeds)
    console.print(
        f"{counts['plants.jsonl']:,} documents of all kinds as a crawl has them, {counts['seeds.jsonl']:,} labelled "
        f"ones, all synthetic, zh and en; {counts['questions']:,} cloze questions, {counts['exact_match']:,} to answer "
        "in words"
    )
    tokenizer = emptied(directory / "tokenizer")
    train_from_texts(
        _good_texts(data / "seeds.jsonl"),
        tokenizer,
        vocab_size=VOCAB_SIZE,
        control_tokens=get_template(TEMPLATE).control_tokens,
    )
    for name, task in SCORERS.items():
        output = emptied(directory / "scorers" / name)
        train_scorer([data / "seeds.jsonl"], output, kind="linear", task=task, tokenizer=tokenizer)
    recipe = corpus_recipe(directory)
    build_corpus(recipe, workers=workers or len(os.sched_getaffinity(0)))
    funnel = report_plants(recipe.output, data / "plants.jsonl")
    console.print(terminal_summary(funnel))
    console.print(plants_table(funnel["plants"]))
    console.print(f"The same in a page: {recipe.output / 'funnel.html'}")

    console.print(
        f"{sum(stage['tokens'] for stage in funnel['stages']):,} tokens of a sentencepiece vocabulary of "
        f"{VOCAB_SIZE:,}, indexed in Megatron's format"
    )
    return funnel


def _good_texts(seeds: Path) -> Iterator[str]:
    """The medical seeds worth reading: of all kinds of text, names of conditions would be cut into pieces that so small
    a model learns slowly.
    """
    for line in seeds.read_bytes().splitlines():
        seed = orjson.loads(line)
        if seed["label"] == "medical" and seed["score"] >= 3:
            yield seed["text"]


def corpus_recipe(directory: Path) -> Recipe:
    """`recipes/tiny/corpus.yaml` with every path moved to `directory`."""
    return load_recipe(tiny_recipe("corpus"), moves("corpus", load_recipe, directory))


def moves(name: str, load: Callable[[Path], BaseModel], directory: Path) -> list[str]:
    """The overrides that move every path of `recipes/tiny/NAME.yaml` from the directory `demo` to `directory`."""
    recipe = load(tiny_recipe(name)).model_dump(mode="json", exclude_unset=True)
    return [f"{key}={directory / Path(value).relative_to('demo')}" for key, value in _paths(recipe)]


def _paths(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The strings in a nest of values that begin with demo/, with their dotted keys."""
    if isinstance(value, str) and value.startswith("demo/"):
        yield key, value
    elif isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, f"{key}.{name}" if key else str(name))


def tiny_recipe(name: str) -> Path:
    """The recipe `name` of `recipes/tiny`: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    for root in (here, here.parent):
        path = root / "recipes" / "tiny" / f"{name}.yaml"
        if path.is_file():
            return path
    raise AquilaError(f"recipes/tiny/{name}.yaml is not installed beside {here}")


def emptied(directory: Path) -> Path:
    """Without what an earlier demo left there."""
    shutil.rmtree(directory, ignore_errors=True)
    return directory
