"""The domain cascade: who decides what, and what is noted."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from data_tools.corpus.batch import Batch
from data_tools.corpus.domain import Domain, DomainConfig, DomainStage
from data_tools.corpus.step_config import Resources
from data_tools.inputs import InputError
from data_tools.scorers import Task, load_scorer
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds
from tests.data_tools.small_tokenizer import make_tokenizer


class Table:
    """A scorer whose probabilities are written in the text: "0.3 0.7 …", three labels for each stage."""

    kind = "table"
    task = Task("classification", ("law", "medical", "sport"))

    def __init__(self, stage: int) -> None:
        self.stage = stage
        self.seen: list[str] = []

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        self.seen += batch.ids
        return np.array([[float(one) for one in text.split(";")[self.stage].split()] for text in batch.texts])


def batch(texts: list[str]) -> Batch:
    return Batch(
        [f"d{n}" for n in range(len(texts))], list(texts), [""] * len(texts), [""] * len(texts), [{} for _ in texts]
    )


def config(action: str = "drop") -> DomainConfig:
    stages = ({"scorer": "a", "low": 0.1, "high": 0.9}, {"scorer": "b", "low": 0.3, "high": 0.6}, {"scorer": "c"})
    return DomainConfig.model_validate({"stages": stages, "action": action})


TEXTS = [
    "0.91 0.09 0.0; ; ",  # below low at once, law
    "0.05 0.9 0.05; ; ",  # exactly high: medical
    "0.4 0.1 0.5; 0.2 0.2 0.6; ",  # exactly low is asked again: then sport
    "0.4 0.5 0.1; 0.2 0.6 0.2; ",  # medical in the second
    "0.4 0.5 0.1; 0.5 0.4 0.1; 0.6 0.4 0.0",  # law in the third
    "0.4 0.5 0.1; 0.5 0.4 0.1; 0.5 0.5 0.0",  # exactly the threshold: medical
]


@pytest.mark.parametrize("action", ["drop", "label"])
def test_each_stage_decides_what_it_is_sure_of(action: str) -> None:
    scorers = [Table(0), Table(1), Table(2)]
    outcome = Domain(config(action), scorers)(batch(TEXTS))
    assert [note["domain"] for note in outcome.notes if note] == [
        "law",
        "medical",
        "sport",
        "medical",
        "law",
        "medical",
    ]
    assert [note["domain_score"] for note in outcome.notes if note] == [0.09, 0.9, 0.2, 0.6, 0.4, 0.5]
    assert [scorer.seen for scorer in scorers] == [[f"d{n}" for n in range(6)], ["d2", "d3", "d4", "d5"], ["d4", "d5"]]
    dropped = {place: drop for place, drop in enumerate(outcome.drops) if drop}
    assert list(dropped) == ([0, 2, 4] if action == "drop" else [])
    if action == "drop":
        assert {drop.reason for drop in dropped.values()} == {"domain"}
        assert dropped[2].detail == {"value": 0.2, "limit": 0.3, "stage": 2, "domain": "sport"}
        assert dropped[4].detail == {"value": 0.4, "limit": 0.5, "stage": 3, "domain": "law"}
    assert outcome.counts == {
        "stage 1 table: other": 1, "stage 1 table: medical": 1, "stage 2 table: other": 1, "stage 2 table: medical": 1,
        "stage 3 table: other": 1, "stage 3 table: medical": 1,
    }  # fmt: skip
    third = outcome.measures["stage 3 table"]
    assert [math.isnan(value) for value in third] == [True] * 4 + [False] * 2 and third[4:].tolist() == [0.4, 0.5]


def test_measures_have_scales_with_their_limits() -> None:
    step = Domain(config(), [Table(0), Table(1), Table(2)])
    assert set(step.scales) == set(step(batch(TEXTS)).measures)
    limits = [scale.limits[""] for scale in step.scales.values()]
    assert limits == [(0.1, 0.9), (0.3, 0.6), (0.5,)]


def test_a_document_gets_the_same_outcome_in_any_batch() -> None:
    step = Domain(config(), [Table(0), Table(1), Table(2)])
    together = step(batch(TEXTS * 3))
    for place, text in enumerate(TEXTS * 3):
        alone = step(batch([text]))
        assert (alone.drops[0], alone.notes[0]) == (together.drops[place], together.notes[place])
    nothing = step(batch([]))
    assert nothing.drops == [] and nothing.counts == {}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([], "at least 1 item"),
        ([{"scorer": "a", "low": 0.1}], r"stages\[0\] is the last"),
        ([{"scorer": "a", "threshold": 0.5}, {"scorer": "b"}], r"stages\[0\] is not the last"),
        ([{"scorer": "a", "low": 0.9, "high": 0.2}, {"scorer": "b"}], "low 0.9 is above high 0.2"),
        ([{"scorer": "a", "threshold": 2}], "less than or equal to 1"),
        ([{"scorer": "a", "limit": 2}], "Extra inputs"),
    ],
)
def test_limits_that_make_no_sense_are_refused(stages: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DomainConfig.model_validate({"stages": stages})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("scorers")
    seeds = write_seeds(directory / "seeds.jsonl", clinic_seeds(150))
    scores = write_seeds(directory / "scores.jsonl", scored_seeds(100))
    train_scorer([seeds], directory / "linear", kind="linear", task="classification", tokenizer=tokenizer)
    train_scorer([scores], directory / "quality", kind="linear", task="regression", tokenizer=tokenizer)
    return {"linear": directory / "linear", "quality": directory / "quality"}


def test_a_real_scorer_runs_in_the_step(scorers: dict[str, Path], tokenizer: Tokenizer) -> None:
    settings = DomainConfig(stages=(DomainStage(scorer=scorers["linear"]), DomainStage(scorer=scorers["linear"])))
    step = settings.build(Resources(tokenizer, seed=0))
    records = clinic_seeds(60, seed=8)
    outcome = step(batch([record["text"] for record in records]))
    kept = [drop is None for drop in outcome.drops]
    assert np.mean([keep == (record["label"] == "medical") for keep, record in zip(kept, records)]) > 0.95
    direct = load_scorer(scorers["linear"], tokenizer).score(batch([record["text"] for record in records]))
    np.testing.assert_allclose(outcome.measures["stage 1 linear"], direct[:, 0], atol=5e-7)
    assert sum(outcome.counts.values()) == len(records)


def test_files_change_when_the_scorer_does(scorers: dict[str, Path]) -> None:
    settings = DomainConfig(stages=(DomainStage(scorer=scorers["linear"]),))
    (path,) = settings.files()
    assert path.is_file() and b"weights.npy" in path.read_bytes()


def test_a_scorer_that_does_not_fit_is_refused(scorers: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path) -> None:
    resources = Resources(tokenizer, seed=0)
    with pytest.raises(InputError, match=r"stages\[0\].scorer .* knows no label, it is a regression"):
        DomainConfig(stages=(DomainStage(scorer=scorers["quality"]),)).build(resources)
    with pytest.raises(InputError, match="knows medical, other: it must know 'law'"):
        DomainConfig(stages=(DomainStage(scorer=scorers["linear"]),), label="law").build(resources)
    other = load_tokenizer(make_tokenizer(tmp_path / "tokenizer", vocab_size=500, seed=3))
    with pytest.raises(InputError, match="train it again"):
        DomainConfig(stages=(DomainStage(scorer=scorers["linear"]),)).build(Resources(other, seed=0))
