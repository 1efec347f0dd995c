"""The fastText scorer: its words, its seeds, its repeatability."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.corpus.batch import Batch
from data_tools.inputs import InputError
from data_tools.manifest import read_manifest, write_manifest
from data_tools.scorers import Scorer, load_scorer
from data_tools.scorers.fasttext_model import words
from data_tools.scorers.training import train_scorer
from tests.data_tools.scorers.seed_samples import clinic_seeds, write_seeds

pytest.importorskip("fasttext", reason="the extra [fasttext] is not installed")
SMALL = {"dim": 8}


def batch(texts: list[str]) -> Batch:
    return Batch(
        [str(n) for n in range(len(texts))], list(texts), [""] * len(texts), [""] * len(texts), [{} for _ in texts]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("fasttext")
    # texts that hold fastText's own marks must neither be taken for labels nor end a line
    records = [{**one, "text": f"__label__9 </s> {one['text']}"} for one in clinic_seeds(250)]
    path = write_seeds(directory / "seeds.jsonl", records)
    report = {}
    for name in ("one", "two"):
        report = train_scorer(
            [path],
            directory / name,
            kind="fasttext",
            task="classification",
            settings=SMALL,
            balance=("language", "label"),
        )
    return directory, report


@pytest.fixture(scope="module")
def scorer(trained: tuple[Path, dict[str, Any]]) -> Scorer:
    return load_scorer(trained[0] / "one")


def test_words_are_what_fasttext_can_read() -> None:
    assert words("发热３天，\nFever!\0 x_y", 100) == "发 热 3 天 , fever ! x _ y"
    assert words("__label__medical </s>", 100) == "_ _ label _ _ medical < / s >"
    assert words("ab cd", 4) == "ab c"
    assert words("患者, fever", 100, 2) == "患 者 , fever 患_者 者_, ,_fever"
    assert words("a b c", 100, 3) == "a b c a_b b_c a_b_c"
    assert words("a", 100, 3) == "a" and words("", 100, 3) == ""


def test_fasttext_knows_the_words_and_vectors_that_it_was_given(trained: tuple[Path, dict[str, Any]]) -> None:
    """No vector is left to chance: the words that fastText counted are those that it was given vectors of."""
    import fasttext

    model = fasttext.load_model(str(trained[0] / "one" / "model.bin"))
    assert len(model.get_words()) == trained[1]["training"]["words"]
    assert np.isfinite(model.get_input_matrix()).all() and np.abs(model.get_input_matrix()).max() < 10


def test_medicine_is_told_from_the_rest(trained: tuple[Path, dict[str, Any]]) -> None:
    test = trained[1]["test"]
    for name in ("all", "zh", "en"):
        assert test[name]["labels"]["medical"]["f1"] > 0.95, test[name]


def test_equal_seeds_give_equal_bytes(trained: tuple[Path, dict[str, Any]]) -> None:
    files = [{path.name: path.read_bytes() for path in (trained[0] / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1] and set(files[0]) == {"manifest.json", "report.json", "model.bin"}


def test_a_score_does_not_follow_its_batch(scorer: Scorer) -> None:
    texts = [record["text"] for record in clinic_seeds(20, seed=3)] + ["", "\0", "⟂⟂⟂", "a" * 100_000, "医" * 50_000]
    together = scorer.score(batch(texts))
    np.testing.assert_allclose(together.sum(axis=1), 1.0, atol=1e-12)
    for text, row in zip(texts, together):
        np.testing.assert_array_equal(scorer.score(batch([text]))[0], row)
    assert scorer.score(batch([])).shape == (0, 2)


def test_words_cut_in_another_way_are_refused(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    manifest = read_manifest(trained[0] / "one" / "manifest.json")
    assert manifest is not None
    (tmp_path / "model.bin").write_bytes((trained[0] / "one" / "model.bin").read_bytes())
    files = {"model.bin": manifest["files"]["model.bin"]}
    write_manifest(tmp_path / "manifest.json", {**manifest, "files": files, "words": "jieba"})
    with pytest.raises(InputError, match="trained on words cut as 'jieba'"):
        load_scorer(tmp_path)
