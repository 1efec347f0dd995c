"""What every section of a configuration is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def refuse(problems: list[str]) -> None:
    """For pydantic's validators: one line per problem, which the loader takes apart again."""
    if problems:
        raise ValueError("\n".join(problems))
