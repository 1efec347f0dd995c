"""Which domain a document is of: a cascade of scorers, the cheap ones first, each deciding what it is sure of.

The paper classifies every document with a multilingual BERT. A linear score over the token counts costs nearly nothing
beside tokenisation and settles most of a general corpus; fastText and an encoder see what is left.

N: documents; C: labels of a scorer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.inputs import InputError
from data_tools.scorers import Scorer, load_scorer
from data_tools.scorers.directory import MANIFEST
from data_tools.scorers.protocol import SCORE_DECIMALS

Share = Annotated[float, Field(ge=0, le=1)]


class DomainStage(BaseModel):
    """One scorer and the scores from which on it decides. All but the last have `low` and `high`, the last a
    `threshold`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: Path
    """The directory of a trained classification scorer; its report.json suggests the limits below."""
    low: Share | None = None
    """A probability of the label below it: another domain. Default 0.02; keeps nearly all of the label for the next
    stage."""
    high: Share | None = None
    """A probability from it upwards: of the domain. Default 0.98."""
    threshold: Share | None = None
    """Of the last stage: from it upwards of the domain, else not. Default 0.5; the paper gives none."""


class DomainConfig(StepConfig):
    """Keep one domain out of a general corpus (the paper: medical, F1 84 %)."""

    step: Literal["domain"] = "domain"
    stages: tuple[DomainStage, ...] = Field(min_length=1)
    """Asked in this order: linear, fasttext, encoder is from cheap to dear."""
    label: str = "medical"
    """The label that is looked for; every stage's scorer must know it."""
    action: Literal["drop", "label"] = "drop"
    """drop the documents of other domains, or keep all with their `domain` and `domain_score` noted (a mix by domain
    needs the others too)."""

    @model_validator(mode="after")
    def _limits(self) -> "DomainConfig":
        for number, stage in enumerate(self.stages[:-1]):
            if stage.threshold is not None:
                raise ValueError(f"stages[{number}] is not the last, which alone has a threshold: give low and high")
            low, high = limits(stage)
            if low > high:
                raise ValueError(f"stages[{number}]: low {low:g} is above high {high:g}")
        if self.stages[-1].low is not None or self.stages[-1].high is not None:
            raise ValueError(
                f"stages[{len(self.stages) - 1}] is the last and decides everything: give a threshold alone"
            )
        return self

    def build(self, resources: Resources) -> "Domain":
        """Load the scorers.

        Raises:
            InputError: as `load_scorer`; a scorer that is no classification or does not know the label.
        """
        scorers = []
        for number, stage in enumerate(self.stages):
            scorer = load_scorer(stage.scorer, resources.tokenizer)
            if self.label not in scorer.task.labels:
                known = ", ".join(scorer.task.labels) or "no label, it is a regression"
                raise InputError(f"stages[{number}].scorer {stage.scorer} knows {known}: it must know {self.label!r}")
            scorers.append(scorer)
        return Domain(self, scorers)

    def files(self) -> tuple[Path, ...]:
        """The manifests of the scorers, which hold the digests of all their files."""
        return tuple(stage.scorer / MANIFEST for stage in self.stages)


def limits(stage: DomainStage) -> tuple[float, float]:
    """`low` and `high` of a stage that is not the last."""
    return 0.02 if stage.low is None else stage.low, 0.98 if stage.high is None else stage.high


class Domain:
    """Notes `domain` (the label looked for, or the likeliest other one) and `domain_score` (its probability, of the
    stage that decided).

    counts: "stage 1 linear: medical", "stage 1 linear: other", and so on for each stage. measures: "stage 1 linear"
    and so on, the probability of the label, NaN where an earlier stage had decided. The language is not used.
    """

    name: ClassVar[str] = "domain"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: DomainConfig, scorers: Sequence[Scorer]) -> None:
        self.config = config
        self.scorers = scorers
        last = len(scorers) - 1
        threshold = config.stages[last].threshold
        self._threshold = 0.5 if threshold is None else threshold
        # The last stage is one whose two limits are the same.
        self._limits = [limits(stage) for stage in config.stages[:last]] + [(self._threshold, self._threshold)]
        self._names = [f"stage {number} {scorer.kind}" for number, scorer in enumerate(scorers, 1)]
        self.scales: Mapping[str, Scale] = {
            name: Scale(0.0, 1.0, limits={"": tuple(sorted(set(pair)))})
            for name, pair in zip(self._names, self._limits)
        }

    def __call__(self, batch: Batch) -> Outcome:
        drops: list[Drop | None] = [None] * len(batch)
        notes: list[Mapping[str, Any] | None] = [None] * len(batch)
        counts: Counter[str] = Counter()
        measures = {name: np.full(len(batch), np.nan) for name in self._names}
        open_places = np.arange(len(batch))
        for number, (scorer, (low, high), name) in enumerate(zip(self.scorers, self._limits, self._names), 1):
            if not len(open_places):
                break
            rest = batch if len(open_places) == len(batch) else batch.select(open_places.tolist())
            scores_NC = np.round(scorer.score(rest), SCORE_DECIMALS)
            wanted = scores_NC[:, scorer.task.labels.index(self.config.label)]
            measures[name][open_places] = wanted
            chosen, other = wanted >= high, (wanted < low)
            counts[f"{name}: {self.config.label}"] += int(chosen.sum())
            counts[f"{name}: other"] += int(other.sum())
            names = self._other_names(scorer, scores_NC)
            for place, score, is_chosen, is_other, domain in zip(
                open_places.tolist(), wanted.tolist(), chosen.tolist(), other.tolist(), names
            ):
                if is_chosen:
                    notes[place] = {"domain": self.config.label, "domain_score": score}
                elif is_other:
                    notes[place] = {"domain": domain, "domain_score": score}
                    if self.config.action == "drop":
                        drops[place] = Drop(
                            "domain",
                            {"value": score, "limit": low, "stage": number, "domain": domain},
                        )
            open_places = open_places[~(chosen | other)]
        return Outcome(drops=drops, notes=notes, counts=+counts, measures=measures)

    def _other_names(self, scorer: Scorer, scores_NC: npt.NDArray[np.float64]) -> list[str]:
        masked = scores_NC.copy()
        masked[:, scorer.task.labels.index(self.config.label)] = -1.0
        return [scorer.task.labels[place] for place in masked.argmax(axis=1).tolist()]
