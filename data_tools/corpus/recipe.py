"""The recipe of a corpus: which files, which steps in which order, which mixtures come out. `ChainRecipe` is what it
has in common with the recipe of dialogues.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from data_tools.commits import digest_of
from data_tools.config_files import ConfigFileError, load_model
from data_tools.corpus.batch import Row, Step, normal_language
from data_tools.corpus.decontaminate import DecontaminateConfig
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.corpus.domain import DomainConfig
from data_tools.corpus.language import LanguageConfig
from data_tools.corpus.mix import EVERYTHING, Stage
from data_tools.corpus.normalise import NormaliseConfig
from data_tools.corpus.privacy import PrivacyConfig
from data_tools.corpus.quality import QualityConfig
from data_tools.corpus.rules import RulesConfig
from data_tools.corpus.step_config import GlobalStepConfig, Resources, StepConfig
from data_tools.files import ReadOptions
from data_tools.indexing import IndexOptions
from data_tools.inputs import InputError, all_files
from data_tools.publish import sha256_file
from data_tools.records import Document

# The steps in the order that a recipe normally has them. The class says what a step does and takes.
STEPS: dict[str, type[StepConfig]] = {
    "normalise": NormaliseConfig,
    "language": LanguageConfig,
    "rules": RulesConfig,
    "privacy": PrivacyConfig,
    "domain": DomainConfig,
    "quality": QualityConfig,
    "deduplicate": DeduplicateConfig,
    "decontaminate": DecontaminateConfig,
}


def step_tag(value: Any) -> str | None:
    """The tag of a step in a union of steps."""
    name = value.get("step") if isinstance(value, dict) else getattr(value, "step", None)
    return None if name is None else f"step {name}"


_TAGS = tuple(f"step {name}" for name in STEPS)
AnyStep = Annotated[
    Annotated[NormaliseConfig, Tag("step normalise")]
    | Annotated[LanguageConfig, Tag("step language")]
    | Annotated[RulesConfig, Tag("step rules")]
    | Annotated[PrivacyConfig, Tag("step privacy")]
    | Annotated[DomainConfig, Tag("step domain")]
    | Annotated[QualityConfig, Tag("step quality")]
    | Annotated[DeduplicateConfig, Tag("step deduplicate")]
    | Annotated[DecontaminateConfig, Tag("step decontaminate")],
    Discriminator(
        step_tag,
        custom_error_type="unknown_step",
        custom_error_message=f"needs a 'step' out of {', '.join(STEPS)}",
    ),
]


class Source(BaseModel):
    """Files of one origin. `name` is what the mixtures and the report call them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what mixtures and report call it
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    # files, directories and patterns, as for `aquila data index`
    files: tuple[str, ...] = Field(min_length=1)
    # fields that hold the text; several are joined by a line end
    text_key: tuple[str, ...] = Field(default=("text",), min_length=1)
    # field that holds the id; it may be missing
    id_key: str = "id"
    # tried in this order on each line
    encoding: tuple[str, ...] = ("utf-8",)
    # longer lines go to quarantine
    max_line_mib: int = Field(default=256, gt=0)

    def read_options(self) -> ReadOptions:
        """How its bytes become records."""
        return ReadOptions(self.encoding, self.max_line_mib << 20)

    def row(self, value: Any, path: Path, offset: int) -> Row:
        """The document in a parsed record.

        Raises:
            RecordError: it cannot be used.
        """
        document = Document.from_json(
            value, source_file=path.name, offset=offset, text_keys=self.text_key, id_key=self.id_key
        )
        meta = document.meta if document.source in ("", self.name) else {**document.meta, "origin": document.source}
        return Row(document.id, document.text, normal_language(document.lang), meta)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.read_options()
        return self


class StepDigest(NamedTuple):
    """Of all that decides a step's outcomes; and, of a global step, its rows."""

    whole: str
    rows: str


