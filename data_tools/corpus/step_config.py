"""What the configuration of every corpus step has in common."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from data_tools.corpus.batch import Batch, Drop, Scale, Step
from data_tools.tokenizers import Tokenizer


@dataclass(frozen=True)
class Resources:
    """What a step is built with, beside its configuration: the recipe's tokenizer and seed."""

    tokenizer: Tokenizer
    seed: int


class StepConfig(BaseModel):
    """Frozen; unknown keys are refused. A subclass has `step: Literal["name"] = "name"`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str

    @abstractmethod
    def build(self, resources: Resources) -> Step:
        """The step; called once in every worker process.

        Raises:
            InputError: a file that is missing, cannot be read or does not fit the recipe; names it and the key.
        """

    def files(self) -> tuple[Path, ...]:
        """The files (models, questions, lists) whose contents decide outcomes; they enter the run's digest."""
        return ()


Signer = Callable[[Batch], npt.NDArray[Any]]
Progress = Callable[[int, int], None]


class GlobalStepConfig(StepConfig):
    """A step that has to see all documents, such as the search for duplicates. It stands between two phases.

    Beside the steps before it each document gets a row (`signer`); when all shards have theirs, `settle` works on the
    files of rows alone and writes verdicts; each shard then applies its own (`drop`, `member`).
    """

    apart: ClassVar[bool] = False
    """Whether rows are made in a phase of their own, because the steps before are too dear to be done again when
    something changes here."""

    def row_facts(self) -> Mapping[str, Any]:
        """What of the configuration decides the rows, beside `files`: when nothing of it changes, rows are kept."""
        return self.model_dump(mode="json")

    def build(self, resources: Resources) -> NoReturn:
        """No step of a batch."""
        raise TypeError(f"{self.step} looks at all documents at once: it has a signer and verdicts, and is no step")

    @abstractmethod
    def signer(self, resources: Resources) -> Signer:
        """A function that gives one row (of a structured dtype of fixed size) for each document of a batch, in its
        order. The row depends on the document alone. One thread at a time.
        """

    @abstractmethod
    def settle(
        self, parts: Sequence[Path], work: Path, outputs: Sequence[Path], on_progress: Progress
    ) -> Mapping[str, int]:
        """Write the verdicts on the documents of parts[i] (a file of rows, in document order) to outputs[i], a numpy
        file (.npy, published whole) of a structured dtype with at least "position" (<u4, ascending: the document's
        place in its part) and "drop" (bool). Documents without a verdict stay. Returns counts for the report.

        Args:
            work: an existing empty directory for temporary files, emptied again.
            on_progress: called with what is done and all there is.

        Raises:
            InputError: a part that is not whole. StorageError: the disk is full.
        """

    @abstractmethod
    def drop(self, verdict: np.void) -> Drop | None:
        """Why the document of a verdict goes; None where it stays."""

    def member(self, verdict: np.void, name: str) -> Mapping[str, Any] | None:
        """The line of clusters.jsonl of the document `name`, where verdicts are about clusters."""
        return None

    @property
    def scales(self) -> Mapping[str, Scale]:
        """Of the histograms that `measures` fills; none unless a subclass says so."""
        return {}

    def measures(self, batch: Batch) -> Mapping[str, npt.NDArray[np.float64]]:
        """By name, N floats (NaN: not measured) of the documents that come to this step."""
        return {}
