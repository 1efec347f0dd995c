"""Steps one after the other over a batch: what stays, what goes and why, and all of it counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.corpus.batch import Batch, Drop, Outcome, Step
from data_tools.corpus.tally import Sizes, StepTally, language_codes
from data_tools.tokenizers import Tokenizer

EXCERPT = 200  # characters of a dropped document that are kept with the decision
_MARGIN = 64  # masked beyond the excerpt, so that no private value is cut in two and missed


@dataclass(slots=True)
class Documents:
    """A batch, and where each of its documents stands in its input file (byte offset)."""

    batch: Batch
    offsets: list[int]

    def __len__(self) -> int:
        return len(self.offsets)

    def select(self, places: Sequence[int]) -> "Documents":
        """The documents at `places`, in that order."""
        return Documents(self.batch.select(places), [self.offsets[place] for place in places])


class Chain:
    """Some steps of a recipe, and their tallies by name.

    Args:
        masks: for each step, what masks private values in the excerpts of what it drops; None where the documents were
            masked before they came to it.
    """

    def __init__(self, steps: Sequence[Step], tokenizer: Tokenizer, masks: Sequence[Step | None]) -> None:
        self._steps = steps
        self._tokenizer = tokenizer
        self._masks = masks
        self.tallies = {step.name: StepTally(step.scales, step.facts) for step in steps}

    def __call__(self, documents: Documents) -> tuple[Documents, list[dict[str, Any]]]:
        """The documents that pass every step, and the decisions on the others."""
        decisions: list[dict[str, Any]] = []
        sizes = Sizes(documents.batch, self._tokenizer)
        for step, mask in zip(self._steps, self._masks):
            if not len(documents):
                break
            tally = self.tallies[step.name]
            tally.enter(sizes)
            drops = _take(step(documents.batch), documents.batch, tally)
            sizes = Sizes(documents.batch, self._tokenizer)
            if any(drops):
                found = decide(documents, drops, sizes, step.name, mask)
                for decision in found:
                    tally.drop(decision)
                decisions += found
                documents = documents.select([place for place, drop in enumerate(drops) if drop is None])
                sizes = Sizes(documents.batch, self._tokenizer)
            tally.leave(sizes)
        return documents, decisions


def decide(
    documents: Documents, drops: Sequence[Drop | None], sizes: Sizes, step: str, mask: Step | None
) -> list[dict[str, Any]]:
    """The decisions on the documents that `step` drops, as they are kept for an audit."""
    batch = documents.batch
    places = [place for place, drop in enumerate(drops) if drop is not None]
    excerpts = _excerpts(batch.select(places), mask)
    decisions = []
    for place, excerpt in zip(places, excerpts):
        drop = drops[place]
        assert drop is not None
        decisions.append(
            {
                "id": batch.ids[place],
                "step": step,
                "reason": drop.reason,
                "detail": dict(drop.detail),
                "source": batch.sources[place],
                "lang": batch.langs[place],
                "offset": documents.offsets[place],
                "characters": int(sizes.characters[place]),
                "tokens": int(sizes.tokens[place]),
                "excerpt": excerpt,
            }
        )
    return decisions


def _take(outcome: Outcome, batch: Batch, tally: StepTally) -> Sequence[Drop | None]:
    """Put into the batch what the step found, count it, and return what is to be dropped."""
    if outcome.langs:
        batch.langs = outcome.langs
    if outcome.texts:
        batch.replace_texts(outcome.texts)
    if outcome.messages:
        batch.replace_messages(outcome.messages)
    if outcome.notes:
        batch.metas = [{**meta, **note} if note else meta for meta, note in zip(batch.metas, outcome.notes)]
    tally.counts.update(outcome.counts)
    if outcome.measures:
        tally.measure(language_codes(batch), outcome.measures)
    return outcome.drops or [None] * len(batch)


def _excerpts(batch: Batch, mask: Step | None) -> list[str]:
    if mask is None:
        return [text[:EXCERPT] for text in batch.texts]
    heads = [text[: EXCERPT + _MARGIN] for text in batch.texts]
    masked = mask(Batch(batch.ids, heads, batch.langs, batch.sources, [{} for _ in heads]))
    return [(new if new is not None else head)[:EXCERPT] for head, new in zip(heads, masked.texts or heads)]
