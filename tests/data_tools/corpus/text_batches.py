"""Batches of texts, for the tests of the steps that work on text."""

from collections.abc import Sequence

from data_tools.corpus.batch import Batch


def batch_of(texts: Sequence[str]) -> Batch:
    """One document a text, without language, source or notes."""
    count = len(texts)
    return Batch([f"d{place}" for place in range(count)], list(texts), [""] * count, [""] * count, [{} for _ in texts])
