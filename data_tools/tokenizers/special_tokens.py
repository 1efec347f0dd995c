"""Which ids are control tokens, and which of them begin, end and pad, from the files beside a vocabulary."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from data_tools.tokenizers.protocol import TokenizerError

SPECIAL_FILES = (
    "special_tokens.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)

ROLES = ("bos", "eos", "pad")
# Tried in this order where no file names the end-of-sequence token.
END_TOKENS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Control tokens by text, and the roles some of them play."""

    ids: Mapping[str, int]
    eod: str
    bos: str | None = None
    eos: str | None = None
    pad: str | None = None

    def id_of(self, token: str | None) -> int | None:
        return None if token is None else self.ids[token]


def read_json(path: Path) -> Any:
    """Raises `TokenizerError` naming the file where it is not JSON in UTF-8."""
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}): restore the tokenizer's own file.") from error


def special_files(directory: Path) -> dict[str, Path]:
    """Those of `SPECIAL_FILES` that are present."""
    return {name: directory / name for name in SPECIAL_FILES if (directory / name).is_file()}


def read_special_tokens(
    directory: Path,
    vocabulary: Mapping[str, int],
    added: Mapping[str, int],
    eod: str | None,
    conventional: Mapping[str, str] | None = None,
) -> SpecialTokens:
    """Special tokens of a BPE vocabulary, from its `SPECIAL_FILES` where they are present.

    Ids: `added` (those of a tokenizer.json), then `tokenizer_config.json`'s `added_tokens_decoder`,
    `added_tokens.json`, and the lines of `special_tokens.txt`, which follow the vocabulary in their order (as
    Aquila's do); a token that is in the vocabulary keeps its id there.

    Roles: as `tokenizer_config.json` or `special_tokens_map.json` name them. With neither, the
    `conventional` ones; without those, an Aquila directory (holding `[CLS]` and `</s>`) gets bos `[CLS]`,
    eos `</s>`, pad `<|endoftext|>`, and any other gets as eos the first of `END_TOKENS` that it has. The
    end-of-document token is `eod` where given, else eos. A pad that only convention names gives way to an
    equal `eod`.
    """
    present = special_files(directory)
    config: dict[str, Any] = _read_if_present(present, "tokenizer_config.json")
    named = _read_if_present(present, "special_tokens_map.json") | {
        key: value for key, value in config.items() if key.endswith("_token")
    }

    ids = dict(added)
    for number, token in config.get("added_tokens_decoder", {}).items():
        if token.get("special", False):
            ids.setdefault(token["content"], int(number))
    for token, number in _read_if_present(present, "added_tokens.json").items():
        ids.setdefault(token, int(number))
    if "special_tokens.txt" in present:
        following = itertools.count(max(vocabulary.values()) + 1)
        for token in filter(None, present["special_tokens.txt"].read_text(encoding="utf-8").splitlines()):
            if token not in ids:
                ids[token] = vocabulary[token] if token in vocabulary else next(following)

    roles = {role: _content(named.get(f"{role}_token")) for role in ROLES}
    if not any(roles.values()):
        if conventional is None and {"[CLS]", "</s>"} <= ids.keys() and "<|endoftext|>" in vocabulary:
            conventional = {"bos": "[CLS]", "eos": "</s>", "pad": "<|endoftext|>"}
        if conventional is None:
            known = [token for token in END_TOKENS if token in ids or token in vocabulary]
            conventional = {"eos": known[0]} if known else {}
        roles = {role: token for role, token in conventional.items() if role != "pad" or token != eod}
    end = eod if eod is not None else roles.get("eos")
    if end is None:
        raise TokenizerError(
            f"{directory} does not say which token ends a document: name it with eod=…, "
            'or add "eos_token" to its tokenizer_config.json.'
        )
    for token in [end, _content(named.get("unk_token")), *roles.values()]:
        if token is not None and token not in ids:
            if token not in vocabulary:
                raise TokenizerError(
                    f"{directory} has no token {token!r}, which is named as a special token: it is "
                    f"neither in the vocabulary nor in {', '.join(SPECIAL_FILES)}."
                )
            ids[token] = vocabulary[token]
    by_id: dict[int, str] = {}
    for token, number in ids.items():
        if by_id.setdefault(number, token) != token or vocabulary.get(token, number) != number:
            raise TokenizerError(
                f"{directory} gives id {number} to {token!r} and to another token: repair its special token files."
            )
    return SpecialTokens(ids, end, roles.get("bos"), roles.get("eos"), roles.get("pad"))


def _read_if_present(present: Mapping[str, Path], name: str) -> dict[str, Any]:
    return read_json(present[name]) if name in present else {}


def _content(token: str | dict[str, Any] | None) -> str | None:
    """transformers writes a special token as text, or as an object with the text under `content`."""
    return token["content"] if isinstance(token, dict) else token
