"""The linear scorer against dense solutions in float64, made from counts of Python's own."""

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.corpus.batch import Batch
from data_tools.scorers import Task, load_scorer
from data_tools.scorers.linear import LinearScorer
from data_tools.scorers.optimise import minimise
from data_tools.scorers.seeds import Seed, balanced, read_seeds, split
from data_tools.scorers.token_counts import count_tokens
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds
from tests.data_tools.small_tokenizer import make_tokenizer

EXACT = {"tolerance": 1e-9, "max_iterations": 3000, "min_documents": 1}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def batch(texts: list[str]) -> Batch:
    return Batch(
        [str(n) for n in range(len(texts))], list(texts), [""] * len(texts), [""] * len(texts), [{} for _ in texts]
    )


def random_ids(generator: random.Random, documents: int, vocab_size: int) -> list[np.ndarray]:
    lengths = [generator.choice([0, 1, 5, 200]) for _ in range(documents)]
    return [np.array([generator.randrange(vocab_size) for _ in range(n)], np.int32) for n in lengths]


@pytest.mark.parametrize(("documents", "vocab_size"), [(1, 3), (40, 11), (7, 1 << 30)])
def test_tokens_are_counted_as_python_counts_them(documents: int, vocab_size: int) -> None:
    ids = random_ids(random.Random(documents), documents, vocab_size)
    counts = count_tokens(ids, vocab_size)
    expected = [
        (row, token, n) for row, array in enumerate(ids) for token, n in sorted(Counter(array.tolist()).items())
    ]
    found = zip(counts.rows_E.tolist(), counts.tokens_E.tolist(), counts.counts_E.tolist())
    assert list(found) == expected and counts.documents == documents


@pytest.mark.parametrize("damping", ["log", "binary"])
@pytest.mark.parametrize("labels", [(), ("a", "b"), ("a", "b", "c")])
def test_a_score_follows_its_formula_in_any_batch(tokenizer: Tokenizer, damping: str, labels: tuple[str, ...]) -> None:
    generator = np.random.default_rng(1)
    width = {0: 1, 2: 1, 3: 3}[len(labels)]
    weights = generator.normal(size=(width, 50)).astype(np.float32)
    bias = tuple(generator.normal(size=width).tolist())
    task = Task("classification", labels) if labels else Task("regression", (), -9.0, 9.0)
    scorer = LinearScorer(task, tokenizer, damping, weights, bias)
    ids = random_ids(random.Random(2), 60, 50)
    ids.append(np.full(9000, 7, np.int32))  # a count beyond the table is taken as its last
    together = scorer.score_ids(ids)
    for document, row in zip(ids, together):
        features = {
            token: 1.0 + math.log(min(n, 4095)) if damping == "log" else 1.0
            for token, n in Counter(document.tolist()).items()
        }
        norm = math.sqrt(sum(value**2 for value in features.values())) or 1.0
        raw = [
            sum(value * float(column[token]) for token, value in features.items()) / norm + offset
            for column, offset in zip(weights, bias)
        ]
        if not labels:
            expected = raw
        elif len(labels) == 2:
            expected = [1 / (1 + math.exp(raw[0])), 1 / (1 + math.exp(-raw[0]))]
        else:
            expected = [math.exp(value) / sum(map(math.exp, raw)) for value in raw]
        np.testing.assert_allclose(row, expected, atol=1e-12)
        np.testing.assert_array_equal(scorer.score_ids([document])[0], row)  # alone: the same bits
    np.testing.assert_array_equal(scorer.score_ids(ids[::-1])[::-1], together)
    assert scorer.score_ids([]).shape == (0, task.columns)


def parts_of(path: Path, task: Task, tmp_path: Path) -> list[Seed]:
    seeds, _ = read_seeds([path], task, tmp_path / "oracle-quarantine.jsonl")
    return split(seeds, seed=0, validation=0.1, test=0.1)["train"]


def dense(seeds: list[Seed], tokenizer: Tokenizer) -> np.ndarray:
    """[N, V + 1]: unit rows of 1 + ln count, and a 1 for the bias."""
    rows = np.zeros((len(seeds), tokenizer.vocab_size + 1))
    for row, seed in zip(rows, seeds):
        for token, count in Counter(tokenizer.encode(seed.text)).items():
            row[token] = 1 + math.log(count)
        row /= np.sqrt(np.square(row).sum())
        row[-1] = 1.0
    return rows


