"""BPE of any origin, encoded by gigatoken where it proves exact and by Hugging Face's tokenizers elsewhere.

All three BPE kinds (vocab.json + merges.txt, tokenizer.json, .tiktoken) become one tokenizer.json
specification, so that one fast path and one reference serve them.
"""

import functools
import itertools
import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gigatoken
import numpy as np
import orjson
import tokenizers

from data_tools.tokenizers.byte_symbols import byte_symbols
from data_tools.tokenizers.long_text import BpeCutter
from data_tools.tokenizers.offsets import spans_by_length
from data_tools.tokenizers.protocol import TokenizerError, digest_of, refuse_lone_surrogates
from data_tools.tokenizers.special_tokens import SpecialTokens, read_json

_log = logging.getLogger(__name__)

# What encoders of this family have been seen to differ on. gigatoken serves only where every line agrees.
PARITY_PROBE = (
    "",
    " ",
    "a",
    "Hello, world!  It's 2024; we'll've don't CAN'T I'M they'RE 'mode' 'sit' ''quoted'' rock'n'roll",
    "患者，男，45岁，因“反复咳嗽、咳痰3年，加重伴气促1周”入院。血压138/92mmHg，体温38.5℃。",
    "麻黄汤：麻黄（去节）三两、桂枝二两、杏仁七十个、甘草（炙）一两。右四味，以水九升，先煮麻黄……",
    "繁體中文與简体混排、日本語のテキスト、한국어 문장, Ελληνικά, русский текст, العربية, עברית, हिन्दी, ไทย",
    "café cafe\u0301 naïve ﬁne ½ ² ① Ⅳ ㎎ ㏒ ＡＢＣ１２３ ｶﾀｶﾅ Å Å",
    "😀👩‍👩‍👧‍👦🇨🇳👍🏽 ❤️ \u200b\u200d\ufeff\u00a0\u3000\u2028\u2029 \u0300\u0301",
    "\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x85\xad \ufffd \uffff \U0010ffff",
    " leading", "trailing ", "a  b   c    d\t\te \t f", "。\n\n，\r\n！ \n",
    "line\nline\r\nline\r\n\r\n\n\n  indented\n \n",
    "def f(x):\n    return {'a': [1, 2.5e-3], \"b\": x**2 != 3}  # TODO\n\t\tif x <= 10_000: pass\n",
    "https://example.org/a?b=c&d=%20#e user@example.com C:\\path\\file.txt <html><b>&nbsp;</b></html>",
    "1234567890 3.14159 1,000,000 0x1F 1e10 ١٢٣ 一二三 IL-6 TNF-α β2 HbA1c 10^9/L μg/mL",
    "<s> </s> <unk> <pad> [CLS] [MASK] <|endoftext|> <|im_start|>user\nhi<|im_end|>",
    "<|startofpiece|>a<|endofpiece|>",
    "a" * 3000, "ab" * 1500, " " * 1500, "\n" * 700, "中" * 1500, "。" * 700, "中医" * 800,
    "9" * 1000, "!?" * 500,
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里",
)  # fmt: skip


