"""A sentencepiece tokenizer of one's own, from documents: lossless, bilingual, and the same on every run.

Text is kept as it is (no normalisation, blanks kept, no blank put before a text), unknown characters become
bytes, and each digit is a token of its own, so that numbers (doses, laboratory values) are read digit by
digit.
"""

import io
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sentencepiece

from data_tools.files import FileReader, ReadOptions
from data_tools.manifest import write_manifest
from data_tools.publish import sha256_file
from data_tools.quarantine import Fault
from data_tools.records import RecordError, record_text
from data_tools.tokenizers import TokenizerError, load_tokenizer

MODEL_TYPES = ("bpe", "unigram")
CONTROL_PIECES = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
_SMALLEST_VOCABULARY = len(CONTROL_PIECES) + 256 + 1
# sentencepiece leaves out sentences of more bytes than its limit, silently; longer lines are cut before
# they get there.
_SENTENCE_CHARACTERS = 1024


def train_sentencepiece(
    inputs: Sequence[Path],
    output: Path,
    *,
    vocab_size: int,
    model_type: str = "bpe",
    text_key: str = "text",
    character_coverage: float = 0.9995,
    control_tokens: Sequence[str] = (),
    max_sentences: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains on the documents of `inputs` (any format of `data_tools.files`) and publishes the directory
    `output`.

    Records that hold no usable text are left out and counted. Arguments, result and errors as for
    `train_from_texts`; the manifest also names the inputs with their SHA-256.
    """
    refused: dict[str, int] = {}
    given = [{"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in inputs]
    return train_from_texts(
        _texts(inputs, text_key, refused),
        output,
        vocab_size=vocab_size,
        model_type=model_type,
        character_coverage=character_coverage,
        control_tokens=control_tokens,
        max_sentences=max_sentences,
        seed=seed,
        provenance={"inputs": given, "refused": refused},
    )


def train_from_texts(
    texts: Iterable[str],
    output: Path,
    *,
    vocab_size: int,
    model_type: str = "bpe",
    character_coverage: float = 0.9995,
    control_tokens: Sequence[str] = (),
    max_sentences: int | None = None,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains on `texts` and publishes `output` as a whole or not at all.

    `output` gets tokenizer.model, what transformers' AutoTokenizer needs beside it, and manifest.json,
    which is also returned. Ids: `<unk>` 0, `<s>` 1, `</s>` 2, `<pad>` 3, then `control_tokens` (such as those
    of a chat template) in their order, 256 bytes, and pieces.
    `character_coverage` is the share of characters that get a piece of their own; the rest are spelt in
    bytes. `max_sentences` keeps a uniform sample of that many lines, drawn with `seed`. One thread, so that
    the same text gives the same model.

    Raises `TokenizerError` where the output exists, an argument is out of range or the text is too small.
    """
    if output.exists():
        raise TokenizerError(f"{output} exists: remove it or choose another output directory.")
    if model_type not in MODEL_TYPES:
        raise TokenizerError(f"model_type is {model_type!r}: give one of {', '.join(MODEL_TYPES)}.")
    _check_control_tokens(control_tokens)
    smallest = _SMALLEST_VOCABULARY + len(control_tokens)
    if vocab_size < smallest:
        raise TokenizerError(f"vocab_size is {vocab_size}: bytes and control tokens alone need {smallest}.")
    if not 0.98 <= character_coverage <= 1.0:  # sentencepiece takes no other
        raise TokenizerError(f"character_coverage is {character_coverage}: give a share from 0.98 to 1.")
    counts = {"documents": 0, "sentences": 0, "characters": 0}
    sentences: Iterator[str] = _sentences(texts, counts)
    if max_sentences is not None:
        sentences = iter(_reservoir(sentences, max_sentences, random.Random(seed)))
    model = _train(sentences, counts, vocab_size, model_type, character_coverage, control_tokens)

    output.parent.mkdir(parents=True, exist_ok=True)
    unpublished = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        (unpublished / "tokenizer.model").write_bytes(model)
        load_tokenizer(unpublished).save_pretrained(unpublished)
        tokenizer = load_tokenizer(unpublished)
        manifest = {
            "artefact": "tokenizer",
            "kind": tokenizer.kind,
            "digest": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "special_tokens": tokenizer.special_tokens,
            "settings": {
                "model_type": model_type,
                "character_coverage": character_coverage,
                "control_tokens": list(control_tokens),
                "max_sentences": max_sentences,
                "seed": seed,
            },
            "counts": counts,
            **(provenance or {}),
            "files": {path.name: sha256_file(path) for path in sorted(unpublished.iterdir())},
            "versions": {"sentencepiece": version("sentencepiece")},
        }
        write_manifest(unpublished / "manifest.json", manifest)
        unpublished.chmod(0o755)
        unpublished.rename(output)
    finally:
        shutil.rmtree(unpublished, ignore_errors=True)
    return manifest


def _check_control_tokens(tokens: Sequence[str]) -> None:
    seen = set(CONTROL_PIECES.values())
    for token in tokens:
        if not token or token != "".join(token.split()):
            raise TokenizerError(f"the control token {token!r} is empty or holds white space: give one word.")
        if token in seen:
            raise TokenizerError(f"the control token {token!r} is there already: leave it out.")
        seen.add(token)


def _train(
    sentences: Iterator[str],
    counts: dict[str, int],
    vocab_size: int,
    model_type: str,
    character_coverage: float,
    control_tokens: Sequence[str],
) -> bytes:
    control: dict[str, Any] = {}
    for number, (role, piece) in enumerate(CONTROL_PIECES.items()):
        control |= {f"{role}_id": number, f"{role}_piece": piece}
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            control_symbols=list(control_tokens),
            max_sentence_length=4 * _SENTENCE_CHARACTERS,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
            **control,
        )
    except RuntimeError as error:
        if not counts["sentences"]:
            raise TokenizerError("there is no text to train a tokenizer on: give documents that hold some.") from error
        raise TokenizerError(
            f"sentencepiece cannot make {vocab_size} tokens of this text "
            f"({str(error).splitlines()[-1].strip()}): give more text or another vocab_size."
        ) from error
    return model.getvalue()


