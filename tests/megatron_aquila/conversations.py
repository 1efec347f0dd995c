"""Indexed synthetic dialogues and pairs, and recipes over them, for tests of sft and dpo runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_tools.clinic import write_clinic
from data_tools.indexing import IndexOptions, build_index
from data_tools.tokenizer_training import train_sentencepiece
from megatron_aquila.config import RunConfig
from tests.megatron_aquila.corpora import recipe


def build_conversations(directory: Path) -> Path:
    """Index synthetic dialogues and pairs in `directory`: prefixes `dialogues` and `pairs`, tokenizer `tokenizer`."""
    text = directory / "text"
    write_clinic(
        text, seed=3, stage1_documents=200, stage2_documents=1, general_count=1, dialogue_count=100, train_pairs=48
    )
    train_sentencepiece(
        [text / "medical_stage1.jsonl"],
        directory / "tokenizer",
        vocab_size=1000,
        control_tokens=("<|im_start|>", "<|im_end|>"),
    )
    for kind, file in (("dialogues", "dialogues"), ("pairs", "pairs_train")):
        options = IndexOptions(kind=kind, template="chatml", max_length=100)
        build_index([str(text / f"{file}.jsonl")], directory / "tokenizer", directory / kind, options)
    return directory


KINDS = {"sft": "dialogues", "dpo": "pairs"}


def conversation_recipe(data: Path, output: Path, stage: str, **changes: Any) -> RunConfig:
    """Two epochs of five steps on packs of 256 tokens; `changes` are dotted keys with `__` for the dot."""
    defaults: dict[str, Any] = {
        "stage": stage,
        "model__shape__max_position_embeddings": 128,
        "data__train": [{"path": str(data / KINDS[stage])}],
        "data__split": [90, 10, 0] if stage == "sft" else [80, 20, 0],
        "data__sequence_length": 256,
        "training__steps": None,
        "training__epochs": 2,
        "training__global_batch_size": 18 if stage == "sft" else 8,
        "training__micro_batch_size": 2,
        "evaluation__batches": None,
        "checkpoint__every": 1,
        "checkpoint__keep": 20,
    }
    return recipe(data, output, **{**defaults, **changes})
