"""The parts of a selection, and how many dialogues of each may stay."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.corpus.batch import LANGUAGES


class SelectPart(BaseModel):
    """Dialogues with a budget and a threshold of their own. A condition that is left out is met by all.

    The paper's set (figure 3): of 320,000 dialogues 27.2 % zh questions with one exchange, 14 % en, 24.8 % zh exam
    questions with options, 34 % zh of several exchanges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")
    """What the report calls the part."""
    langs: tuple[str, ...] | None = None
    """zh, en, other."""
    sources: tuple[str, ...] | None = None
    """Names of the recipe's sources."""
    kinds: tuple[Literal["qa", "options"], ...] | None = None
    """meta.kind, as importers note it: options for a multiple-choice exam question, else qa, which is taken where
    nothing is noted."""
    turns: Literal["single", "multi"] | None = None
    """One exchange, or more."""
    count: Annotated[int | None, Field(ge=0)] = None
    """How many may stay."""
    share: Annotated[float | None, Field(ge=0, le=1)] = None
    """Instead of a count, of the step's count."""
    threshold: float | None = None
    """Instead of the step's threshold or quantile."""
    quantile: Annotated[float | None, Field(ge=0, lt=1)] = None
    """Instead of the step's: the share of the scores that lies below."""

    def holds(self, source: str, lang: str, meta: Mapping[str, Any], exchanges: int) -> bool:
        """Whether a dialogue meets the conditions."""
        return (
            (self.langs is None or lang in self.langs)
            and (self.sources is None or source in self.sources)
            and (self.kinds is None or meta.get("kind", "qa") in self.kinds)
            and (self.turns is None or (self.turns == "multi") == (exchanges > 1))
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError(f"part {self.name}: count and share exclude each other: give one of them")
        if self.threshold is not None and self.quantile is not None:
            raise ValueError(f"part {self.name}: threshold and quantile exclude each other: give one of them")
        if unknown := set(self.langs or ()) - set(LANGUAGES):
            raise ValueError(f"part {self.name}: langs: {', '.join(sorted(unknown))} is none of {', '.join(LANGUAGES)}")
        return self


EVERYTHING = SelectPart(name="all")


def budgets(parts: Sequence[SelectPart], count: int | None) -> list[int | None]:
    """How many dialogues of each part may stay; None where only `count`, over all, says it.

    Shares are rounded so that the first k of them make up the rounded sum of the first k shares: together they give
    neither more nor less than their sum does.

    Raises:
        ValueError: two parts of one name, shares without a count, or more than the count allows.
    """
    names = [part.name for part in parts]
    if not parts:
        raise ValueError("parts is empty: leave it out, or name one")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two parts are called {sorted(repeated)[0]}: give each a name of its own")
    wanted: list[int | None] = []
    shares = 0.0
    for part in parts:
        if part.share is None:
            wanted.append(part.count)
            continue
        if count is None:
            raise ValueError(f"part {part.name} has a share: give the step a count that it is a share of")
        before, shares = shares, shares + part.share
        wanted.append(round(shares * count) - round(before * count))
    if shares > 1 + 1e-9:
        raise ValueError(f"the shares of the parts make {shares:.4g}: they must not exceed 1")
    if count is not None and sum(budget or 0 for budget in wanted) > count:
        raise ValueError(
            f"the parts' counts and shares make {sum(budget or 0 for budget in wanted):,}, and the step's count is "
            f"{count:,}: raise it, or lower theirs"
        )
    return wanted
