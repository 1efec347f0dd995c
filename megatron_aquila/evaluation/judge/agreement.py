"""Verdicts of another judge, or of people, over the same items: how far they agree with ours beyond chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from megatron_aquila.evaluation.judge.summary import CRITERIA, Agreement, JudgeError
from megatron_aquila.evaluation.judge.verdicts import OUTCOMES
from megatron_aquila.evaluation.statistics import cohen_kappa

Key = tuple[str, int]


@dataclass(frozen=True)
class Others:
    """Verdicts by id and round: an outcome of a pair, or the scores of a rubric."""

    file: str
    verdicts: Mapping[Key, Any]


def read_others(path: Path, kind: str) -> Others:
    """The verdicts in a .jsonl file of rows {"id", "round", "verdict"}: "win", "tie" or "loss" of the answer, or
    {"fluency": 1 to 5, …}. null: none. Another judge's verdicts.jsonl is such a file; its canaries are left out.

    Raises:
        JudgeError: it is not there, or a line is no such row.
    """
    found: dict[Key, Any] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise JudgeError(
            f"{path} cannot be read ({error.strerror}): give a file of verdicts for --agreement"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise JudgeError(f"{where} is not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or type(row.get("round")) is not int:
            raise JudgeError(f'{where} is no verdict: write {{"id": "…", "round": 1, "verdict": …}}')
        verdict = row.get("verdict")
        if row.get("canary") or verdict is None:
            continue
        if not (_is_outcome(verdict) if kind == "pair" else _are_scores(verdict)):
            wanted = "win, tie or loss" if kind == "pair" else f"{{{', '.join(CRITERIA)}: 1 to 5}}"
            raise JudgeError(f"{where}: the verdict must be {wanted}, it is {verdict!r:.60}")
        key = row["id"], row["round"]
        if key in found:
            raise JudgeError(f"{where}: round {key[1]} of {key[0]} has a verdict already: give one an item")
        found[key] = verdict
    return Others(path.name, found)


def pair_agreement(ours: Mapping[Key, str], others: Others) -> Agreement:
    """Of outcomes by the strict rule."""
    keys = [key for key in ours if key in others.verdicts]
    one, other = [ours[key] for key in keys], [others.verdicts[key] for key in keys]
    pairs = list(zip(one, other))
    return Agreement(
        file=others.file,
        n=len(keys),
        missing=len(ours) - len(keys),
        same=_same(one, other),
        kappa=_kappa(one, other),
        matrix={mine: {theirs: pairs.count((mine, theirs)) for theirs in OUTCOMES} for mine in OUTCOMES},
    )


def rubric_agreement(ours: Mapping[Key, Mapping[str, int]], others: Others) -> Agreement:
    """Of scores: `same` and `kappa` over all criteria's scores together, `criteria` with quadratic weights."""
    keys = [key for key in ours if key in others.verdicts]
    by_name = {
        name: ([ours[key][name] for key in keys], [others.verdicts[key][name] for key in keys]) for name in CRITERIA
    }
    one = [score for scores, _ in by_name.values() for score in scores]
    other = [score for _, scores in by_name.values() for score in scores]
    return Agreement(
        file=others.file,
        n=len(keys),
        missing=len(ours) - len(keys),
        same=_same(one, other),
        kappa=_kappa(one, other),
        criteria={name: weighted_kappa(*scores) for name, scores in by_name.items()},
    )


def weighted_kappa(a: Sequence[int], b: Sequence[int]) -> float | None:
    """Cohen's kappa of scores from 1 to 5, a disagreement weighing as the square of its size (Cohen 1968). None where
    both judges always give one and the same score.
    """
    if not a:
        return None
    scores_5 = np.arange(1, 6)
    a_5N, b_5N = scores_5[:, None] == np.asarray(a), scores_5[:, None] == np.asarray(b)
    seen_55 = a_5N.astype(np.float64) @ b_5N.T.astype(np.float64)
    by_chance_55 = np.outer(a_5N.sum(1), b_5N.sum(1)) / len(a)
    weights_55 = np.square(scores_5[:, None] - scores_5)
    expected = float((weights_55 * by_chance_55).sum())
    return 1 - float((weights_55 * seen_55).sum()) / expected if expected else None


def _same(one: Sequence[object], other: Sequence[object]) -> float | None:
    return sum(mine == theirs for mine, theirs in zip(one, other)) / len(one) if one else None


def _kappa(one: Sequence[Any], other: Sequence[Any]) -> float | None:
    found = cohen_kappa(one, other) if one else np.nan
    return None if np.isnan(found) else found


def _is_outcome(value: object) -> bool:
    return isinstance(value, str) and value in OUTCOMES


def _are_scores(value: object) -> bool:
    return isinstance(value, dict) and all(type(value.get(name)) is int and 1 <= value[name] <= 5 for name in CRITERIA)
