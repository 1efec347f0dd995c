"""What becomes of a candidate for a preference pair: a pair, or a reason why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_tools.records import Messages, PreferencePair


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dialogue up to a user's message, and the answer that it had there."""

    id: str
    prompt: Messages
    answer: str
    lang: str
    source: str


@dataclass(frozen=True, slots=True)
class Made:
    """A pair, and what is kept of how it came about: JSON values, beside the pair in `meta`."""

    pair: PreferencePair
    lang: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoPair:
    """Why a candidate gives no pair: `reason` is the short name it is counted under, `detail` the evidence, for the
    audit file.
    """

    id: str
    lang: str
    source: str
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Outcome = Made | NoPair