def _sentences(texts: Iterable[str], counts: dict[str, int]) -> Iterator[str]:
    """Lines of at most `_SENTENCE_CHARACTERS`, without NUL: sentencepiece would drop a line for one."""
    for text in texts:
        counts["documents"] += 1
        for line in text.replace("\0", "").splitlines():
            for start in range(0, len(line), _SENTENCE_CHARACTERS):
                piece = line[start : start + _SENTENCE_CHARACTERS]
                if not piece.isspace():
                    counts["sentences"] += 1
                    counts["characters"] += len(piece)
                    yield piece


def _reservoir(sentences: Iterator[str], size: int, generator: random.Random) -> list[str]:
    """A uniform sample of `size` sentences of a stream, in memory of that many (Vitter's algorithm R)."""
    kept: list[str] = []
    for number, sentence in enumerate(sentences):
        if number < size:
            kept.append(sentence)
        elif (place := generator.randint(0, number)) < size:
            kept[place] = sentence
    return kept


def _texts(inputs: Sequence[Path], text_key: str, refused: dict[str, int]) -> Iterator[str]:
    for path in inputs:
        reader = FileReader(path, ReadOptions())
        for record in reader:
            if isinstance(record, Fault):
                refused[record.reason] = refused.get(record.reason, 0) + 1
                continue
            try:
                yield record_text(record.value, (text_key,))
            except RecordError as error:
                refused[error.reason] = refused.get(error.reason, 0) + 1
        if reader.damage is not None:
            raise TokenizerError(f"{path} cannot be read to its end: {reader.damage}.")
