"""Training and validation by prompt: two pairs of one prompt, or of prompts that differ in case, width, punctuation or
space alone, are never on two sides.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.corpus.folding import folding
from data_tools.preferences.strata import apportion, prompt_rank
from data_tools.records import Messages


class SplitConfig(BaseModel):
    """How many pairs are held out. The paper says nothing of a validation set: ours, for the choice of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    valid_share: float | None = Field(default=None, ge=0, lt=1)
    """Of each kind of pairs; 0.02 where neither this nor `valid_count` is given."""
    valid_count: int | None = Field(default=None, ge=0)
    """Pairs, divided over the kinds as all pairs are."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid_share is not None and self.valid_count is not None:
            raise ValueError("give valid_share or valid_count, not both")
        return self

    def count(self, pairs: int) -> int:
        """Pairs to hold out of so many."""
        if self.valid_count is not None:
            return min(self.valid_count, pairs)
        return round(pairs * (0.02 if self.valid_share is None else self.valid_share))


class Prompted(NamedTuple):
    """What the split knows of a pair."""

    id: str
    kind: str
    key: bytes


def prompt_key(prompt: Messages) -> bytes:
    """A prompt's messages after folding, with their roles: equal for prompts that differ in case, width, marks,
    punctuation or white space alone.
    """
    from data_tools import _text

    parts = []
    for message in prompt:
        characters, _, _ = _text.fold(folding(), message["content"])
        text = characters.tobytes() or message["content"].encode()  # "???" and "!!!" are no equal prompts
        parts += [message["role"].encode(), len(text).to_bytes(8, "big"), text]
    return b"".join(parts)


def held_out(pairs: Sequence[Prompted], config: SplitConfig, seed: int) -> set[str]:
    """The ids of the pairs that are for validation.

    Prompts go there in the order of their hashes until each kind has its number; a prompt of several pairs goes whole
    or not at all. So the choice depends neither on the order of the pairs nor on their number, but for its end.
    """
    groups: dict[bytes, list[Prompted]] = {}
    for pair in pairs:
        groups.setdefault(pair.key, []).append(pair)
    sizes = Counter(pair.kind for pair in pairs)
    left = Counter(apportion(config.count(len(pairs)), dict(sorted(sizes.items()))))
    chosen: set[str] = set()
    for _, group in sorted((prompt_rank(key, seed, "split"), group) for key, group in groups.items()):
        needed = Counter(pair.kind for pair in group)
        if all(left[kind] >= number for kind, number in needed.items()):
            left -= needed
            chosen.update(pair.id for pair in group)
    return chosen
