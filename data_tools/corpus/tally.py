"""What the steps did to the documents of a shard, counted so that shards can be added up: plain JSON values.

An amount is [documents, characters, tokens].
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from data_tools.corpus.batch import LANGUAGES, Batch, Scale
from data_tools.tokenizers import Tokenizer

GROUPS = (*LANGUAGES, "")  # a document's language, "" where it is not known yet
EXAMPLES = 3  # kept of each reason and language: those with the smallest hash of their id
_CODES = {language: code for code, language in enumerate(GROUPS)}

Array = npt.NDArray[Any]


def language_codes(batch: Batch) -> Array:
    """The place in GROUPS of the language of each of N documents, int64 [N]."""
    return np.fromiter(map(_CODES.__getitem__, batch.langs), np.int64, len(batch))


class Sizes:
    """Characters and tokens of the N documents of a batch (int64 [N] each), and the codes of their languages."""

    def __init__(self, batch: Batch, tokenizer: Tokenizer) -> None:
        self.characters = np.fromiter(map(len, batch.texts), np.int64, len(batch))
        self.tokens = batch.token_counts(tokenizer)
        self.codes = language_codes(batch)

    def amounts(self) -> dict[str, list[int]]:
        """The amount in each language that occurs."""
        documents = np.bincount(self.codes, minlength=len(GROUPS))
        sums = [np.bincount(self.codes, sizes, len(GROUPS)) for sizes in (self.characters, self.tokens)]
        return {
            GROUPS[code]: [int(documents[code]), *(int(total[code]) for total in sums)]
            for code in np.flatnonzero(documents)
        }


class StepTally:
    """The counts of one step with its measures' `scales` and its `facts`."""

    def __init__(self, scales: Mapping[str, Scale], facts: Mapping[str, int]) -> None:
        self._scales = scales
        self._facts = facts
        self.entered: dict[str, list[int]] = {}
        self.left: dict[str, list[int]] = {}
        self.dropped: dict[str, dict[str, list[int]]] = {}
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, dict[str, list[list[Any]]]] = {}
        self.histograms: dict[str, dict[str, list[int]]] = {}

    def enter(self, sizes: Sizes) -> None:
        """Count a batch before the step."""
        _add(self.entered, sizes.amounts())

    def leave(self, sizes: Sizes) -> None:
        """Count what of it the step let pass."""
        _add(self.left, sizes.amounts())

    def drop(self, decision: Mapping[str, Any]) -> None:
        """Count a document that goes, and keep it as an example for the time being."""
        reason, language = decision["reason"], decision["lang"]
        amount = [1, decision["characters"], decision["tokens"]]
        _add(self.dropped.setdefault(reason, {}), {language: amount})
        example = [xxhash.xxh3_64_intdigest(decision["id"].encode()), dict(decision)]
        kept = self.examples.setdefault(reason, {}).setdefault(language, [])
        kept.append(example)
        if len(kept) > 8 * EXAMPLES:
            kept[:] = best_examples(kept)

    def measure(self, codes: Array, measures: Mapping[str, Array]) -> None:
        """Put the N values of each measure into the histogram of their document's language."""
        for name, values in measures.items():
            bins = _bins(values, self._scales[name])
            known = np.isfinite(values)
            for code in np.unique(codes[known]):
                counts = np.bincount(bins[known & (codes == code)], minlength=self._scales[name].bins)
                of_language = self.histograms.setdefault(name, {})
                before = of_language.get(GROUPS[code], [0] * len(counts))
                of_language[GROUPS[code]] = [int(a + b) for a, b in zip(before, counts)]

    def to_json(self) -> dict[str, Any]:
        """The tally, for a shard's marker."""
        for kept in (kept for languages in self.examples.values() for kept in languages.values()):
            kept[:] = best_examples(kept)
        return {
            "in": self.entered,
            "out": self.left,
            "dropped": self.dropped,
            "counts": dict(self.counts),
            "facts": dict(self._facts),
            "examples": self.examples,
            "histograms": self.histograms,
            "scales": {name: asdict(self._scales[name]) for name in self.histograms},
        }


def edges(scale: Scale) -> list[float]:
    """The `bins` + 1 borders of a histogram's bins."""
    if scale.log:
        return [float(edge) for edge in np.geomspace(scale.low, scale.high, scale.bins + 1)]
    return [float(edge) for edge in np.linspace(scale.low, scale.high, scale.bins + 1)]


def total(amounts: Mapping[str, Sequence[int]]) -> list[int]:
    """The sum of amounts by language."""
    return [sum(amount[part] for amount in amounts.values()) for part in range(3)]


def best_examples(examples: list[list[Any]]) -> list[list[Any]]:
    """Of [hash of id, decision] pairs, of one shard or of several, those that are shown."""
    return sorted(examples, key=lambda example: (example[0], example[1]["id"], example[1]["offset"]))[:EXAMPLES]


def _add(into: dict[str, list[int]], amounts: Mapping[str, Sequence[int]]) -> None:
    for language, amount in amounts.items():
        known = into.setdefault(language, [0, 0, 0])
        for part, value in enumerate(amount):
            known[part] += value


def _bins(values: Array, scale: Scale) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale.log:
            low, high = np.log(scale.low), np.log(scale.high)
            values = np.log(np.maximum(values, scale.low))
        else:
            low, high = scale.low, scale.high
        positions = np.floor((values - low) / (high - low) * scale.bins)
    return np.clip(np.nan_to_num(positions), 0, scale.bins - 1).astype(np.int64)
