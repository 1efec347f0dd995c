"""A small synthetic corpus with its tokenizer, and recipes over it, for tests of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_tools.clinic import write_clinic
from data_tools.indexing import IndexOptions, build_index
from data_tools.tokenizer_training import train_sentencepiece
from megatron_aquila.config import RunConfig


def build_corpus(directory: Path) -> Path:
    """Index the synthetic clinic under `directory`: prefixes `medical` and `general`, tokenizer `tokenizer`."""
    write_clinic(directory / "text", seed=3)
    texts = [directory / "text" / name for name in ("medical_stage1.jsonl", "general.jsonl")]
    train_sentencepiece(texts, directory / "tokenizer", vocab_size=1000)
    for name, text in zip(("medical", "general"), texts):
        build_index([str(text)], directory / "tokenizer", directory / name, IndexOptions())
    return directory


def recipe(corpus: Path, output: Path, **changes: Any) -> RunConfig:
    """A run of ten steps; `changes` are dotted keys with `__` for the dot."""
    tree: dict[str, Any] = {
        "name": "test",
        "output": str(output),
        "device": "cpu",
        "model": {
            "shape": {
                "hidden_size": 32,
                "num_layers": 4,
                "num_attention_heads": 4,
                "num_query_groups": 2,
                "ffn_hidden_size": 48,
                "vocab_size": 1000,
                "max_position_embeddings": 64,
            },
            "hidden_dropout": 0.1,
        },
        "data": {
            "train": [
                {"path": str(corpus / "medical"), "weight": 0.7},
                {"path": str(corpus / "general"), "weight": 0.3},
            ],
            "split": [90, 10, 0],
            "sequence_length": 32,
            "tokenizer": str(corpus / "tokenizer"),
        },
        "training": {"steps": 10, "global_batch_size": 8, "micro_batch_size": 4, "precision": "fp32"},
        "optimizer": {"lr": 5e-3, "schedule": {"warmup_steps": 2}},
        "checkpoint": {"every": 2, "keep": 10},
        "evaluation": {"every": 5, "batches": 2},
        "logging": {"tensorboard": False},
    }
    for key, value in changes.items():
        section = tree
        *parents, leaf = key.split("__")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return RunConfig.model_validate(tree)


def write_recipe(run: RunConfig, path: Path) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(run.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return path
