"""The recipe of preference pairs: dialogues and questions, who writes and who judges, how many pairs of what."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.chat import get_template
from data_tools.commits import digest_of
from data_tools.config_files import ConfigFileError, load_model
from data_tools.corpus.decontaminate import DecontaminateConfig
from data_tools.corpus.privacy import PrivacyConfig
from data_tools.inputs import InputError, all_files, resolve_inputs
from data_tools.llm import ModelConfig
from data_tools.preferences.candidates import CandidatesConfig
from data_tools.preferences.length_bias import LengthBiasConfig
from data_tools.preferences.objective import ObjectiveConfig
from data_tools.preferences.split import SplitConfig
from data_tools.preferences.subjective import SubjectiveConfig, prompt_digests
from data_tools.publish import sha256_file

_VERSION = 1
_SAMPLING = {"model", "temperature", "top_p", "seed", "max_tokens", "max_tokens_field", "extra"}


class SubjectivePart(BaseModel):
    """Pairs of an answer out of the dialogues and a new one, told apart by a judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: CandidatesConfig
    author: ModelConfig
    """Writes the new answers. GPT-4 in the paper."""
    judge: ModelConfig
    """Says which answer is the better one. GPT-4 in the paper."""
    settings: SubjectiveConfig = SubjectiveConfig.model_validate({})
    """Prompts and rules of author and judge."""
    max_failed_fraction: float = Field(default=0.05, ge=0, le=1)
    """Nothing is published where more of either model's requests than this got no answer."""


class PairsRecipe(BaseModel):
    """All that decides the pairs, apart from the contents of the files and the models' answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path
    """The directory that is written: pairs_train and pairs_valid as .jsonl, .bin and .idx, and the report."""
    tokenizer: Path
    """Makes the index and measures lengths."""
    eod: str | None = None
    """The token that ends a document, where not the tokenizer's own."""
    template: str = "chatml"
    """Chat template of the index."""
    max_length: int = Field(default=2048, ge=8)
    """Tokens of prompt and answer; as `aquila data index` has it. The paper gives none."""
    seed: int = 0
    """Another seed, another draw, other wrong answers, another split."""
    subjective: SubjectivePart | None = None
    objective: ObjectiveConfig | None = None
    privacy: PrivacyConfig | None = PrivacyConfig.model_validate({})
    """Private values are masked in what is sent to the models and in what comes back; null: they are not."""
    decontaminate: DecontaminateConfig | None = None
    """Evaluation questions that no pair may hold. CMB's training questions hold some of its test's."""
    length_bias: LengthBiasConfig = LengthBiasConfig()
    split: SplitConfig = SplitConfig()
    index: bool = True
    """Make pairs_train.bin and .idx, and those of pairs_valid."""
    max_bad_fraction: float = Field(default=0.1, ge=0, le=1)
    """Nothing is published if more of the records than this are bad."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.subjective is None and self.objective is None:
            raise ValueError("give subjective, objective or both: there is nothing to make pairs of")
        try:
            get_template(self.template)
        except ValueError as error:
            raise ValueError(f"template: {error}") from error
        if self.decontaminate is not None and self.decontaminate.action != "drop":
            raise ValueError("decontaminate.action: only drop is meant for pairs")
        return self

    def inputs(self) -> dict[str, list[Path]]:
        """The files of each kind of input, in the order they are read.

        Raises:
            InputError: there is none.
        """
        given = {
            "dialogues": () if self.subjective is None else self.subjective.candidates.dialogues,
            "questions": () if self.objective is None else self.objective.questions,
        }
        return {name: resolve_inputs(patterns) for name, patterns in given.items() if patterns}

    def prompts(self) -> dict[str, str]:
        """SHA-256 of each prompt in use by its name; nothing where no model is asked."""
        return {} if self.subjective is None else prompt_digests(self.subjective.settings)

    def decisive(self) -> dict[str, Any]:
        """The recipe as JSON values, without what decides no pair: places, pace, limits and prices."""
        values = self.model_dump(mode="json", exclude={"output", "tokenizer"})
        for role in ("author", "judge"):
            if self.subjective is not None:
                sampling = getattr(self.subjective, role).model_dump(mode="json", include=_SAMPLING)
                values["subjective"][role] = sampling
        return values

    def digest(self, tokenizer_digest: str) -> str:
        """32 hex digits over `decisive`, the tokenizer, and the contents of all files that decide pairs.

        Raises:
            InputError: a file is not there.
        """
        paths = [path for found in self.inputs().values() for path in found]
        if self.decontaminate is not None:
            paths += self.decontaminate.files()
        if self.objective is not None and self.objective.model is not None:
            paths += all_files(self.objective.model.files())
        try:
            contents = [sha256_file(path) for path in paths]
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
        facts = {
            "version": _VERSION,
            "recipe": self.decisive(),
            "prompts": self.prompts(),
            "tokenizer": tokenizer_digest,
            "files": hashlib.sha256(" ".join(contents).encode()).hexdigest(),
        }
        return digest_of(facts)


def load_pairs_recipe(path: Path, overrides: Sequence[str] = ()) -> PairsRecipe:
    """Read the recipe at `path` with `key=value` overrides.

    Raises:
        InputError: one line per problem, naming file and line, or the override, and the dotted key.
    """
    try:
        return load_model(PairsRecipe, path, overrides, schema="`aquila data pairs --schema`")
    except ConfigFileError as error:
        raise InputError(str(error)) from error
