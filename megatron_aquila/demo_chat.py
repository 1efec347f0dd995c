"""The demo's dialogues and preference pairs: the clinic's raw files in, what fine-tuning and DPO read out.

Whoever labels, writes and judges is a stand-in: a server on this machine with rules about the clinic
(`data_tools.clinic.server`) that speaks the protocol of the real ones. Scores that need logits are the demo's own
model's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from data_tools.clinic import make_world
from data_tools.clinic.raw_dialogues import PLANTS, SEEDS, write_raw_dialogues
from data_tools.clinic.server import MODEL, ClinicServer
from data_tools.corpus.page_terminal import plants_table, terminal_summary
from data_tools.corpus.plants_report import report_plants
from data_tools.dialogues.recipe import load_recipe
from data_tools.dialogues.run import build_dialogues
from data_tools.labelling import label
from data_tools.labelling.config import LabelConfig
from data_tools.llm import LanguageModel, ModelConfig
from data_tools.manifest import manifest_path
from data_tools.preferences.recipe import load_pairs_recipe
from data_tools.preferences.run import build_pairs
from data_tools.scorers.training import train_scorer
from megatron_aquila.demo_data import emptied, moves, tiny_recipe

RAW_DIALOGUES, SEED_DIALOGUES = 4600, 1500
SCORERS = ("complexity", "response-quality")  # tasks of `aquila data label`


def prepare_dialogues(
    directory: Path,
    console: Console,
    *,
    count: int = RAW_DIALOGUES,
    seeds: int = SEED_DIALOGUES,
    workers: int | None = None,
) -> dict[str, Any]:
    """Make what fine-tuning reads under `directory`, where the model of stage 2 is exported; prints what became of the
    raw dialogues. Returns their funnel.
    """
    data, world = directory / "data", make_world(seed=0)
    counts = write_raw_dialogues(data, world, count=count, seed_count=seeds)
    files = [name for name in counts if "/" in name]
    console.print(
        f"{sum(counts[name] for name in files):,} dialogues in the layouts of {len(files)} published sets, good ones "
        f"among copies, leaked questions, unsafe, misshapen and poor ones ({data / PLANTS} tells which). A server on "
        "this machine that speaks the OpenAI protocol labels, writes and judges: rules about the clinic, no language "
        "model."
    )
    with ClinicServer(world) as server:
        for task in SCORERS:
            _train_scorer(directory, task, server.url, seeds)
    recipe = load_recipe(tiny_recipe("data_sft"), moves("data_sft", load_recipe, directory))
    build_dialogues(recipe, workers=workers or len(os.sched_getaffinity(0)))
    funnel = report_plants(recipe.output, data / PLANTS)
    console.print(terminal_summary(funnel))
    console.print(plants_table(funnel["plants"]))
    console.print(f"The same in a page: {recipe.output / 'funnel.html'}")
    return funnel


def prepare_pairs(directory: Path, console: Console, *, workers: int | None = None) -> dict[str, Any]:
    """Make what DPO reads under `directory`, where the dialogues are; prints how. Returns the pairs' funnel."""
    changes = moves("data_dpo", load_pairs_recipe, directory)
    with ClinicServer(make_world(seed=0)) as server:
        changes += [f"subjective.{role}.base_url={server.url}" for role in ("author", "judge")]
        recipe = load_pairs_recipe(tiny_recipe("data_dpo"), changes)
        summary = build_pairs(recipe, workers=workers or len(os.sched_getaffinity(0)))
    return summary.funnel


def _train_scorer(directory: Path, task: str, url: str, seeds: int) -> None:
    """Have a part of the dialogues labelled, and train a scorer on the labels."""
    labelled = directory / "data" / f"labelled_{task}.jsonl"
    for path in (labelled, manifest_path(labelled)):
        path.unlink(missing_ok=True)
    # As many exchanges of each language as there are seeds; once each, for rules never change their mind.
    config = LabelConfig.model_validate({"task": task, "samples": {"zh": seeds, "en": seeds}, "repeats": 1})
    model = ModelConfig(model=MODEL, base_url=url, cache=directory / "answers")
    label([str(directory / "data" / SEEDS)], labelled, config, LanguageModel(model))
    output = emptied(directory / "scorers" / task.replace("-", "_"))
    train_scorer([str(labelled)], output, kind="linear", task="regression", tokenizer=directory / "tokenizer")
