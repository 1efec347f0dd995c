"""From the rows of all shards to the dialogues that stay. Verdicts depend on the rows alone.

N: dialogues, over all shards, in the order of the input. P: parts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.corpus.signatures import RowFiles
from data_tools.corpus.step_config import Progress
from data_tools.dialogues.diversity import (
    KEPT,
    OVER_BUDGET,
    TOO_SIMILAR,
    ArrayVectors,
    DiversityWalk,
    Vectors,
    Walked,
)
from data_tools.dialogues.select import (
    BAND,
    BELOW,
    BUDGET,
    NO_PART,
    NO_RELEVANCE,
    NO_SCORE,
    REASONS,
    SIMILAR,
    VERDICT,
    DiversityConfig,
    SelectConfig,
)
from data_tools.dialogues.select_parts import EVERYTHING, budgets
from data_tools.publish import atomic_path, storage_errors

_BYTES_PER_CHUNK = 8 << 20
_STAYS = 255
_CODES = {reason: code for code, reason in enumerate(REASONS)}

Array = npt.NDArray[Any]


def select(
    config: SelectConfig, parts: Sequence[Path], work: Path, outputs: Sequence[Path], on_progress: Progress
) -> dict[str, int]:
    """Write the verdicts, as `GlobalStepConfig.settle`.

    Counts: of each part the dialogues there, those that could stay, the budget where it has one, those that stay, and
    how many it is short of; pairs that were compared by their short and by their whole vectors.
    """
    with RowFiles(parts, config.row_dtype) as rows, storage_errors(work):
        selection = _Selection(config, rows)
        selection.apply_limits()
        selection.apply_budgets(on_progress)
        for part, output in enumerate(outputs):
            verdicts = selection.verdicts(int(rows.starts[part]), int(rows.starts[part + 1]))
            with atomic_path(output) as temporary, temporary.open("wb") as file:
                np.save(file, verdicts)
        return selection.counts()


class _Selection:
    def __init__(self, config: SelectConfig, rows: RowFiles) -> None:
        self.config = config
        self.rows = rows
        self.columns = np.empty(
            len(rows), [(name, config.row_dtype[name]) for name in config.row_dtype.names or () if name != "vector"]
        )
        for start, some in self._chunks():
            for name in self.columns.dtype.names or ():
                self.columns[name][start : start + len(some)] = some[name]
        self.reason = np.full(len(rows), _STAYS, np.uint8)
        self.value, self.limit = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        self.like = np.zeros(len(rows), np.uint64)
        self.able: list[int] = []
        self.walk: DiversityWalk | None = None

    def apply_limits(self) -> None:
        """What goes by its own row, or by the quantile of its part."""
        columns, band = self.columns, self.config.relevance
        self._drop(columns["part"] < 0, NO_PART)
        self._drop(np.isnan(columns["score"]), NO_SCORE)
        if band is not None:
            several = columns["exchanges"] > 1
            self._drop(several & np.isnan(columns["lowest"]), NO_RELEVANCE)
            if band.low is not None:
                self._drop(several & (columns["lowest"] < band.low), BAND, columns["lowest"], band.low)
            if band.high is not None:
                self._drop(several & (columns["highest"] > band.high), BAND, columns["highest"], band.high)
        for number in range(len(self.config.parts)):
            here = (columns["part"] == number) & (self.reason == _STAYS)
            threshold = self._threshold(number, columns["score"][here])
            if threshold is not None:
                self._drop(here & (columns["score"] < threshold), BELOW, columns["score"], threshold)

    def _threshold(self, number: int, scores: Array) -> float | None:
        part, config = self.config.parts[number], self.config
        given = part if part.threshold is not None or part.quantile is not None else config
        if given.quantile is None or not len(scores):
            return given.threshold
        return float(np.quantile(scores, given.quantile, method="higher"))

    def apply_budgets(self, on_progress: Progress) -> None:
        """The walk along the scores, and where parts are to be filled another along what was over budget."""
        config = self.config
        stays = np.flatnonzero(self.reason == _STAYS)
        order = stays[np.lexsort((stays, self.columns["hash"][stays], -self.columns["score"][stays]))]
        self.able = np.bincount(self.columns["part"][stays], minlength=len(config.parts)).tolist()
        if config.diversity is not None and len(order):
            self.walk = self._diversity_walk(config.diversity)
        total = len(order) if config.count is None else config.count
        room = [len(order) if budget is None else budget for budget in budgets(config.parts, config.count)]
        self._walk(order, room, total, on_progress)
        missing = total - int((self.reason == _STAYS).sum())
        if config.fill and missing > 0:
            over = order[self.reason[order] == _CODES[BUDGET]]
            self.reason[over] = _STAYS
            self._walk(over, [len(over)] * len(room), missing, on_progress)

    def _walk(self, order: Array, room: list[int], total: int, on_progress: Progress) -> None:
        """Mark what goes of the dialogues along `order`. A second walk goes on where the first ended."""
        parts = self.columns["part"][order].astype(np.int64)
        if self.walk is None:
            walked = within_budgets(parts, room, total)
        else:
            walked = self.walk(order, parts, room, total, lambda done: on_progress(done, len(order)))
        over, similar = walked.outcome == OVER_BUDGET, walked.outcome == TOO_SIMILAR
        limits = np.minimum(room, total)
        self._mark(order[over], BUDGET, self.columns["score"][order[over]], limits[parts[over]])
        threshold = np.nan if self.config.diversity is None else self.config.diversity.threshold
        self._mark(order[similar], SIMILAR, walked.similarity[similar], threshold)
        self.like[order[similar]] = walked.like[similar].astype(np.uint64)

    def _diversity_walk(self, config: DiversityConfig) -> DiversityWalk:
        vectors: Vectors = _StoredVectors(self.rows)
        dtype = self.rows.dtype["vector"]
        if len(self.rows) * dtype.itemsize <= self.config.memory // 2:
            array = np.empty((len(self.rows), vectors.dimensions), dtype.base)
            for start, some in self._chunks():
                array[start : start + len(some)] = some["vector"]
            vectors = ArrayVectors(array)
        return DiversityWalk(vectors, config.threshold, within_parts=config.within == "part")

    def _drop(self, where: Array, reason: str, values: Array | None = None, limit: float = np.nan) -> None:
        """Mark what goes of the N dialogues, bool [N], unless it went before."""
        places = np.flatnonzero(where & (self.reason == _STAYS))
        self._mark(places, reason, np.nan if values is None else values[places], limit)

    def _mark(self, places: Array, reason: str, values: Array | float, limits: Array | float) -> None:
        self.reason[places] = _CODES[reason]
        self.value[places], self.limit[places] = values, limits

    def verdicts(self, start: int, stop: int) -> Array:
        """Of the dialogues [start, stop) that go."""
        gone = start + np.flatnonzero(self.reason[start:stop] != _STAYS)
        out = np.zeros(len(gone), VERDICT)
        out["position"], out["drop"], out["reason"] = gone - start, True, self.reason[gone]
        out["value"], out["limit"], out["like"] = self.value[gone], self.limit[gone], self.like[gone]
        return out

    def counts(self) -> dict[str, int]:
        """For the report."""
        columns, stays = self.columns, self.reason == _STAYS
        counts = {"dialogues": len(columns), "kept": int(stays.sum())}
        if self.config.count is not None:
            counts["wanted"] = self.config.count
        for number, budget in enumerate(budgets(self.config.parts, self.config.count)):
            part = self.config.parts[number]
            name = "" if part == EVERYTHING else f"{part.name}: "
            here = columns["part"] == number
            kept = int((here & stays).sum())
            counts[f"{name}dialogues"] = int(here.sum())
            counts[f"{name}within limits"] = self.able[number]
            counts[f"{name}kept"] = kept
            if budget is not None:
                counts[f"{name}wanted"] = budget
                counts[f"{name}short"] = max(0, budget - kept)
        if self.walk is not None:
            counts["pairs compared"], counts["pairs compared whole"] = self.walk.compared, self.walk.checked
        return counts

    def _chunks(self) -> Iterator[tuple[int, Array]]:
        size = max(1, _BYTES_PER_CHUNK // self.rows.dtype.itemsize)
        for start in range(0, len(self.rows), size):
            yield start, self.rows.read(start, min(size, len(self.rows) - start))


class _StoredVectors:
    """The vectors in files of rows."""

    def __init__(self, rows: RowFiles) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dimensions(self) -> int:
        return int(self._rows.dtype["vector"].shape[0])

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        known, inverse = np.unique(places, return_inverse=True)
        return np.asarray(self._rows.take(known.astype(np.uint64))["vector"], np.float32)[inverse]


def within_budgets(parts: Array, room: Sequence[int], total: int) -> Walked:
    """The walk where all dialogues differ enough: the first ones of each part stay. parts: int64 [n]."""
    stays = np.zeros(len(parts), np.bool_)
    for number, limit in enumerate(room):
        stays[np.flatnonzero(parts == number)[:limit]] = True
    stays[np.flatnonzero(stays)[total:]] = False
    outcome = np.where(stays, KEPT, OVER_BUDGET).astype(np.uint8)
    return Walked(outcome, np.full(len(parts), -1), np.full(len(parts), np.nan))
