"""The encoder scorer, with a BERT of random weights that is made here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.corpus.batch import Batch
from data_tools.inputs import InputError
from data_tools.scorers import load_scorer
from data_tools.scorers.training import train_scorer
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.data_tools.scorers.seed_samples import clinic_seeds, scored_seeds, write_seeds

transformers = pytest.importorskip("transformers", reason="the extra [scorers] is not installed")


def batch(texts: list[str]) -> Batch:
    return Batch(
        [str(n) for n in range(len(texts))], list(texts), [""] * len(texts), [""] * len(texts), [{} for _ in texts]
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-piece vocabulary of the clinic's characters and words, and two layers of 32."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    coder = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    coder.normalizer = normalizers.BertNormalizer()
    coder.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=800, special_tokens=special, show_progress=False)
    texts = [record["text"] for record in clinic_seeds(100) + scored_seeds(50)]
    coder.train_from_iterator(texts, trainer)
    coder.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    directory = tmp_path_factory.mktemp("bert")
    transformers.PreTrainedTokenizerFast(tokenizer_object=coder, **names).save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=coder.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    transformers.BertModel(config).save_pretrained(directory)
    return directory


def train(tmp_path: Path, model: Path, records: list[dict[str, Any]], task: str, **settings: Any) -> dict[str, Any]:
    path = write_seeds(tmp_path / "seeds.jsonl", records)
    return train_scorer(
        [path],
        tmp_path / "scorer",
        kind="encoder",
        task=task,
        settings={"model": str(model), "device": "cpu", **settings},
    )


@pytest.fixture(scope="module")
def medical(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("medical")
    options = {"epochs": 4, "lr": 3e-3, "batch_size": 32, "max_length": 48}
    report = train(directory, tiny, clinic_seeds(150), "classification", **options)
    return directory / "scorer", report


def test_a_classification_is_learnt_and_its_best_epoch_kept(medical: tuple[Path, dict[str, Any]]) -> None:
    report = medical[1]
    accuracies = [epoch["accuracy"] for epoch in report["training"]["epochs"]]
    assert len(accuracies) == 4 and report["training"]["best_epoch"] == 1 + int(np.argmax(accuracies))
    assert report["test"]["all"]["labels"]["medical"]["f1"] > 0.9, report["test"]["all"]


def test_a_score_is_what_transformers_computes_by_itself(medical: tuple[Path, dict[str, Any]]) -> None:
    """No padding, one text at a time, through the library alone; and the same bits in any batch."""
    directory = medical[0]
    texts = [record["text"] for record in clinic_seeds(8, seed=4)] + ["", "fever " * 500]
    scorer = load_scorer(directory)
    scores = scorer.score(batch(texts))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory / "model").eval()
    coder = transformers.AutoTokenizer.from_pretrained(directory / "model")
    for text, row in zip(texts, scores):
        with torch.no_grad():
            logits = model(**coder(text, truncation=True, max_length=48, return_tensors="pt")).logits[0].double()
        np.testing.assert_allclose(row, logits.softmax(0).numpy(), atol=1e-5)
        np.testing.assert_array_equal(scorer.score(batch([text]))[0], row)
    np.testing.assert_array_equal(scorer.score(batch(texts[::-1]))[::-1], scores)
    assert scorer.score(batch([])).shape == (0, 2)
    assert [model.config.id2label[place] for place in range(2)] == list(scorer.task.labels) == ["medical", "other"]


def test_a_regression_is_learnt_within_its_range(tiny: Path, tmp_path: Path) -> None:
    options = {"epochs": 6, "lr": 5e-3, "batch_size": 32, "max_length": 32}
    report = train(tmp_path, tiny, scored_seeds(250), "regression", **options)
    assert report["test"]["all"]["spearman"] > 0.7, report["test"]["all"]
    errors = [epoch["mse"] for epoch in report["training"]["epochs"]]
    assert report["training"]["best_epoch"] == 1 + int(np.argmin(errors))
    scores = load_scorer(tmp_path / "scorer").score(batch(["fever dose 咳嗽 " * 9, "the has 每日 " * 9]))
    assert 6 >= scores[0, 0] > 3 > scores[1, 0] >= 0


def test_a_frozen_encoder_stays_as_it_was(tiny: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny, clinic_seeds(30), "classification", epochs=1, freeze_encoder=True, max_length=16)
    before = transformers.AutoModel.from_pretrained(tiny).state_dict()
    after = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "scorer" / "model")
    head = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "scorer" / "model").classifier
    assert all(torch.equal(value, before[name]) for name, value in after.bert.state_dict().items())
    assert head.bias.abs().sum() > 0  # it began at 0


def test_the_papers_settings_are_the_defaults(tiny: Path, tmp_path: Path) -> None:
    report = train(tmp_path, tiny, scored_seeds(60), "regression", epochs=1, max_length=16)
    assert (report["training"]["batch_size"], report["training"]["lr"]) == (128, 3e-4)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the setting model is '.*empty', which cannot be loaded"):
        train(tmp_path, tmp_path / "empty", clinic_seeds(30), "classification")
    assert not (tmp_path / "scorer").exists()
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch finds no GPU"):
            train(tmp_path, tmp_path / "empty", clinic_seeds(30), "classification", device="cuda")
