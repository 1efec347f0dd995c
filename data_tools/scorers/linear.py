"""A linear scorer: one weight for each token of the recipe's tokenizer, nearly free where tokens are counted anyway.

A document is its damped token counts scaled to length 1; logistic regression says the label (one weight a token for two
labels, softmax over one a label for more), ridge regression the number. Trained in float64, kept as float32.

N: documents; E: entries of the token counts; K: tokens in use; D: columns of weights (1 for two labels or a number,
else one a label); V: the vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from data_tools.corpus.batch import Batch
from data_tools.inputs import InputError
from data_tools.scorers.optimise import Minimum, Vector, minimise
from data_tools.scorers.protocol import Task
from data_tools.scorers.seeds import Seed, balanced, batch_of
from data_tools.scorers.token_counts import TokenCounts, count_tokens, row_sums, unit_rows
from data_tools.tokenizers import Tokenizer

WEIGHTS = "weights.npy"
_BATCH = 1024  # documents that are tokenised at once


class LinearSettings(BaseModel):
    """How a linear scorer is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    damping: Literal["log", "binary"] = "log"
    """Value of a token that occurs c times: 1 + ln c, or 1."""
    l2: tuple[float, ...] = Field((1e-3, 1e-4, 1e-5, 1e-6), min_length=1)
    """Weights of the penalty l2/2·|w|² beside the mean loss. Of several the largest is taken whose error on the
    validation seeds (share of wrong labels; squared error) is within one standard error of the least (Hastie et al.,
    The Elements of Statistical Learning, §7.10): the least loss alone chooses weights that do worse on sources that no
    seed is of."""
    min_documents: int = Field(2, ge=1)
    """Tokens in fewer training seeds get no weight."""
    max_iterations: int = Field(300, ge=1)
    tolerance: float = Field(1e-5, gt=0)
    """Training ends when no component of the gradient of the mean loss is larger."""


SETTINGS = LinearSettings


@dataclass(frozen=True)
class LinearScorer:
    """`weights` float32 [D, V], `bias` [D]."""

    kind: ClassVar[str] = "linear"

    task: Task
    tokenizer: Tokenizer
    damping: str
    weights: npt.NDArray[np.float32]
    bias: tuple[float, ...]

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        """As `Scorer.score`; the ids are the batch's own, so that the next reader of them has them for nothing."""
        return self.score_ids(batch.token_ids(self.tokenizer))

    def score_ids(self, ids: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.float64]:
        """The scores [N, C] of documents given as token ids. A document without tokens gets the bias alone."""
        counts = count_tokens(ids, self.weights.shape[1])
        values = unit_rows(counts, self.damping)
        columns = [
            row_sums(counts, values * weights[counts.tokens_E]) + bias for weights, bias in zip(self.weights, self.bias)
        ]
        return outputs(np.stack(columns, axis=1), self.task)


