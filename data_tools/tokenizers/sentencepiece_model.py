"""Sentencepiece `.model`: BPE or unigram, encoded by sentencepiece itself."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import sentencepiece

from data_tools.tokenizers.long_text import PIECE_CHARACTERS, cut
from data_tools.tokenizers.offsets import spans_by_length
from data_tools.tokenizers.protocol import TokenizerError, digest_of, refuse_lone_surrogates
from data_tools.tokenizers.special_tokens import read_json, special_files

# Between characters that normalisation maps one by one (no combining marks, no Hangul), or before a blank.
_STABLE = "!-~\u4e00-\u9fff，。、；：？！“”（）《》"
_CANDIDATES = re.compile(rf"(?<=[{_STABLE}])(?=[ {_STABLE}])")
# Protobuf messages merge when their bytes are joined, so this turns off normalizer_spec (field 3)
# .add_dummy_prefix (field 3); sentencepiece 0.2.3 has no call for it.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
_BLANK = "\u2581"


def load(path: Path, *, eod: str | None, threads: int) -> "SentencePieceTokenizer":
    """A document ends with the model's eos unless `eod` names another control token."""
    return SentencePieceTokenizer(path, eod=eod, threads=threads)


class SentencePieceTokenizer:
    """A `Tokenizer` over a sentencepiece model, which itself leaves control pieces in a text as text."""

    kind = "sentencepiece"
    backend = "sentencepiece"

    def __init__(self, path: Path, *, eod: str | None, threads: int) -> None:
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise TokenizerError(f"{path} is not a sentencepiece model: {error}.") from error
        self._processor = processor
        self._threads = threads
        contents = {"model": path} | special_files(path.parent)
        self.name = path.resolve().parent.name if path.name == "tokenizer.model" else path.stem
        self.files = list(contents.values())
        self.digest = digest_of(self.kind, {role: file.read_bytes() for role, file in contents.items()})
        pieces = range(processor.get_piece_size())
        special = {processor.id_to_piece(k): k for k in pieces if processor.is_control(k) or processor.is_unknown(k)}
        self._config: dict[str, Any] = (
            read_json(contents["tokenizer_config.json"]) if "tokenizer_config.json" in contents else {}
        )
        for number, token in self._config.get("added_tokens_decoder", {}).items():
            special.setdefault(token["content"], int(number))
        if "added_tokens.json" in contents:
            for token, number in read_json(contents["added_tokens.json"]).items():
                special.setdefault(token, int(number))
        self.special_tokens = special
        self.vocab_size = 1 + max(len(pieces) - 1, *special.values())
        self.bos_id, self.eos_id, self.pad_id = (
            number if number >= 0 else None for number in (processor.bos_id(), processor.eos_id(), processor.pad_id())
        )
        if eod is not None and eod not in special:
            raise TokenizerError(f"{path} has no control token {eod!r}: its control tokens are {', '.join(special)}.")
        end = special[eod] if eod is not None else self.eos_id
        if end is None:
            raise TokenizerError(f"{path} has no eos token to end a document with: name one with eod=….")
        self.eod_id = end

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> list[np.ndarray]:
        return self._encode(self._continuation if continues else self._processor, list(texts))

    def encode_spans(self, texts: Sequence[str], *, continues: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        processor = self._continuation if continues else self._processor
        found = []
        for text, ids in zip(texts, self._encode(processor, list(texts))):
            spans = spans_by_length(text, ids, self._byte_lengths) if self._keeps_text else None
            if spans is None:
                spans = _own_spans(processor, text)
            found.append((ids, spans))
        return found

    def encode_long(self, text: str) -> np.ndarray:
        """Cuts for BPE only: a unigram model sums its scores over the whole text in float32, so that in a
        long one even far-off text can tip a close choice.
        """
        if len(text) <= PIECE_CHARACTERS or not self._is_bpe:
            return self.encode_batch([text])[0]
        pieces = cut(text, self._is_exact, [_CANDIDATES])
        first = self.encode_batch([next(pieces)])[0]
        return np.concatenate([first, *(self._encode(self._continuation, [piece])[0] for piece in pieces)])

    def decode(self, ids: Sequence[int]) -> str:
        """sentencepiece drops control pieces; here they come out as their text."""
        added = {number: token for token, number in self.special_tokens.items()}
        parts: list[str] = []
        run: list[int] = []
        for number in map(int, ids):
            if number in added:
                parts += [self._processor.decode(run), added[number]]
                run = []
            else:
                run.append(number)
        return "".join([*parts, self._processor.decode(run)])

    def save_pretrained(self, directory: str | Path) -> list[Path]:
        """Writes tokenizer.model and its tokenizer_config.json, made where there was none.

        A model that puts a blank before a text (none trained here does) gives other ids in transformers for a
        text that itself begins with a blank.

        Raises `TokenizerError` for a model without one that also normalises (NFKC and the like): which
        transformers class does the same is not said in the model.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        model, *others = self.files
        contents = {"tokenizer.model": model.read_bytes()}
        contents |= {path.name: path.read_bytes() for path in others}
        contents |= self._missing_files()
        for name, content in contents.items():
            (directory / name).write_bytes(content)
        return [directory / name for name in contents]

    def _missing_files(self) -> dict[str, bytes]:
        if self._config:
            return {}
        if not self._keeps_text:
            raise TokenizerError(
                f"{self.files[0]} normalises text, so it needs the tokenizer_config.json (and tokenizer.json) "
                "that its publisher gives for transformers: put them beside it."
            )
        sp = self._processor
        roles = {"unk": sp.unk_id(), "bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        prefix = sp.normalize("a") != "a"
        configuration = {
            "tokenizer_class": "LlamaTokenizer" if self._is_bpe else "PreTrainedTokenizerFast",
            **{f"{role}_token": sp.id_to_piece(k) for role, k in roles.items() if k is not None},
            "add_bos_token": False,
            "add_eos_token": False,
            "add_prefix_space": prefix,
            # `legacy` would put a blank after every control token.
            "legacy": False,
            "clean_up_tokenization_spaces": False,
        }
        files = {"tokenizer_config.json": _json(configuration)}
        if not self._is_bpe:
            # transformers has no unigram class without a normaliser, so the tokenizer is written out.
            files["tokenizer.json"] = _json(self._unigram_specification(prefix))
        return files

    def _unigram_specification(self, prefix: bool) -> dict[str, Any]:
        """This unigram model as a tokenizer.json."""
        sp = self._processor
        ids = range(sp.get_piece_size())
        controls = [(k, sp.id_to_piece(k)) for k in ids if sp.is_control(k) or sp.is_unknown(k)]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        decoders: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": _BLANK}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
        ]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": piece, **flags} for number, piece in controls],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": _BLANK,
                "prepend_scheme": "first" if prefix else "never",
                "split": False,
            },
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "Unigram",
                "unk_id": sp.unk_id(),
                "byte_fallback": any(map(sp.is_byte, ids)),
                "vocab": [[sp.id_to_piece(k), sp.get_score(k)] for k in ids],
            },
        }

    def _encode(self, processor: sentencepiece.SentencePieceProcessor, texts: list[str]) -> list[np.ndarray]:
        refuse_lone_surrogates(texts)
        return processor.encode(texts, return_type="numpy", num_threads=self._threads)

    @functools.cached_property
    def _continuation(self) -> sentencepiece.SentencePieceProcessor:
        """The same model without the blank that sentencepiece may put before a text."""
        proto = self._processor.serialized_model_proto() + _NO_DUMMY_PREFIX
        return sentencepiece.SentencePieceProcessor(model_proto=proto)

    @functools.cached_property
    def _keeps_text(self) -> bool:
        """Whether it neither normalises characters nor drops blanks."""
        return self._continuation.normalize("Ａ ①  ﬁ") == "Ａ ①  ﬁ".replace(" ", _BLANK)

    @functools.cached_property
    def _byte_lengths(self) -> np.ndarray:
        """int32 [vocab_size], the bytes of text of each id; 0 for control pieces and `<unk>`."""
        sp = self._processor
        lengths = np.zeros(self.vocab_size, np.int32)
        for number in range(sp.get_piece_size()):
            if sp.is_byte(number):
                lengths[number] = 1
            elif not (sp.is_control(number) or sp.is_unknown(number)):
                lengths[number] = len(sp.id_to_piece(number).replace(_BLANK, " ").encode())
        return lengths

    @functools.cached_property
    def _is_bpe(self) -> bool:
        """BPE scores are whole ranks, unigram scores are log probabilities."""
        sp = self._processor
        ids = (k for k in range(sp.get_piece_size()) if not (sp.is_control(k) or sp.is_unknown(k) or sp.is_byte(k)))
        return all(sp.get_score(k).is_integer() for k in ids)

    @functools.cached_property
    def _inside_pieces(self) -> tuple[frozenset[str], frozenset[str]]:
        """Characters that are pieces, and pairs of neighbours inside any piece."""
        pieces = [self._processor.id_to_piece(k) for k in range(self._processor.get_piece_size())]
        pairs = frozenset(piece[k : k + 2] for piece in pieces for k in range(len(piece) - 1))
        return frozenset(piece for piece in pieces if len(piece) == 1), pairs

    @functools.cached_property
    def _keeps_blanks(self) -> bool:
        """Whether a leading blank survives, so that a piece may begin with one."""
        return self._continuation.normalize("  a") == f"{_BLANK}{_BLANK}a"

    def _is_exact(self, text: str, place: int) -> bool:
        """No piece of the vocabulary holds the two characters at `place` side by side, so no merge joins
        them.

        The left one must be a piece itself: unknown neighbours become one `<unk>`.
        """
        if text[place] == " " and not self._keeps_blanks:
            return False
        characters, pairs = self._inside_pieces
        left, right = (self._continuation.normalize(character) for character in text[place - 1 : place + 1])
        return left[-1:] in characters and bool(right) and left[-1] + right[0] not in pairs


def _own_spans(processor: sentencepiece.SentencePieceProcessor, text: str) -> np.ndarray:
    """int32 [n, 2], sentencepiece's own offsets. Of the bytes of a character that has no piece it gives the
    character to the last one alone; here each of them has it.
    """
    encoding = processor.encode(text, return_type="offset_mapping")
    spans = np.array(encoding["offsets"], dtype=np.int32).reshape(-1, 2)
    for place in range(len(spans) - 2, -1, -1):
        is_byte = processor.is_byte(encoding["ids"][place])
        if is_byte and spans[place, 0] == spans[place, 1] == spans[place + 1, 0]:
            spans[place, 1] = spans[place + 1, 1]
    return spans


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n"
