"""A run → a directory to publish: weights, tokenizer, chat template, cards, and a look at all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from megatron_aquila.checkpoint import FOLDER, Checkpoint, open_checkpoint
from megatron_aquila.huggingface import export_checkpoint
from megatron_aquila.release.check import check_export
from megatron_aquila.release.dataset_card import dataset_card
from megatron_aquila.release.evidence import Evidence, ReleaseError, gather, require_same_weights
from megatron_aquila.release.history import History, TrainingData, read_history
from megatron_aquila.release.markdown import one_line
from megatron_aquila.release.model_card import Card, model_card
from megatron_aquila.shapes import ModelShape

CARD = "README.md"
DATASETS = "datasets"
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_HUB_MODEL = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class ReleaseOptions:
    """What the user says of a release; nothing of it can be read from the run.

    step: None for the best checkpoint, where the run keeps it, else the newest.
    dtype: None keeps what was trained in. fp32 of weights trained in bf16 is wider, and no more precise.
    """

    step: int | None = None
    dtype: Literal["bf16", "fp32"] | None = None
    name: str | None = None
    licence: str | None = None
    base_model: str | None = None
    evaluations: tuple[Path, ...] = ()
    card: bool = True
    check: bool = True


@dataclass(frozen=True)
class Released:
    """Where it is, and what its maker should know of it, a sentence each."""

    directory: Path
    step: int
    notes: tuple[str, ...]


def release(run: Path, output: Path, options: ReleaseOptions) -> Released:
    """Export a run or a checkpoint with its cards; `output` appears whole and checked, or not at all.

    Raises:
        CheckpointError: there is no sound checkpoint.
        HuggingFaceError, ReleaseError: what is asked cannot be written, or what was written is not sound.
    """
    _require_plain(options)
    checkpoint = open_checkpoint(run if options.step is None else _of_step(run, options.step))
    history = read_history(checkpoint)
    evidence = gather(checkpoint, options.evaluations)

    def finish(directory: Path) -> None:
        require_same_weights(evidence, directory)
        if options.card:
            _write_cards(directory, checkpoint, history, evidence, options)
        if options.check:
            check_export(directory)

    dtype = None if options.dtype is None else _DTYPES[options.dtype]
    export_checkpoint(checkpoint, output, dtype=dtype, finish=finish)
    return Released(output, checkpoint.step, tuple(_notes(history, evidence, options)) if options.card else ())


def _require_plain(options: ReleaseOptions) -> None:
    """Refuse what the Hub would refuse in a card's front matter."""
    if options.licence is not None and not _LICENCE.fullmatch(options.licence):
        raise ReleaseError(
            f"--license {options.licence!r} is no identifier of the Hub: give one as apache-2.0 or cc-by-nc-4.0, or "
            "other where none fits"
        )
    if options.base_model is not None and not _HUB_MODEL.fullmatch(options.base_model):
        raise ReleaseError(
            f"--base-model {options.base_model!r} is no model of the Hub: give its identifier, as BAAI/Aquila2-7B, and "
            "no path"
        )


def _of_step(run: Path, step: int) -> Path:
    folder = run / FOLDER if (run / FOLDER).is_dir() else run
    path = folder / f"step-{step:08d}"
    if not path.is_dir():
        there = sorted(int(found.name[5:]) for found in folder.glob("step-*") if found.name[5:].isdigit())
        kept = f"kept are {', '.join(map(str, there))}" if there else "there are none"
        raise ReleaseError(f"{folder} holds no checkpoint of step {step}: {kept}")
    return path


def _write_cards(
    directory: Path, checkpoint: Checkpoint, history: History, evidence: Evidence, options: ReleaseOptions
) -> None:
    files = _write_dataset_cards(directory, [data for stage in history.stages for data in stage.data])
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    card = Card(
        name=one_line(options.name or history.stages[-1].name),
        licence=options.licence,
        base_model=options.base_model,
        shape=ModelShape.model_validate(checkpoint.state["shape"]),
        dtype=config["dtype"],
        history=history,
        evidence=evidence,
        datasets=files,
    )
    (directory / CARD).write_text(model_card(card), encoding="utf-8")


def _write_dataset_cards(directory: Path, datasets: Sequence[TrainingData]) -> dict[str, str]:
    """Digest of the data → name of its card. A dataset that several stages read has one."""
    files: dict[str, str] = {}
    for data in datasets:
        if data.digest is None or data.digest in files:
            continue
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", data.name).strip(".-") or "data"
        taken = set(files.values())
        name, number = f"{stem}.md", 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}.md"
        files[data.digest] = name
        (directory / DATASETS).mkdir(exist_ok=True)
        (directory / DATASETS / name).write_text(dataset_card(data), encoding="utf-8")
    return files


def _notes(history: History, evidence: Evidence, options: ReleaseOptions) -> list[str]:
    notes = list(evidence.left_out)
    if history.origin == "missing":
        notes.append(
            f"the run {history.origin_name} that training started from was not found: the card tells of the stages "
            "since (recipes name it relative to the folder that training was started in: export from there)"
        )
    lost = [f"{stage.name}/{data.name}" for stage in history.stages for data in stage.data if data.manifest is None]
    if lost:
        notes.append(f"no manifest was found of {', '.join(lost)}: there is no card of it")
    if not evidence.evaluations:
        notes.append("the card holds no results: `aquila eval run` makes them")
    if options.licence is None:
        notes.append("the card states no licence: the base model's and the data's decide; give --license")
    return notes
