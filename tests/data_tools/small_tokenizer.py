"""A byte-level BPE tokenizer of about 1,000 ids, trained on the spot, and documents to index with it."""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = [
    "the",
    "patient",
    "has",
    "fever",
    "cough",
    "pain",
    "dose",
    "250",
    "mg",
    "daily",
    "发热",
    "咳嗽",
    "头痛",
]
WORDS += ["患者", "每日", "三次", "服用", "ünïcode", "😀", "</s>"]


def make_tokenizer(directory: Path, vocab_size: int = 1000, seed: int = 0) -> Path:
    """Writes directory/tokenizer.json; returns the directory."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text(random.Random(seed + i), 200) for i in range(20)], trainer)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def reference_ids(directory: Path, texts: list[str]) -> list[list[int]]:
    """Ids of the Hugging Face library itself, end-of-document id appended, as Megatron's script does it."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id("<|endoftext|>")
    return [[*tokenizer.encode(item, add_special_tokens=False).ids, end] for item in texts]


def text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def write_documents(path: Path, number: int, seed: int = 0) -> list[str]:
    """Writes `number` JSON Lines documents with ids; returns their texts."""
    generator = random.Random(seed)
    texts = [text(generator, generator.randrange(1, 60)) for _ in range(number)]
    lines = [json.dumps({"id": f"{seed}-{i}", "text": item}, ensure_ascii=False) for i, item in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return texts
