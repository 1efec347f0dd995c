"""Next-token loss."""

from __future__ import annotations

import torch


def negative_log_likelihood(
    logps: torch.Tensor, labels: torch.Tensor, ignore_index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of -log p over the labels that count, and their number.

    Args:
        logps: `[…]` float32, log p(label); entries where the label is `ignore_index` are not read.
        labels: `[…]` int64.

    Returns:
        The sum, a float32 scalar, and the count, an int64 scalar. Their quotient over a whole global batch is
        the token-weighted mean: it does not depend on how the batch was cut into micro-batches.
    """
    counts = labels != ignore_index
    return -(logps * counts).sum(), counts.sum()
