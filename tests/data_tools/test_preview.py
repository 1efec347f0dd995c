"""`aquila data preview`: what it prints is the text of the tokens, with the trained part marked."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data_tools.chat import ChatEncoder, Turns, get_template
from data_tools.cli import app
from data_tools.indexed import IndexedWriter
from data_tools.manifest import loss_mask_prefix, manifest_path
from data_tools.preview import Part, segments
from data_tools.tokenizer_training import train_from_texts
from data_tools.tokenizers import Tokenizer, load_tokenizer
from tests.data_tools.tokenizer_samples import CHINESE, ENGLISH, mixture

DIALOGUES: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "咳嗽😀怎么办？"}, {"role": "assistant", "content": "多休息𠀀。"}],
    [
        {"role": "user", "content": "a literal </s> and <|im_end|>"},
        {"role": "assistant", "content": "first\nanswer"},
        {"role": "user", "content": "second"},
        {"role": "assistant", "content": "last"},
    ],
    [{"role": "user", "content": "\x1b[31mred\x07"}, {"role": "assistant", "content": "plain"}],
]
PAIR: dict[str, Any] = {
    "id": "p-1",
    "prompt": [*DIALOGUES[1][:2], {"role": "user", "content": "which?"}],
    "chosen": [{"role": "assistant", "content": "the better"}],
    "rejected": [{"role": "assistant", "content": "the worse"}],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("preview") / "tokenizer"
    train_from_texts(
        [ENGLISH, CHINESE, mixture(10_000)], output, vocab_size=500, character_coverage=0.98,
        control_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    return output


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return load_tokenizer(directory)


def write(prefix: Path, turns: list[Turns], sequences: int, **facts: Any) -> None:
    """An indexed dataset of chats: `sequences` in each document."""
    documents = np.full(len(turns) // sequences, sequences)
    for path, name, dtype in ((prefix, "tokens", "<u2"), (loss_mask_prefix(prefix), "mask", "u1")):
        with IndexedWriter(path, dtype) as writer:
            parts = [getattr(one, name) for one in turns]
            writer.add(np.concatenate(parts), np.array(list(map(len, parts))), documents)
    manifest_path(prefix).write_text(json.dumps(facts), encoding="utf-8")


def run(*arguments: object, **environment: str) -> str:
    result = CliRunner().invoke(app, ["preview", *map(str, arguments)], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def body(output: str) -> str:
    """What follows the legend."""
    return output.split("\n", 1)[1]


def test_dialogues_of_a_dataset_show_what_is_trained(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = ChatEncoder(get_template("chatml"), tokenizer)
    turns = encoder.encode_batch(DIALOGUES)
    write(tmp_path / "data", turns, 1, kind="dialogues", tokenizer={"digest": tokenizer.digest})
    output = run(tmp_path / "data", "--tokenizer", directory, "--sample", 1, "--sample", 0)
    first, second = re.split(r"(?m)^sample .* of 3.*$\n", body(output))[1:]
    trained = int(turns[0].mask.sum())
    share = f"{trained / len(turns[0].tokens):.1%}"
    assert first.splitlines()[0] == f"{len(turns[0].tokens)} tokens, {trained} trained on ({share})"
    assert "‹<|im_start|>›user\n咳嗽😀怎么办？‹<|im_end|>›\n" in first
    assert "‹<|im_start|>›assistant\n⟦多休息𠀀。‹<|im_end|>›⟧\n" in first
    assert "a literal </s> and <|im_end|>‹<|im_end|>›" in second
    assert re.findall("⟦[^⟧]*⟧", second) == ["⟦first\nanswer‹<|im_end|>›⟧", "⟦last‹<|im_end|>›⟧"]


def test_a_pair_shows_both_answers_and_trains_on_them_alone(
    directory: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """From a dataset and from records alike."""
    encoder = ChatEncoder(get_template("chatml"), tokenizer)
    prompt = PAIR["prompt"]
    answers = [prompt + PAIR["chosen"], prompt + PAIR["rejected"]]
    write(tmp_path / "pairs", encoder.encode_batch(answers, trained_from=[len(prompt)] * 2), 2, kind="pairs")
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR), encoding="utf-8")
    indexed = run(tmp_path / "pairs", "--tokenizer", directory)
    records = run(tmp_path / "pairs.jsonl", "--tokenizer", directory, "--template", "chatml")
    for output in (indexed, records):
        assert re.findall(r"(?m)^(chosen|rejected): \d+ tokens, \d+ trained on", output) == ["chosen", "rejected"]
        marked = re.findall("⟦[^⟧]*⟧", body(output))
        assert marked == ["⟦the better‹<|im_end|>›⟧", "⟦the worse‹<|im_end|>›⟧"]
        assert output.count("first\nanswer‹<|im_end|>›") == 2
    assert "record 0 · p-1" in records


def test_documents_are_trained_on_throughout(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = np.array([*tokenizer.encode("咳嗽 cough"), tokenizer.eod_id])
    with IndexedWriter(tmp_path / "corpus", "<u2") as writer:
        writer.add(ids, np.array([len(ids)]))
    assert "⟦咳嗽 cough‹</s>›⟧" in run(tmp_path / "corpus", "--tokenizer", directory)


def test_on_a_terminal_colours_tell(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = ChatEncoder(get_template("chatml"), tokenizer)
    write(tmp_path / "data", encoder.encode_batch(DIALOGUES), 1)
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    output = run(tmp_path / "data", "--tokenizer", directory, **terminal)
    assert "\x1b[1;32m多休息𠀀。" in output
    assert "\x1b[1;7;32m<|im_end|>" in output
    assert "\x1b[2m咳嗽😀怎么办？\x1b[0m" in output
    assert not set("⟦⟧‹›") & set(output)
    plain = run(tmp_path / "data", "--tokenizer", directory, **terminal, NO_COLOR="1")
    assert "⟦多休息𠀀。‹<|im_end|>›⟧" in re.sub(r"\x1b\[\d+m", "", plain)
    assert "32m" not in plain


def test_control_characters_do_not_reach_the_terminal(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path / "data", ChatEncoder(get_template("chatml"), tokenizer).encode_batch(DIALOGUES), 1)
    output = run(tmp_path / "data", "--tokenizer", directory, "--sample", 2)
    assert "␛[31mred␇" in output
    assert "\x1b" not in output and "\x07" not in output


def test_a_character_split_between_tokens_is_printed_whole(tokenizer: Tokenizer) -> None:
    """Wherever the mask begins, even inside a character, the pieces make up the text."""
    text = "a😀𠀀咳b"
    ids = np.array([*tokenizer.encode(text), tokenizer.eod_id])
    assert len(ids) > 10  # bytes
    for begin, end in itertools.combinations(range(len(ids) + 1), 2):
        mask = np.zeros(len(ids), np.uint8)
        mask[begin:end] = 1
        pieces = segments(Part("", ids, mask), tokenizer)
        assert "".join(piece.text for piece in pieces) == f"{text}</s>"
        assert "\ufffd" not in "".join(piece.text for piece in pieces)


def test_random_samples_follow_the_seed(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    encoder = ChatEncoder(get_template("chatml"), tokenizer)
    many = [[{"role": "user", "content": f"q{k}"}, {"role": "assistant", "content": f"a{k}"}] for k in range(50)]
    write(tmp_path / "data", encoder.encode_batch(many), 1)

    def shown(seed: int) -> list[str]:
        output = run(tmp_path / "data", "--tokenizer", directory, "--random", 5, "--seed", seed)
        return re.findall(r"(?m)^sample (\d+) of 50", output)

    assert len(set(shown(1))) == 5
    assert shown(1) == shown(1) != shown(2)


def test_what_cannot_be_shown_is_one_sentence(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write(tmp_path / "data", ChatEncoder(get_template("chatml"), tokenizer).encode_batch(DIALOGUES), 1)
    write(
        tmp_path / "other", ChatEncoder(get_template("chatml"), tokenizer).encode_batch(DIALOGUES), 1,
        tokenizer={"digest": "0" * 64, "name": "qwen"},
    )  # fmt: skip
    records = tmp_path / "records.jsonl"
    lines = [{"messages": DIALOGUES[0]}, {"messages": DIALOGUES[0][::-1]}, {"text": "a document"}]
    records.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    cases: list[tuple[list[object], int, str]] = [
        ([tmp_path / "absent"], 1, "absent.idx: is .* the right prefix"),
        ([tmp_path / "data", "--sample", 3], 2, "has no sample 3: its samples are numbered from 0 to 2"),
        ([tmp_path / "data", "--sample", 0, "--random", 1], 2, "give one of the two"),
        ([tmp_path / "other"], 2, r"made with another tokenizer \(qwen\)"),
        ([records], 2, "give the --template"),
        ([records, "--template", "vicuna"], 2, "no chat template 'vicuna'"),
        ([records, "--template", "aquila-v1"], 2, r"lacks <\|startofpiece\|>"),
        ([records, "--template", "chatml", "--sample", 1], 2, r"records.jsonl:2: bad-roles: message 0"),
        ([records, "--template", "chatml", "--sample", 2], 2, r"records.jsonl:3: no-messages"),
    ]
    for arguments, code, message in cases:
        result = CliRunner().invoke(app, ["preview", *map(str, arguments), "--tokenizer", str(directory)])
        assert result.exit_code == code, result.output
        assert re.search(message, result.output), result.output
        assert len(result.output.splitlines()) == 1
