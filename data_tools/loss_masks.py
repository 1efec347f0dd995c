"""Do the loss masks of a dataset fit its tokens? Read as a stream."""

import hashlib
from collections.abc import Callable

import numpy as np

from data_tools.indexed import Array, IndexedReader, bin_path, idx_path
from data_tools.manifest import loss_mask_prefix


def check_loss_masks(
    tokens: IndexedReader, kind: str | None, check: Callable[[str, str | None], None]
) -> tuple[str, int]:
    """Check the twin dataset of `tokens`.

    Args:
        kind: of the manifest; None where there is none, and the sequences of a sample are not checked.
        check: called with the name of each check and the problem, or None.

    Returns:
        SHA-256 (hex) of its .bin, and the number of trained tokens.

    Raises:
        IndexedDatasetError: its index cannot be read at all.
    """
    masks = IndexedReader(loss_mask_prefix(tokens.prefix))
    index, values = idx_path(masks.prefix), bin_path(masks.prefix)
    expected = np.cumsum(tokens.lengths, dtype=np.int64)
    fits = (
        masks.dtype == np.uint8
        and np.array_equal(masks.lengths, tokens.lengths)
        and np.array_equal(masks.offsets, expected - tokens.lengths)
        and np.array_equal(masks.document_indices, tokens.document_indices)
        and masks.bin_bytes == int(tokens.lengths.sum(dtype=np.int64))
    )
    check(
        "loss masks have the sequences and documents of the tokens",
        None if fits else f"{index} does not hold the sequences and documents of {idx_path(tokens.prefix)} as uint8",
    )
    if kind is not None:
        wanted = 2 if kind == "pairs" else 1
        wrong = np.flatnonzero(np.diff(tokens.document_indices) != wanted)
        name = "two sequences (chosen, rejected) a pair" if kind == "pairs" else "one sequence a dialogue"
        problem = f"{idx_path(tokens.prefix)}: sample {wrong[0]:,} does not have {wanted}" if len(wrong) else None
        check(name, problem)
    digest, bad_value, trained, first_trained = _read(masks, expected)
    check(
        "loss masks are 0 or 1",
        None if bad_value is None else f"{values}: the mask of token {bad_value:,} is neither 0 nor 1",
    )
    if fits:
        idle = np.flatnonzero(trained == 0)
        check(
            "a trained token in each sequence", f"{values}: sequence {idle[0]:,} trains nothing" if len(idle) else None
        )
        begun = np.flatnonzero(first_trained)
        problem = (
            f"{values}: sequence {begun[0]:,} trains its first token, which nothing predicts" if len(begun) else None
        )
        check("no first token is trained", problem)
    return digest, int(trained.sum())


def _read(masks: IndexedReader, ends: Array) -> tuple[str, int | None, Array, Array]:
    """One pass over .bin: SHA-256, the place of the first value beyond 1, trained tokens per sequence, and whether the
    first token of each is trained; `ends` [S] says where the sequences end.
    """
    digest = hashlib.sha256()
    position, bad_value = 0, None
    starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
    trained = np.zeros(len(ends), np.int64)
    first_trained = np.zeros(len(ends), bool)
    for block in masks.blocks():
        digest.update(block.data)
        if bad_value is None and len(beyond := np.flatnonzero(block > 1)):
            bad_value = position + int(beyond[0])
        sums = np.concatenate(([0], np.cumsum(block != 0, dtype=np.int64)))
        here = slice(
            int(np.searchsorted(ends, position, side="right")),
            int(np.searchsorted(starts, position + len(block), side="left")),
        )
        begins = np.maximum(starts[here] - position, 0)
        trained[here] += sums[np.minimum(ends[here] - position, len(block))] - sums[begins]
        inside = starts[here] >= position
        first_trained[here] |= inside & (block[begins] != 0)
        position += len(block)
    return digest.hexdigest(), bad_value, trained, first_trained
