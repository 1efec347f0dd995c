"""Every kind of tokenizer against an independent one: naive BPE written here, transformers, sentencepiece."""

import csv
import gzip
import io
import itertools
import json
import random
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import regex  # type: ignore[import-untyped]
import sentencepiece
import transformers

from data_tools.tokenizers import Tokenizer, TokenizerError, bpe, load_tokenizer, long_text
from data_tools.tokenizers.tiktoken_file import QWEN_PATTERN
from tests.data_tools.tokenizer_samples import (
    CHINESE,
    ENGLISH,
    LINES,
    TEXTS,
    TRICKY,
    gpt2_symbols,
    mixture,
    train_byte_level,
    write_tiktoken,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data is not on this machine")

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
AQUILA_SPECIALS = [
    "<|startofpiece|>", "<|endofpiece|>", "<|LDWANG|>", "[MASK]", "[gMASK]", "[sMASK]", "[CLS]", "</s>",
]  # fmt: skip
KINDS = ["byte_level_bpe", "tokenizer_json", "tiktoken", "sentencepiece"]


def naive_bpe(text: str, pattern: str, rank_of: Callable[[bytes, bytes], float]) -> list[bytes]:
    """BPE as its paper has it: split into words, then merge the adjacent pair of lowest rank until none is left.

    `rank_of` gives the rank of a pair, infinite where the pair does not merge; the leftmost of equals goes first.
    """
    tokens: list[bytes] = []
    for word in regex.findall(pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while len(parts) > 1:
            ranks = [rank_of(left, right) for left, right in itertools.pairwise(parts)]
            best = min(ranks)
            if best == float("inf"):
                break
            place = ranks.index(best)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        tokens += parts
    return tokens


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small tokenizer of each kind."""
    root = tmp_path_factory.mktemp("tokenizers")
    train_byte_level(root / "byte_level_bpe")
    (root / "byte_level_bpe" / "special_tokens.txt").write_text("\n".join(AQUILA_SPECIALS) + "\n", encoding="utf-8")
    load_tokenizer(root / "byte_level_bpe").save_pretrained(root / "all")
    (root / "tokenizer_json").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(root / "all" / name, root / "tokenizer_json" / name)
    (root / "tiktoken").mkdir()
    write_tiktoken(root / "tiktoken" / "qwen.tiktoken")
    (root / "sentencepiece").mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 5), model_writer=model, vocab_size=700, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, pad_id=3, minloglevel=2,
    )  # fmt: skip
    (root / "sentencepiece" / "tokenizer.model").write_bytes(model.getvalue())
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="session")
def loaded(paths: dict[str, Path]) -> dict[str, Tokenizer]:
    return {kind: load_tokenizer(path) for kind, path in paths.items()}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, loaded: dict[str, Tokenizer]) -> Tokenizer:
    return loaded[request.param]


def merge_ranks(directory: Path) -> Callable[[bytes, bytes], float]:
    byte_of = {symbol: byte for byte, symbol in gpt2_symbols().items()}
    lines = (directory / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    pairs = {tuple(bytes(byte_of[s] for s in half) for half in line.split(" ")): k for k, line in enumerate(lines)}
    return lambda left, right: pairs.get((left, right), float("inf"))


@pytest.mark.parametrize("kind", ["byte_level_bpe", "tokenizer_json"])
def test_byte_level_ids_are_those_of_naive_bpe(paths: dict[str, Path], loaded: dict[str, Tokenizer], kind: str) -> None:
    directory = paths["byte_level_bpe"]
    vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    symbols, rank_of = gpt2_symbols(), merge_ranks(directory)
    assert loaded[kind].backend == "gigatoken"
    for text in TEXTS:
        if len(text) < 1000:
            tokens = naive_bpe(text, GPT2_PATTERN, rank_of)
            assert loaded[kind].encode(text) == [vocabulary["".join(symbols[b] for b in token)] for token in tokens]


def test_tiktoken_ids_are_those_of_naive_tiktoken(tmp_path: Path) -> None:
    """tiktoken ranks a pair by what it joins to, and takes a whole word that has a rank as it is."""
    ranks = write_tiktoken(tmp_path / "qwen.tiktoken")
    tokenizer = load_tokenizer(tmp_path / "qwen.tiktoken")
    assert tokenizer.backend == "gigatoken"
    for text in TEXTS:
        if len(text) < 1000:
            expected: list[int] = []
            for word in regex.findall(QWEN_PATTERN, unicodedata.normalize("NFC", text)):
                if word.encode() in ranks:
                    expected.append(ranks[word.encode()])
                else:
                    tokens = naive_bpe(word, r"(?s).+", lambda left, right: ranks.get(left + right, float("inf")))
                    expected += [ranks[token] for token in tokens]
            assert tokenizer.encode(text) == expected, text[:40]


def test_sentencepiece_ids_are_sentencepiece_s(paths: dict[str, Path], loaded: dict[str, Tokenizer]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(paths["sentencepiece"] / "tokenizer.model"))
    for text in TEXTS:
        assert loaded["sentencepiece"].encode(text) == processor.encode(text)


def test_encode_batch_equals_encode(tokenizer: Tokenizer) -> None:
    batch = tokenizer.encode_batch(TEXTS)
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in TEXTS]
    assert {ids.dtype for ids in batch} == {np.dtype(np.int32)}
    assert tokenizer.encode_batch([]) == []


def test_the_slow_backend_gives_the_same_ids(
    paths: dict[str, Path], loaded: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpe, "_exact_gigatoken", lambda *_: None)
    for kind in ("byte_level_bpe", "tiktoken"):
        slow = load_tokenizer(paths[kind])
        assert slow.backend == "tokenizers"
        for expected, found in zip(loaded[kind].encode_batch(TEXTS), slow.encode_batch(TEXTS)):
            np.testing.assert_array_equal(expected, found)


def test_a_fast_encoder_that_differs_is_not_used(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class OffByOne:
        def __init__(self, real: object) -> None:
            self.real = real

        def encode(self, text: str) -> np.ndarray:
            return self.real.encode(text)  # type: ignore[attr-defined]

        def encode_batch_list(self, texts: list[str], *, parallel: bool) -> list[list[int]]:
            batch = self.real.encode_batch_list(texts, parallel=parallel)  # type: ignore[attr-defined]
            return [[*ids[:-1], ids[-1] + 1] if text == "500 mg" else ids for text, ids in zip(texts, batch)]

    real = bpe.gigatoken.Tokenizer.from_json
    monkeypatch.setattr(bpe, "PARITY_PROBE", (*bpe.PARITY_PROBE, "500 mg"))
    monkeypatch.setattr(bpe.gigatoken.Tokenizer, "from_json", lambda text: OffByOne(real(text)))
    assert load_tokenizer(paths["byte_level_bpe"]).backend == "tokenizers"


def test_literal_special_tokens_stay_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_tokens
    for token in [*tokenizer.special_tokens, "".join(tokenizer.special_tokens)]:
        ids = tokenizer.encode(f"a{token}b")
        assert not set(ids) & set(tokenizer.special_tokens.values())
        assert tokenizer.decode(ids) == f"a{token}b"


def test_decode_gives_the_text_back(tokenizer: Tokenizer) -> None:
    for text in TEXTS:
        expected = unicodedata.normalize("NFC", text) if tokenizer.kind == "tiktoken" else text
        assert tokenizer.decode(tokenizer.encode(text)) == expected
    ids = [*tokenizer.encode("咳嗽"), tokenizer.eod_id]
    end = next(token for token, number in tokenizer.special_tokens.items() if number == tokenizer.eod_id)
    assert tokenizer.decode(ids) == f"咳嗽{end}"


ODD = "".join(TRICKY[:6]) + "é e\u0301 ﬁ Å ㎎ ｶﾞ 가 \u1112\u1161 \u2581▁ ½℃ 𠀀𠀁 😀🏽 \u0300x ###"


def random_text(seed: int) -> str:
    generator = random.Random(seed)
    return "".join(generator.choices(ODD + ENGLISH + CHINESE, k=generator.randrange(60)))


def check_spans(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Spans begin where the tokens so far have spelt the text to, and each token's characters spell the token."""
    for text, (ids, spans) in zip(texts, tokenizer.encode_spans(texts)):
        assert ids.tolist() == tokenizer.encode(text)
        assert (spans.dtype, spans.shape) == (np.int32, (len(ids), 2))
        for place, (begin, end) in enumerate(spans.tolist()):
            assert 0 <= begin <= end <= len(text)
            before = tokenizer.decode(ids[:place]).rstrip("\ufffd")
            through = tokenizer.decode(ids[: place + 1])
            whole = not through.endswith("\ufffd")
            assert text[:begin].startswith(before) and len(text[:begin]) - len(before) <= 1, (text, place)
            if whole:
                assert text[:end] == through, (text, place)


def test_spans_say_which_characters_a_token_holds(tokenizer: Tokenizer) -> None:
    """Of a tokenizer that changes no text, decoding is the oracle; of the others, another library below."""
    texts = [text for text in [*TEXTS, ODD, *map(random_text, range(200))] if len(text) < 500 and "\ufffd" not in text]
    if tokenizer.kind == "tiktoken":
        texts = [text for text in texts if unicodedata.is_normalized("NFC", text)]
    if tokenizer.kind == "sentencepiece":  # a blank is put before a text, and dropped when decoding
        texts = [text for text in texts if text[:1] not in (" ", "\u2581") and "\u2581" not in text]
    check_spans(tokenizer, texts)


def test_spans_are_those_of_other_libraries(paths: dict[str, Path], loaded: dict[str, Tokenizer]) -> None:
    """The tokenizers library's offsets, normalised text (NFC) included."""
    texts = [text for text in [*TEXTS, ODD, *map(random_text, range(200, 500))] if len(text) < 3000]
    for kind in ("byte_level_bpe", "tokenizer_json", "tiktoken"):
        reference = loaded[kind]._reference  # type: ignore[attr-defined]
        for text, (ids, spans) in zip(texts, loaded[kind].encode_spans(texts)):
            encoding = reference.encode(text, add_special_tokens=False)
            assert ids.tolist() == encoding.ids
            assert [tuple(span) for span in spans.tolist()] == encoding.offsets, text[:60]


def test_spans_of_a_sentencepiece_model_are_its_own(paths: dict[str, Path], loaded: dict[str, Tokenizer]) -> None:
    """Its offsets give a character that is spelt in bytes to the last byte; ours to all of them."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(paths["sentencepiece"] / "tokenizer.model"))
    tokenizer = loaded["sentencepiece"]
    texts = [text for text in [*TEXTS, ODD, *map(random_text, range(200))] if len(text) < 3000]
    bare = sentencepiece.SentencePieceProcessor(model_proto=processor.serialized_model_proto() + b"\x1a\x02\x18\x00")
    for continues, oracle in ((False, processor), (True, bare)):
        for text, (ids, spans) in zip(texts, tokenizer.encode_spans(texts, continues=continues)):
            theirs = oracle.encode(text, return_type="offset_mapping")
            assert ids.tolist() == theirs["ids"]
            for number, found, expected in zip(ids.tolist(), spans.tolist(), theirs["offsets"]):
                if oracle.is_byte(number) and expected[0] == expected[1]:
                    assert found == [expected[0], expected[0] + 1], text
                else:
                    assert tuple(found) == expected, text


def test_a_text_behind_a_control_token_gets_no_blank(loaded: dict[str, Tokenizer]) -> None:
    for kind, tokenizer in loaded.items():
        alone, behind = tokenizer.encode_batch(["咳嗽 a"])[0], tokenizer.encode_batch(["咳嗽 a"], continues=True)[0]
        assert tokenizer.decode(behind) == "咳嗽 a"
        assert (alone.tolist() == behind.tolist()) is (kind != "sentencepiece")


@pytest.mark.parametrize("separators", ["\n ，。", " ", "，", ""])
def test_encode_long_equals_encode(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, separators: str) -> None:
    """Also without any line end or blank, cut into hundreds of pieces."""
    monkeypatch.setattr(long_text, "PIECE_CHARACTERS", 1000)
    monkeypatch.setattr("data_tools.tokenizers.sentencepiece_model.PIECE_CHARACTERS", 1000)
    for text in (
        mixture(60_000, separators=separators),
        "".join(TRICKY) * 5 + mixture(5000) + "".join(TRICKY),
    ):
        np.testing.assert_array_equal(tokenizer.encode_long(text), tokenizer.encode_batch([text])[0])


def test_encode_long_on_megabytes(tokenizer: Tokenizer) -> None:
    text = mixture(1_500_000, separators="\n ，", seed=1)
    np.testing.assert_array_equal(tokenizer.encode_long(text), tokenizer.encode_batch([text])[0])


@pytest.mark.parametrize("kind", ["byte_level_bpe", "tiktoken"])
def test_long_text_is_cut_near_the_wanted_length(
    loaded: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(long_text, "PIECE_CHARACTERS", 1000)
    text = mixture(50_000)
    pieces = list(loaded[kind]._cutter.pieces(text))  # type: ignore[attr-defined]
    assert "".join(pieces) == text
    assert len(pieces) >= 45
    assert max(map(len, pieces)) < 1500


def test_han_without_any_punctuation_is_cut(loaded: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    """One pre-token of 50,000 characters: cut only between characters that no vocabulary entry joins."""
    monkeypatch.setattr(long_text, "PIECE_CHARACTERS", 1000)
    han = "".join(character for character in mixture(150_000, seed=2) if "\u4e00" <= character <= "\u9fff")
    tokenizer = loaded["byte_level_bpe"]
    pieces = list(tokenizer._cutter.pieces(han))  # type: ignore[attr-defined]
    assert len(pieces) > 10
    np.testing.assert_array_equal(tokenizer.encode_long(han), tokenizer.encode_batch([han])[0])


def test_lone_surrogates_are_refused_by_number_and_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"text 1 .* U\+D83D at character 2"):
        tokenizer.encode_batch(["fine", "ab\ud83dc"])
    with pytest.raises(TokenizerError, match="lone surrogate"):
        tokenizer.encode("\ud800")


def test_roles_and_sizes(loaded: dict[str, Tokenizer]) -> None:
    aquila = loaded["byte_level_bpe"]
    base = aquila.vocab_size - 8
    assert [aquila.special_tokens[token] for token in AQUILA_SPECIALS] == list(range(base, base + 8))
    assert (aquila.bos_id, aquila.eos_id, aquila.eod_id, aquila.pad_id) == (base + 6, base + 7, base + 7, 0)
    again = loaded["tokenizer_json"]
    assert again.special_tokens == aquila.special_tokens
    assert (again.vocab_size, again.bos_id, again.eos_id, again.eod_id, again.pad_id) == (
        aquila.vocab_size, aquila.bos_id, aquila.eos_id, aquila.eod_id, aquila.pad_id,
    )  # fmt: skip
    piece = loaded["sentencepiece"]
    assert (piece.vocab_size, piece.bos_id, piece.eos_id, piece.eod_id, piece.pad_id) == (700, 1, 2, 2, 3)


def test_tiktoken_ends_documents_as_aquila3_does_unless_told_otherwise(paths: dict[str, Path]) -> None:
    aquila3 = load_tokenizer(paths["tiktoken"])
    ranks = aquila3.vocab_size - 208
    assert aquila3.special_tokens["<|endoftext|>"] == ranks
    assert aquila3.special_tokens["<|im_start|>"] == ranks + 1
    assert (aquila3.bos_id, aquila3.eod_id, aquila3.pad_id) == (ranks + 206, ranks + 207, ranks)
    qwen = load_tokenizer(paths["tiktoken"], eod="<|endoftext|>")
    assert (qwen.eod_id, qwen.pad_id) == (ranks, None)


def test_a_config_names_the_roles(paths: dict[str, Path], tmp_path: Path) -> None:
    directory = tmp_path / "configured"
    shutil.copytree(paths["byte_level_bpe"], directory)
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|endofpiece|>"}, "pad_token": "[MASK]"}), encoding="utf-8"
    )
    tokenizer = load_tokenizer(directory)
    base = tokenizer.vocab_size - 8
    assert (tokenizer.eod_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (
        base + 1,
        base + 1,
        base + 3,
        None,
    )
    assert load_tokenizer(directory, eod="</s>").eod_id == base + 7


def test_digest_follows_contents_and_nothing_else(paths: dict[str, Path], tmp_path: Path) -> None:
    seen = set()
    for kind, source in paths.items():
        copy = tmp_path / "elsewhere" / f"{kind}-renamed"
        shutil.copytree(source, copy)
        digest = load_tokenizer(source).digest
        assert load_tokenizer(copy).digest == digest
        assert len(digest) == 64
        seen.add(digest)
    assert len(seen) == len(KINDS)
    aquila = tmp_path / "elsewhere" / "byte_level_bpe-renamed"
    lines = AQUILA_SPECIALS[::-1]
    (aquila / "special_tokens.txt").write_text("\n".join(lines), encoding="utf-8")
    assert load_tokenizer(aquila).digest not in seen


@pytest.mark.parametrize("kind", KINDS)
def test_saved_directory_gives_the_same_ids_in_transformers(
    loaded: dict[str, Tokenizer], tmp_path: Path, kind: str
) -> None:
    ours = loaded[kind]
    written = ours.save_pretrained(tmp_path)
    assert all(path.is_file() for path in written)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    # transformers puts no blank before a text that begins with one, as a model with a dummy prefix would.
    texts = [
        text for text in [*LINES, *TRICKY] if not set(text) & set("<[") and (kind != "sentencepiece" or text[:1] != " ")
    ]
    for text in texts:
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text), text[:40]
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
    )
    for token, number in ours.special_tokens.items():
        assert theirs.convert_tokens_to_ids(token) == number
    reloaded = load_tokenizer(tmp_path)
    assert reloaded.special_tokens == ours.special_tokens
    assert (reloaded.eod_id, reloaded.vocab_size) == (ours.eod_id, ours.vocab_size)
    assert [reloaded.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


def test_unusable_paths_are_refused_in_a_sentence(paths: dict[str, Path], tmp_path: Path) -> None:
    def copy(kind: str) -> Path:
        target = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(paths[kind], target)
        return target

    def cases() -> Iterator[tuple[Path, str]]:
        yield tmp_path / "absent", "no tokenizer at .*absent: give a directory or file holding"
        (tmp_path / "empty").mkdir()
        yield tmp_path / "empty", "it holds none of tokenizer.model, tokenizer.json"
        (tmp_path / "notes.txt").write_text("hello")
        yield tmp_path / "notes.txt", "is not a tokenizer file"
        broken = copy("byte_level_bpe")
        (broken / "merges.txt").unlink()
        yield broken, "lacks merges.txt"
        broken = copy("byte_level_bpe")
        with (broken / "merges.txt").open("a", encoding="utf-8") as file:
            file.write("zzz qqq\n")
        yield broken, r"merges.txt:\d+: 'zzz qqq' is not a merge"
        broken = copy("byte_level_bpe")
        (broken / "vocab.json").write_text("{", encoding="utf-8")
        yield broken, "vocab.json is not valid JSON"
        broken = copy("byte_level_bpe")
        (broken / "tokenizer_config.json").write_text('{"eos_token": "<nowhere>"}', encoding="utf-8")
        yield broken, "has no token '<nowhere>'"
        broken = copy("byte_level_bpe")
        (broken / "special_tokens.txt").unlink()
        vocabulary = json.loads((broken / "vocab.json").read_text(encoding="utf-8"))
        vocabulary["<x>"] = vocabulary.pop("<|endoftext|>")
        (broken / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        yield broken, "does not say which token ends a document"
        broken = copy("tokenizer_json")
        specification = json.loads((broken / "tokenizer.json").read_text(encoding="utf-8"))
        specification["model"]["type"] = "Unigram"
        (broken / "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")
        yield broken, "only BPE is read from tokenizer.json"
        broken = copy("tiktoken")
        with (broken / "qwen.tiktoken").open("ab") as file:
            file.write(b"!!! 5\n")
        yield broken, r"qwen.tiktoken:\d+: not a line of"
        (tmp_path / "cl100k_base.tiktoken").write_bytes(b"IQ== 0\n")
        yield tmp_path / "cl100k_base.tiktoken", "give a tokenizer.json"
        (tmp_path / "bad.model").write_bytes(b"not a model")
        yield tmp_path / "bad.model", "is not a sentencepiece model"

    for path, message in cases():
        with pytest.raises(TokenizerError, match=message):
            load_tokenizer(path)
    with pytest.raises(TokenizerError, match="<end>"):
        load_tokenizer(paths["sentencepiece"], eod="<end>")


def test_a_tokenizer_json_that_the_library_refuses_says_so(paths: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(paths["tokenizer_json"], tmp_path / "broken")
    specification = json.loads((tmp_path / "broken" / "tokenizer.json").read_text(encoding="utf-8"))
    specification["model"]["merges"].append(["absent", "pair"])
    (tmp_path / "broken" / "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")
    with pytest.raises(TokenizerError, match="broken: the tokenizers library refuses this tokenizer"):
        load_tokenizer(tmp_path / "broken").encode("a")


def real_texts() -> list[str]:
    """A few hundred real records of each file, and slices of the long books."""
    with gzip.open(SHARED / "tcm_books.jsonl.gz", "rt", encoding="utf-8") as file:
        books = [json.loads(next(file))["text"] for _ in range(6)]
    with gzip.open(SHARED / "medquad_sample.jsonl.gz", "rt", encoding="utf-8") as file:
        english = [json.loads(next(file))["answer"] for _ in range(200)]
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as file:
        dialogues = [row["ask"] + row["answer"] for _, row in zip(range(300), csv.DictReader(file))]
    return [book[start : start + 3000] for book in books for start in range(0, 30_000, 3000)] + english + dialogues


@needs_shared
def test_the_real_aquila_tokenizer_on_real_text(tmp_path: Path) -> None:
    directory = SHARED / "aquila_tokenizer"
    ours = load_tokenizer(directory)
    assert ours.backend == "gigatoken"
    assert ours.vocab_size == 100_008
    assert (ours.bos_id, ours.eos_id, ours.eod_id, ours.pad_id) == (100_006, 100_007, 100_007, 0)
    assert list(ours.special_tokens.items())[:8] == list(zip(AQUILA_SPECIALS, range(100_000, 100_008)))
    theirs = transformers.GPT2Tokenizer(
        vocab=json.loads((directory / "vocab.json").read_text(encoding="utf-8")),
        merges=[tuple(line.split(" ")) for line in (directory / "merges.txt").read_text("utf-8").splitlines()[1:]],
    )
    texts = [text for text in real_texts() if "<|endoftext|>" not in text]
    for text, ids in zip(texts, ours.encode_batch(texts)):
        assert theirs(text, add_special_tokens=False).input_ids == ids.tolist()
    long = "".join(texts)
    np.testing.assert_array_equal(ours.encode_long(long), ours.encode_batch([long])[0])
    assert ours.decode(ours.encode(ENGLISH + CHINESE)) == ENGLISH + CHINESE
