"""A step for texts, done on every message of the dialogues as a document of its own.

Normalisation and the privacy scrub look at one text: over a whole dialogue they would lose where a message ends.
N: dialogues of the batch; M: their messages that are not blank.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale, Step
from data_tools.records import Message, Messages

SUMMED = ("private values",)
"""Measures that count things: those of a dialogue are its messages' together. Of any other (a share of characters) a
dialogue has that of its worst message."""


class PerMessage:
    """`step` on each message; name, scales and facts are its own. Counts are summed; notes, which have to be numbers or
    mappings of numbers, are added up over a dialogue, and `measures` named in `summed` too (of others: the greatest).

    A message that `step` would drop drops its dialogue; the detail tells which (`message`, from 1). Blank messages are
    not shown to it and stay. A batch without messages (an excerpt to be masked) goes to the step as it is.
    """

    name: ClassVar[str]  # of the step that is wrapped, so every instance has its own

    def __init__(self, step: Step, summed: Collection[str] = SUMMED) -> None:
        self.step = step
        self.name = step.name  # type: ignore[misc]  # `Step` has it on the class
        self.scales: Mapping[str, Scale] = step.scales
        self._summed = summed

    @property
    def facts(self) -> Mapping[str, int]:
        return self.step.facts

    def __call__(self, batch: Batch) -> Outcome:
        if not batch.messages:
            return self.step(batch)
        owners, places = [], []
        for owner, messages in enumerate(batch.messages):
            for place, message in enumerate(messages):
                if message["content"].strip():
                    owners.append(owner)
                    places.append(place)
        if not owners:
            return Outcome(measures={name: np.full(len(batch), np.nan) for name in self.scales})
        found = self.step(_flattened(batch, owners, places))
        outcome = Outcome(counts=found.counts)
        if found.drops:
            outcome.drops = _first_drops(found.drops, owners, places, len(batch))
        kept = [not outcome.drops or outcome.drops[owner] is None for owner in range(len(batch))]
        if any(text is not None for text in found.texts):
            changed = _changed(batch.messages, found.texts, owners, places)
            outcome.messages = [new if keep else None for new, keep in zip(changed, kept)]
        if any(found.notes):
            notes = self._merged(found.notes, owners, len(batch))
            outcome.notes = [note if keep else None for note, keep in zip(notes, kept)]
        owners_M = np.array(owners)
        outcome.measures = {
            name: _combined(values_M, owners_M, len(batch), name in self._summed)
            for name, values_M in found.measures.items()
        }
        return outcome

    def _merged(
        self, notes: Sequence[Mapping[str, Any] | None], owners: Sequence[int], count: int
    ) -> list[Mapping[str, Any] | None]:
        merged: list[Mapping[str, Any] | None] = [None] * count
        for note, owner in zip(notes, owners):
            if note is not None:
                before = merged[owner]
                merged[owner] = note if before is None else _added(before, note, self.name)
        return merged


def _flattened(batch: Batch, owners: Sequence[int], places: Sequence[int]) -> Batch:
    """The messages at places[k] of the dialogues owners[k] as M documents."""
    return Batch(
        [batch.ids[owner] for owner in owners],
        [batch.messages[owner][place]["content"] for owner, place in zip(owners, places)],
        [batch.langs[owner] for owner in owners],
        [batch.sources[owner] for owner in owners],
        [batch.metas[owner] for owner in owners],
    )


def _first_drops(
    drops: Sequence[Drop | None], owners: Sequence[int], places: Sequence[int], count: int
) -> list[Drop | None]:
    found: list[Drop | None] = [None] * count
    for drop, owner, place in zip(drops, owners, places):
        if drop is not None and found[owner] is None:
            found[owner] = Drop(drop.reason, {**drop.detail, "message": place + 1})
    return found


def _changed(
    messages: Sequence[Messages], texts: Sequence[str | None], owners: Sequence[int], places: Sequence[int]
) -> list[Messages | None]:
    changed: dict[int, list[Message]] = {}
    for text, owner, place in zip(texts, owners, places):
        if text is not None:
            of_dialogue = changed.setdefault(owner, list(messages[owner]))
            of_dialogue[place] = {**of_dialogue[place], "content": text}
    return [tuple(changed[owner]) if owner in changed else None for owner in range(len(messages))]


def _added(left: Mapping[str, Any], right: Mapping[str, Any], step: str) -> dict[str, Any]:
    """Numbers under the same key summed, mappings likewise; keys sorted within, for the order says nothing."""
    total = dict(left)
    for key, value in right.items():
        before = total.get(key)
        if isinstance(value, Mapping):
            total[key] = dict(sorted(_added(before or {}, value, step).items()))
        elif isinstance(value, int | float):
            total[key] = (before or 0) + value
        else:
            raise TypeError(f"step {step} notes a {type(value).__name__} under {key!r}: only numbers can be added up")
    return total


def _combined(
    values_M: npt.NDArray[np.float64], owners_M: npt.NDArray[np.intp], count: int, summed: bool
) -> npt.NDArray[np.float64]:
    """Of each dialogue the sum or the greatest of its messages' values; NaN where none was measured."""
    measured = ~np.isnan(values_M)
    values_M, owners_M = values_M[measured], owners_M[measured]
    if summed:
        totals_N = np.bincount(owners_M, values_M, count).astype(np.float64)
    else:
        totals_N = np.full(count, -np.inf)
        np.maximum.at(totals_N, owners_M, values_M)
    totals_N[np.bincount(owners_M, minlength=count) == 0] = np.nan
    return totals_N
