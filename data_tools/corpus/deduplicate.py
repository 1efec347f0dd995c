"""Exact and near duplicates over all shards. Not a step of a batch: which document stays depends on all of them.

Signatures are made beside the other steps, one row a document (`DeduplicateConfig.signer`); `find_duplicates` then
works on their files alone, and its verdicts are applied to each shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.corpus.batch import Batch, Drop
from data_tools.corpus.signatures import SKETCH_BINS, row_dtype
from data_tools.corpus.step_config import GlobalStepConfig, Progress, Resources, Signer

# One row for each member of a cluster of two or more, sorted by position in its shard; `cluster` is the ordinal (over
# all shards) of the member that is kept, `exact` says that the folded text is that member's, and `similarity` is the
# estimated Jaccard similarity with it.
VERDICT = np.dtype(
    [("position", "<u4"), ("cluster", "<u8"), ("drop", "?"), ("exact", "?"), ("similarity", "<f4")]
)  # fmt: skip


EXACT, NEAR = "exact-duplicate", "near-duplicate"


class ShingleLengths(BaseModel):
    """Tokens in a shingle. Texts in other languages take the unit that fits their characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zh: Annotated[int, Field(ge=1, le=100)] = 8
    """Characters. 5 jieba words, datatrove's shingle, are 8.2 characters of medical text (1.64 a word)."""
    en: Annotated[int, Field(ge=1, le=100)] = 5
    """Words. datatrove and FineWeb: 5-grams."""


class DeduplicateConfig(GlobalStepConfig):
    """Which documents count as the same, and which of them stays."""

    step: Literal["deduplicate"] = "deduplicate"
    algorithm: Literal["aquila minhash 1"] = "aquila minhash 1"
    """The version of csrc/text/ngram_signatures.cpp: goes up whenever the same text would get another row, so that rows
    of two versions never meet in a run."""
    exact: bool = True
    """Find texts that are equal but for case, width, marks, punctuation and white space; numbers count."""
    near: bool = True
    """Find texts whose shingles are nearly the same, by MinHash and locality-sensitive hashing."""
    shingle: ShingleLengths = ShingleLengths()
    join_numbers: bool = True
    """Shingles take every number for the same (datatrove's norm_numbers). Exact duplicates never do."""
    bands: Annotated[int, Field(ge=1, le=256)] = 32
    """Pairs that agree in one band of `rows` minima are looked at: of pairs with similarity J, 1 - (1 - J^rows)^bands.
    32 x 4 looks at 99.8 % at J = 0.65; the 14 x 8 of FineWeb at 36 %, and at 56 % at 0.7."""
    rows: Annotated[int, Field(ge=1, le=64)] = 4
    """Minima of a band."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.65
    """Least estimated Jaccard similarity of a pair (standard error 0.02 or less). FineWeb has no such check; at 0.65 as
    many stay as there: 7,227 for 7,220 of 7,644 zh dialogues, 3,508 for 3,497 of 4,000 MedQuAD answers."""
    verify: bool = True
    """Check the threshold; without, a common band is enough."""
    keep: Literal["first", "longest"] = "first"
    """Which member of a cluster stays: the first in the order of the input, or the one of most characters."""
    seed: int | None = None
    """Of the permutations; the recipe's seed when not given."""
    memory: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Bytes that the search over all shards may hold, beside 8 mapped bytes a document; decides time, no outcome."""

    def row_facts(self) -> Mapping[str, Any]:
        """All but what is done with the rows."""
        return self.model_dump(mode="json", exclude={"exact", "near", "threshold", "verify", "keep", "memory"})

    def signer(self, resources: Resources) -> Signer:
        """Rows of `row_dtype`, of the text and language of a document alone. It keeps buffers."""
        from data_tools import _text
        from data_tools.corpus.folding import folding, units

        dtype = row_dtype(self.bands)
        kernel = _text.Signer(
            folding(),
            bands=self.bands,
            rows=self.rows,
            sketch_bins=SKETCH_BINS,
            seed=self._seed(resources) & (1 << 64) - 1,
            characters=self.shingle.zh,
            words=self.shingle.en,
            join_numbers=self.join_numbers,
        )
        assert kernel.row_bytes == dtype.itemsize

        def sign(batch: Batch) -> npt.NDArray[np.void]:
            return kernel.sign(batch.texts, units(batch.langs)).view(dtype)[:, 0]

        return sign

    def settle(
        self, parts: Sequence[Path], work: Path, outputs: Sequence[Path], on_progress: Progress
    ) -> Mapping[str, int]:
        """As `GlobalStepConfig.settle`: verdicts of dtype `VERDICT`, counts as `DuplicateCounts`."""
        from data_tools.corpus.near_duplicates import find_duplicates

        return asdict(find_duplicates(self, parts, work, outputs, on_progress))

    def drop(self, verdict: np.void) -> Drop | None:
        """Exact or near, with the cluster and the similarity to the member that stays."""
        if not verdict["drop"]:
            return None
        detail = {"cluster": int(verdict["cluster"]), "similarity": round(float(verdict["similarity"]), 4)}
        return Drop(EXACT if verdict["exact"] else NEAR, detail)

    def member(self, verdict: np.void, name: str) -> Mapping[str, Any]:
        """The document's place in its cluster."""
        return {
            "cluster": int(verdict["cluster"]),
            "id": name,
            "kept": not verdict["drop"],
            "exact": bool(verdict["exact"]),
            "similarity": round(float(verdict["similarity"]), 4),
        }

    def _seed(self, resources: Resources) -> int:
        return resources.seed if self.seed is None else self.seed
