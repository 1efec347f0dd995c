"""Where a very long text may be cut so that its pieces, encoded one by one, give the ids of the whole.

A cut is exact when no pre-token of the split pattern reaches across it, or, inside a run of Han characters,
when no vocabulary entry does: merges only ever build vocabulary entries, so none can then join the two
sides.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from data_tools.tokenizers.byte_symbols import byte_symbols

# Pieces are about this many characters: large beside an encoder's overhead, small beside a worker's memory.
PIECE_CHARACTERS = 1 << 18

_HAN = "\u4e00-\u9fff"
# Exact for every pattern of `_RUN_PATTERNS`. A blank after anything that is not white space begins a
# pre-token; so does a line end, a comma or Chinese punctuation after a letter or digit, and a digit after a
# letter. The apostrophe, combining marks and letters of other scripts are left out: the patterns treat them
# differently.
_PRE_TOKEN_START = re.compile(
    rf"(?<=\S)(?= )|(?<=[A-Za-z0-9{_HAN}])(?=[\n,;，。、；：？！])|(?<=[A-Za-z{_HAN}])(?=[0-9])"
)
_HAN_PAIR = re.compile(rf"(?<=[{_HAN}])(?=[{_HAN}])")

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_RUN_PATTERNS = frozenset({_GPT2, _CL100K, _CL100K.replace("{1,3}", "")})


def cut(text: str, is_exact: Callable[[str, int], bool], candidates: list[re.Pattern[str]]) -> Iterator[str]:
    """Pieces of `text` of about `PIECE_CHARACTERS`, cut at the first exact candidate after that many.

    Each pattern of `candidates` is tried in turn within one piece's length; where none has an exact place,
    the search goes on into the next length, so a text with no such place at all stays whole.
    """
    start = 0
    while start < len(text):
        window = start + PIECE_CHARACTERS
        place = None
        while place is None and window < len(text):
            places = (
                match.start()
                for pattern in candidates
                for match in pattern.finditer(text, window, window + PIECE_CHARACTERS)
                if is_exact(text, match.start())
            )
            place = next(places, None)
            window += PIECE_CHARACTERS
        end = len(text) if place is None else place
        yield text[start:end]
        start = end


class BpeCutter:
    """Cuts for one BPE tokenizer. `spanning` holds what its vocabulary has across a character boundary."""

    def __init__(self, cuttable: bool, spanning: frozenset[tuple[bytes, bytes]] | None) -> None:
        self._candidates = [_PRE_TOKEN_START] if cuttable else []
        self._spanning = spanning or frozenset()
        if cuttable and spanning is not None:
            self._candidates.append(_HAN_PAIR)

    @classmethod
    def for_specification(cls, specification: dict[str, Any]) -> "BpeCutter":
        """Knows the split patterns of GPT-2, cl100k and Qwen, plain or after NFC; any other text stays whole.

        Inside a Han run it cuts only where the encoder merges strictly by rank (`ignore_merges` looks a whole
        pre-token up first, so half of one could differ).
        """
        normalizer, model = specification["normalizer"], specification["model"]
        plain_text = normalizer is None or normalizer == {"type": "NFC"}
        text_tokens = any(not token["special"] for token in specification["added_tokens"])
        cuttable = plain_text and not text_tokens and _split_pattern(specification["pre_tokenizer"]) in _RUN_PATTERNS
        spanning = None if model.get("ignore_merges") or not cuttable else _spanning_pairs(model["vocab"])
        return cls(cuttable, spanning)

    def pieces(self, text: str) -> Iterator[str]:
        """At least one piece, in order; they join to `text`."""
        if len(text) <= PIECE_CHARACTERS or not self._candidates:
            return iter([text])
        return cut(text, self._is_exact, self._candidates)

    def _is_exact(self, text: str, place: int) -> bool:
        if not _HAN_PAIR.match(text, place):
            return True
        left, right = text[place - 1].encode(), text[place].encode()
        return not any((left[-k:], right[:j]) in self._spanning for k in range(1, 4) for j in range(1, 4))


def _split_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The one pattern that a pre-tokenizer splits by, or None where it does more or other than that."""
    if pre_tokenizer is None:
        return None
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if any(step.get("add_prefix_space", False) for step in steps):
        return None
    match [(step["type"], step.get("use_regex", True)) for step in steps]:
        case [("ByteLevel", True)]:
            return _GPT2
        case [("Split", _), ("ByteLevel", False)]:
            split = steps[0]
            plain = split["behavior"] == "Isolated" and not split["invert"]
            return split["pattern"].get("Regex") if plain else None
        case _:
            return None


def _spanning_pairs(vocabulary: dict[str, int]) -> frozenset[tuple[bytes, bytes]]:
    """At every place in an entry where a Han character may begin: up to 3 bytes before and after it."""
    byte_of = {symbol: value for value, symbol in enumerate(byte_symbols())}
    pairs = set()
    for entry in vocabulary:
        if any(symbol not in byte_of for symbol in entry):
            continue
        token = bytes(byte_of[symbol] for symbol in entry)
        for place in range(1, len(token)):
            if 0xE4 <= token[place] <= 0xE9:
                pairs.add((token[max(0, place - 3) : place], token[place : place + 3]))
    return frozenset(pairs)
