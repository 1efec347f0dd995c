"""The recipes of the judge: which answers, against what, who judges. YAML in, a checked model out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.config_files import load_model
from data_tools.llm import ModelConfig


class JudgeConfig(BaseModel):
    """What both ways of judging have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path
    """Directory that is written: judge.json and verdicts.jsonl, such as runs/dpo/evaluation/huatuo-pair-judge."""
    answers: Path
    """Answers of the model that is judged: answers/SET.jsonl of an evaluation."""
    name: str | None = Field(default=None, min_length=1)
    """What the table calls that model; by default the answers' path says it."""
    model: ModelConfig
    """The judge. GPT-4 in the paper, which gives neither a version nor its sampling: temperature 0 is ours."""
    prompt: int = Field(default=1, ge=1)
    """Version of the judge's prompt."""
    retries: int = Field(default=2, ge=0)
    """Askings after an answer that is no verdict, each with a sample number of its own; then it counts as invalid.
    HuatuoGPT-II's evaluation asks 3 times in all."""
    limit: int | None = Field(default=None, ge=1)
    """Dialogues that are drawn; null: all."""
    seed: int = 0
    """Another seed, another draw and other canaries."""
    canaries: int = Field(default=0, ge=0)
    """Known pairs mixed in, a reference against nothing or rubbish, to see that the judge judges. Each takes two
    questions."""
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    """Nothing is published where more of the items than this got no answer from the judge, as when a limit is met."""


class PairConfig(JudgeConfig):
    """Two answers to one message, which is better: table 3 of the paper."""

    against: Path | None = None
    """Answers of another model to the same messages; null: the references in `answers`."""
    against_name: str | None = Field(default=None, min_length=1)
    """What the table calls the other ones."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.against is not None and self.against == self.answers:
            raise ValueError("against is the same file as answers: there is nothing to compare")
        return self


class RubricConfig(JudgeConfig):
    """Four criteria from 1 to 5 for every answer: table 4 of the paper."""


Config = TypeVar("Config", bound=JudgeConfig)


def load(kind: type[Config], path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe with `key=value` overrides.

    Raises:
        ConfigFileError: one line per problem, naming file and line, or the override, and the dotted key.
    """
    command = "pair" if issubclass(kind, PairConfig) else "rubric"
    return load_model(kind, path, overrides, schema=f"`aquila judge {command} --schema`")
