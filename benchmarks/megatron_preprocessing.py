"""Megatron-LM's two ways of making a .bin/.idx, for `benchmarks.indexing`.

Written after tools/preprocess_data.py and tools/preprocess_data_fast.py at commit d98e8a64 (2026-08-22), which are not
in the megatron-core wheel: the same reader, pool, calls and order, with Megatron's own IndexedDatasetBuilder. Or, with
`--megatron-lm`, those very scripts, run by `run_script`.
"""

import json
import multiprocessing
import runpy
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np


def slow(source: Path, tokenizer: Path, prefix: Path, workers: int) -> None:
    """preprocess_data.py: one reader, `Pool.imap` in chunks of 32, one call per document, ids back as Python lists."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    vocabulary_size = len(_load(tokenizer))
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocabulary_size))
    pool = multiprocessing.get_context("fork").Pool(workers, initializer=_start, initargs=(tokenizer,))
    with source.open(encoding="utf-8") as lines:
        for ids, lengths in pool.imap(_encode, lines, 32):
            builder.add_document(ids, lengths)
    builder.finalize(f"{prefix}.idx")
    pool.close()
    pool.join()


def fast(source: Path, tokenizer: Path, prefix: Path) -> None:
    """preprocess_data_fast.py: gigatoken reads and encodes the whole file into memory, then it is written."""
    import awkward  # type: ignore[import-untyped]
    import gigatoken
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    loaded = _load(tokenizer)
    encoder = gigatoken.Tokenizer(loaded).as_hf()
    documents = encoder.tokenizer.encode_files(gigatoken.JsonlFileSource([source], field="text"), parallel=True)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(len(loaded)))
    # IndexedDatasetBuilder.add_documents, which came after megatron-core 0.16.1.
    tokens = np.asarray(awkward.flatten(documents), dtype=builder.dtype)
    lengths = np.asarray(awkward.num(documents, axis=1))
    tokens = np.insert(tokens, np.cumsum(lengths), loaded.eos_token_id).astype(builder.dtype, copy=False)
    builder.data_file.write(tokens.tobytes(order="C"))
    builder.sequence_lengths.extend((lengths + 1).tolist())
    builder.document_indices.extend(np.arange(1, len(lengths) + 1).tolist())
    builder.finalize(f"{prefix}.idx")


def run_script(repository: Path, script: str, arguments: list[str]) -> None:
    """Runs `tools/<script>` of a Megatron-LM checkout. It needs triton; `typing.override` is lent to Python 3.11."""
    if not hasattr(typing, "override"):
        typing.override = lambda function: function  # type: ignore[attr-defined]
    path = repository / "tools" / script
    sys.path.insert(0, str(repository))
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


_tokenizer: Any = None  # of a worker process


def _load(directory: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)


def _start(directory: Path) -> None:
    global _tokenizer
    _tokenizer = _load(directory)


def _encode(line: str) -> tuple[list[int], list[int]]:
    """Megatron's Encoder.encode over its HuggingFaceTokenizer.text_to_ids."""
    ids = _tokenizer.convert_tokens_to_ids(_tokenizer.tokenize(json.loads(line)["text"]))
    if not ids:
        return [], []
    return [*ids, _tokenizer.eos_token_id], [len(ids) + 1]


if __name__ == "__main__":
    way, source, tokenizer, prefix, workers, *repository = sys.argv[1:]
    if repository:
        arguments = ["--input", source, "--output-prefix", prefix, "--append-eod", "--json-keys", "text"]
        arguments += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", tokenizer]
        arguments += ["--tokenizer-hf-no-include-special-tokens"]
        arguments += ["--workers", workers] if way == "slow" else ["--use-gigatoken"]
        script = "preprocess_data.py" if way == "slow" else "preprocess_data_fast.py"
        run_script(Path(repository[0]), script, arguments)
    elif way == "slow":
        slow(Path(source), Path(tokenizer), Path(prefix), int(workers))
    else:
        fast(Path(source), Path(tokenizer), Path(prefix))
