"""What a scorer is worth, on seeds that it was not trained with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.scorers.metrics import (
    binary_report,
    classification_report,
    recall_table,
    regression_report,
    threshold_for_precision,
    threshold_for_recall,
)
from data_tools.scorers.protocol import SCORE_DECIMALS, Scorer, Task
from data_tools.scorers.seeds import Seed, batch_of

RECALLS = (0.9, 0.95, 0.98, 0.99)
CASCADE_RECALL, CASCADE_PRECISION = 0.99, 0.98
_BATCH = 1024
Floats = npt.NDArray[np.float64]


def score_seeds(scorer: Scorer, seeds: Sequence[Seed]) -> Floats:
    """[N, C] in the order of the seeds, rounded as the steps round."""
    parts = [scorer.score(batch_of(seeds[at : at + _BATCH])) for at in range(0, len(seeds), _BATCH)]
    return np.concatenate(parts).round(SCORE_DECIMALS)


def make_report(
    scorer: Scorer, validation: Sequence[Seed], test: Sequence[Seed], recalls: Sequence[float], cut: float
) -> dict[str, Any]:
    """Figures on the test seeds, all and by language, and thresholds: found on the validation seeds, tried on the test
    seeds. For a regression, a text from `cut` upwards is what shall be found.
    """
    held, tried = score_seeds(scorer, validation), score_seeds(scorer, test)
    languages = sorted({seed.lang for seed in test})
    groups = {"all": np.ones(len(test), bool)}
    groups |= {lang: np.array([seed.lang == lang for seed in test]) for lang in languages}
    if scorer.task.name == "regression":
        return _regression(scorer.task, (validation, held), (test, tried), groups, tuple(recalls), cut)
    return _classification(scorer.task, (validation, held), (test, tried), groups, tuple(recalls))


def _classification(
    task: Task,
    validation: tuple[Sequence[Seed], Floats],
    test: tuple[Sequence[Seed], Floats],
    groups: dict[str, npt.NDArray[np.bool_]],
    recalls: tuple[float, ...],
) -> dict[str, Any]:
    truths = [np.array([task.labels.index(str(seed.target)) for seed in seeds]) for seeds in (validation[0], test[0])]
    predicted = test[1].argmax(axis=1)
    thresholds = {}
    for place, label in enumerate(task.labels):
        held = truths[0] == place, validation[1][:, place]
        tried = truths[1] == place, test[1][:, place]
        thresholds[label] = {"recall": recall_table(held, tried, recalls), "cascade": _cascade(held, tried)}
    tables = {
        name: classification_report(truths[1][chosen], predicted[chosen], task.labels)
        for name, chosen in groups.items()
    }
    return {"test": tables, "thresholds": thresholds}


def _cascade(held: tuple[npt.NDArray[np.bool_], Floats], tried: tuple[npt.NDArray[np.bool_], Floats]) -> dict[str, Any]:
    """Limits of a stage, from the validation seeds: below `low` at most 1 % of the label is lost, from `high` on at
    least 98 % are of the label. Where the two cross, as with seeds that are told apart without a fault, the wider band
    between them is left to the next stage.

    On the test seeds: `decided`, the share that needs no further stage; `lost`, of the label below `low`; the figures
    of those from `high` on.
    """
    low = threshold_for_recall(*held, CASCADE_RECALL)
    high = threshold_for_precision(*held, CASCADE_PRECISION)
    if low is None or high is None:
        return {"low": low, "high": high}
    low, high = min(low, high), max(low, high)
    positive, scores = tried
    return {
        "low": low,
        "high": high,
        "decided": float(((scores < low) | (scores >= high)).mean()),
        "lost": float((scores[positive] < low).mean()),
        "from_high": binary_report(positive, scores >= high),
    }


def _regression(
    task: Task,
    validation: tuple[Sequence[Seed], Floats],
    test: tuple[Sequence[Seed], Floats],
    groups: dict[str, npt.NDArray[np.bool_]],
    recalls: tuple[float, ...],
    cut: float,
) -> dict[str, Any]:
    truths = [np.array([float(seed.target) for seed in seeds]) for seeds in (validation[0], test[0])]
    held, tried = validation[1][:, 0], test[1][:, 0]
    cuts = np.arange(np.ceil(task.low) + 1, task.high + 1e-9)
    return {
        "test": {name: regression_report(truths[1][chosen], tried[chosen]) for name, chosen in groups.items()},
        "cuts": {f"{value:g}": binary_report(truths[1] >= value, tried >= value) for value in cuts},
        "thresholds": {
            "cut": cut,
            "recall": recall_table((truths[0] >= cut, held), (truths[1] >= cut, tried), recalls),
        },
    }
