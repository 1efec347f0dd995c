"""How many pairs are asked for, of which parts, and which candidates may become them: a draw by hashes that depends
neither on the order of the files nor on how often they are read.

A member's rank is a hash of its folded prompt, so that near-equal prompts are one. Each stratum takes its candidates in
the order of their ranks until it has its pairs.
"""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")

Trait = Literal["lang", "source", "turns", "kind"]
OUTSIDE, REPEATED, NOT_DRAWN = "in-no-part", "repeated-prompt", "not-drawn"
_MANY_TURNS = 5  # so many turns and more are one stratum


class Traits(NamedTuple):
    """What strata are told apart by. `turns`: the user's messages up to the answer; `kind`: as the importers say."""

    lang: str
    source: str
    turns: int = 1
    kind: str = "qa"


class Part(BaseModel):
    """A part of the pairs: what belongs to it (None: anything), and its share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """What the report calls the part."""
    share: float = Field(gt=0)
    """Of the pairs, relative to the other parts' shares."""
    langs: tuple[str, ...] | None = None
    """zh, en, other."""
    sources: tuple[str, ...] | None = None
    """As the candidates name their source."""
    kinds: tuple[str, ...] | None = None
    """As importers note them: qa, options."""
    turns: tuple[int, int] | None = None
    """From and to, both included."""

    def holds(self, traits: Traits) -> bool:
        """Whether a candidate belongs here."""
        return (
            (self.langs is None or traits.lang in self.langs)
            and (self.sources is None or traits.source in self.sources)
            and (self.kinds is None or traits.kind in self.kinds)
            and (self.turns is None or self.turns[0] <= traits.turns <= self.turns[1])
        )


