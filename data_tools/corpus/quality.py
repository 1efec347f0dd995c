"""How good a document is: a trained regression from 0 to 6, and a threshold.

The paper scores 20,000 documents twice by GPT-4, leaves out those whose scores differ by about two points, and trains a
regression head on a multilingual BERT. Any kind of scorer does; a linear one runs on every document.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.inputs import InputError
from data_tools.scorers import Scorer, load_scorer
from data_tools.scorers.directory import MANIFEST
from data_tools.scorers.protocol import SCORE_DECIMALS


class QualityConfig(StepConfig):
    """Drop, or label, documents by a quality score."""

    step: Literal["quality"] = "quality"
    scorer: Path
    """The directory of a trained regression scorer."""
    threshold: float = 3.0
    """Documents below it go. The paper gives none; 3 is the middle of its scale, and FineWeb-Edu's choice (of 5)."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """By language, in place of `threshold`: {"zh": 2.5}. A document without a language takes `threshold`."""
    action: Literal["drop", "label"] = "drop"
    """drop, or keep all with their `quality` noted."""

    def build(self, resources: Resources) -> "Quality":
        """Load the scorer.

        Raises:
            InputError: as `load_scorer`; a scorer that is no regression, a threshold beyond its range.
        """
        scorer = load_scorer(self.scorer, resources.tokenizer)
        task = scorer.task
        if task.name != "regression":
            raise InputError(
                f"scorer {self.scorer} tells labels ({', '.join(task.labels)}): quality needs a regression"
            )
        for key, value in {
            "threshold": self.threshold,
            **{f"thresholds.{k}": v for k, v in self.thresholds.items()},
        }.items():
            if not task.low <= value <= task.high:
                raise InputError(
                    f"{key} is {value:g}: the scores of {self.scorer} go from {task.low:g} to {task.high:g}"
                )
        return Quality(self, scorer)

    def files(self) -> tuple[Path, ...]:
        """The manifest of the scorer, which holds the digests of its files."""
        return (self.scorer / MANIFEST,)


class Quality:
    """Notes `quality`. counts: "at or above" and "below" the threshold; measure: "quality"."""

    name: ClassVar[str] = "quality"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: QualityConfig, scorer: Scorer) -> None:
        self.config = config
        self.scorer = scorer
        drawn = {"": (config.threshold,), **{lang: (value,) for lang, value in config.thresholds.items()}}
        self.scales: Mapping[str, Scale] = {
            "quality": Scale(scorer.task.low, scorer.task.high, bins=60, limits=drawn),
        }

    def __call__(self, batch: Batch) -> Outcome:
        scores = np.round(self.scorer.score(batch)[:, 0], SCORE_DECIMALS)
        drops: list[Drop | None] = []
        notes: list[Mapping[str, Any] | None] = []
        counts: Counter[str] = Counter()
        for lang, score in zip(batch.langs, scores.tolist()):
            limit = self.config.thresholds.get(lang, self.config.threshold)
            below = score < limit
            counts["below" if below else "at or above"] += 1
            notes.append({"quality": score})
            drops.append(
                Drop("quality", {"value": score, "limit": limit}) if below and self.config.action == "drop" else None
            )
        return Outcome(drops=drops, notes=notes, counts=counts, measures={"quality": scores})
