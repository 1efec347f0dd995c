"""What both sides train on: dialogues and pairs, their tokenizer and index, and the model they start from."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch

from data_tools.indexed import IndexedReader
from data_tools.indexing import IndexOptions, build_index
from data_tools.manifest import loss_mask_prefix
from data_tools.tokenizer_training import train_from_texts

_TEMPLATE = "aquila"  # its one control token, </s>, is in every tokenizer here
Tokens = tuple[list[int], list[int]]  # ids, and 1 where a token is trained on


def doctor_records(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Dialogues and pairs of a JSON list of `{"instruction", "input", "output"}`, such as ChatDoctor's.

    The rejected answer of a pair is the answer to another question.
    """
    rows = [
        row for row in json.loads(path.read_text(encoding="utf-8")) if row["input"].strip() and row["output"].strip()
    ]
    random.Random(0).shuffle(rows)
    dialogues, pairs = [], []
    for number, row in enumerate(rows):
        question = {"role": "user", "content": row["input"].strip()}
        answer = {"role": "assistant", "content": row["output"].strip()}
        other = {"role": "assistant", "content": rows[number - 1]["output"].strip()}
        dialogues.append({"id": f"d{number}", "messages": [question, answer]})
        if other != answer:
            pairs.append({"id": f"p{number}", "prompt": [question], "chosen": [answer], "rejected": [other]})
    return dialogues, pairs


def clinic_records(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`count` dialogues and pairs of the synthetic clinic: for machines without real data."""
    from data_tools.clinic import dialogues, make_world, preference_pairs

    world = make_world()
    return list(dialogues(world, count=count)), list(preference_pairs(world, count=count))


def train_tokenizer(dialogues: Sequence[dict[str, Any]], directory: Path, vocab_size: int) -> Path:
    """A tokenizer of `vocab_size` ids for the text of the dialogues."""
    texts = [message["content"] for record in dialogues for message in record["messages"]]
    train_from_texts(texts, directory, vocab_size=vocab_size)
    return directory


def index(records: Sequence[dict[str, Any]], kind: str, tokenizer: Path, length: int, prefix: Path) -> Path:
    """Index the records, sequences of at most `length` tokens; returns `prefix`.

    Raises:
        ValueError: not all of them fit.
    """
    source = prefix.with_name(f"{prefix.name}.jsonl")
    source.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    summary = build_index(
        [str(source)], tokenizer, prefix, IndexOptions(kind=kind, template=_TEMPLATE, max_length=length)
    )
    kept = summary.manifest["counts"]["documents"]
    if kept != len(records):
        raise ValueError(f"{kept} of {len(records)} {kind} fit into {length} tokens: raise the length")
    return prefix


def save_model(vocabulary: int, directory: Path) -> Path:
    """A Llama of 4 layers of 128 with random weights, in Hugging Face's layout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=vocabulary, max_position_embeddings=4096, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def read_dialogues(prefix: Path) -> list[Tokens]:
    """The sequences of an index of dialogues, with their masks."""
    return [document[0] for document in _documents(prefix)]


def read_pairs(prefix: Path) -> list[tuple[Tokens, Tokens]]:
    """The chosen and the rejected sequence of each pair of an index of pairs."""
    return [(document[0], document[1]) for document in _documents(prefix)]


def _documents(prefix: Path) -> list[list[Tokens]]:
    tokens, masks = IndexedReader(prefix), IndexedReader(loss_mask_prefix(prefix))
    return [
        [
            (sequence.tolist(), mask.tolist())
            for sequence, mask in zip(tokens.document(number), masks.document(number), strict=True)
        ]
        for number in range(tokens.documents)
    ]