class BpeTokenizer:
    """A `Tokenizer` over a tokenizer.json specification."""

    def __init__(
        self,
        name: str,
        kind: str,
        specification: dict[str, Any],
        special: SpecialTokens,
        contents: dict[str, Path],
        *,
        threads: int = 1,
    ) -> None:
        self.name = name
        self.kind = kind
        self.special_tokens = dict(special.ids)
        self.eod_id = special.ids[special.eod]
        self.bos_id, self.eos_id = special.id_of(special.bos), special.id_of(special.eos)
        self.pad_id = special.id_of(special.pad)
        self.files = list(contents.values())
        self.digest = digest_of(kind, {role: path.read_bytes() for role, path in contents.items()})
        self._special = special
        self._specification = specification
        vocabulary: dict[str, int] = specification["model"]["vocab"]
        added_ids = [token["id"] for token in specification.get("added_tokens", [])]
        self.vocab_size = 1 + max(max(vocabulary.values()), *special.ids.values(), *added_ids)

        self._threads = threads

    @property
    def backend(self) -> str:
        return "tokenizers" if self._fast is None else "gigatoken"

    # Encoders are made when first needed: who only asks for ids and the digest does not wait for them.

    @functools.cached_property
    def _text_only(self) -> str:
        return orjson.dumps(text_only_specification(self._specification, self._special)).decode()

    @functools.cached_property
    def _reference(self) -> tokenizers.Tokenizer:
        try:
            return tokenizers.Tokenizer.from_str(self._text_only)
        except Exception as error:  # what tokenizers raises for every fault in a file
            raise TokenizerError(f"{self.name}: the tokenizers library refuses this tokenizer: {error}.") from error

    @functools.cached_property
    def _fast(self) -> gigatoken.Tokenizer | None:
        return _exact_gigatoken(self._text_only, self._reference, self._special)

    def encode(self, text: str) -> list[int]:
        if self._fast is None:
            return self.encode_batch([text])[0].tolist()
        refuse_lone_surrogates([text])
        return self._fast.encode(text).tolist()

    def encode_batch(self, texts: Sequence[str], *, continues: bool = False) -> list[np.ndarray]:
        if continues and self._continuation is not self:
            return self._continuation.encode_batch(texts)
        batch = list(texts)
        try:
            if self._fast is not None:
                return _encode_with_gigatoken(self._fast, batch, parallel=self._threads > 1)
            if self._threads > 1:
                encodings = self._reference.encode_batch_fast(batch, add_special_tokens=False)
            else:
                # One by one: encode_batch would start a thread per core, in every worker process.
                encodings = [self._reference.encode(text, add_special_tokens=False) for text in batch]
        except (TypeError, UnicodeEncodeError):
            refuse_lone_surrogates(batch)
            raise
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_spans(self, texts: Sequence[str], *, continues: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
        if continues and self._continuation is not self:
            return self._continuation.encode_spans(texts)
        found = []
        for text, ids in zip(texts, self.encode_batch(texts)):
            spans = None
            if self._byte_lengths is not None and (self._keeps_text or unicodedata.is_normalized("NFC", text)):
                spans = spans_by_length(text, ids, self._byte_lengths)
            if spans is None:
                encoding = self._reference.encode(text, add_special_tokens=False)
                ids = np.array(encoding.ids, dtype=np.int32)
                spans = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
            found.append((ids, spans))
        return found

    def encode_long(self, text: str) -> np.ndarray:
        pieces = [self.encode_batch([piece])[0] for piece in self._cutter.pieces(text)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def decode(self, ids: Sequence[int]) -> str:
        return self._whole.decode([int(number) for number in ids], skip_special_tokens=False)

    def save_pretrained(self, directory: str | Path) -> list[Path]:
        """Writes tokenizer.json and tokenizer_config.json, beside copies of the files it was read from."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        written = []
        for source in self.files:
            if source.name != "tokenizer_config.json":
                target = directory / source.name
                target.write_bytes(source.read_bytes())
                written.append(target)
        if directory / "tokenizer.json" not in written:
            self._whole.save(str(directory / "tokenizer.json"))
            written.append(directory / "tokenizer.json")
        config = directory / "tokenizer_config.json"
        config.write_bytes(orjson.dumps(self._configuration(), option=orjson.OPT_INDENT_2) + b"\n")
        return [*written, config]

    def _configuration(self) -> dict[str, Any]:
        source = next((path for path in self.files if path.name == "tokenizer_config.json"), None)
        given: dict[str, Any] = read_json(source) if source is not None else {}
        roles = {
            "bos": self._special.bos,
            "eos": self._special.eos or self._special.eod,
            "pad": self._special.pad,
        }
        # The classes that 2023 configs name (GPT2Tokenizer, remote code) do not take tokenizer.json as it is.
        given = {key: value for key, value in given.items() if key not in ("auto_map", "tokenizer_file")}
        return given | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            **{f"{role}_token": token for role, token in roles.items() if token is not None},
        }

    @functools.cached_property
    def _whole(self) -> tokenizers.Tokenizer:
        """The tokenizer with its special tokens, for decoding and export."""
        whole = tokenizers.Tokenizer.from_str(orjson.dumps(self._specification).decode())
        by_id = sorted((number, token) for token, number in self._special.ids.items())
        whole.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for _, token in by_id])
        for number, token in by_id:
            if whole.token_to_id(token) != number:
                raise TokenizerError(
                    f"{self.name}: special token {token!r} has id {number}, which leaves a gap after the "
                    "vocabulary: give a tokenizer.json that lists it under added_tokens."
                )
        return whole

    @functools.cached_property
    def _continuation(self) -> "BpeTokenizer":
        """This tokenizer as it encodes behind a control token: without the blank that only the first text gets."""
        inner = _without_first_blank(self._specification)
        if inner is None:
            return self
        contents = {path.name: path for path in self.files}
        return BpeTokenizer(self.name, self.kind, inner, self._special, contents, threads=self._threads)

    @property
    def _keeps_text(self) -> bool:
        return self._specification["normalizer"] is None

    @functools.cached_property
    def _byte_lengths(self) -> np.ndarray | None:
        """int32 [vocab_size], the bytes of each id, 0 for control tokens; None where tokens are not bytes."""
        if self._specification["normalizer"] not in (None, {"type": "NFC"}) or not _is_byte_level(self._specification):
            return None
        symbols = set(byte_symbols())
        lengths = np.zeros(self.vocab_size, np.int32)
        for token, number in self._specification["model"]["vocab"].items():
            if token not in self._special.ids and symbols.issuperset(token):
                lengths[number] = len(token)
        for added in self._specification.get("added_tokens", []):
            if added["content"] not in self._special.ids and not added["special"]:
                lengths[added["id"]] = len(added["content"].encode())
        return lengths

    @functools.cached_property
    def _cutter(self) -> BpeCutter:
        return BpeCutter.for_specification(self._specification)


def text_only_specification(specification: dict[str, Any], special: SpecialTokens) -> dict[str, Any]:
    """A tokenizer.json that can never produce a control id from text.

    Special added tokens and the post-processor go; a control token that is in the vocabulary is renamed to
    a text with a blank in it, which no BPE symbol holds, and the merges that would build it go too. Added
    tokens that are not special stay: they are text.
    """
    model = dict(specification["model"])
    renamed = {token: f"{token} " for token in special.ids}
    model["vocab"] = {renamed.get(token, token): number for token, number in model["vocab"].items()}
    unknown = model.get("unk_token")
    model["unk_token"] = renamed.get(unknown, unknown) if unknown is not None else None
    model["merges"] = [pair for pair in map(split_merge, model["merges"]) if "".join(pair) not in special.ids]
    kept = [
        token
        for token in specification.get("added_tokens", [])
        if not token.get("special", False) and token["content"] not in special.ids
    ]
    nothing = {"truncation": None, "padding": None, "post_processor": None}
    return specification | nothing | {"added_tokens": kept, "model": model}


def _steps(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenizer's steps, in order."""
    pre_tokenizer = specification["pre_tokenizer"]
    return [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])


def _is_byte_level(specification: dict[str, Any]) -> bool:
    """Whether its tokens are written in byte symbols, and no blank is put before a text."""
    steps = _steps(specification)
    return any(step["type"] == "ByteLevel" for step in steps) and not any(
        step.get("add_prefix_space") for step in steps
    )


def _without_first_blank(specification: dict[str, Any]) -> dict[str, Any] | None:
    """The specification with Metaspace's `first` turned to `never`; None where it has none."""
    steps = _steps(specification)
    if not any(step.get("prepend_scheme") == "first" for step in steps):
        return None
    inner = [step | {"prepend_scheme": "never"} if step.get("prepend_scheme") == "first" else step for step in steps]
    return specification | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": inner}}


def split_merge(merge: str | list[str]) -> list[str]:
    """A merge is written `"a b"` in older files and `["a", "b"]` in newer ones."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _encode_with_gigatoken(fast: gigatoken.Tokenizer, batch: list[str], *, parallel: bool) -> list[np.ndarray]:
    layout = fast.encode_batch(batch, parallel=parallel).layout
    ids = np.asarray(layout.content.data).view(np.int32)
    ends = np.asarray(layout.offsets.data).tolist()
    return [ids[start:end] for start, end in itertools.pairwise(ends)]


def _exact_gigatoken(
    specification: str, reference: tokenizers.Tokenizer, special: SpecialTokens
) -> gigatoken.Tokenizer | None:
    """gigatoken over `specification` if it gives the reference's ids on the parity probe, else None."""
    try:
        fast = gigatoken.Tokenizer.from_json(specification)
    except (RuntimeError, ValueError) as error:
        _log.warning("gigatoken cannot load this tokenizer (%s): encoding with the slower tokenizers library", error)
        return None
    probe = [*PARITY_PROBE, *special.ids, "x".join(special.ids), "\n".join(PARITY_PROBE[:20])]
    for text, in_batch in zip(probe, fast.encode_batch_list(probe, parallel=False)):
        expected = reference.encode(text, add_special_tokens=False).ids
        if in_batch != expected or fast.encode(text).tolist() != expected:
            _log.warning("gigatoken differs on %r: encoding with the slower tokenizers library", text[:60])
            return None
    return fast
