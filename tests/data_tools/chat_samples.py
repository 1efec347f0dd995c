"""Dialogues and pairs to index, a tokenizer for ChatML, and what the index must hold, worked out by hand."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from megatron.core.datasets.indexed_dataset import IndexedDataset

from data_tools.indexing import IndexSummary, build_index
from data_tools.manifest import dataset_files, loss_mask_prefix
from data_tools.samples import IndexOptions

from .small_tokenizer import make_tokenizer, text

DIALOGUES = IndexOptions(kind="dialogues", template="chatml")
PAIRS = IndexOptions(kind="pairs", template="chatml")
Messages = list[dict[str, str]]
Sequence = tuple[list[int], list[int]]


def chat_tokenizer(directory: Path, seed: int = 0) -> Path:
    path = make_tokenizer(directory, seed=seed) / "tokenizer.json"
    made = tokenizers.Tokenizer.from_file(str(path))
    made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    made.save(str(path))
    return directory


def rendered(tokenizer: Path, messages: Messages, context: int = 0) -> Sequence:
    """ChatML by hand: ids, and 1 for the answers from message `context` on with their closing."""
    made = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    made.encode_special_tokens = True
    begin, end = (made.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))

    def plain(part: str) -> list[int]:
        ids: list[int] = made.encode(part, add_special_tokens=False).ids
        return ids

    ids: list[int] = []
    mask: list[int] = []
    for number, message in enumerate(messages):
        head = [begin, *plain(f"{message['role']}\n")]
        body = [*plain(message["content"]), end]
        line_end = [] if number == len(messages) - 1 and message["role"] == "user" else plain("\n")
        ids += head + body + line_end
        trained = int(message["role"] == "assistant" and number >= context)
        mask += [0] * len(head) + [trained] * len(body) + [0] * len(line_end)
    return ids, mask


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def conversation(generator: random.Random, exchanges: int, words: int = 12) -> Messages:
    messages = []
    for _ in range(exchanges):
        for role in ("user", "assistant"):
            messages.append(message(role, text(generator, generator.randrange(1, words))))
    return messages


def write(path: Path, records: list[Any]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def index(source: Path, tokenizer: Path, prefix: Path, options: IndexOptions, **arguments: Any) -> IndexSummary:
    return build_index([str(source)], tokenizer, prefix, options, **arguments)


def read(prefix: Path) -> list[list[Sequence]]:
    """Samples as Megatron's own reader sees them: its sequences, each with its mask."""
    tokens, masks = IndexedDataset(str(prefix)), IndexedDataset(str(loss_mask_prefix(prefix)))
    assert np.array_equal(tokens.document_indices, masks.document_indices)
    bounds = tokens.document_indices.tolist()
    return [[(tokens[i].tolist(), masks[i].tolist()) for i in range(begin, end)] for begin, end in pairwise(bounds)]


def bytes_of(prefix: Path) -> list[bytes]:
    return [path.read_bytes() for path in dataset_files(prefix, masked=True).values()]


def pair(prompt: Messages, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    answers = {"chosen": [message("assistant", chosen)], "rejected": [message("assistant", rejected)]}
    return {"prompt": prompt, **answers, **more}


def random_pairs(number: int) -> list[dict[str, Any]]:
    generator = random.Random(5)
    pairs = []
    for count in range(number):
        prompt = [*conversation(generator, generator.randrange(3)), message("user", text(generator, 5))]
        pairs.append(pair(prompt, text(generator, 8), f"{text(generator, 6)} no", id=count, kind="subjective"))
    return pairs


def pair_sequences(tokenizer: Path, record: dict[str, Any]) -> list[Sequence]:
    prompt = record["prompt"]
    return [rendered(tokenizer, prompt + record[key], len(prompt)) for key in ("chosen", "rejected")]
