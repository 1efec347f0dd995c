"""What every scorer can do, whatever it was trained with.

N: documents; C: columns of scores (one a label, or one).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.corpus.batch import Batch

KINDS = ("linear", "fasttext", "encoder")
TASKS = ("classification", "regression")
SCORE_DECIMALS = 6
"""Scores are rounded to these before they are compared with a threshold, noted or reported: all three agree."""


@dataclass(frozen=True)
class Task:
    """What is predicted: one of `labels`, or a number from `low` to `high`."""

    name: Literal["classification", "regression"]
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 6.0

    @property
    def columns(self) -> int:
        """C: the columns of a score."""
        return len(self.labels) if self.name == "classification" else 1

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest; a classification has labels, a regression a range."""
        if self.name == "classification":
            return {"name": self.name, "labels": list(self.labels)}
        return {"name": self.name, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Task":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: it is no task.
        """
        if value["name"] == "classification":
            return cls("classification", tuple(value["labels"]))
        return cls("regression", (), float(value["low"]), float(value["high"]))


class Scorer(Protocol):
    """Scores documents; the score of a document does not depend on its batch."""

    @property
    def kind(self) -> str:
        """`linear`, `fasttext` or `encoder`."""

    @property
    def task(self) -> Task: ...

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        """[N, C]: probabilities in the order of the task's labels, each row summing to 1; or [N, 1]: a number in the
        task's range.
        """
