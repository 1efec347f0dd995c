"""Mixtures: how often each document enters each stage of training, so that every part has its share of the tokens.

A document belongs to the first part of a stage whose conditions it meets. A part of which e epochs are wanted takes
every document floor(e) times, and once more those whose hash (of seed, stage and id) is below a threshold that is
found from the tokens of the whole corpus: the choice depends on the documents alone, not on their order or shards.

Sources: the paper gives stages of 60B and 20B tokens without ratios (arXiv 2406.12182, 2.1.2); that data repeated up
to four times is worth almost as much as new data: Muennighoff et al., arXiv 2305.16264.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.corpus.batch import LANGUAGES, Batch

_BINS = 1 << 16  # of a part's documents by their hash: a threshold is exact to this share of the part
_NO_PART = -1

Array = npt.NDArray[Any]


class Part(BaseModel):
    """Documents that share a weight. A condition that is left out is met by all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what the report calls the part
    name: str
    # names of the recipe's sources
    sources: tuple[str, ...] | None = None
    # zh, en, other
    langs: tuple[str, ...] | None = None
    # labels of the domain step
    domains: tuple[str, ...] | None = None
    # of the quality step's score; a document without one does not meet it
    quality_at_least: float | None = None
    # share of the stage's tokens, beside the weights of its other parts
    weight: float | None = Field(default=None, gt=0)
    # instead of a weight, where the stage has no budget: how often each document is taken
    epochs: float | None = Field(default=None, gt=0)

    def holds(self, source: str, language: str, meta: dict[str, Any]) -> bool:
        """Whether a document meets the conditions."""
        return (
            (self.sources is None or source in self.sources)
            and (self.langs is None or language in self.langs)
            and (self.domains is None or meta.get("domain") in self.domains)
            and (self.quality_at_least is None or meta.get("quality", -np.inf) >= self.quality_at_least)
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if unknown := set(self.langs or ()) - set(LANGUAGES):
            raise ValueError(f"langs: {', '.join(sorted(unknown))} is none of {', '.join(LANGUAGES)}")
        return self


class Stage(BaseModel):
    """A corpus to train on. `tokens` with a weight for each part, or no `tokens` and epochs for each (1 by default)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # of what comes out: OUTPUT/documents/NAME/ and OUTPUT/NAME.bin
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    # the budget that the parts share; null: each part is taken `epochs` times
    tokens: int | None = Field(default=None, gt=0)
    # no part is repeated more often; what is short of its share then is not made up by the others, and reported
    max_epochs: float = Field(default=4.0, gt=0)
    parts: tuple[Part, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [part.name for part in self.parts]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two parts are called {sorted(repeated)[0]}: give each a name of its own")
        for part in self.parts:
            if self.tokens is not None and (part.weight is None or part.epochs is not None):
                raise ValueError(f"part {part.name} needs a weight, and no epochs: stage {self.name} has a budget")
            if self.tokens is None and part.weight is not None:
                raise ValueError(f"part {part.name} has a weight: give stage {self.name} a budget of tokens, or epochs")
        return self

    def part_of(self, source: str, language: str, meta: dict[str, Any]) -> int:
        """The number of the document's part, or -1."""
        for number, part in enumerate(self.parts):
            if part.holds(source, language, meta):
                return number
        return _NO_PART


EVERYTHING = Stage(name="documents", parts=(Part(name="all"),))


class Census:
    """Tokens and documents of each part of each stage by bins of the documents' hashes; can be added up."""

    def __init__(self, stages: Sequence[Stage], seed: int) -> None:
        self._stages = stages
        self._seed = seed
        self._counts: dict[tuple[int, int, int], list[int]] = {}  # (stage, part, bin) → documents, characters, tokens

    def add(self, batch: Batch, characters: Array, tokens: Array) -> None:
        """Count N documents with so many characters and tokens (int64 [N] each)."""
        for number, stage in enumerate(self._stages):
            for place, part in enumerate(_parts(stage, batch)):
                if part != _NO_PART:
                    key = number, part, bin_of(self._seed, stage.name, batch.ids[place])
                    count = self._counts.setdefault(key, [0, 0, 0])
                    count[0] += 1
                    count[1] += int(characters[place])
                    count[2] += int(tokens[place])

    def rows(self) -> Array:
        """int64 [K, 6]: stage, part, bin, documents, characters, tokens, sorted."""
        return np.array([[*key, *count] for key, count in sorted(self._counts.items())], np.int64).reshape(-1, 6)


@dataclass(frozen=True)
class PartPlan:
    """What of a part goes into a stage: every document `whole` times, and those in bins below `threshold` once more.

    available, chosen: [documents, characters, tokens]; chosen counts repeated documents as often as they are taken.
    """

    whole: int
    threshold: int
    available: list[int]
    chosen: list[int]
    capped: bool

    @property
    def epochs(self) -> float:
        """Tokens taken over tokens there."""
        return self.chosen[2] / self.available[2] if self.available[2] else 0.0


def plan_stages(stages: Sequence[Stage], rows: Iterable[Array]) -> list[list[PartPlan]]:
    """For each stage the plans of its parts, from the rows of all shards' censuses."""
    bins = [np.zeros((len(stage.parts), _BINS, 3), np.int64) for stage in stages]
    for shard in rows:
        for number in range(len(stages)):
            here = shard[shard[:, 0] == number]
            np.add.at(bins[number], (here[:, 1], here[:, 2]), here[:, 3:])
    return [_plan_stage(stage, found) for stage, found in zip(stages, bins)]


def copies(stage: Stage, plans: Sequence[PartPlan], batch: Batch, seed: int) -> list[int]:
    """How often each of the N documents enters the stage."""
    taken = []
    for place, part in enumerate(_parts(stage, batch)):
        if part == _NO_PART:
            taken.append(0)
            continue
        plan = plans[part]
        extra = plan.threshold > 0 and bin_of(seed, stage.name, batch.ids[place]) < plan.threshold
        taken.append(plan.whole + extra)
    return taken


def bin_of(seed: int, stage: str, name: str) -> int:
    """The bin of a document's hash, uniform over [0, 65536)."""
    return xxhash.xxh3_64_intdigest(f"{stage}\0{name}".encode(), seed) >> 48


def _parts(stage: Stage, batch: Batch) -> list[int]:
    """The number of the part of each of the N documents, -1 where it is in none."""
    return [stage.part_of(*facts) for facts in zip(batch.sources, batch.langs, batch.metas)]


def _plan_stage(stage: Stage, bins: Array) -> list[PartPlan]:
    weights = sum(part.weight or 0 for part in stage.parts)
    plans = []
    for part, found in zip(stage.parts, bins):
        tokens = None if stage.tokens is None else stage.tokens * (part.weight or 0) / weights
        plans.append(_plan_part(found, tokens, part.epochs or 1.0, stage.max_epochs))
    return plans


def _plan_part(bins: Array, tokens: float | None, epochs: float, max_epochs: float) -> PartPlan:
    """Args: bins: int64 [_BINS, 3]. tokens: wanted; None: `epochs` are."""
    available = bins.sum(0)
    if not available[0]:
        return PartPlan(0, 0, [0, 0, 0], [0, 0, 0], capped=bool(tokens))
    wanted = epochs if tokens is None else tokens / max(1, int(available[2]))
    capped = tokens is not None and wanted > max_epochs
    wanted = min(wanted, max_epochs) if tokens is not None else wanted
    whole = int(wanted)
    below = np.concatenate([[0], np.cumsum(bins[:, 2])])  # tokens in the bins below each threshold
    rest = (wanted - whole) * available[2]
    threshold = int(np.abs(below - rest).argmin())  # the nearest; of several, that with the fewest bins
    chosen = whole * available + bins[:threshold].sum(0)
    return PartPlan(whole, threshold, available.tolist(), chosen.tolist(), capped)
