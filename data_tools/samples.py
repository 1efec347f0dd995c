"""What a record of each kind becomes: a document one sequence, a dialogue one with its loss mask, a pair two.

The seam between the machinery of an indexing run (shards, workers, counts) and the kinds of data. A kind is a
`SampleEncoder`, found by `sample_encoder`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.chat import ChatEncoder, Turns, get_template
from data_tools.files import ReadOptions
from data_tools.records import (
    PAIR_FIELDS,
    Messages,
    RecordError,
    answered,
    dialogue_messages,
    pair_messages,
    record_text,
)
from data_tools.tokenizers import LONG_DOCUMENT, Tokenizer
from data_tools.truncation import ANSWER_CUT, TURNS_DROPPED, Fitted, fit_dialogue, fit_pair

Array = npt.NDArray[Any]

DOCUMENTS, DIALOGUES, PAIRS = "documents", "dialogues", "pairs"
KINDS = (DOCUMENTS, DIALOGUES, PAIRS)
TRUNCATED, TRAILING_USER = "truncated", "trailing_user"
CHAT_NOTES = (TRUNCATED, TURNS_DROPPED, ANSWER_CUT, TRAILING_USER)  # what is counted of samples that are kept
DEFAULT_MAX_LENGTH = 2048
_SHORTEST = 2  # tokens: one to predict from, one to predict


@dataclass(frozen=True)
class IndexOptions:
    """What decides the tokens, apart from the inputs and the tokenizer.

    `text_keys` are those of documents; `template` (a name) and `max_length` (tokens per sequence) belong to dialogues
    and pairs.

    Raises:
        ValueError: an unknown kind or template, or options that do not go with it.
    """

    text_keys: tuple[str, ...] = ("text",)
    id_key: str = "id"
    read: ReadOptions = field(default_factory=ReadOptions)
    kind: str = DOCUMENTS
    template: str | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there are no {self.kind!r} to index: the kinds are {', '.join(KINDS)}")
        if self.kind == DOCUMENTS:
            if self.template is not None or self.max_length is not None:
                raise ValueError("a template and a maximal length are for dialogues and pairs: give their --kind too")
            return
        if self.template is None:
            raise ValueError(f"{self.kind} are rendered with a chat template: give --template, such as chatml")
        get_template(self.template)
        if self.text_keys != ("text",):
            raise ValueError(f"{self.kind} have messages and no text: leave --text-key out")
        if self.max_length is None:
            object.__setattr__(self, "max_length", DEFAULT_MAX_LENGTH)
        elif self.max_length < _SHORTEST:
            raise ValueError(
                f"no sample fits into {self.max_length} tokens: give a --max-length of {_SHORTEST} or more"
            )


class Content(NamedTuple):
    """The checked content of a record: what its encoder encodes, and the texts in it, to be measured."""

    sample: Any
    texts: Sequence[str]


class Encoded(NamedTuple):
    """A batch of samples as tokens, in order, without those that were refused.

    tokens: integers [all tokens]. mask: uint8, as long, 1 where a token is trained; None for documents, which are
    trained throughout. lengths: int64 [sequences]. refused: (place in the batch, why). notes: samples by what was done
    to them.
    """

    tokens: Array
    mask: Array | None
    lengths: Array
    refused: list[tuple[int, RecordError]]
    notes: Counter[str]


class SampleEncoder(Protocol):
    """One kind of sample.

    kind: its name. masked: whether its loss masks are written too. sequences: of each sample. columns: the fields of a
    record that are read. digest: of everything that decides its tokens, beside the options.
    """

    kind: str
    masked: bool
    sequences: int
    columns: tuple[str, ...]
    tokenizer: Tokenizer
    digest: str

    def read(self, value: object) -> Content:
        """Check a parsed record.

        Raises:
            RecordError: it cannot be used.
        """

    def encode(self, samples: Sequence[Any]) -> Encoded:
        """Encode what `read` found in several records."""

    def facts(self) -> dict[str, Any]:
        """What a manifest says about the kind."""


def sample_encoder(options: IndexOptions, tokenizer: Tokenizer) -> SampleEncoder:
    """The encoder of `options.kind`.

    Raises:
        TokenizerError: it lacks a control token of the template.
    """
    if options.kind == DOCUMENTS:
        return DocumentEncoder(options, tokenizer)
    return ChatSampleEncoder(CHAT_SAMPLES[options.kind], options, tokenizer)


class DocumentEncoder:
    """A document is one sequence and ends in the end-of-document id."""

    kind, masked, sequences = DOCUMENTS, False, 1

    def __init__(self, options: IndexOptions, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.columns = (*options.text_keys, options.id_key)
        self.digest = f"{tokenizer.digest} {tokenizer.eod_id}"
        self._text_keys = options.text_keys
        self._eod = np.array([tokenizer.eod_id], np.int32)

    def read(self, value: object) -> Content:
        text = record_text(value, self._text_keys)
        return Content(text, (text,))

    def encode(self, samples: Sequence[str]) -> Encoded:
        if len(samples) == 1 and len(samples[0]) > LONG_DOCUMENT:
            encoded = [self.tokenizer.encode_long(samples[0])]
        else:
            encoded = self.tokenizer.encode_batch(samples)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        refused = []
        if not lengths.all():  # such as a lone zero-width space, which some tokenizers drop
            error = RecordError("no-tokens", "the tokenizer makes no token of this text")
            refused = [(int(place), error) for place in np.flatnonzero(lengths == 0)]
            kept = np.flatnonzero(lengths)
            encoded, lengths = [encoded[i] for i in kept], lengths[kept]
        parts = [self._eod] * (2 * len(encoded))
        parts[::2] = encoded
        return Encoded(_joined(parts, np.int32), None, lengths + 1, refused, Counter())

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind}


class ChatSamples(NamedTuple):
    """A kind that is made of conversations.

    fields: of a record. sequences: of a sample. read: a parsed record to its lists of messages. conversations: those
    lists to what is rendered, one conversation a sequence, and the number of its messages that are context only. fit:
    the rendered conversations and `max_length` to what is written. notes: what else to count of a sample that is kept.
    """

    name: str
    fields: tuple[str, ...]
    sequences: int
    read: Callable[[object], tuple[Messages, ...]]
    conversations: Callable[[tuple[Messages, ...]], tuple[tuple[Messages, int], ...]]
    fit: Callable[[Sequence[Turns], int], Fitted]
    notes: Callable[[tuple[Messages, ...]], tuple[str, ...]]


# What the user says last and nobody answers is left out.
_DIALOGUES = ChatSamples(
    name=DIALOGUES,
    fields=("messages",),
    sequences=1,
    read=lambda value: (dialogue_messages(value),),
    conversations=lambda lists: ((answered(lists[0]), 0),),
    fit=lambda turns, max_length: fit_dialogue(turns[0], max_length),
    notes=lambda lists: (TRAILING_USER,) if answered(lists[0]) != lists[0] else (),
)
_PAIRS = ChatSamples(
    name=PAIRS,
    fields=(*PAIR_FIELDS, "kind"),
    sequences=2,
    read=pair_messages,
    conversations=lambda lists: tuple((lists[0] + answer, len(lists[0])) for answer in lists[1:]),
    fit=lambda turns, max_length: fit_pair(turns[0], turns[1], max_length),
    notes=lambda lists: (),
)
CHAT_SAMPLES = {samples.name: samples for samples in (_DIALOGUES, _PAIRS)}


def render(kind: ChatSamples, samples: Sequence[tuple[Messages, ...]], encoder: ChatEncoder) -> list[Turns]:
    """The sequences of what `kind.read` found in several records, in order and whole.

    Raises:
        RecordError: the template cannot render one of them.
    """
    conversations = [item for lists in samples for item in kind.conversations(lists)]
    return encoder.encode_batch(
        [messages for messages, _ in conversations], trained_from=[context for _, context in conversations]
    )


class ChatSampleEncoder:
    """Dialogues or pairs: conversations in, sequences with masks out. The template closes a sequence."""

    masked = True

    def __init__(self, samples: ChatSamples, options: IndexOptions, tokenizer: Tokenizer) -> None:
        assert options.template is not None
        assert options.max_length is not None
        self.kind = samples.name
        self.sequences = samples.sequences
        self.tokenizer = tokenizer
        self.columns = (*samples.fields, options.id_key)
        self._samples = samples
        self._max_length = options.max_length
        self._template = get_template(options.template)
        self._encoder = ChatEncoder(self._template, tokenizer)
        self.digest = f"{tokenizer.digest} {tokenizer.eod_id} {self._template.digest}"

    def read(self, value: object) -> Content:
        lists = self._samples.read(value)
        for conversation, _ in self._samples.conversations(lists):
            self._template.check(conversation)
        return Content(lists, [message["content"] for messages in lists for message in messages])

    def encode(self, samples: Sequence[tuple[Messages, ...]]) -> Encoded:
        rendered = render(self._samples, samples, self._encoder)
        tokens: list[Array] = []
        masks: list[Array] = []
        refused: list[tuple[int, RecordError]] = []
        notes: Counter[str] = Counter()
        for place, lists in enumerate(samples):
            turns = rendered[place * self.sequences : (place + 1) * self.sequences]
            try:
                fitted = self._samples.fit(turns, self._max_length)
            except RecordError as error:
                refused.append((place, error))
                continue
            for sequence in fitted.sequences:
                tokens.append(sequence.tokens_N)
                masks.append(sequence.mask_N)
            notes.update(self._samples.notes(lists))
            if fitted.cut:
                notes.update((TRUNCATED, fitted.cut))
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        return Encoded(_joined(tokens, np.int32), _joined(masks, np.uint8), lengths, refused, notes)

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "template": {"name": self._template.name, "digest": self._template.digest}}


def _joined(parts: Sequence[Array], dtype: npt.DTypeLike) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
