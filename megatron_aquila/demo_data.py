"""The demo's data: a raw general corpus of the clinic becomes two stages of text; dialogues and pairs; all indexed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from data_tools.chat import get_template
from data_tools.clinic import make_world, write_clinic
from data_tools.clinic.raw_write import write_raw
from data_tools.corpus.page_terminal import plants_table, terminal_summary
from data_tools.corpus.plants_report import report_plants
from data_tools.corpus.recipe import Recipe, load_recipe
from data_tools.corpus.run import build_corpus
from data_tools.indexing import IndexOptions, build_index
from data_tools.scorers.training import train_scorer
from data_tools.tokenizer_training import train_from_texts
from megatron_aquila.errors import AquilaError

VOCAB_SIZE = 2048
TEMPLATE = "chatml"
# of a dialogue, or of each of a pair's two sequences
MAX_LENGTH = 128
SAMPLES = {"dialogues": "dialogues", "pairs_train": "pairs", "pairs_valid": "pairs"}  # file → kind
SCORERS = {"domain": "classification", "quality": "regression"}  # directory → task
RAW_DOCUMENTS, SEEDS = 7000, 1200
# The texts that the raw corpus has among everything else.
_CLEAN = ("medical_stage1.jsonl", "medical_stage2.jsonl", "general.jsonl")


def prepare_data(
    directory: Path,
    console: Console,
    *,
    raw_documents: int = RAW_DOCUMENTS,
    seeds: int = SEEDS,
    workers: int | None = None,
) -> dict[str, Any]:
    """Make everything under `directory` that the four stages of training read; prints what became of the raw corpus.

    workers: processes that the corpus is made with; None: one a core. Returns the corpus's funnel, with "plants".
    """
    data = directory / "data"
    counts = {name.removesuffix(".jsonl"): count for name, count in write_clinic(data, leave_out=_CLEAN).items()}
    counts |= write_raw(data, make_world(seed=0), count=raw_documents, seed_count=seeds)
    console.print(
        f"{counts['plants.jsonl']:,} documents of all kinds as a crawl has them, {counts['seeds.jsonl']:,} labelled "
        f"ones, {counts['dialogues']:,} dialogues and {counts['pairs_train'] + counts['pairs_valid']:,} pairs of "
        f"answers, all synthetic, zh and en; {counts['questions']:,} cloze questions, {counts['exact_match']:,} to "
        "answer in words"
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

    tokens = 0
    for name, kind in SAMPLES.items():
        options = IndexOptions(kind=kind, template=TEMPLATE, max_length=MAX_LENGTH)
        index = build_index([str(data / f"{name}.jsonl")], tokenizer, data / name, options)
        tokens += index.manifest["counts"]["tokens"]
    console.print(
        f"{sum(stage['tokens'] for stage in funnel['stages']):,} tokens of text and {tokens:,} of chat, of a "
        f"sentencepiece vocabulary of {VOCAB_SIZE:,}, indexed in Megatron's format"
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
    """`recipes/tiny/corpus.yaml`, written for the directory `demo`, with every path moved to `directory`."""
    path = tiny_recipe("corpus")
    recipe = load_recipe(path).model_dump(mode="json", exclude_unset=True)
    moves = [f"{key}={directory / Path(value).relative_to('demo')}" for key, value in _paths(recipe)]
    return load_recipe(path, moves)


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