class Draw(BaseModel):
    """How many pairs, out of which parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int | None = Field(default=None, ge=1)
    """Pairs asked for; None: one of every candidate."""
    parts: tuple[Part, ...] = ()
    """A candidate belongs to the first part that holds it; one that none holds is not used. Without parts the pairs are
    distributed as the candidates are (the paper: "the same distribution as the SFT set"), over the strata of `by`."""
    by: tuple[Trait, ...] = ("source", "lang")
    """Where there are no parts: what strata are told apart by."""
    spare: float = Field(default=2.0, ge=1)
    """Candidates that a stratum may use, as a multiple of its pairs: those that fall out (ties, disagreement) are
    replaced by the next, one for one, up to so many. The paper gives no rate of loss: ours, for one half."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [part.name for part in self.parts]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"parts: {repeated[0]} is there twice")
        return self

    def stratum(self, traits: Traits) -> str | None:
        """The name of the stratum that a candidate belongs to; None: to no part."""
        if self.parts:
            return next((part.name for part in self.parts if part.holds(traits)), None)
        return " · ".join(_trait(traits, name) for name in self.by) or "all"

    def quotas(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Pairs asked of each stratum, given how many candidates it has."""
        if self.parts:
            weights = {part.name: part.share for part in self.parts}
            count = sum(sizes.values()) if self.count is None else self.count
            # "One of every candidate" with shares: the scarcest part decides how many there can be.
            if self.count is None:
                shares = sum(weights.values())
                count = int(min(sizes.get(name, 0) * shares / weight for name, weight in weights.items()))
            return apportion(count, weights)
        total = sum(sizes.values())
        return apportion(total if self.count is None else min(self.count, total), sizes)


def _trait(traits: Traits, name: Trait) -> str:
    if name == "turns":
        return f"{traits.turns} turns" if traits.turns < _MANY_TURNS else f"{_MANY_TURNS}+ turns"
    return str(getattr(traits, name)) or f"no {name}"


def apportion(count: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`count` seats by the method of largest remainders; of equal remainders the first name in order."""
    total = sum(weights.values())
    if not total:
        return dict.fromkeys(weights, 0)
    exact = {name: count * weight / total for name, weight in weights.items()}
    seats = {name: int(value) for name, value in exact.items()}
    order = sorted(weights, key=lambda name: (seats[name] - exact[name], name))
    for name in order[: count - sum(seats.values())]:
        seats[name] += 1
    return seats


@dataclass(frozen=True, slots=True)
class Member(Generic[T]):
    """A candidate in a draw. `rank`: 64 bits of `prompt_rank`; `id` decides between equal ranks."""

    rank: int
    id: str
    traits: Traits
    content: T


@dataclass(slots=True)
class Stratum(Generic[T]):
    """`members`: those that may be used, by rank. `available`: distinct prompts there were; `quota`: pairs asked."""

    name: str
    quota: int
    available: int
    members: list[Member[T]] = field(default_factory=list)


def prompt_rank(prompt_key: bytes, seed: int, what: str) -> int:
    """64 bits of BLAKE2b over seed, purpose and `split.prompt_key`."""
    digest = hashlib.blake2b(f"{seed}\0{what}\0".encode() + prompt_key, digest_size=8).digest()
    return int.from_bytes(digest, "big")


def draw(
    read: Callable[[], Iterable[Member[T]]],
    config: Draw,
    dropped: Callable[[Member[T], str], None] = lambda member, reason: None,
) -> list[Stratum[T]]:
    """The strata with their members, by name.

    `read` is called twice and gives the same members, in any order; memory holds a rank and an id for each, and the
    content of those that are drawn. `dropped` hears of every other: `in-no-part`, `repeated-prompt`, `not-drawn`.
    """
    first: dict[int, tuple[str, str | None]] = {}
    for member in read():
        known = first.get(member.rank)
        if known is None or member.id < known[0]:
            first[member.rank] = member.id, config.stratum(member.traits)
    sizes: Counter[str] = Counter(name for _, name in first.values() if name is not None)
    quotas = config.quotas(dict(sorted(sizes.items())))
    limits = _limits(first, quotas, sizes, config.spare)
    strata = {name: Stratum[T](name, quota, sizes[name]) for name, quota in sorted(quotas.items())}
    taken: set[int] = set()
    for member in read():
        best, name = first[member.rank]
        if member.id != best or member.rank in taken:
            dropped(member, REPEATED)
            continue
        taken.add(member.rank)
        if name is None:
            dropped(member, OUTSIDE)
        elif member.rank <= limits[name]:
            strata[name].members.append(member)
        else:
            dropped(member, NOT_DRAWN)
    for stratum in strata.values():
        stratum.members.sort(key=lambda member: member.rank)
    return list(strata.values())


def _limits(
    first: Mapping[int, tuple[str, str | None]], quotas: Mapping[str, int], sizes: Mapping[str, int], spare: float
) -> dict[str, int]:
    """The highest rank that is drawn in each stratum; -1 for none."""
    ranks = {name: array("Q") for name in sizes}
    for rank, (_, name) in first.items():
        if name is not None:
            ranks[name].append(rank)
    limits = {}
    for name, found in ranks.items():
        wanted = min(len(found), math.ceil(quotas[name] * spare))
        limits[name] = sorted(found)[wanted - 1] if wanted else -1
    return limits


def gather(
    strata: Sequence[Stratum[T]], make: Callable[[Sequence[Member[T]]], Iterable[bool]]
) -> dict[str, tuple[int, int]]:
    """Have pairs made of the members until every stratum has its quota or no member is left; gives, by stratum, the
    pairs made and the members used.

    `make` is given as many members as pairs are missing and says of each whether it became a pair, in their order: so
    no member is used, and paid for, that could turn out not to be needed.
    """
    made = dict.fromkeys((stratum.name for stratum in strata), 0)
    used = dict(made)
    while True:
        wave: list[tuple[str, Member[T]]] = []
        for stratum in strata:
            start = used[stratum.name]
            wave += [(stratum.name, m) for m in stratum.members[start : start + stratum.quota - made[stratum.name]]]
        if not wave:
            return {name: (made[name], used[name]) for name in made}
        for (name, _), became in zip(wave, make([member for _, member in wave]), strict=True):
            used[name] += 1
            made[name] += became
