"""Selection: the one step that applies limits to what the steps before it scored. Thresholds or quantiles, the band of
context relevance, the budgets of the parts, and diversity.

It sees all dialogues: each gives a row (`SelectConfig.signer`), `select_verdicts.settle` decides on the files of rows,
and each shard drops its own. Limits can be changed without scoring again.

Dialogues are taken the best score first; of equal scores, that with the smaller hash of its id, then the earlier one in
the input. So neither shards nor workers change the selection, nor does the order of the input while ids differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.corpus.batch import Batch, Drop, Scale
from data_tools.corpus.step_config import GlobalStepConfig, Progress, Resources, Signer
from data_tools.dialogues.embedding import Embedding, NgramEmbedding
from data_tools.dialogues.select_parts import EVERYTHING, SelectPart, budgets
from data_tools.records import Messages

NO_PART, NO_SCORE, NO_RELEVANCE, BAND, BELOW, SIMILAR, BUDGET = REASONS = (
    "no-part", "no-score", "no-relevance", "out-of-band", "below-threshold", "too-similar", "over-budget"
)  # fmt: skip

# One row for each dialogue that goes. `reason` is its place in REASONS. `value` and `limit` are what was compared; of
# one over budget its score and how many stay. `like`: of one too similar, the ordinal (over all shards) of the first
# dialogue that stays, by score, which it is too similar to.
VERDICT = np.dtype(
    [("position", "<u4"), ("drop", "?"), ("reason", "u1"), ("value", "<f8"), ("limit", "<f8"), ("like", "<u8")]
)  # fmt: skip

_RELEVANCE = {"dialogue": "context_relevance_dialogue", "every turn": "context_relevance"}


class RelevanceBand(BaseModel):
    """The band in which the context relevance of a dialogue of several exchanges must lie, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Annotated[float | None, Field(ge=0)] = None
    """Below it the turns repeat each other. The paper gives no value: look at the histogram of the step
    context-relevance."""
    high: Annotated[float | None, Field(gt=0)] = None
    """Above it the history is of no help: above 1 it does harm. The paper gives no value either."""
    on: Literal["dialogue", "every turn"] = "dialogue"
    """The aggregate of the dialogue, or each of its later turns. The paper does not say."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("low and high are both missing: give one of them, or leave the band out")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low is {self.low} and high {self.high}: low must be the smaller")
        return self


class DiversityConfig(BaseModel):
    """Deita's repr filter (arXiv 2312.15685, 3.3). The paper of Aquila-Med does not mention it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """A cosine. Above it, to any dialogue that stays, a dialogue goes. Deita's 0.9 is meant for states of a model; of
    7,644 zh medical dialogues n-grams let 95 % pass at 0.9, 92 % at 0.7 and 81 % at 0.6."""
    embedding: Embedding = NgramEmbedding()
    within: Literal["pool", "part"] = "pool"
    """Dialogues are compared with all that stay, or with those of their part."""
    stored: Literal["float16", "float32"] = "float16"
    """Type of the numbers of a stored vector, which decide. float16 has 11 bits; Deita's bfloat16 states have 8."""

    def row(self, key: str) -> tuple[str, str, tuple[int]]:
        """The vector's field of a row."""
        return "vector", {"float16": "<f2", "float32": "<f4"}[self.stored], (self.embedding.size(f"{key}.embedding"),)


