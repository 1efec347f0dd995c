"""Which change makes a run fit, and which layouts of it are fastest: all valid ones are assessed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.plan.assessment import Assessment
from megatron_aquila.shapes import ModelShape

Changes = Mapping[str, Any]
"""Dotted keys and their new values: overrides."""
Assess = Callable[[RunConfig], Assessment | list[str]]

_RECOMPUTE = ("none", "selective", "full")
_LOGITS_MIB = (512, 256, 128)
_MICRO_BATCHES = (1, 2, 4, 8)
_CONTEXT = (1, 2, 4, 8)


@dataclass(frozen=True)
class Candidate:
    """Changes to a recipe, and what comes of them."""

    changes: Changes
    assessment: Assessment

    def overrides(self) -> list[str]:
        """`key=value`, as every command takes them."""
        return [f"{key}={_text(value)}" for key, value in self.changes.items()]


def changed(run: RunConfig, changes: Changes) -> RunConfig | None:
    """`run` with `changes`; None where they do not go together."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    update: dict[str, Any] = {}
    for section, values in sections.items():
        if section == "parallel":
            try:
                update[section] = ParallelConfig(**{**run.parallel.model_dump(), **values})
            except ValidationError:
                return None
        else:
            update[section] = getattr(run, section).model_copy(update=values)
    return run.model_copy(update=update)


def resolved(run: RunConfig, shape: ModelShape) -> RunConfig:
    """`run` with the shape's sizes in it, so that nothing is read from `model.weights` again."""
    return run.model_copy(update={"model": run.model.model_copy(update={"shape": shape, "vocab_size": None})})


def remedies(run: RunConfig, assess: Assess, node: int) -> list[Candidate]:
    """The smallest changes that make a run fit, mildest first: one of each kind; of two kinds where none is enough."""
    kinds = [list(kind) for kind in _kinds(run, node)]
    single = [found for kind in kinds if (found := _first(run, kind, assess)) is not None]
    if single:
        return single
    pairs = []
    for one, other in itertools.combinations(kinds, 2):
        both = ({**first, **second} for first, second in itertools.product(one, other))
        found = _first(run, both, assess)
        if found is not None:
            pairs.append(found)
    return pairs


def layouts(run: RunConfig, shape: ModelShape, assess: Assess, gpus: int, node: int) -> list[Candidate]:
    """Every valid division of the model that fits, each in its fastest form, the fastest first."""
    best: dict[Any, Candidate] = {}
    for changes in _layouts(run, shape, gpus, node):
        candidate = changed(run, changes)
        if candidate is None:
            continue
        assessment = assess(candidate)
        if isinstance(assessment, Assessment) and assessment.fits:
            found = Candidate(_differences(run, changes), assessment)
            division = replace(assessment.sizes, virtual=1), candidate.parallel.sharding
            best[division] = min(best.get(division, found), found, key=_preference)
    return sorted(best.values(), key=lambda candidate: candidate.assessment.time.total)


def _preference(candidate: Candidate) -> tuple[int, int, int]:
    """By time, to half a per cent; of equals the one with fewer changes, then the one that needs less memory."""
    found = candidate.assessment
    return round(math.log(found.time.total) / 0.005), len(candidate.changes), found.worst.total


def _first(run: RunConfig, alternatives: Iterator[Changes] | list[Changes], assess: Assess) -> Candidate | None:
    for changes in alternatives:
        candidate = changed(run, changes)
        if candidate is None:
            continue
        assessment = assess(candidate)
        if isinstance(assessment, Assessment) and assessment.fits:
            return Candidate(changes, assessment)
    return None


def _kinds(run: RunConfig, node: int) -> Iterator[Iterator[Changes]]:
    """Kinds of changes, from the mildest to those that lay the run out anew; within a kind, too."""
    training, parallel = run.training, run.parallel
    yield ({"training.logits_mib": mib} for mib in _LOGITS_MIB if mib < training.logits_mib)
    if parallel.tensor_parallel > 1 and not parallel.sequence_parallel:
        yield iter([{"parallel.sequence_parallel": True}])
    stronger = _RECOMPUTE[_RECOMPUTE.index(training.recompute) + 1 :]
    yield ({"training.recompute": mode} for mode in stronger)
    smaller = [count for count in reversed(_MICRO_BATCHES) if count < training.micro_batch_size]
    yield ({"training.micro_batch_size": count} for count in smaller)
    order = ("none", "optimizer", "full")
    yield ({"parallel.sharding": kind} for kind in order[order.index(parallel.sharding) + 1 :])
    free = {"parallel.data_parallel": None} if parallel.data_parallel is not None else {}
    yield (
        {"parallel.tensor_parallel": tensor, "parallel.sequence_parallel": True, **free}
        for tensor in _powers(node)
        if tensor > parallel.tensor_parallel
    )
    yield (
        {"parallel.pipeline_parallel": pipeline, **free}
        for pipeline in (2, 3, 4, 6, 8, 12, 16)
        if pipeline > parallel.pipeline_parallel
    )


def _layouts(run: RunConfig, shape: ModelShape, gpus: int, node: int) -> Iterator[Changes]:
    """TP within a node × PP × VPP × CP × sharding × recompute × micro-batch; DP is what is left."""
    shardings = sorted({"optimizer", "full", run.parallel.sharding})
    heads = shape.num_query_groups
    for tensor in (size for size in _powers(node) if heads % size == 0 and gpus % size == 0):
        for pipeline in (size for size in _divisors(shape.num_layers) if gpus % (tensor * size) == 0):
            for context in (size for size in _CONTEXT if gpus % (tensor * pipeline * size) == 0):
                if context > 1 and run.data.sequence_length < 8192 and context != run.parallel.context_parallel:
                    continue  # short sequences leave its ranks too little work
                chunks = _divisors(shape.num_layers // pipeline)[1:] if pipeline > 1 else []
                for virtual in (None, *(count for count in chunks if count <= 8)):
                    for sharding, recompute, micro in itertools.product(shardings, _RECOMPUTE, _MICRO_BATCHES):
                        if sharding == "full" and pipeline > 1:
                            continue
                        yield {
                            "parallel.tensor_parallel": tensor,
                            "parallel.pipeline_parallel": pipeline,
                            "parallel.virtual_pipeline": virtual,
                            "parallel.context_parallel": context,
                            "parallel.data_parallel": None,
                            "parallel.sequence_parallel": tensor > 1,
                            "parallel.sharding": sharding,
                            "training.recompute": recompute,
                            "training.micro_batch_size": micro,
                        }


def _differences(run: RunConfig, changes: Changes) -> Changes:
    different = {}
    for key, value in changes.items():
        section, name = key.split(".")
        if getattr(getattr(run, section), name) != value:
            different[key] = value
    return different


def _powers(limit: int) -> list[int]:
    return [1 << power for power in range(limit.bit_length()) if 1 << power <= limit]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
