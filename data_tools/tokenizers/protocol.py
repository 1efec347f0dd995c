"""What every tokenizer here can do, whatever files it came from."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

LONG_DOCUMENT = 4 << 20  # characters; longer texts are for `encode_long`


class TokenizerError(ValueError):
    """A tokenizer that cannot be loaded, or text that none can encode; the message says what to do."""


class Tokenizer(Protocol):
    """Text ↔ ids. Encoding sees text only: a literal `</s>` or `<|im_end|>` in a text stays text.

    Special ids are put in by whoever lays out a sequence (`eod_id` after a document, the chat template).
    """

    @property
    def name(self) -> str:
        """The directory or file it was loaded from, without its path."""

    @property
    def kind(self) -> str:
        """`byte_level_bpe`, `tokenizer_json`, `sentencepiece` or `tiktoken`."""

    @property
    def backend(self) -> str:
        """The library that encodes: `gigatoken`, `tokenizers` or `sentencepiece`."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, special tokens included."""

    @property
    def eod_id(self) -> int:
        """The id that ends a document in a training corpus."""

    @property
    def bos_id(self) -> int | None: ...

    @property
    def eos_id(self) -> int | None: ...

    @property
    def pad_id(self) -> int | None:
        """None where the tokenizer names no padding token."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """Every control token and its id."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the kind and the contents of its files; where the files lie does not matter."""

    @property
    def files(self) -> list[Path]:
        """The files it was read from."""

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> list[np.ndarray]:
        """One int32 array of ids per text, the same ids as `encode`. The fast path.

        `continues` says that the texts stand behind a control token: a tokenizer that puts a blank before a
        text puts none there, as transformers does.

        Raises `TokenizerError` for a text that is not valid Unicode (a lone surrogate).
        """

    def encode_spans(self, texts: Sequence[str], *, continues: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids of `encode_batch`, each array with the characters that its tokens hold.

        These are int32 [n, 2]: the first character that a token holds, and one more than the last, in the text
        as it was given. Of a character that several tokens share, each of them holds it. A token that stands for
        no character of the text (a blank put before it) has an empty span.
        """

    def encode_long(self, text: str) -> np.ndarray:
        """The same ids as `encode`, int32, for a document of many megabytes: in pieces of bounded memory."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens come out as their literal text."""

    def save_pretrained(self, directory: str | Path) -> list[Path]:
        """Writes what `transformers.AutoTokenizer.from_pretrained(directory)` needs to give the same ids.

        Returns the files written.
        """


def digest_of(kind: str, contents: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over a tokenizer's kind and its files, each under the role it plays (not its path)."""
    digest = hashlib.sha256(kind.encode())
    for role in sorted(contents):
        digest.update(f"\0{role}\0{len(contents[role])}\0".encode())
        digest.update(contents[role])
    return digest.hexdigest()


def refuse_lone_surrogates(texts: Iterable[str]) -> None:
    """Raises `TokenizerError` at the first text that UTF-8 cannot hold."""
    for number, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"text {number} of the batch holds a lone surrogate U+{ord(text[error.start]):04X} "
                f"at character {error.start}, which is not valid Unicode: repair it or drop the record."
            ) from error
