"""Qwen-1's `.tiktoken` rank file, which Aquila3 and AquilaMed use: BPE over bytes and 208 special tokens."""

import base64
import binascii
import itertools
from pathlib import Path

from data_tools.tokenizers.bpe import BpeTokenizer
from data_tools.tokenizers.byte_level_bpe import byte_level_specification
from data_tools.tokenizers.byte_symbols import byte_symbols
from data_tools.tokenizers.protocol import TokenizerError
from data_tools.tokenizers.special_tokens import read_special_tokens, special_files

# QwenLM/Qwen tokenization_qwen.py: PAT_STR; its tokenize() applies NFC first.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{k}|>" for k in range(205)))
# A rank file does not carry the pattern that goes with it; these published ones go with others.
_OTHER_PATTERNS = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")


def load(path: Path, *, eod: str | None, threads: int) -> BpeTokenizer:
    """Reads ranks, and the roles from a tokenizer_config.json beside them where it names any.

    Where it names none, Aquila3's convention holds: document end and eos `<|extra_204|>`, bos
    `<|extra_203|>`, pad `<|endoftext|>`. Qwen-1's own is `eod="<|endoftext|>"`, which leaves no padding
    token.
    """
    if path.stem in _OTHER_PATTERNS:
        raise TokenizerError(f"{path} does not go with Qwen's split pattern: give a tokenizer.json of it instead.")
    ranks = read_ranks(path)
    symbols = byte_symbols()
    vocabulary = {"".join(symbols[byte] for byte in token): rank for token, rank in ranks.items()}
    special_ids = {token: len(ranks) + k for k, token in enumerate(QWEN_SPECIAL_TOKENS)}
    contents = {"ranks": path} | special_files(path.parent)
    aquila3 = {"bos": "<|extra_203|>", "eos": "<|extra_204|>", "pad": "<|endoftext|>"}
    conventional = aquila3 if eod in (None, aquila3["eos"]) else {"eos": str(eod)}
    special = read_special_tokens(path.parent, vocabulary, special_ids, eod, conventional)
    split = {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated", "invert": False}
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    specification = byte_level_specification(
        vocabulary,
        [["".join(symbols[byte] for byte in half) for half in pair] for pair in merges_from_ranks(ranks)],
        {"type": "Sequence", "pretokenizers": [split, to_bytes]},
        normalizer={"type": "NFC"},
        ignore_merges=True,
    )
    return BpeTokenizer(path.stem, "tiktoken", specification, special, contents, threads=threads)


def read_ranks(path: Path) -> dict[bytes, int]:
    """Lines of `base64(token) rank`, ranks 0, 1, 2 … in order. Raises `TokenizerError` with the line."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            if int(rank) != len(ranks) or token in ranks:
                raise ValueError(f"rank {int(rank)} where {len(ranks)} is due, or a token given twice")
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(f"{path}:{number}: not a line of `base64(token) rank` in order: {error}.") from error
        ranks[token] = int(rank)
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"{path} has no rank for byte 0x{missing[0]:02X}: it is not a complete .tiktoken file.")
    return ranks


def merges_from_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every pair of tokens that joins to a token, in the order of that token's rank.

    tiktoken merges the adjacent pair whose *joined* bytes rank lowest, whichever way they are split, so all
    splits of a token become merges, next to each other in rank.
    """

    def splits(token: bytes) -> list[tuple[bytes, bytes]]:
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [(left, right) for left, right in halves if left in ranks and right in ranks]
        return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))

    return list(itertools.chain.from_iterable(map(splits, ranks)))