def outputs(raw_ND: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.float64]:
    """Linear values as scores: the sigmoid or softmax of them, or the number kept within the task's range."""
    if task.name == "regression":
        return np.clip(raw_ND, task.low, task.high)
    if raw_ND.shape[1] == 1:
        raw_ND = np.concatenate([np.zeros_like(raw_ND), raw_ND], axis=1)
    shares = np.exp(raw_ND - raw_ND.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def load(directory: Path, manifest: Mapping[str, Any], task: Task, tokenizer: Tokenizer | None) -> LinearScorer:
    """The scorer in a directory whose files were found whole.

    Raises:
        InputError: no tokenizer, or another than it was trained with.
    """
    bound = manifest["tokenizer"]
    if tokenizer is None:
        raise InputError(f"{directory} is a linear scorer: it needs the tokenizer {bound['name']} it was trained with")
    if tokenizer.digest != bound["digest"]:
        raise InputError(
            f"{directory} was trained with the tokenizer {bound['name']} (digest {bound['digest'][:12]}), the recipe's "
            f"is {tokenizer.name} (digest {tokenizer.digest[:12]}): its weights mean nothing there; train it again "
            "with the recipe's tokenizer"
        )
    weights = np.load(directory / WEIGHTS, allow_pickle=False)
    return LinearScorer(task, tokenizer, manifest["settings"]["damping"], weights, tuple(manifest["bias"]))


def train(
    directory: Path,
    task: Task,
    settings: LinearSettings,
    *,
    train: Sequence[Seed],
    validation: Sequence[Seed],
    balance: Sequence[str],
    tokenizer: Tokenizer | None,
    seed: int,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Write the weights into `directory` and say what the manifest shall hold beside them. `seed` is not used: nothing
    here is random.

    Raises:
        InputError: no tokenizer.
    """
    if tokenizer is None:
        raise InputError("a linear scorer is trained over the token counts of a tokenizer: give the recipe's tokenizer")
    counts = _counts(train, tokenizer)
    problem = Problem.of(counts, unit_rows(counts, settings.damping), settings.min_documents)
    targets = target_columns(train, task)
    shares = balanced(train, balance).astype(np.float64)
    held_out = _counts(validation, tokenizer)
    held_values, held_targets = unit_rows(held_out, settings.damping), target_columns(validation, task)

    trials: list[dict[str, Any]] = []
    errors: list[npt.NDArray[np.float64]] = []
    points: list[npt.NDArray[np.float64]] = []
    start = np.zeros((targets.shape[1], problem.width + 1))
    start[:, -1] = 0.0 if task.name == "classification" else np.average(targets[:, 0], weights=shares)
    for l2 in sorted(set(settings.l2), reverse=True):  # from the stiffest: each is a good start for the next
        found = problem.fit(targets, shares, task, l2, start, settings)
        start = found.point.reshape(start.shape)
        full = np.zeros((len(start), tokenizer.vocab_size))
        full[:, problem.tokens_K] = start[:, :-1]
        raw = np.stack([row_sums(held_out, held_values * column[held_out.tokens_E]) for column in full], axis=1)
        errors.append(_errors(raw + start[:, -1], held_targets, task))
        points.append(start)
        error = float(errors[-1].mean())
        trials.append({"l2": l2, "iterations": found.iterations, "gradient": found.gradient, "validation_error": error})
        on_progress(f"l2 {l2:g}: {found.iterations} iterations, validation error {error:.4f}")
    least = min(errors, key=lambda each: float(each.mean()))
    enough = float(least.mean() + least.std() / np.sqrt(len(least)))
    place = next(place for place, trial in enumerate(trials) if trial["validation_error"] <= enough)
    best = points[place]
    weights = np.zeros((len(best), tokenizer.vocab_size), np.float32)
    weights[:, problem.tokens_K] = best[:, :-1]
    np.save(directory / WEIGHTS, weights)
    return {
        "tokenizer": {"name": tokenizer.name, "digest": tokenizer.digest, "vocab_size": tokenizer.vocab_size},
        "bias": best[:, -1].tolist(),
        "training": {"tokens": problem.width, "l2": trials[place]["l2"], "trials": trials},
    }


@dataclass(frozen=True)
class Problem:
    """Documents of a training set over the K tokens that occur in enough of them."""

    counts: TokenCounts  # its `tokens_E` are places in `tokens_K`
    values_E: npt.NDArray[np.float64]
    tokens_K: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: TokenCounts, values_E: npt.NDArray[np.float64], min_documents: int) -> "Problem":
        """Leave out the tokens of fewer than `min_documents` documents."""
        tokens, places, documents = np.unique(counts.tokens_E, return_inverse=True, return_counts=True)
        keep = documents >= min_documents
        renumbered, kept_E = np.cumsum(keep) - 1, keep[places]
        chosen = TokenCounts(
            counts.documents, counts.rows_E[kept_E], renumbered[places[kept_E]], counts.counts_E[kept_E]
        )
        return cls(chosen, values_E[kept_E], tokens[keep])

    @property
    def width(self) -> int:
        """K."""
        return len(self.tokens_K)

    def fit(
        self,
        targets_ND: npt.NDArray[np.float64],
        shares_N: npt.NDArray[np.float64],
        task: Task,
        l2: float,
        start: npt.NDArray[np.float64],
        settings: LinearSettings,
    ) -> Minimum:
        """Minimise Σ share·loss / Σ share + l2/2·|w|² over [D, K + 1], the last column the bias, which is free."""
        shares = (shares_N / shares_N.sum())[:, None]

        def objective(flat: Vector) -> tuple[float, Vector]:
            point = flat.reshape(start.shape)
            raw = np.stack([self._times(column[:-1]) + column[-1] for column in point], axis=1)
            loss_N, slope_ND = losses(raw, targets_ND, task)
            slope_ND = slope_ND * shares
            gradient = np.empty_like(point)
            for number in range(len(point)):
                gradient[number, :-1] = self._transposed_times(slope_ND[:, number]) + l2 * point[number, :-1]
            gradient[:, -1] = slope_ND.sum(axis=0)
            value = float((loss_N * shares[:, 0]).sum()) + l2 / 2 * float(np.square(point[:, :-1]).sum())
            return value, gradient.ravel()

        limits = {"tolerance": settings.tolerance, "max_iterations": settings.max_iterations}
        return minimise(objective, start.ravel(), **limits)  # type: ignore[arg-type]

    def _times(self, weights_K: Vector) -> Vector:
        return row_sums(self.counts, self.values_E * weights_K[self.counts.tokens_E])

    def _transposed_times(self, slope_N: Vector) -> Vector:
        values_E = self.values_E * slope_N[self.counts.rows_E]
        return np.bincount(self.counts.tokens_E, values_E, minlength=self.width).astype(np.float64, copy=False)


def losses(
    raw_ND: npt.NDArray[np.float64], targets_ND: npt.NDArray[np.float64], task: Task
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The loss [N] of each document and its slope [N, D]: half the squared error, or −log p of the true label."""
    if task.name == "regression":
        error = raw_ND - targets_ND
        return np.square(error[:, 0]) / 2, error
    if raw_ND.shape[1] == 1:
        loss = np.logaddexp(0.0, raw_ND) - targets_ND * raw_ND
        return loss[:, 0], outputs(raw_ND, task)[:, 1:] - targets_ND
    top = raw_ND.max(axis=1, keepdims=True)
    logs = raw_ND - top - np.log(np.exp(raw_ND - top).sum(axis=1, keepdims=True))
    return -(logs * targets_ND).sum(axis=1), np.exp(logs) - targets_ND


def _errors(
    raw_ND: npt.NDArray[np.float64], targets_ND: npt.NDArray[np.float64], task: Task
) -> npt.NDArray[np.float64]:
    """[N]: the squared error, or 1 where the likeliest label is not the true one."""
    scores_NC = outputs(raw_ND, task)
    if task.name == "regression":
        return np.square(scores_NC[:, 0] - targets_ND[:, 0])
    truth = targets_ND[:, 0] if targets_ND.shape[1] == 1 else targets_ND.argmax(axis=1)
    return (scores_NC.argmax(axis=1) != truth).astype(np.float64)


def target_columns(seeds: Sequence[Seed], task: Task) -> npt.NDArray[np.float64]:
    """[N, D]: the score; for two labels 1 where it is the second; for more, 1 in the column of the label."""
    if task.name == "regression":
        return np.array([[seed.target] for seed in seeds], np.float64)
    places = np.array([task.labels.index(str(seed.target)) for seed in seeds])
    one_hot = np.eye(len(task.labels))[places]
    return one_hot[:, 1:] if len(task.labels) == 2 else one_hot


def _counts(seeds: Sequence[Seed], tokenizer: Tokenizer) -> TokenCounts:
    ids: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(seeds), _BATCH):
        ids += batch_of(seeds[start : start + _BATCH]).token_ids(tokenizer)
    return count_tokens(ids, tokenizer.vocab_size)
