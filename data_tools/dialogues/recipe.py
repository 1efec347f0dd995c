"""The recipe of dialogues: which published files, which steps in which order, how what is left becomes tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Discriminator, Field, Tag, model_validator

from data_tools.chat import get_template
from data_tools.config_files import ConfigFileError, load_model
from data_tools.corpus.batch import Step
from data_tools.corpus.decontaminate import DecontaminateConfig
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.corpus.language import LanguageConfig
from data_tools.corpus.mix import Part, Stage
from data_tools.corpus.normalise import NormaliseConfig
from data_tools.corpus.privacy import PrivacyConfig
from data_tools.corpus.recipe import ChainRecipe, Source, refuse_repeated, step_tag
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.dialogues.context_relevance import ContextRelevanceConfig
from data_tools.dialogues.deita import DeitaConfig
from data_tools.dialogues.importing import DialogueSource, ImportPlan
from data_tools.dialogues.per_message import PerMessage
from data_tools.dialogues.select import SelectConfig
from data_tools.dialogues.shape import ShapeConfig
from data_tools.dialogues.unsafe import UnsafeConfig
from data_tools.inputs import InputError
from data_tools.samples import DIALOGUES, IndexOptions

# The steps in the order that a recipe normally has them. The class says what a step does and takes.
STEPS: dict[str, type[StepConfig]] = {
    "normalise": NormaliseConfig,
    "language": LanguageConfig,
    "shape": ShapeConfig,
    "unsafe": UnsafeConfig,
    "privacy": PrivacyConfig,
    "deduplicate": DeduplicateConfig,
    "decontaminate": DecontaminateConfig,
    "deita": DeitaConfig,
    "context-relevance": ContextRelevanceConfig,
    "select": SelectConfig,
}
_TAGS = tuple(f"step {name}" for name in STEPS)
AnyStep = Annotated[
    Annotated[NormaliseConfig, Tag("step normalise")]
    | Annotated[LanguageConfig, Tag("step language")]
    | Annotated[ShapeConfig, Tag("step shape")]
    | Annotated[UnsafeConfig, Tag("step unsafe")]
    | Annotated[PrivacyConfig, Tag("step privacy")]
    | Annotated[DeduplicateConfig, Tag("step deduplicate")]
    | Annotated[DecontaminateConfig, Tag("step decontaminate")]
    | Annotated[DeitaConfig, Tag("step deita")]
    | Annotated[ContextRelevanceConfig, Tag("step context-relevance")]
    | Annotated[SelectConfig, Tag("step select")],
    Discriminator(
        step_tag,
        custom_error_type="unknown_step",
        custom_error_message=f"needs a 'step' out of {', '.join(STEPS)}",
    ),
]


class DialogueRecipe(ChainRecipe):
    """All that decides a set of dialogues, apart from the contents of the files it names."""

    noun: ClassVar[str] = "dialogues"

    # of what comes out: OUTPUT/dialogues/NAME/ and OUTPUT/NAME.bin
    name: str = Field(default="selected", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    sources: tuple[DialogueSource, ...] = Field(min_length=1)
    steps: tuple[AnyStep, ...] = ()
    # the chat template of the index
    template: str = "chatml"
    # tokens of a dialogue; longer ones lose exchanges from their end
    max_length: int = Field(default=2048, ge=2)
    # scoring takes a GPU for hours, and limits are tuned afterwards
    keep_work: bool = True

    @property
    def chain(self) -> Sequence[StepConfig]:
        """The steps in their order."""
        return self.steps

    @property
    def imports(self) -> ImportPlan:
        """What becomes of the raw files as they are now."""
        return ImportPlan(self.output, self.sources)

    @property
    def inputs(self) -> Sequence[Source]:
        """Where the runner reads: what was imported."""
        return self.imports.imported()

    @property
    def mixtures(self) -> tuple[Stage, ...]:
        """One, of all that is left."""
        return (Stage(name=self.name, parts=(Part(name="all"),)),)

    @property
    def mixes(self) -> bool:
        """There is nothing to report of it."""
        return False

    @property
    def index_options(self) -> IndexOptions:
        """How the dialogues become tokens."""
        return IndexOptions(kind=DIALOGUES, template=self.template, max_length=self.max_length)

    def build(self, step: StepConfig, resources: Resources) -> Step:
        """A step of the chain; those made for texts look at each message. Raises InputError as `StepConfig.build`."""
        built = step.build(resources)
        return PerMessage(built) if isinstance(step, NormaliseConfig | PrivacyConfig) else built

    def account(self, read: dict[str, Any]) -> dict[str, Any]:
        """The report's account of the raw files."""
        return self.imports.account(read)

    def quarantines(self) -> Sequence[Path]:
        """The records that no importer could use."""
        return self.imports.quarantines()

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse_repeated("sources", [source.name for source in self.sources])
        refuse_repeated("steps", [str(step.step) for step in self.steps])
        get_template(self.template)
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> DialogueRecipe:
    """Read the recipe at `path` with `key=value` overrides.

    Raises:
        InputError: one line per problem, naming file and line, or the override, and the dotted key.
    """
    try:
        return load_model(DialogueRecipe, path, overrides, tags=_TAGS, schema="`aquila data dialogues --schema`")
    except ConfigFileError as error:
        raise InputError(str(error)) from error
