"""Measures of a scorer against labelled seeds. Pure functions.

N: documents; L: labels.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def confusion(truth_N: Integers, predicted_N: Integers, labels: int) -> Integers:
    """[L, L] counts: row = the true label, column = the predicted one."""
    cells = np.bincount(truth_N * labels + predicted_N, minlength=labels * labels)
    return cells.reshape(labels, labels).astype(np.int64)


def classification_report(truth_N: Integers, predicted_N: Integers, labels: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, and per label precision, recall, F1 and support, with the confusion they follow from.

    A ratio over nothing (a label never predicted, or not there) is None; macro F1 is the mean over the labels that are
    there, an undefined F1 counting as 0.
    """
    table = confusion(truth_N, predicted_N, len(labels))
    per_label: dict[str, dict[str, float | int | None]] = {}
    for place, label in enumerate(labels):
        right, support, predicted = int(table[place, place]), int(table[place].sum()), int(table[:, place].sum())
        per_label[label] = {**_ratios(right, predicted, support), "support": support}
    there = [entry["f1"] or 0.0 for entry in per_label.values() if entry["support"]]
    return {
        "documents": len(truth_N),
        "accuracy": _ratio(int(np.trace(table)), len(truth_N)),
        "macro_f1": float(np.mean(there)) if there else None,
        "labels": per_label,
        "confusion": {label: dict(zip(labels, map(int, row))) for label, row in zip(labels, table)},
    }


def binary_report(positive_N: npt.NDArray[np.bool_], chosen_N: npt.NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Precision, recall and F1 of `chosen` for `positive`, and how many were chosen."""
    right = int((positive_N & chosen_N).sum())
    return {**_ratios(right, int(chosen_N.sum()), int(positive_N.sum())), "chosen": int(chosen_N.sum())}


def regression_report(truth_N: Floats, predicted_N: Floats) -> dict[str, Any]:
    """Mean absolute error, root of the mean squared error, Pearson and Spearman correlation (None where undefined)."""
    errors = predicted_N - truth_N
    return {
        "documents": len(truth_N),
        "mae": float(np.abs(errors).mean()) if len(errors) else None,
        "rmse": math.sqrt(float(np.square(errors).mean())) if len(errors) else None,
        "pearson": correlation(truth_N, predicted_N),
        "spearman": correlation(ranks(truth_N), ranks(predicted_N)),
    }


def correlation(left_N: Floats, right_N: Floats) -> float | None:
    """Pearson's r; None for fewer than two values or where one side does not vary."""
    if len(left_N) < 2:
        return None
    left, right = left_N - left_N.mean(), right_N - right_N.mean()
    scale = math.sqrt(float(np.square(left).sum()) * float(np.square(right).sum()))
    return float((left * right).sum()) / scale if scale > 0 else None


def ranks(values_N: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their places."""
    _, place, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[place].astype(np.float64)


def threshold_for_recall(positive_N: npt.NDArray[np.bool_], scores_N: Floats, recall: float) -> float | None:
    """The highest threshold t such that `scores >= t` finds at least `recall` of the positives; None without any."""
    found = np.sort(scores_N[positive_N])[::-1]
    if not len(found):
        return None
    # The small term keeps 0.9 * 10 = 9.000000000000002 from asking for ten.
    wanted = min(len(found), max(1, math.ceil(recall * len(found) - 1e-9)))
    return float(found[wanted - 1])


def threshold_for_precision(positive_N: npt.NDArray[np.bool_], scores_N: Floats, precision: float) -> float | None:
    """The lowest threshold t such that at least `precision` of `scores >= t` are positive; None where none is."""
    order = np.argsort(-scores_N, kind="stable")
    scores, right = scores_N[order], np.cumsum(positive_N[order])
    ends = np.append(scores[1:] != scores[:-1], True) if len(scores) else np.zeros(0, bool)
    good = np.flatnonzero(ends & (right >= precision * np.arange(1, len(scores) + 1) - 1e-9))
    return float(scores[good[-1]]) if len(good) else None


def recall_table(
    validation: tuple[npt.NDArray[np.bool_], Floats],
    test: tuple[npt.NDArray[np.bool_], Floats],
    recalls: tuple[float, ...],
) -> list[dict[str, Any]]:
    """For each recall asked the threshold that gives it on the validation seeds, and what it does on the test seeds."""
    table: list[dict[str, Any]] = []
    for recall in recalls:
        threshold = threshold_for_recall(*validation, recall)
        if threshold is not None:
            positive, scores = test
            table.append(
                {"recall_asked": recall, "threshold": threshold, **binary_report(positive, scores >= threshold)}
            )
    return table


def _ratios(right: int, chosen: int, positive: int) -> dict[str, float | int | None]:
    total = chosen + positive
    return {"precision": _ratio(right, chosen), "recall": _ratio(right, positive), "f1": _ratio(2 * right, total)}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
