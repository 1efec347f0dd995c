"""The quality step: scores, thresholds by language, what is noted."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from data_tools.corpus.batch import Batch
from data_tools.corpus.quality import Quality, QualityConfig
from data_tools.corpus.step_config import Resources
from data_tools.inputs import InputError
from data_tools.scorers import Task
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds
from tests.data_tools.small_tokenizer import make_tokenizer


class Written:
    """A scorer that reads the score in the text."""

    kind = "written"
    task = Task("regression")

    def score(self, batch: Batch) -> npt.NDArray[np.float64]:
        return np.array([[float(text)] for text in batch.texts]).reshape(len(batch), 1)


def batch(texts: list[str], langs: list[str] | None = None) -> Batch:
    count = len(texts)
    return Batch([str(n) for n in range(count)], texts, langs or [""] * count, [""] * count, [{} for _ in texts])


def test_a_document_below_its_languages_threshold_goes() -> None:
    step = Quality(QualityConfig(scorer=Path("s"), threshold=3.0, thresholds={"zh": 2.5}), Written())
    outcome = step(batch(["3", "2.999999", "2.9999999", "2.5", "2.4", "6"], ["en", "en", "", "zh", "zh", "zh"]))
    drops = [drop and (drop.reason, dict(drop.detail)) for drop in outcome.drops]
    # the third is 3 to six decimals, as it is noted
    low = ("quality", {"value": 2.999999, "limit": 3.0}), ("quality", {"value": 2.4, "limit": 2.5})
    assert drops == [None, low[0], None, None, low[1], None]
    assert [note["quality"] for note in outcome.notes if note] == [3.0, 2.999999, 3.0, 2.5, 2.4, 6.0]
    assert outcome.counts == {"at or above": 4, "below": 2}
    assert step.scales["quality"].limits == {"": (3.0,), "zh": (2.5,)}
    assert outcome.measures["quality"].tolist() == [3.0, 2.999999, 3.0, 2.5, 2.4, 6.0]
    assert step(batch([])).drops == []


def test_label_keeps_everything() -> None:
    outcome = Quality(QualityConfig(scorer=Path("s"), action="label"), Written())(batch(["0", "5"]))
    assert outcome.drops == [None, None] and outcome.notes == [{"quality": 0.0}, {"quality": 5.0}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_a_trained_scorer_keeps_the_better_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    seeds = write_seeds(tmp_path / "seeds.jsonl", scored_seeds(500))
    train_scorer([seeds], tmp_path / "quality", kind="linear", task="regression", tokenizer=tokenizer)
    config = QualityConfig(scorer=tmp_path / "quality")
    step = config.build(Resources(tokenizer, seed=0))
    fresh = [record for record in scored_seeds(200, seed=7) if record["score"] != 3]
    together = step(batch([record["text"] for record in fresh]))
    right = [(drop is None) == (record["score"] > 3) for drop, record in zip(together.drops, fresh)]
    assert np.mean(right) > 0.9
    for place in (0, 7, 50):
        alone = step(batch([fresh[place]["text"]]))
        assert (alone.drops[0], alone.notes[0]) == (together.drops[place], together.notes[place])
    assert config.files() == (tmp_path / "quality" / "manifest.json",)


def test_what_does_not_fit_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    resources = Resources(tokenizer, seed=0)
    seeds = write_seeds(tmp_path / "scored.jsonl", scored_seeds(60))
    train_scorer([seeds], tmp_path / "quality", kind="linear", task="regression", tokenizer=tokenizer)
    labelled = write_seeds(tmp_path / "labelled.jsonl", clinic_seeds(40))
    train_scorer([labelled], tmp_path / "domain", kind="linear", task="classification", tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"tells labels \(medical, other\): quality needs a regression"):
        QualityConfig(scorer=tmp_path / "domain").build(resources)
    with pytest.raises(InputError, match=r"thresholds\.zh is 7: the scores of .* go from 0 to 6"):
        QualityConfig(scorer=tmp_path / "quality", thresholds={"zh": 7}).build(resources)
    with pytest.raises(InputError, match="there is no scorer in"):
        QualityConfig(scorer=tmp_path / "none").build(resources)
