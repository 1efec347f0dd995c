"""What is measured while training: the loss on validation data, and how well questions are answered."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from megatron_aquila.config_base import Section, refuse


class QuestionSet(Section):
    """Multiple-choice questions that are put while training, scored by log-likelihood as `aquila eval` scores them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of its metrics and files")
    path: Path = Field(description="question records, one JSON object a line, such as `aquila eval fetch` writes")
    kind: Literal["medical", "general"] = Field(
        default="medical", description="general: training should not make the model worse at these"
    )
    form: Literal["letters", "cloze"] = Field(
        default="letters",
        description="the options stand in the prompt and their letters are scored, or they end the question and are "
        "scored themselves",
    )
    shots: NonNegativeInt = Field(
        default=0, description="solved examples before each question: the first of `examples`"
    )
    examples: Path | None = Field(default=None, description="question records that the examples are taken from")
    limit: PositiveInt | None = Field(
        default=None, description="questions that are put, drawn with a fixed seed; null: all"
    )

    @model_validator(mode="after")
    def _examples_given(self) -> "QuestionSet":
        if self.shots and self.examples is None:
            raise ValueError(f"shots is {self.shots}: name the file they are taken from in examples")
        if self.examples is not None and not self.shots:
            raise ValueError("examples are given, but shots is 0")
        if self.shots and self.form == "cloze":
            raise ValueError("a cloze question takes no examples: set shots to 0, or form to letters")
        return self


class EvaluationConfig(Section):
    """Loss on the validation data, and questions."""

    every: NonNegativeInt = Field(description="steps between evaluations; 0: never")
    batches: PositiveInt | None = Field(
        default=None, description="global batches per evaluation; null (sft, dpo): all of the validation data"
    )
    questions: tuple[QuestionSet, ...] = Field(
        default=(), description="questions put before the first step, while training and at the end"
    )
    questions_every: NonNegativeInt | None = Field(
        default=None, description="steps between them; 0: before and at the end only; null: every"
    )
    halt_when_worse: bool = Field(
        default=False,
        description="save and stop where a general set is answered worse than at the start (exact McNemar, 1 %)",
    )

    @model_validator(mode="after")
    def _sets_fit(self) -> "EvaluationConfig":
        names = [questions.name for questions in self.questions]
        problems = [f"two sets of questions are named {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
        if self.halt_when_worse and not any(questions.kind == "general" for questions in self.questions):
            problems.append("halt_when_worse needs a set of questions with kind: general")
        if self.questions_every is not None and not self.questions:
            problems.append("questions_every is set, but there are no questions")
        refuse(problems)
        return self

    def asks_at(self, step: int, total: int) -> bool:
        """Whether questions are put after optimizer step `step` of `total`."""
        every = self.every if self.questions_every is None else self.questions_every
        return bool(self.questions) and (step == total or (every > 0 and step % every == 0))
