"""What the configuration of every corpus step has in common."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data_tools.corpus.batch import Step
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
