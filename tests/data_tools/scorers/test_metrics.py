"""Measures against tables worked out by hand."""

import math

import numpy as np
import pytest

from data_tools.scorers.metrics import (
    binary_report,
    classification_report,
    confusion,
    ranks,
    recall_table,
    regression_report,
    threshold_for_precision,
    threshold_for_recall,
)


def test_a_table_by_hand() -> None:
    # true a: 3 (2 found, 1 called b); true b: 4 (all found); true c: 1 (called a)
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 1, 1, 1, 0])
    assert confusion(truth, predicted, 3).tolist() == [[2, 1, 0], [0, 4, 0], [1, 0, 0]]
    report = classification_report(truth, predicted, ("a", "b", "c"))
    assert report["accuracy"] == 6 / 8
    assert report["labels"]["a"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert report["labels"]["b"] == {"precision": 4 / 5, "recall": 1.0, "f1": 8 / 9, "support": 4}
    assert report["labels"]["c"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert report["macro_f1"] == pytest.approx((2 / 3 + 8 / 9 + 0) / 3)
    assert report["confusion"]["c"] == {"a": 1, "b": 0, "c": 0}


def test_regression_by_hand() -> None:
    truth, predicted = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 5.0])
    report = regression_report(truth, predicted)
    assert report["mae"] == 0.75 and report["rmse"] == math.sqrt(5 / 4)
    # centred: (-1.5, -.5, .5, 1.5) · (-1.25, -1.25, -.25, 2.75) = 6.5; squares 5 and 10.75
    assert report["pearson"] == pytest.approx(6.5 / math.sqrt(5 * 10.75), abs=1e-15)
    # ranks 1 2 3 4 and 1.5 1.5 3 4: Σ of products 4.5, squares 5 and 4.5
    assert report["spearman"] == pytest.approx(4.5 / math.sqrt(5 * 4.5), abs=1e-15)
    assert regression_report(truth, np.ones(4))["pearson"] is None


def test_ranks_share_the_mean_of_their_places() -> None:
    assert ranks(np.array([5.0, 1.0, 5.0, 5.0, 7.0])).tolist() == [3.0, 1.0, 3.0, 3.0, 5.0]


def test_thresholds_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.4, 0.3])
    positive = np.array([True, True, False, True, False, True, False])
    assert threshold_for_recall(positive, scores, 0.5) == 0.8
    assert threshold_for_recall(positive, scores, 0.51) == 0.6
    assert threshold_for_recall(positive, scores, 1.0) == 0.4
    assert threshold_for_recall(np.zeros(7, bool), scores, 0.5) is None
    # at .9: 1 of 1; at .8: 2 of 3 (both equal scores together); at .6: 3 of 4; at .4: 4 of 6
    assert threshold_for_precision(positive, scores, 1.0) == 0.9
    assert threshold_for_precision(positive, scores, 0.75) == 0.6
    assert threshold_for_precision(positive, scores, 0.6) == 0.4
    assert threshold_for_precision(np.zeros(7, bool), scores, 0.6) is None
    assert binary_report(positive, scores >= 0.8) == {"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7, "chosen": 3}
    (row,) = recall_table((positive, scores), (positive[:3], scores[:3]), (0.51,))
    assert row == {"recall_asked": 0.51, "threshold": 0.6, "precision": 2 / 3, "recall": 1.0, "f1": 0.8, "chosen": 3}
