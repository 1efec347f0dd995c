"""Deita's scores of dialogues (arXiv 2312.15685; the paper of Aquila-Med, arXiv 2406.12182 §2.2.1, takes them over):
how complex a question is, how good its answer, and their product.

This step scores; `select` alone has thresholds. D: dialogues of the batch; E: their exchanges together.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from data_tools.causal_model import CausalModel, CausalSettings, load_causal_model
from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.dialogues.deita_prompts import Exchange, exchanges, with_history
from data_tools.dialogues.deita_scorers import Asked, DigitScorer, ExchangeScorer, TrainedScorer
from data_tools.scorers import load_scorer
from data_tools.scorers.directory import MANIFEST
from data_tools.scorers.protocol import SCORE_DECIMALS

COMPLEXITY, QUALITY, DEITA = "complexity", "quality", "deita"
_SUMMED_EXCHANGES = 8  # that the histogram of sums has room for


class DeitaScorer(BaseModel):
    """What gives a score: one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    causal: CausalSettings | None = None
    """A causal language model that was trained to write the score behind Deita's prompt, such as
    hkust-nlp/deita-complexity-scorer; the expected value of the six digits is the score, from 1 to 6. Those two are
    "primarily English", and the paper's dialogues are 86 % Chinese."""
    trained: Path | None = None
    """The directory of a regression of `aquila data train-scorer`, whose seeds were rendered by `complexity_text` and
    `quality_text`."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.causal is None) == (self.trained is None):
            raise ValueError("give one of causal (a language model) and trained (the directory of a scorer)")
        return self

    def files(self) -> tuple[Path, ...]:
        """The model, or the manifest of the scorer, which holds the digests of its files."""
        if self.causal is not None:
            return self.causal.files()
        assert self.trained is not None
        return (self.trained / MANIFEST,)


class DeitaConfig(StepConfig):
    """Score the exchanges of dialogues: complexity of the question, quality of the answer, and their product."""

    step: Literal["deita"] = "deita"
    complexity: DeitaScorer
    quality: DeitaScorer
    """May be the same model: it is loaded once."""
    aggregate: Literal["mean", "sum"] = "mean"
    """Of the products of a dialogue's exchanges. mean: the paper; sum: Deita's code, which prefers long dialogues."""
    history: bool = False
    """Show what was said before an exchange as part of its instruction. Deita's code shows the user's message alone,
    and the paper has no word on it."""
    unanswered: Literal["score", "skip"] = "score"
    """A last question that nobody answered: score, with the answer "" as in Deita's code, which costs the dialogue some
    of its mean; skip, as if it were not there, for no loss is taken on it."""

    def build(self, resources: Resources) -> "Deita":
        """Load the scorers; of the recipe's tokenizer, only linear ones have use.

        Raises:
            InputError: as `load_causal_model` and `load_scorer`; a tokenizer that has no token for a digit, a scorer
                that is no regression.
        """
        loaded: dict[CausalSettings, CausalModel] = {}

        def scorer(asked: DeitaScorer, key: str) -> ExchangeScorer:
            if asked.causal is None:
                assert asked.trained is not None
                return TrainedScorer(load_scorer(asked.trained, resources.tokenizer), asked.trained, key)
            if asked.causal not in loaded:
                loaded[asked.causal] = load_causal_model(asked.causal, f"{key}.causal")
            causal = loaded[asked.causal]
            return DigitScorer(causal, f"{key}.causal", quality=key == QUALITY, keep_end=self.history)

        return Deita(self, scorer(self.complexity, COMPLEXITY), scorer(self.quality, QUALITY))

    def files(self) -> tuple[Path, ...]:
        """The scorers."""
        return tuple(dict.fromkeys((*self.complexity.files(), *self.quality.files())))


class Deita:
    """Notes the scores `complexity` and `quality`, a number an exchange each, and `deita`, the mean or sum of their
    products.

    Drops (`no-score`) a dialogue of which a model gives no number, or which has no exchange: never a default.

    counts: "exchanges scored", "unanswered questions", "texts cut" (prompts that were too long), "exchanges without a
    score". measures: "deita", and "complexity" and "quality" as means over the exchanges.
    """

    name: ClassVar[str] = "deita"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: DeitaConfig, complexity: ExchangeScorer, quality: ExchangeScorer) -> None:
        self.config = config
        self.complexity = complexity
        self.quality = quality
        most = _SUMMED_EXCHANGES if config.aggregate == "sum" else 1
        self.scales: Mapping[str, Scale] = {
            COMPLEXITY: Scale(complexity.low, complexity.high, bins=50),
            QUALITY: Scale(quality.low, quality.high, bins=50),
            DEITA: Scale(complexity.low * quality.low, most * complexity.high * quality.high, bins=70),
        }

    def __call__(self, batch: Batch) -> Outcome:
        found = [self._exchanges(exchanges(messages)) for messages in batch.messages]
        flat = [exchange for dialogue in found for exchange in dialogue]
        said = [with_history(exchange) if self.config.history else exchange.question for exchange in flat]
        questions: list[Asked] = [(text, None) for text in said]
        both: list[Asked] = [(text, exchange.answer) for text, exchange in zip(said, flat)]
        complexity_E, cut_questions_E = self.complexity.score(questions)
        quality_E, cut_both_E = self.quality.score(both)
        scored_E = np.isfinite(complexity_E) & np.isfinite(quality_E)
        counts = Counter(
            {
                "exchanges scored": int(scored_E.sum()),
                "exchanges without a score": int((~scored_E).sum()),
                "unanswered questions": sum(not exchange.answer for exchange in flat),
                "texts cut": int(cut_questions_E.sum() + cut_both_E.sum()),
            }
        )
        outcome = Outcome(
            measures={name: np.full(len(found), np.nan) for name in self.scales},
            counts=+counts,  # without those of which there is none
        )
        end = 0
        for place, dialogue in enumerate(found):
            start, end = end, end + len(dialogue)
            complexity, quality = complexity_E[start:end], quality_E[start:end]
            drop = _no_score(complexity, quality)
            outcome.drops.append(drop)
            outcome.notes.append(None)
            if drop is None:
                deita = self._dialogue(complexity * quality)
                scores = {COMPLEXITY: _rounded(complexity), QUALITY: _rounded(quality), DEITA: _rounded([deita])[0]}
                outcome.notes[place] = {"scores": {**batch.metas[place].get("scores", {}), **scores}}
                values = {COMPLEXITY: complexity.mean(), QUALITY: quality.mean(), DEITA: deita}
                for name, value in values.items():
                    outcome.measures[name][place] = value
        return outcome

    def _exchanges(self, found: list[Exchange]) -> list[Exchange]:
        if self.config.unanswered == "skip":
            return [exchange for exchange in found if exchange.answer]
        return found

    def _dialogue(self, products: npt.NDArray[np.float64]) -> float:
        return float(products.sum() if self.config.aggregate == "sum" else products.mean())


def _no_score(complexity: npt.NDArray[np.float64], quality: npt.NDArray[np.float64]) -> Drop | None:
    """Why a dialogue has no score: the first exchange (from 1) without one, or that there is none."""
    if not len(complexity):
        return Drop("no-score", {"exchanges": 0})
    for number, values in enumerate(zip(complexity.tolist(), quality.tolist()), 1):
        for name, value in zip((COMPLEXITY, QUALITY), values):
            if not math.isfinite(value):
                return Drop("no-score", {"exchange": number, "score": name})
    return None


def _rounded(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    return [round(float(value), SCORE_DECIMALS) for value in values]
