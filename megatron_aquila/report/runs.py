"""What a run left on disk, and the road that led to it: `model.weights` names the run before, and so on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from megatron_aquila.metrics import FILE as METRICS
from megatron_aquila.report.curves import Curve, ReportError, read_metrics

CONFIG = "config.yaml"
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """A directory that `aquila train` wrote. `config` is empty where the run keeps none."""

    path: Path
    config: Mapping[str, Any]
    recipe: str  # config.yaml as it stands
    curves: Mapping[str, Curve]

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.path.name)

    @property
    def stage(self) -> str:
        return str(self.config.get("stage") or "training")

    @property
    def digest(self) -> str:
        """SHA-256 of config.yaml."""
        return hashlib.sha256(self.recipe.encode()).hexdigest()

    @cached_property
    def base(self) -> Path | None:
        """The directory that the configuration's relative paths start from, seen from where the run lies now."""
        output = Path(str(self.config.get("output") or ""))
        where = self.path.resolve()
        if output.is_absolute() or not output.parts or where.parts[-len(output.parts) :] != output.parts:
            return None
        return Path(*where.parts[: -len(output.parts)])

    def find(self, path: str) -> Path | None:
        """A path of the configuration where it lies now: beside the run if that was moved, else as it is written."""
        bases = [self.base] if self.base else []
        return next((base / path for base in (*bases, Path()) if _exists(base / path)), None)

    @property
    def weights(self) -> str | None:
        """Where its weights came from; None: random numbers."""
        model = self.config.get("model")
        found = model.get("weights") if isinstance(model, Mapping) else None
        return str(found) if found else None

    @property
    def steps(self) -> int:
        """Steps that were logged."""
        return int(max((curve.steps[-1] for curve in self.curves.values() if len(curve)), default=0))

    @property
    def training_seconds(self) -> float | None:
        """Seconds spent on training steps, validation and saving left out, by the rates that were logged: what was
        counted between two reports over the rate that the report gives. None where there are none.
        """
        if "throughput/step_seconds" in self.curves:
            took = self.curves["throughput/step_seconds"]
            steps = (0.0, *took.steps)
            return sum((now - before) * each for before, now, each in zip(steps, took.steps, took.values) if each > 0)
        for name, rates in self.curves.items():
            sample = name.removeprefix("throughput/").removesuffix("_per_second")
            counts = self.curves.get(f"train/{sample}")
            if f"throughput/{sample}_per_second" == name and counts is not None and len(counts) == len(rates):
                so_far = (0.0, *counts.values)
                return sum(
                    (now - was) / rate for was, now, rate in zip(so_far, counts.values, rates.values) if rate > 0
                )
        return None

    @property
    def samples(self) -> tuple[str, float] | None:
        """What a sample is called, and how many were trained on."""
        for name in self.curves:
            sample = name.removeprefix("throughput/").removesuffix("_per_second")
            counts = self.curves.get(f"train/{sample}")
            if f"throughput/{sample}_per_second" == name and counts is not None and counts.last is not None:
                return sample, counts.last
        return None

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Packages, as the newest checkpoint names them."""
        for manifest in sorted((self.path / _CHECKPOINTS).glob("step-*/manifest.json"), reverse=True):
            content = read_json(manifest)
            found = content.get("versions")
            if isinstance(found, Mapping):
                return {str(name): str(version) for name, version in found.items() if version} | (
                    {"processes": str(content["world_size"])} if "world_size" in content else {}
                )
        return {}

    def data(self, part: str) -> list[str]:
        """The paths of its training or validation data, as the configuration writes them."""
        data = self.config.get("data")
        entries = (data.get(part) if isinstance(data, Mapping) else None) or ()
        return [str(entry["path"]) for entry in entries if isinstance(entry, Mapping) and "path" in entry]


def read_run(path: Path) -> Run:
    """Raises: ReportError."""
    if not path.is_dir():
        raise ReportError(f"{path} is not a directory: give a run, that is the `output` of a training recipe")
    config = path / CONFIG
    if not config.is_file() and not (path / METRICS).is_file():
        raise ReportError(
            f"{path} holds neither {CONFIG} nor {METRICS}: give a run, that is the `output` of a training recipe"
        )
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    try:
        content = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise ReportError(f"{config} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise ReportError(f"{config} is not a configuration: it holds no keys")
    return Run(path, content, text, read_metrics(path / METRICS))


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file. Raises ReportError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ReportError(f"{path} holds no JSON object")
    return content


Road = Sequence[Run]
"""Runs in order, each trained from the one before."""


def read_roads(paths: Sequence[Path]) -> list[list[Run]]:
    """The road to each run of `paths`; a run that lies on the road to another one has none of its own.

    Raises: ReportError.
    """
    known: dict[Path, Run] = {}
    roads = [list(_road(path, known)) for path in paths]
    kept: list[list[Run]] = []
    for road in roads:
        within = any(other is not road and road[-1] in other and len(other) > len(road) for other in roads)
        if not within and road not in kept:
            kept.append(road)
    return kept


def _road(path: Path, known: dict[Path, Run]) -> Iterator[Run]:
    found: list[Run] = []
    at: Path | None = path
    while at is not None:
        key = at.resolve()
        if key not in known:
            known[key] = read_run(at)
        run = known[key]
        if run in found:
            break  # a run that names itself: there is no road before it
        found.append(run)
        before = run.find(run.weights) if run.weights else None
        at = _run_of(before) if before else None
    yield from reversed(found)


def _run_of(path: Path) -> Path | None:
    """The run that weights belong to: the path itself, or the run around a checkpoint; None for a model of others."""
    for one in (path, *list(path.resolve().parents)[:2]):
        if (one / CONFIG).is_file() and (one / METRICS).is_file():
            return one
    return None


@dataclass(frozen=True)
class Slot:
    """Runs of different roads that stand at the same place of their road: drawn over each other."""

    anchor: str
    title: str
    runs: tuple[Run, ...]


_TITLES = {"cpt": "Continued pre-training", "sft": "Supervised fine-tuning", "dpo": "Preference training"}


def slots(roads: Sequence[Road]) -> list[Slot]:
    """The places of the roads in order. Two runs share one if they are of the same stage, and the same one counted
    from the road's end: the second of two pre-trainings goes with the second.
    """
    places: dict[tuple[str, int], list[Run]] = {}
    order: list[tuple[str, int]] = []
    for road in sorted(roads, key=len, reverse=True):
        keys = _keys(road)
        # A place that longer roads lack goes in behind the one before it.
        after = -1
        for key in keys:
            if key in order:
                after = order.index(key)
            else:
                order.insert(after + 1, key)
                after += 1
    for road in roads:
        for key, run in zip(_keys(road), road):
            if run not in places.setdefault(key, []):
                places[key].append(run)
    many = {stage for stage, back in order if back}
    found: list[Slot] = []
    for stage, back in order:
        total = max(b for s, b in order if s == stage) + 1
        title = _TITLES.get(stage, stage.capitalize())
        title += f", stage {total - back}" if stage in many else ""
        anchor = f"stage-{len(found) + 1}"
        found.append(Slot(anchor, title, tuple(places[stage, back])))
    return found


def _keys(road: Road) -> list[tuple[str, int]]:
    stages = [run.stage for run in road]
    return [(stage, stages[index + 1 :].count(stage)) for index, stage in enumerate(stages)]


def labels(runs: Sequence[Run]) -> dict[Path, str]:
    """A name for each run (by path) that tells it from the others: its own, or with as much of the path's end as it
    needs.
    """
    names = [run.name for run in runs]
    found = {}
    for run in runs:
        parts = run.path.resolve().parts
        others = [other.path.resolve().parts for other in runs if other.name == run.name and other is not run]
        needed = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts) - 1)
        end = "/".join(parts[1:][-needed:])
        found[run.path] = run.name if names.count(run.name) == 1 else f"{run.name} ({end})"
    return found


def _exists(path: Path) -> bool:
    """Whether a path, or a family of files that begin with it (`corpus/stage1` + .bin, .idx), is there."""
    try:
        return path.exists() or path.with_name(f"{path.name}.idx").exists()
    except (OSError, ValueError):
        return False
