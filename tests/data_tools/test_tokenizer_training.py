"""The trained tokenizer against sentencepiece itself and against transformers on the published directory."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import transformers

from data_tools.tokenizer_training import train_from_texts, train_sentencepiece
from data_tools.tokenizers import TokenizerError, load_tokenizer, long_text
from tests.data_tools.tokenizer_samples import CHINESE, ENGLISH, LINES, TEXTS, mixture

CORPUS = [ENGLISH, CHINESE, mixture(20_000)]
VOCABULARY = 560


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output: Path = tmp_path_factory.mktemp("trained") / str(request.param)
    train_from_texts(CORPUS, output, vocab_size=VOCABULARY, model_type=request.param, character_coverage=0.98)
    return output


def test_transformers_gives_the_same_ids(trained: Path) -> None:
    ours = load_tokenizer(trained)
    theirs = transformers.AutoTokenizer.from_pretrained(str(trained))
    for text in TEXTS:
        if not any(token in text for token in ours.special_tokens):
            assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text), text[:40]
            assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size == VOCABULARY
    assert (theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        0,
        1,
        2,
        3,
    )


def test_text_comes_back_whole_and_digits_stand_alone(trained: Path) -> None:
    tokenizer = load_tokenizer(trained)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eod_id, tokenizer.pad_id) == (1, 2, 2, 3)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    processor = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    assert [number for number in range(len(pieces)) if processor.is_byte(number)] == list(range(4, 260))
    assert [piece for piece in pieces[260:] if any(map(str.isdigit, piece)) and len(piece) > 1] == []
    assert len(tokenizer.encode("138")) == 3


def test_long_text_equals_whole_text(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_tools.tokenizers.sentencepiece_model.PIECE_CHARACTERS", 2000)
    monkeypatch.setattr(long_text, "PIECE_CHARACTERS", 2000)
    tokenizer = load_tokenizer(trained)
    text = mixture(200_000)
    np.testing.assert_array_equal(tokenizer.encode_long(text), tokenizer.encode_batch([text])[0])


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_control_tokens_are_special_here_and_in_transformers(tmp_path: Path, model_type: str) -> None:
    control = ["<|im_start|>", "<|im_end|>"]
    output = tmp_path / "chat"
    manifest = train_from_texts(
        CORPUS, output, vocab_size=VOCABULARY, model_type=model_type, character_coverage=0.98, control_tokens=control
    )
    assert manifest["settings"]["control_tokens"] == control
    ours = load_tokenizer(output)
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *control]
    assert ours.special_tokens == manifest["special_tokens"] == {piece: number for number, piece in enumerate(pieces)}
    text = "<|im_start|>user\n咳嗽<|im_end|>"
    assert not set(ours.encode(text)) & set(range(6))
    assert ours.decode(ours.encode(text)) == text
    theirs = transformers.AutoTokenizer.from_pretrained(str(output))
    assert all(theirs.added_tokens_decoder[number].special for number in (4, 5))
    assert len(theirs) == ours.vocab_size == VOCABULARY
    assert theirs(text, add_special_tokens=False).input_ids == [4, *ours.encode("user\n咳嗽"), 5]
    assert theirs.decode([4, *ours.encode("a"), 5], skip_special_tokens=True) == "a"


def test_control_tokens_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for token, message in [("", "is empty or holds white space"), ("a b", "white space"), ("</s>", "is there already")]:
        with pytest.raises(TokenizerError, match=message):
            train_from_texts(CORPUS, tmp_path / "x", vocab_size=VOCABULARY, control_tokens=[token])
    with pytest.raises(TokenizerError, match="'<a>' is there already"):
        train_from_texts(CORPUS, tmp_path / "x", vocab_size=VOCABULARY, control_tokens=["<a>", "<a>"])
    with pytest.raises(TokenizerError, match="need 263"):
        train_from_texts(CORPUS, tmp_path / "x", vocab_size=262, control_tokens=["<a>", "<b>"])


def test_the_same_text_gives_the_same_files(tmp_path: Path) -> None:
    settings = {"vocab_size": 400, "max_sentences": 12, "character_coverage": 0.98}
    manifests = [train_from_texts(CORPUS, tmp_path / name, seed=7, **settings) for name in "ab"]  # type: ignore[arg-type]
    assert manifests[0] == manifests[1]
    other = train_from_texts(CORPUS, tmp_path / "c", seed=8, **settings)  # type: ignore[arg-type]
    assert other["digest"] != manifests[0]["digest"]


def test_manifest_tells_what_went_in_and_out(tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    records = [json.dumps({"id": k, "body": line}, ensure_ascii=False) for k, line in enumerate(LINES * 5)]
    source.write_text("\n".join([*records, '{"id": 99}', "{broken"]) + "\n", encoding="utf-8")
    manifest = train_sentencepiece(
        [source], tmp_path / "tokenizer", vocab_size=500, text_key="body", character_coverage=0.98
    )
    assert manifest["counts"] == {
        "documents": len(records), "sentences": len(records), "characters": sum(map(len, LINES)) * 5,
    }  # fmt: skip
    assert sum(manifest["refused"].values()) == 2
    assert manifest["inputs"] == [
        {
            "name": "documents.jsonl",
            "bytes": source.stat().st_size,
            "sha256": sha256(source.read_bytes()).hexdigest(),
        }
    ]
    assert manifest["digest"] == load_tokenizer(tmp_path / "tokenizer").digest
    assert json.loads((tmp_path / "tokenizer" / "manifest.json").read_text(encoding="utf-8")) == manifest
    for name, digest in manifest["files"].items():
        assert sha256((tmp_path / "tokenizer" / name).read_bytes()).hexdigest() == digest


def test_what_cannot_be_trained_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot make 60000 tokens of this text"):
        train_from_texts(CORPUS, tmp_path / "large", vocab_size=60_000)
    with pytest.raises(TokenizerError, match="need 261"):
        train_from_texts(CORPUS, tmp_path / "small", vocab_size=100)
    with pytest.raises(TokenizerError, match="give one of bpe, unigram"):
        train_from_texts(CORPUS, tmp_path / "kind", vocab_size=500, model_type="word")
    with pytest.raises(TokenizerError, match="no text"):
        train_from_texts(["", " \n"], tmp_path / "nothing", vocab_size=500)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(TokenizerError, match="there exists"):
        train_from_texts(CORPUS, tmp_path / "there", vocab_size=500)
