"""What is sampled, and what is asked about it."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DOMAIN_LABELS = ("medical", "other")
LOWEST_SCORE, HIGHEST_SCORE = 0, 6


class LabellingError(Exception):
    """Too little came back to publish; what was answered is recorded."""


class LabelConfig(BaseModel):
    """One labelling; the model has a configuration of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["domain", "quality"]
    samples: Mapping[Literal["zh", "en"], Annotated[int, Field(ge=1)]] = Field(
        default={"zh": 10_000, "en": 10_000}, min_length=1
    )
    """Documents of each language: equal numbers bring a corpus that is mostly of one language to the paper's 1:1."""
    seed: int = 0
    """Another seed, another sample."""
    repeats: int = Field(default=2, ge=1)
    """How often each document is asked about. With the model's temperature at 0 the repetitions say little."""
    max_difference: float = Field(default=2, gt=0)
    """A document whose scores differ by this or more is dropped. Paper: "about 2 points"."""
    max_characters: int = Field(default=4000, ge=1)
    """The model sees so much of a document's beginning, and so much becomes the seed's text."""
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    """Nothing is published where more of the documents than this got no answer."""
    text_keys: tuple[str, ...] = Field(default=("text",), min_length=1)
    """Fields that hold the text; several are joined by a line end."""
    id_key: str = "id"
