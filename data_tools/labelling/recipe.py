"""The recipe of a labelling: which documents, what is asked about them, which model."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from data_tools.config_files import ConfigFileError, load_model
from data_tools.inputs import InputError
from data_tools.labelling.config import LabelConfig
from data_tools.llm import ModelConfig


class LabelRecipe(BaseModel):
    """All that decides the seeds, apart from the contents of the files and the model's answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # files, directories and patterns, as for `aquila data index`
    inputs: tuple[str, ...] = Field(min_length=1)
    # the file of seeds: .jsonl, .jsonl.gz or .jsonl.zst
    output: Path
    label: LabelConfig
    model: ModelConfig


def load_label_recipe(path: Path, overrides: Sequence[str] = ()) -> LabelRecipe:
    """Read the recipe at `path` with `key=value` overrides.

    Raises:
        InputError: one line per problem, naming file and line, or the override, and the dotted key.
    """
    try:
        return load_model(LabelRecipe, path, overrides, schema="docs/corpus.md")
    except ConfigFileError as error:
        raise InputError(str(error)) from error