class ChainRecipe(BaseModel):
    """What the runner has to know, whatever goes through the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noun: ClassVar[str]
    """What goes through, in the plural: the name of the directory of what comes out, and a word of the report."""

    # the directory that is written
    output: Path
    # counts the tokens of the report and the mixtures, feeds the linear scorers, and makes the index
    tokenizer: Path
    # the token that ends a document, where not the tokenizer's own
    eod: str | None = None
    # of the draws of the mixtures: another seed, other documents
    seed: int = 0
    # make STAGE.bin and STAGE.idx of each stage
    index: bool = True
    # nothing is published if more of the records than this are bad
    max_bad_fraction: float = Field(default=0.1, ge=0, le=1)
    # take what a damaged file holds before the damage
    allow_truncated: bool = False
    # size of the parts that plain files are read in; by the size of the file if left out
    shard_mib: float | None = Field(default=None, gt=0)
    # leave OUTPUT/work, so that a run with other late steps takes up what the early ones made
    keep_work: bool = False

    @property
    @abstractmethod
    def chain(self) -> Sequence[StepConfig]:
        """The steps in their order."""

    @property
    @abstractmethod
    def inputs(self) -> "Sequence[Source]":
        """Where the runner reads."""

    @property
    @abstractmethod
    def mixtures(self) -> tuple[Stage, ...]:
        """The stages that come out."""

    @property
    def mixes(self) -> bool:
        """Whether the mixtures were asked for, and belong into the report."""
        return True

    @property
    def index_options(self) -> IndexOptions:
        """How a stage becomes tokens."""
        return IndexOptions()

    def build(self, step: StepConfig, resources: Resources) -> Step:
        """A step of the chain. Raises InputError as `StepConfig.build`."""
        return step.build(resources)

    def account(self, read: dict[str, Any]) -> dict[str, Any]:
        """The report's account of the input, given that of what the runner read."""
        return read

    def quarantines(self) -> Sequence[Path]:
        """Files of records that were refused before the runner read."""
        return ()

    def step_digests(self) -> list[StepDigest]:
        """For each step the digests over its configuration and the contents of the files that it names.

        Raises:
            InputError: a file is not there.
        """
        digests = []
        for number, step in enumerate(self.chain):
            parts = []
            for path in all_files(step.files()):
                try:
                    parts.append(sha256_file(path))
                except OSError as error:
                    raise InputError(
                        f"steps.{number} ({step.step}): {path} cannot be read: {error.strerror}"
                    ) from error
            rows = step.row_facts() if isinstance(step, GlobalStepConfig) else step.model_dump(mode="json")
            whole = digest_of({"config": step.model_dump(mode="json"), "files": parts})
            digests.append(StepDigest(whole, digest_of({"config": rows, "files": parts})))
        return digests


class Recipe(ChainRecipe):
    """All that decides a corpus, apart from the contents of the files it names."""

    noun: ClassVar[str] = "documents"

    sources: tuple[Source, ...] = Field(min_length=1)
    steps: tuple[AnyStep, ...] = ()
    # without one, all documents that are left become the stage "documents"
    stages: tuple[Stage, ...] = ()

    @property
    def chain(self) -> Sequence[StepConfig]:
        """The steps in their order."""
        return self.steps

    @property
    def inputs(self) -> Sequence[Source]:
        """Where the runner reads."""
        return self.sources

    @property
    def mixtures(self) -> tuple[Stage, ...]:
        """The stages, or the one that takes everything."""
        return self.stages or (EVERYTHING,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse_repeated("sources", [source.name for source in self.sources])
        refuse_repeated("steps", [str(step.step) for step in self.steps])
        refuse_repeated("stages", [stage.name for stage in self.stages])
        known = {source.name for source in self.sources}
        for stage in self.stages:
            for part in stage.parts:
                if unknown := sorted(set(part.sources or ()) - known):
                    raise ValueError(f"stage {stage.name}, part {part.name}: there is no source {unknown[0]}")
        return self


def refuse_repeated(what: str, names: Sequence[str]) -> None:
    """Raises ValueError when a name is there twice."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what}: {repeated[0]} is there twice")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path` with `key=value` overrides.

    Raises:
        InputError: one line per problem, naming file and line, or the override, and the dotted key.
    """
    try:
        return load_model(Recipe, path, overrides, tags=_TAGS, schema="`aquila data corpus --schema`")
    except ConfigFileError as error:
        raise InputError(str(error)) from error
