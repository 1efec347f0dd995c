"""GPT-2 style byte-level BPE from vocab.json and merges.txt: Aquila and Aquila2 (2023), GPT-2 and kin."""

from pathlib import Path
from typing import Any

from data_tools.tokenizers.bpe import BpeTokenizer
from data_tools.tokenizers.byte_symbols import byte_symbols
from data_tools.tokenizers.protocol import TokenizerError
from data_tools.tokenizers.special_tokens import read_json, read_special_tokens, special_files


def load(directory: Path, *, eod: str | None, threads: int) -> BpeTokenizer:
    """`directory` holds vocab.json and merges.txt, and any of `special_tokens.SPECIAL_FILES`."""
    for needed in ("vocab.json", "merges.txt"):
        if not (directory / needed).is_file():
            raise TokenizerError(
                f"{directory} lacks {needed}: a byte-level BPE tokenizer needs vocab.json and merges.txt."
            )
    vocabulary: dict[str, int] = read_json(directory / "vocab.json")
    missing = [symbol for symbol in byte_symbols() if symbol not in vocabulary]
    if missing:
        raise TokenizerError(
            f"{directory / 'vocab.json'} lacks {len(missing)} of the 256 byte symbols ({missing[0]!r} …): "
            "it is not a byte-level BPE vocabulary."
        )
    special = read_special_tokens(directory, vocabulary, {}, eod)
    specification = byte_level_specification(
        vocabulary,
        read_merges(directory / "merges.txt", vocabulary),
        {"type": "ByteLevel", "use_regex": True},
    )
    own = {name: directory / name for name in ("vocab.json", "merges.txt")}
    return BpeTokenizer(
        directory.resolve().name,
        "byte_level_bpe",
        specification,
        special,
        own | special_files(directory),
        threads=threads,
    )


def read_merges(path: Path, vocabulary: dict[str, int]) -> list[list[str]]:
    """Merges in rank order. Raises `TokenizerError` with the line of one that the vocabulary lacks."""
    merges = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        known = len(pair) == 2 and pair[0] in vocabulary and pair[1] in vocabulary and pair[0] + pair[1] in vocabulary
        if not known:  # spelt out: there are a hundred thousand, and every worker of every run reads them
            raise TokenizerError(f"{path}:{number}: {line!r} is not a merge of two tokens of vocab.json.")
        merges.append(pair)
    return merges


def byte_level_specification(
    vocabulary: dict[str, int],
    merges: list[list[str]],
    pre_tokenizer: dict[str, Any],
    *,
    normalizer: dict[str, Any] | None = None,
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """A tokenizer.json for a byte-level BPE vocabulary; special tokens are not in it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": byte_level | pre_tokenizer if pre_tokenizer["type"] == "ByteLevel" else pre_tokenizer,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
