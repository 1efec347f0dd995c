"""Pieces of an answer: they make the whole text, and show no half character and nothing of a stop string."""

from __future__ import annotations

import random
from typing import Any

import pytest

from megatron_aquila.release.streaming import TextStream
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.megatron_aquila.release.runs_on_disk import CONTROL_TOKENS, TEXTS, byte_id


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from data_tools.tokenizer_training import train_from_texts

    directory = tmp_path_factory.mktemp("tokenizers") / "tokenizer"
    train_from_texts(TEXTS, directory, vocab_size=320, control_tokens=CONTROL_TOKENS)
    return AutoTokenizer.from_pretrained(directory)


def _streamed(tokenizer: Any, ids: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(lambda part: tokenizer.decode(part, skip_special_tokens=True), stops)
    pieces = [stream.push([token]) for token in ids]
    return [*pieces, stream.finish()], stream


def test_pieces_make_the_text_that_all_tokens_make(tokenizer: Any) -> None:
    """Of texts spelt in pieces and bytes, and of random tokens among which bytes that are no text."""
    generator = random.Random(0)
    texts = ["发热 fever，咳嗽 😷 and cough 38.5 ℃", "  two blanks\n\nand lines\n", "龘䨻𰻝" * 30, "A 型血"]
    pool = [*"头痛é😷龘", "fever ", "咳嗽", "\n", " the patient"]
    texts += ["".join(generator.choices(pool, k=generator.randrange(1, 60))) for _ in range(15)]
    pieces_of_text = [token for token in range(4, 320) if not byte_id(0) <= token <= byte_id(255)]
    broken = [byte_id(0xFF), byte_id(0xC0)]
    sequences = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    for ids, text in zip(sequences, texts):
        pieces, _ = _streamed(tokenizer, ids)
        assert "".join(pieces).strip() == text.strip()
        assert not any("\ufffd" in piece for piece in pieces)
    sequences += [generator.choices([*pieces_of_text, *broken * 9], k=150) for _ in range(5)]
    for ids in sequences:
        pieces, stream = _streamed(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True) == stream.text


def test_a_character_comes_when_its_last_byte_does(tokenizer: Any) -> None:
    pieces, _ = _streamed(tokenizer, [byte_id(byte) for byte in "头a".encode()])
    assert pieces == ["", "", "头", "a", ""]
    pieces, _ = _streamed(tokenizer, [byte_id(byte) for byte in "头".encode()[:2]])
    assert "".join(pieces) == tokenizer.decode([byte_id(byte) for byte in "头".encode()[:2]])


@pytest.mark.parametrize(
    ("text", "said", "stopped"),
    [
        ("yes.###Human: more", "yes.", True),
        ("a # b ## c", "a # b ## c", False),
        ("ends in ##", "ends in ##", False),
        ("####", "", True),
    ],
)
def test_a_stop_string_over_several_tokens(tokenizer: Any, text: str, said: str, stopped: bool) -> None:
    pieces, stream = _streamed(tokenizer, [byte_id(byte) for byte in text.encode()], ("###",))
    assert ("".join(pieces), stream.text, stream.stopped) == (said, said, stopped)