def test_a_regression_is_the_closed_form_of_ridge(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_seeds(tmp_path / "seeds.jsonl", scored_seeds(400))
    output = tmp_path / "scorer"
    report = train_scorer(
        [path], output, kind="linear", task="regression", tokenizer=tokenizer, settings={"l2": (1e-3,), **EXACT}
    )
    seeds = parts_of(path, Task("regression"), tmp_path)
    features, targets = dense(seeds, tokenizer), np.array([seed.target for seed in seeds], float)
    shares = balanced(seeds, ["language"]) / balanced(seeds, ["language"]).sum()
    penalty = np.diag([1e-3] * tokenizer.vocab_size + [0.0])
    # V + 1 unknowns, some of tokens that never occur: the penalty makes them 0, and the matrix regular
    solution = np.linalg.solve(features.T @ (shares[:, None] * features) + penalty, features.T @ (shares * targets))
    scorer = load_scorer(output, tokenizer)
    assert isinstance(scorer, LinearScorer)
    np.testing.assert_allclose(scorer.weights[0], solution[:-1], atol=2e-5)
    assert scorer.bias[0] == pytest.approx(solution[-1], abs=1e-5)
    assert report["test"]["all"]["spearman"] > 0.9 and report["test"]["all"]["mae"] < 0.5
    assert report["test"]["zh"]["documents"] + report["test"]["en"]["documents"] == report["test"]["all"]["documents"]


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classification_is_the_minimum_that_torch_finds(tmp_path: Path, tokenizer: Tokenizer, labels: int) -> None:
    records = [
        {**record, "label": ["low", "mid", "high"][sum(record["score"] > edge for edge in ([3], [2, 4])[labels - 2])]}
        for record in scored_seeds(200)
    ]
    path = write_seeds(tmp_path / "seeds.jsonl", records)
    output = tmp_path / "scorer"
    train_scorer(
        [path], output, kind="linear", task="classification", tokenizer=tokenizer, settings={"l2": (1e-3,), **EXACT}
    )
    scorer = load_scorer(output, tokenizer)
    assert isinstance(scorer, LinearScorer)
    seeds = parts_of(path, Task("classification"), tmp_path)
    names = scorer.task.labels
    features = torch.from_numpy(dense(seeds, tokenizer))
    targets = torch.tensor([names.index(str(seed.target)) for seed in seeds])
    shares = torch.from_numpy(balanced(seeds, ["language"]) / balanced(seeds, ["language"]).sum())
    free = torch.zeros(len(scorer.weights), features.shape[1], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [free], max_iter=5000, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        logits = features @ free.T
        if labels == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total = (each * shares).sum() + 1e-3 / 2 * free[:, :-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)
    oracle = free.detach().numpy()
    np.testing.assert_allclose(scorer.weights, oracle[:, :-1], atol=2e-4)
    # of a softmax only the differences of the free biases are determined
    np.testing.assert_allclose(np.diff(scorer.bias), np.diff(oracle[:, -1]), atol=2e-4)
    if labels == 2:
        assert scorer.bias[0] == pytest.approx(oracle[0, -1], abs=2e-4)


def test_minimise_finds_the_valley_of_a_bent_function() -> None:
    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = np.array([-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)])
        return float(100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2), gradient

    found = minimise(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-9, max_iterations=200)
    np.testing.assert_allclose(found.point, [1.0, 1.0], atol=1e-8)
    assert found.gradient <= 1e-9 and found.iterations < 100
    assert minimise(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-9, max_iterations=3).iterations == 3


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("clinic")
    path = write_seeds(directory / "seeds.jsonl", clinic_seeds(500))
    reports = [
        train_scorer([path], directory / name, kind="linear", task="classification", tokenizer=tokenizer)
        for name in ("one", "two")
    ]
    return {"directory": directory, "reports": reports}


def test_equal_seeds_give_equal_bytes(clinic: dict[str, Any]) -> None:
    one, two = (
        {path.name: path.read_bytes() for path in (clinic["directory"] / name).iterdir()} for name in ("one", "two")
    )
    assert one == two and set(one) == {"manifest.json", "report.json", "weights.npy"}


def test_medicine_is_told_from_the_rest(clinic: dict[str, Any]) -> None:
    test = clinic["reports"][0]["test"]
    for name in ("all", "zh", "en"):
        assert test[name]["labels"]["medical"]["f1"] > 0.97, test[name]
        assert test[name]["labels"]["medical"]["support"] > 20


def test_the_stiffest_penalty_within_a_standard_error_is_chosen(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_seeds(tmp_path / "seeds.jsonl", [{**one, "label": str(one["score"] > 3)} for one in scored_seeds(500)])
    settings = {"l2": (1e-4, 1.0, 1e-2, 1e-3)}
    report = train_scorer(
        [path], tmp_path / "s", kind="linear", task="classification", tokenizer=tokenizer, settings=settings
    )
    trials = report["training"]["trials"]
    assert [trial["l2"] for trial in trials] == [1.0, 1e-2, 1e-3, 1e-4]
    least, count = min(trial["validation_error"] for trial in trials), report["seeds"]["parts"]["validation"]
    enough = least + math.sqrt(least * (1 - least) / count)
    assert report["training"]["l2"] == max(
        trial["l2"] for trial in trials if trial["validation_error"] <= enough + 1e-12
    )
    assert trials[0]["validation_error"] > enough  # or nothing was chosen between


def test_other_texts_of_the_same_kind_are_scored_alike(clinic: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Documents of another world, with no seed among them."""
    scorer = load_scorer(clinic["directory"] / "one", tokenizer)
    fresh = clinic_seeds(60, seed=5)
    scores = scorer.score(batch([record["text"] for record in fresh]))
    found = [scorer.task.labels[place] for place in scores.argmax(axis=1)]
    assert np.mean([label == record["label"] for label, record in zip(found, fresh)]) > 0.97
