"""What a corpus step gets and what it answers: a batch of documents by column, and an outcome for each of them.

N: documents of the batch, in input order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.records import Messages
from data_tools.tokenizers import LONG_DOCUMENT, Tokenizer

LANGUAGES = ("zh", "en", "other")


@dataclass(slots=True)
class Batch:
    """N documents. `langs` holds "" until the language step has run; `metas` what former steps noted, which is
    published with the document.

    Of dialogues, `messages` holds the N dialogues' messages and `texts` their `dialogue_text`s; of documents it is
    empty.
    """

    ids: list[str]
    texts: list[str]
    langs: list[str]
    sources: list[str]
    metas: list[dict[str, Any]]
    messages: list[Messages] = field(default_factory=list)
    _token_ids: list[npt.NDArray[np.int32] | None] = field(default_factory=list)
    _token_counts: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def token_ids(self, tokenizer: Tokenizer) -> list[npt.NDArray[np.int32]]:
        """The ids of each text (int32, no special tokens); encoded once, and again only where a text changed."""
        known = self._token_ids or [None] * len(self)
        for place, text in enumerate(self.texts):
            if known[place] is None and len(text) > LONG_DOCUMENT:  # in pieces of bounded memory
                known[place] = tokenizer.encode_long(text)
        if missing := [place for place, ids in enumerate(known) if ids is None]:
            for place, ids in zip(missing, tokenizer.encode_batch([self.texts[place] for place in missing])):
                known[place] = ids
        self._token_ids = known
        return known  # type: ignore[return-value]

    def token_counts(self, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
        """The number of tokens of each text, int64 [N]; texts whose number is known are not encoded for it."""
        if not self._token_counts:
            self._token_counts = [len(ids) for ids in self.token_ids(tokenizer)]
        elif missing := [place for place, count in enumerate(self._token_counts) if count is None]:
            for place, ids in zip(missing, self.select(missing).token_ids(tokenizer)):
                self._token_counts[place] = len(ids)
        return np.array(self._token_counts, np.int64)

    def know_token_counts(self, counts: Sequence[int]) -> None:
        """Take the numbers of tokens that were counted before the documents were stored."""
        self._token_counts = list(counts)

    def replace_texts(self, texts: Sequence[str | None]) -> None:
        """Take new texts; None leaves a text as it is."""
        for place, text in enumerate(texts):
            if text is not None:
                self.texts[place] = text
                for column in (self._token_ids, self._token_counts):
                    if column:
                        column[place] = None

    def replace_messages(self, messages: Sequence[Messages | None]) -> None:
        """Take new messages, and their texts; None leaves a dialogue as it is."""
        for place, new in enumerate(messages):
            if new is not None:
                self.messages[place] = new
        self.replace_texts([None if new is None else dialogue_text(new) for new in messages])

    def select(self, places: Sequence[int]) -> "Batch":
        """The documents at `places`, in that order."""
        return Batch(
            [self.ids[place] for place in places],
            [self.texts[place] for place in places],
            [self.langs[place] for place in places],
            [self.sources[place] for place in places],
            [self.metas[place] for place in places],
            [self.messages[place] for place in places] if self.messages else [],
            [self._token_ids[place] for place in places] if self._token_ids else [],
            [self._token_counts[place] for place in places] if self._token_counts else [],
        )


class Row(NamedTuple):
    """One document, or one dialogue, before it is in a batch."""

    id: str
    text: str
    lang: str
    meta: dict[str, Any]
    messages: Messages = ()


def normal_language(given: str) -> str:
    """The language that a record says it has, in our terms: zh for zh-CN, other for de."""
    language = given.lower().replace("_", "-").split("-")[0]
    return language if language in LANGUAGES or not language else "other"


def dialogue_text(messages: Messages) -> str:
    """The text of a dialogue as the steps see it: what was said, a line end between two messages."""
    return "\n".join(message["content"] for message in messages)


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document goes: `reason` is the short name it is counted under, `detail` the evidence, JSON values only
    (`{"value": 11.2, "limit": 10}`); never a private value.
    """

    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scale:
    """The x axis of a measure's histogram: `bins` equal steps from `low` to `high` (of the logarithm where `log`);
    values beyond an end are counted in the bin at that end. `limits`: thresholds to draw, by language ("" for all).
    """

    low: float
    high: float
    log: bool = False
    bins: int = 40
    limits: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What a step found for each of the N documents; an empty list says "nothing for any of them".

    drops: N entries, None where a document stays.
    texts: N entries, the new text, or None where it is unchanged; never of dialogues.
    messages: of dialogues, N entries, the new messages, or None where they are unchanged.
    langs: N languages, of the language step only.
    notes: N mappings (or None) that are merged into the documents' `metas`.
    counts: what was done, by name, over the whole batch ("masked e-mail": 12).
    measures: by name, N floats (NaN: not measured) for the histogram on the step's `Scale` of that name.
    """

    drops: list[Drop | None] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    messages: list[Messages | None] = field(default_factory=list)
    langs: list[str] = field(default_factory=list)
    notes: list[Mapping[str, Any] | None] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    measures: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)


class Step(Protocol):
    """A step of the chain: a pure function of a batch. The same document gets the same outcome in any batch."""

    name: ClassVar[str]
    scales: Mapping[str, Scale]

    @property
    def facts(self) -> Mapping[str, int]:
        """What the report should tell of the step itself, such as how many questions it looks for."""

    def __call__(self, batch: Batch) -> Outcome: ...
