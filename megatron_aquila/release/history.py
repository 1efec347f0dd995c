"""How a model was made: its run, the run that one started from, and so on to the weights that none of ours made.

Read from checkpoints (`state.json`, manifest) and from the manifests of the data; nothing is asked of an engine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from data_tools.manifest import ManifestError, manifest_path, read_manifest
from megatron_aquila.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from megatron_aquila.huggingface import is_huggingface
from megatron_aquila.manifest import MANIFEST

Origin = Literal["random", "huggingface", "missing"]


@dataclass(frozen=True)
class TrainingData:
    """One dataset of a run. `manifest` is None where it has been lost; `funnel` is what was kept and dropped of the
    raw records, where it lies beside the dataset and is of it.
    """

    part: Literal["train", "valid"]
    name: str
    weight: float
    manifest: dict[str, Any] | None
    funnel: dict[str, Any] | None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the tokens' file."""
        return None if self.manifest is None else self.manifest.get("files", {}).get("bin", {}).get("sha256")


@dataclass(frozen=True)
class Stage:
    """A run, as far as the checkpoint that the next one started from.

    counted: what the loss was averaged over: tokens of text, trained tokens of answers, or pairs.
    digest: SHA-256 of the checkpoint's manifest, which lists that of every file.
    """

    name: str
    kind: str
    step: int
    samples: int
    counted: int
    recipe: dict[str, Any]
    recipe_digest: str
    digest: str
    tokenizer: str
    chat_template: str | None
    layout: str
    versions: dict[str, str | None]
    data: tuple[TrainingData, ...]


@dataclass(frozen=True)
class History:
    """Stages, the first one first. `origin` says where that one's weights came from; `origin_name` is a directory's
    name, without its path.
    """

    stages: tuple[Stage, ...]
    origin: Origin
    origin_name: str | None


def read_history(checkpoint: Checkpoint) -> History:
    """Follow `model.weights` from a checkpoint back to the first run that can be found.

    Relative paths of recipes are relative to the working directory, as they were in training. A run that is not
    there any more ends the chain, and is named.
    """
    stages: list[Stage] = []
    seen: set[Path] = set()
    while True:
        stage = _stage(checkpoint)
        stages.insert(0, stage)
        seen.add(checkpoint.path)
        weights = stage.recipe.get("model", {}).get("weights")
        if weights is None:
            return History(tuple(stages), "random", None)
        path = Path(weights)
        if is_huggingface(path):
            return History(tuple(stages), "huggingface", path.resolve().name)
        try:
            checkpoint = open_checkpoint(path, "sizes")
        except CheckpointError:
            return History(tuple(stages), "missing", path.name)
        if checkpoint.path in seen:  # a run was trained anew in the folder of an older one
            return History(tuple(stages), "missing", path.name)


def _stage(checkpoint: Checkpoint) -> Stage:
    state = checkpoint.state
    recipe = yaml.safe_load(state["config"]) if "config" in state else {}
    return Stage(
        name=recipe.get("name") or run_of(checkpoint).name,
        kind=recipe.get("stage", "unknown"),
        step=checkpoint.step,
        samples=int(state.get("samples", 0)),
        counted=int(state.get("tokens", 0)),
        recipe=recipe,
        recipe_digest=state.get("config_hash", ""),
        digest=hashlib.sha256((checkpoint.path / MANIFEST).read_bytes()).hexdigest(),
        tokenizer=state.get("tokenizer", ""),
        chat_template=state.get("chat_template"),
        layout=state.get("layout", ""),
        versions=checkpoint.manifest.get("versions", {}),
        data=tuple(_data(run_of(checkpoint), recipe.get("data", {}))),
    )


def run_of(checkpoint: Checkpoint) -> Path:
    """The run that a checkpoint is of."""
    return checkpoint.path.resolve().parents[1]


def _data(run: Path, data: dict[str, Any]) -> list[TrainingData]:
    found = []
    parts: tuple[Literal["train", "valid"], ...] = ("train", "valid")
    for part in parts:
        for number, corpus in enumerate(data.get(part) or ()):
            prefix = Path(corpus["path"])
            manifest = _manifest(run / "data" / f"{part}-{number}.manifest.json") or _manifest(manifest_path(prefix))
            weight = float(corpus.get("weight", 1.0))
            found.append(TrainingData(part, prefix.name, weight, manifest, _funnel(prefix.parent, manifest)))
    return found


def _manifest(path: Path) -> dict[str, Any] | None:
    try:
        return read_manifest(path)
    except ManifestError:
        return None


def _funnel(directory: Path, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    """The funnel beside a dataset, if what was published with it is what the dataset was made of."""
    if manifest is None:
        return None
    published = _manifest(directory / "manifest.json") or {}
    files = published.get("files", {})
    digests = {facts.get("sha256") for facts in files.values()}
    inputs = {source.get("sha256") for source in manifest.get("inputs", [])}
    return _manifest(directory / "funnel.json") if inputs and inputs <= digests else None
