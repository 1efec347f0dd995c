"""What is sampled, and what is asked about it."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DOMAIN_LABELS = ("medical", "other")
SAFETY_LABELS = ("safe", "pornography", "violence", "hate", "self-harm", "weapons-and-drugs")
LABELS: Mapping[str, tuple[str, ...]] = {"domain": DOMAIN_LABELS, "safety": SAFETY_LABELS}
"""Of the tasks that sort. Safety: "safe", and the categories of the step `unsafe`."""
SCORES: Mapping[str, tuple[float, float]] = {"quality": (0, 6), "complexity": (1, 6), "response-quality": (1, 6)}
"""The lowest and the highest score of a task. Quality: the paper's scale; the other two: Deita's."""
DIALOGUE_TASKS = ("complexity", "response-quality", "safety")


class LabellingError(Exception):
    """Too little came back to publish; what was answered is recorded."""


class LabelConfig(BaseModel):
    """One labelling; the model has a configuration of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["domain", "quality", "complexity", "response-quality", "safety"]
    """domain, quality: of documents. complexity, response-quality: of dialogues, each exchange by itself; what Deita
    (arXiv 2312.15685) calls complexity of the instruction and quality of the response, for scorers that the step
    `deita` takes. The judge gives one score on anchored levels, where Deita has variants of a seed ranked together.
    safety: of whole dialogues, for a scorer that the step `unsafe` takes."""
    samples: Mapping[Literal["zh", "en"], Annotated[int, Field(ge=1)]] = Field(
        default={"zh": 10_000, "en": 10_000}, min_length=1
    )
    """Documents (or exchanges) of each language: equal numbers bring a corpus that is mostly of one language to the
    paper's 1:1.
    """
    seed: int = 0
    """Another seed, another sample."""
    repeats: int = Field(default=2, ge=1)
    """How often each document is asked about. With the model's temperature at 0 the repetitions say little."""
    max_difference: float = Field(default=2, gt=0)
    """A document whose scores differ by this or more is dropped. Paper: "about 2 points"."""
    max_characters: int = Field(default=4000, ge=1)
    """The model sees so much of a document's beginning (of a question's, and of an answer's; for safety, of all that
    is said), and so much becomes the seed's text."""
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    """Nothing is published where more of the documents than this got no answer."""
    text_keys: tuple[str, ...] = Field(default=("text",), min_length=1)
    """Fields that hold the text of a document; several are joined by a line end. Dialogues have `messages`."""
    id_key: str = "id"
    """Field that holds the id of a document."""

    @model_validator(mode="after")
    def _fields_of_documents(self) -> "LabelConfig":
        if self.task in DIALOGUE_TASKS and {"text_keys", "id_key"} & self.model_fields_set:
            raise ValueError(
                f"the task {self.task} labels dialogues, which have no text_keys and no id_key: leave them out"
            )
        return self
