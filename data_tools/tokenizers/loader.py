"""Which kind of tokenizer a path holds."""

from pathlib import Path

from data_tools.tokenizers.protocol import Tokenizer, TokenizerError

_EXPECTED = "tokenizer.model, tokenizer.json, vocab.json with merges.txt, or a .tiktoken file"


def load_tokenizer(path: str | Path, *, eod: str | None = None, threads: int = 1) -> Tokenizer:
    """The tokenizer in a directory, or in one of its files.

    A directory that holds several forms of one tokenizer is read from the first of: a sentencepiece
    `.model`, tokenizer.json, vocab.json + merges.txt, `.tiktoken`. `eod` names the token that ends a
    document where another than the default is wanted; each kind documents its default. An encoder uses
    `threads` threads; its workers are meant to be processes.

    Raises `TokenizerError` saying what is missing or wrong, where, and what to give.
    """
    path = Path(path)
    if not path.exists():
        raise TokenizerError(f"no tokenizer at {path}: give a directory or file holding {_EXPECTED}.")
    source = _find(path) if path.is_dir() else path
    if source.suffix == ".model":
        from data_tools.tokenizers import sentencepiece_model

        return sentencepiece_model.load(source, eod=eod, threads=threads)
    if source.suffix == ".tiktoken":
        from data_tools.tokenizers import tiktoken_file

        return tiktoken_file.load(source, eod=eod, threads=threads)
    if source.name in ("vocab.json", "merges.txt"):
        from data_tools.tokenizers import byte_level_bpe

        return byte_level_bpe.load(source.parent, eod=eod, threads=threads)
    if source.suffix == ".json":
        from data_tools.tokenizers import tokenizer_json

        return tokenizer_json.load(source, eod=eod, threads=threads)
    raise TokenizerError(f"{path} is not a tokenizer file: give a directory or file holding {_EXPECTED}.")


def _find(directory: Path) -> Path:
    for pattern in ("tokenizer.model", "*.model", "tokenizer.json", "vocab.json", "*.tiktoken"):
        found = sorted(directory.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise TokenizerError(f"{directory} holds several tokenizers ({names}): give the path of the one you mean.")
        if found:
            return found[0]
    raise TokenizerError(f"no tokenizer in {directory}: it holds none of {_EXPECTED}.")