class SelectConfig(GlobalStepConfig):
    """Which dialogues stay of those that were scored."""

    apart: ClassVar[bool] = True  # scores are dear

    step: Literal["select"] = "select"
    score: str | None = "deita"
    """The name in the dialogue's scores; of a list, such as complexity and quality are, the mean. None: no score; the
    hash of the id alone orders, which is a fair draw."""
    threshold: float | None = None
    """Least score that stays. The paper keeps what is above a threshold (2.2.1) and does not give it."""
    quantile: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Instead: the share of the part's dialogues, with a score and within the band, that goes by it; the threshold is
    the score at that place."""
    relevance: RelevanceBand | None = None
    """Dialogues with less than two exchanges have no history, and always pass."""
    count: Annotated[int | None, Field(ge=1)] = None
    """How many dialogues may stay; the paper's set has 320,000."""
    parts: tuple[SelectPart, ...] = (EVERYTHING,)
    """A dialogue belongs to the first part whose conditions it meets; of none, it goes."""
    fill: bool = False
    """When parts fall short of their budgets, dialogues of others that were over theirs stay instead, the best first,
    up to `count`. Without, a part that is short is reported."""
    diversity: DiversityConfig | None = None
    memory: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Bytes of vectors that are held at once, beside 60 bytes a dialogue and the short vectors of those that stay;
    decides time, no outcome."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.threshold is not None and self.quantile is not None:
            raise ValueError("threshold and quantile exclude each other: give one of them")
        if self.score is None and (
            self.threshold is not None
            or self.quantile is not None
            or any(part.threshold is not None or part.quantile is not None for part in self.parts)
        ):
            raise ValueError("score is missing: a threshold or a quantile needs one")
        if self.fill and self.count is None:
            raise ValueError("fill needs a count: it says how many dialogues are to be filled up to")
        budgets(self.parts, self.count)
        return self

    def files(self) -> tuple[Path, ...]:
        """The model that gives the vectors."""
        return () if self.diversity is None else self.diversity.embedding.files()

    def row_facts(self) -> Mapping[str, Any]:
        """Which score and relevance, the parts' conditions, and the vectors; no limit."""
        conditions = {"langs", "sources", "kinds", "turns"}
        return {
            "score": self.score,
            "relevance": None if self.relevance is None else self.relevance.on,
            "parts": [part.model_dump(mode="json", include=conditions) for part in self.parts],
            "vectors": None
            if self.diversity is None
            else self.diversity.model_dump(mode="json", include={"embedding", "stored"}),
        }

    @property
    def row_dtype(self) -> np.dtype[np.void]:
        """A row: score and relevance (NaN: none), part (-1: none), hash of the id, and the vector where diversity needs
        it.

        Raises:
            InputError: the model's config.json cannot be read.
        """
        vector = [] if self.diversity is None else [self.diversity.row("select.diversity")]
        return np.dtype(
            [
                ("score", "<f8"),
                ("lowest", "<f8"),
                ("highest", "<f8"),
                ("part", "<i2"),
                ("exchanges", "<u2"),
                ("hash", "<u8"),
                *vector,
            ]
        )

    def signer(self, resources: Resources) -> Signer:
        """Rows of `row_dtype`, of a dialogue alone.

        Raises:
            InputError: as the embedding.
        """
        dtype = self.row_dtype
        embed = None if self.diversity is None else self.diversity.embedding.embedder("select.diversity.embedding")

        def sign(batch: Batch) -> npt.NDArray[np.void]:
            rows = np.zeros(len(batch), dtype)
            scores = [meta.get("scores") or {} for meta in batch.metas]
            rows["score"] = [0.0 if self.score is None else _mean(found.get(self.score)) for found in scores]
            relevance = self._relevance(scores)
            rows["lowest"], rows["highest"] = relevance.T
            exchanges = [exchange_count(messages) for messages in batch.messages]
            rows["exchanges"] = np.minimum(exchanges, np.iinfo(np.uint16).max)
            rows["part"] = [
                part_of(self.parts, *facts) for facts in zip(batch.sources, batch.langs, batch.metas, exchanges)
            ]
            rows["hash"] = [xxhash.xxh3_64_intdigest(name.encode()) for name in batch.ids]
            if embed is not None:
                rows["vector"] = embed(batch)
            return rows

        return sign

    def _relevance(self, scores: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
        """float64 [N, 2]: lowest and highest, NaN where there is none."""
        name = _RELEVANCE["dialogue" if self.relevance is None else self.relevance.on]
        found = [_numbers(of_dialogue.get(name)) for of_dialogue in scores]
        return np.array([(min(each), max(each)) if each else (np.nan, np.nan) for each in found]).reshape(-1, 2)

    def settle(
        self, parts: Sequence[Path], work: Path, outputs: Sequence[Path], on_progress: Progress
    ) -> Mapping[str, int]:
        """As `GlobalStepConfig.settle`: a `VERDICT` for each dialogue that goes."""
        from data_tools.dialogues.select_verdicts import select

        return select(self, parts, work, outputs, on_progress)

    def drop(self, verdict: np.void) -> Drop | None:
        """Why, with what was compared."""
        if not verdict["drop"]:
            return None
        reason = REASONS[verdict["reason"]]
        value, limit = round(float(verdict["value"]), 6), round(float(verdict["limit"]), 6)
        if reason == NO_PART:
            return Drop(NO_PART)
        if reason == NO_SCORE:
            return Drop(NO_SCORE, {"score": self.score})
        if reason == NO_RELEVANCE and self.relevance is not None:
            return Drop(NO_RELEVANCE, {"score": _RELEVANCE[self.relevance.on]})
        if reason == BUDGET:
            return Drop(BUDGET, {"value": value, "limit": int(limit)})
        detail: dict[str, Any] = {"value": value, "limit": limit}
        if reason == BAND:
            detail["side"] = "low" if verdict["value"] < verdict["limit"] else "high"
        if reason == SIMILAR:
            detail["kept"] = int(verdict["like"])
        return Drop(reason, detail)

    @property
    def scales(self) -> Mapping[str, Scale]:
        """Of the score that selects, and of the relevance (its lowest turn), with the limits that are one for all."""
        limits = {} if self.threshold is None else {"": (self.threshold,)}
        band = () if self.relevance is None else (self.relevance.low, self.relevance.high)
        ends = tuple(end for end in band if end is not None)
        high = {"deita": 36.0, "complexity": 6.0, "quality": 6.0}.get(self.score or "", 10.0)
        scales = {"relevance": Scale(0.1, 10, log=True, limits={"": ends} if ends else {})}
        return scales if self.score is None else {"score": Scale(0, high, limits=limits), **scales}

    def measures(self, batch: Batch) -> Mapping[str, npt.NDArray[np.float64]]:
        """The score and the relevance of what comes to this step."""
        scores = [meta.get("scores") or {} for meta in batch.metas]
        relevance = {"relevance": self._relevance(scores)[:, 0]}
        if self.score is None:
            return relevance
        return {"score": np.array([_mean(found.get(self.score)) for found in scores], np.float64), **relevance}


def part_of(parts: Sequence[SelectPart], source: str, lang: str, meta: Mapping[str, Any], exchanges: int) -> int:
    """The number of the first part whose conditions a dialogue meets, or -1."""
    return next((number for number, part in enumerate(parts) if part.holds(source, lang, meta, exchanges)), -1)


def exchange_count(messages: Messages) -> int:
    """User messages that an assistant's answer follows."""
    asked = answered = 0
    for message in messages:
        if message["role"] == "user":
            asked += 1
        elif message["role"] == "assistant" and asked:
            answered, asked = answered + 1, 0
    return answered


def _mean(score: object) -> float:
    """NaN where it is no number, or a list in which one is missing."""
    if isinstance(score, list):
        numbers = _numbers(score)
        return sum(numbers) / len(numbers) if numbers and len(numbers) == len(score) else float("nan")
    return (_numbers(score) or [float("nan")])[0]


def _numbers(score: object) -> list[float]:
    values = score if isinstance(score, list) else [score]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return [number for number in numbers if np.isfinite(number)]
