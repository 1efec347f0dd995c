"""What the trainer and the loader refuse, and that they say why."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from data_tools.inputs import InputError
from data_tools.scorers import load_scorer
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds
from tests.data_tools.small_tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeds(tmp_path_factory.mktemp("seeds") / "seeds.jsonl", clinic_seeds(60))


@pytest.fixture
def scorer(tmp_path: Path, seeds: Path, tokenizer: Tokenizer) -> Path:
    train_scorer([seeds], tmp_path / "scorer", kind="linear", task="classification", tokenizer=tokenizer)
    return tmp_path / "scorer"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "forest"}, "no scorer of the kind 'forest': choose one of linear, fasttext, encoder"),
        ({"task": "ranking"}, "the task is 'ranking': choose one of classification, regression"),
        ({"tokenizer": None}, "give the recipe's tokenizer"),
        ({"tokenizer": "/no/such"}, "no tokenizer at /no/such"),
        ({"settings": {"l3": 1}}, "the setting 'l3' of a linear scorer is wrong"),
        ({"settings": {"l2": []}}, "the setting 'l2' of a linear scorer is wrong"),
        ({"balance": ["source"]}, "balance names 'source'"),
        ({"test": 0.0}, "give shares above 0"),
        ({"validation": 0.6, "test": 0.5}, "give shares above 0"),
        ({"labels": ["medical"]}, "give two or more that differ"),
        ({"labels": ["medical", "other", "law"]}, "part has none of the label law among"),
        ({"recalls": [1.5]}, "recalls holds 1.5"),
        ({"kind": "fasttext", "task": "regression"}, "fastText has no regression"),
        ({"task": "regression", "labels": ["a", "b"]}, "a regression has no labels"),
        ({"task": "regression", "cut": 9}, "cut is 9"),
        ({"task": "regression", "balance": ["label"]}, "a regression has none"),
        ({"task": "regression", "score_range": (6, 0)}, "score_range is 6 to 0"),
        ({"task": "regression"}, "120 of 120 seeds cannot be used"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_left(
    tmp_path: Path, seeds: Path, tokenizer: Tokenizer, change: dict[str, Any], words: str
) -> None:
    arguments: dict[str, Any] = {"kind": "linear", "task": "classification", "tokenizer": tokenizer, **change}
    with pytest.raises(InputError, match=re.escape(words)):
        train_scorer([seeds], tmp_path / "scorer", **arguments)
    assert not list(tmp_path.iterdir())


def test_seeds_of_one_label_teach_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_seeds(tmp_path / "seeds.jsonl", [{**record, "label": "a"} for record in clinic_seeds(40)])
    with pytest.raises(InputError, match="all seeds have the label 'a'"):
        train_scorer([path], tmp_path / "scorer", kind="linear", task="classification", tokenizer=tokenizer)


def test_an_output_that_exists_is_left_alone(scorer: Path, seeds: Path, tokenizer: Tokenizer) -> None:
    before = (scorer / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists"):
        train_scorer([seeds], scorer, kind="linear", task="classification", tokenizer=tokenizer)
    assert (scorer / "manifest.json").read_bytes() == before


def test_a_linear_scorer_is_bound_to_its_tokenizer(scorer: Path, tmp_path: Path) -> None:
    other = load_tokenizer(make_tokenizer(tmp_path / "other", vocab_size=600, seed=9))
    with pytest.raises(InputError, match=r"trained with the tokenizer .* the recipe's is other .* train it again"):
        load_scorer(scorer, other)
    with pytest.raises(InputError, match="needs the tokenizer"):
        load_scorer(scorer)


@pytest.mark.parametrize("name", ["weights.npy", "report.json"])
def test_one_changed_byte_is_noticed(scorer: Path, tokenizer: Tokenizer, name: str) -> None:
    data = bytearray((scorer / name).read_bytes())
    data[len(data) // 2] ^= 1
    (scorer / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name} is damaged"):
        load_scorer(scorer, tokenizer)
    (scorer / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing"):
        load_scorer(scorer, tokenizer)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "there is no scorer in"),
        (b"{", "is not JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"artefact": "tokenizer"}', "holds a tokenizer, not a scorer"),
        (b'{"artefact": "scorer", "format": 99}', "of format 99"),
        (b'{"artefact": "scorer", "format": 1, "kind": "linear"}', "is damaged"),
        (b'{"artefact":"scorer","format":1,"kind":"x","task":{"name":"regression","low":0,"high":6},"files":{},'
         b'"settings":{}}', "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_scorer_is_refused(tmp_path: Path, tokenizer: Tokenizer, manifest: bytes | None, words: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(InputError, match=re.escape(words)):
        load_scorer(tmp_path, tokenizer)


def test_the_report_stands_beside_the_scorer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_seeds(tmp_path / "seeds.jsonl", [*scored_seeds(200), {"text": "no score"}])
    heard: list[str] = []
    report = train_scorer(
        [path], tmp_path / "q", kind="linear", task="regression", tokenizer=tokenizer, on_progress=heard.append
    )
    assert orjson.loads((tmp_path / "q" / "report.json").read_bytes()) == orjson.loads(orjson.dumps(report))
    assert report["seeds"]["refused"] == {"bad-score": 1}
    assert (tmp_path / "q" / "quarantine.jsonl").is_file()
    assert sum(report["seeds"]["parts"].values()) == 200
    assert set(report["cuts"]) == {"1", "2", "3", "4", "5", "6"}
    rows = report["thresholds"]["recall"]
    assert [row["recall_asked"] for row in rows] == [0.9, 0.95, 0.98, 0.99]
    assert all(above["threshold"] >= below["threshold"] for above, below in pairwise(rows))
    assert heard[0] == "reading seeds" and heard[-1] == "scoring held-out seeds"
