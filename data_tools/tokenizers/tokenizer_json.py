"""Hugging Face tokenizer.json with a BPE model."""

from pathlib import Path

from data_tools.tokenizers.bpe import BpeTokenizer
from data_tools.tokenizers.protocol import TokenizerError
from data_tools.tokenizers.special_tokens import read_json, read_special_tokens, special_files


def load(path: Path, *, eod: str | None, threads: int) -> BpeTokenizer:
    """`path` is a tokenizer.json; the special token files beside it name the roles."""
    specification = read_json(path)
    model = specification.get("model") if isinstance(specification, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise TokenizerError(f"{path} has no model.vocab: it is not a Hugging Face tokenizer.json.")
    if model.get("type") != "BPE":
        raise TokenizerError(
            f"{path} holds a {model.get('type')} model, and only BPE is read from tokenizer.json: "
            "give the sentencepiece .model file it was made from."
        )
    added = {token["content"]: token["id"] for token in specification.get("added_tokens", []) if token["special"]}
    special = read_special_tokens(path.parent, model["vocab"], added, eod)
    contents = {"tokenizer.json": path} | special_files(path.parent)
    return BpeTokenizer(path.resolve().parent.name, "tokenizer_json", specification, special, contents, threads=threads)
