"""What a line of data means: documents, dialogues, preference pairs and questions, read from parsed JSON and checked
field by field.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DOCUMENT_FIELDS = ("id", "text", "lang", "source", "meta")
PAIR_FIELDS = ("prompt", "chosen", "rejected")
ROLES = ("system", "user", "assistant")
PAIR_KINDS = ("subjective", "objective")

Message = dict[str, str]  # {"role", "content"}
Messages = tuple[Message, ...]


class RecordError(ValueError):
    """A record that cannot be used: `reason` is the short name it is counted under, `detail` one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def stable_id(source_file: str, offset: int) -> str:
    """The id of a record that has none: 16 hex digits of BLAKE2b over the file's name and the byte offset."""
    return hashlib.blake2b(f"{source_file}\0{offset}".encode(), digest_size=8).hexdigest()


def record_text(value: object, text_keys: Sequence[str] = ("text",)) -> str:
    """The text of a parsed record: the values under `text_keys`, joined by a newline when there are several.

    NUL is text. A lone surrogate is not: no encoding can hold it, and every tokenizer refuses it.

    Raises:
        RecordError: `not-an-object`, `no-text` (key missing or null), `text-not-a-string`, `blank-text`,
            `lone-surrogate`.
    """
    record = _object(value)
    parts = []
    for key in text_keys:
        part = record.get(key)
        if part is None:
            raise RecordError("no-text", f"the record has no {key!r}; its keys are {_keys(record)}")
        if not isinstance(part, str):
            raise RecordError("text-not-a-string", f"{key!r} must be a string, it is {_kind(part)}")
        parts.append(part)
    text = parts[0] if len(parts) == 1 else "\n".join(parts)
    if not text or text.isspace():
        raise RecordError("blank-text", f"{', '.join(map(repr, text_keys))} holds nothing but white space")
    return text


def record_id(value: Mapping[str, Any], id_key: str = "id") -> str | None:
    """The id a record brings along as a string (a whole number is taken as one), or None if it has none.

    Raises:
        RecordError: `bad-id`, for anything but a non-empty string or a whole number.
    """
    found = value.get(id_key)
    if found is None:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found:
        raise RecordError("bad-id", f"{id_key!r} must be a non-empty string or a whole number, it is {found!r:.60}")
    return found


def dialogue_messages(value: object) -> Messages:
    """The messages of a parsed dialogue, {"role", "content"} each; other keys of a message are not read.

    That roles alternate is the chat template's to check. User messages after the last answer may be there.

    Raises:
        RecordError: `not-an-object`, `no-messages` (key missing, null or empty), `bad-messages` (not a list of objects
            with a role out of system, user and assistant and a string as content), `no-answer` (no assistant
            message), `lone-surrogate`.
    """
    messages = _messages(_object(value), "messages")
    if not any(message["role"] == "assistant" for message in messages):
        raise RecordError("no-answer", "'messages' holds no message of the assistant: there is nothing to learn from")
    return messages


def pair_messages(value: object) -> tuple[Messages, Messages, Messages]:
    """Prompt, chosen and rejected messages of a parsed preference pair; each as in `dialogue_messages`.

    Raises:
        RecordError: `not-an-object`, `no-messages`, `bad-messages`, `lone-surrogate` as for a dialogue; `bad-roles`
            (the prompt does not end in a user message, or chosen or rejected do not begin and end in one of the
            assistant), `equal-answers`, `bad-field` (a kind that is not known).
    """
    record = _object(value)
    prompt, chosen, rejected = (_messages(record, key) for key in PAIR_FIELDS)
    if prompt[-1]["role"] != "user":
        raise RecordError("bad-roles", f"'prompt' must end in a message of the user, not of the {prompt[-1]['role']}")
    for key, answer in (("chosen", chosen), ("rejected", rejected)):
        for place in (0, -1):
            if (role := answer[place]["role"]) != "assistant":
                raise RecordError("bad-roles", f"{key!r} must begin and end in the assistant's words, not the {role}'s")
    if chosen == rejected:
        raise RecordError("equal-answers", "'chosen' and 'rejected' are the same: there is nothing to prefer")
    if (kind := _string(record, "kind")) and kind not in PAIR_KINDS:
        raise RecordError("bad-field", f"'kind' must be one of {', '.join(PAIR_KINDS)}, it is {kind!r:.60}")
    return prompt, chosen, rejected


def answered(messages: Messages) -> Messages:
    """`messages` without the user's last ones that nobody answered: they carry no loss."""
    end = len(messages)
    while end and messages[end - 1]["role"] == "user":
        end -= 1
    return messages[:end]


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus. `lang` is a language code or "", `source` says where it came from."""

    id: str
    text: str
    lang: str = ""
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(
        cls,
        value: object,
        *,
        source_file: str,
        offset: int,
        text_keys: Sequence[str] = ("text",),
        id_key: str = "id",
    ) -> "Document":
        """Check a parsed JSON value. Keys that are not a document's own go into `meta`.

        Args:
            value: what the JSON parser returned.
            source_file, offset: where the record stands; they make its id if it has none.

        Raises:
            RecordError: see `record_text` and `record_id`; also `bad-field` when lang or source is not a
            string or
                meta not an object.
        """
        text = record_text(value, text_keys)
        _refuse_surrogates(text)
        assert isinstance(value, dict)
        meta = _mapping(value, "meta")
        own = {*DOCUMENT_FIELDS, *text_keys, id_key}
        return cls(
            id=record_id(value, id_key) or stable_id(source_file, offset),
            text=text,
            lang=_string(value, "lang"),
            source=_string(value, "source"),
            meta={**meta, **{key: item for key, item in value.items() if key not in own}},
        )

    def to_json(self) -> dict[str, Any]:
        """The document as a JSON object, ready for a record writer."""
        return {name: getattr(self, name) for name in DOCUMENT_FIELDS}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation. `scores` maps a scorer's name to what it found; `meta` holds what else is known of it."""

    id: str
    messages: Messages
    lang: str = ""
    source: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, *, source_file: str, offset: int) -> "Dialogue":
        """Check a parsed JSON value.

        Raises:
            RecordError: see `dialogue_messages` and `record_id`; `bad-field`.
        """
        messages = dialogue_messages(value)
        assert isinstance(value, dict)
        scores, meta = (_mapping(value, key) for key in ("scores", "meta"))
        return cls(
            id=record_id(value) or stable_id(source_file, offset),
            messages=messages,
            lang=_string(value, "lang"),
            source=_string(value, "source"),
            scores=scores,
            meta=meta,
        )

    def to_json(self) -> dict[str, Any]:
        """The dialogue as a JSON object, ready for a record writer."""
        return {
            "id": self.id,
            "messages": list(self.messages),
            "lang": self.lang,
            "source": self.source,
            "scores": self.scores,
            "meta": self.meta,
        }


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A better and a worse answer to one prompt, in TRL's conversational layout. `kind`: subjective, objective or
    "".
    """

    id: str
    prompt: Messages
    chosen: Messages
    rejected: Messages
    kind: str = ""

    @classmethod
    def from_json(cls, value: object, *, source_file: str, offset: int) -> "PreferencePair":
        """Check a parsed JSON value.

        Raises:
            RecordError: see `pair_messages` and `record_id`.
        """
        prompt, chosen, rejected = pair_messages(value)
        assert isinstance(value, dict)
        name = record_id(value) or stable_id(source_file, offset)
        return cls(name, prompt, chosen, rejected, _string(value, "kind"))

    def to_json(self) -> dict[str, Any]:
        """The pair as a JSON object, ready for a record writer."""
        return {
            "id": self.id,
            **{key: list(getattr(self, key)) for key in PAIR_FIELDS},
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question. `options` maps a letter to its text, `answer` holds the right letters."""

    id: str
    question: str
    options: dict[str, str]
    answer: tuple[str, ...]
    explanation: str = ""
    source: str = ""
    split: str = ""

    @classmethod
    def from_json(cls, value: object, *, source_file: str, offset: int) -> "Question":
        """Check a parsed JSON value.

        Raises:
            RecordError: as for a document's text, and `bad-options` (fewer than two, or not letter to text),
                `bad-answer` (none, a repeated one, or one that is not among the options), `bad-field`.
        """
        text = record_text(value, ("question",))
        assert isinstance(value, dict)
        options = value.get("options")
        if (
            not isinstance(options, dict)
            or len(options) < 2
            or not all(isinstance(option, str) and option.strip() for option in options.values())
        ):
            raise RecordError("bad-options", "'options' must map at least two letters to non-blank texts")
        answer = value.get("answer")
        if (
            not isinstance(answer, list)
            or not answer
            or not all(isinstance(letter, str) and letter in options for letter in answer)
            or len(set(answer)) != len(answer)
        ):
            raise RecordError(
                "bad-answer", f"'answer' must list letters out of {sorted(options)}, it is {answer!r:.60}"
            )
        for part in (text, *options, *options.values()):
            _refuse_surrogates(part)
        return cls(
            id=record_id(value) or stable_id(source_file, offset),
            question=text,
            options=dict(options),
            answer=tuple(answer),
            explanation=_string(value, "explanation"),
            source=_string(value, "source"),
            split=_string(value, "split"),
        )

    def to_json(self) -> dict[str, Any]:
        """The question as a JSON object, ready for a record writer."""
        return {
            "id": self.id,
            "question": self.question,
            "options": self.options,
            "answer": list(self.answer),
            "explanation": self.explanation,
            "source": self.source,
            "split": self.split,
        }


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError("not-an-object", f"a record must be a JSON object, this is {_kind(value)}")
    return value


def _messages(record: Mapping[str, Any], key: str) -> Messages:
    found = record.get(key)
    if found is None or found == []:
        raise RecordError("no-messages", f"the record has no {key!r}; its keys are {_keys(record)}")
    if not isinstance(found, list):
        raise RecordError("bad-messages", f"{key!r} must be an array of messages, it is {_kind(found)}")
    messages: list[Message] = []
    for number, message in enumerate(found):
        if not isinstance(message, dict):
            raise RecordError("bad-messages", f"{key}[{number}] must be an object, it is {_kind(message)}")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise RecordError("bad-messages", f"{key}[{number}]: 'role' must be one of {known}, it is {role!r:.60}")
        if not isinstance(content, str):
            raise RecordError("bad-messages", f"{key}[{number}]: 'content' must be a string, it is {_kind(content)}")
        _refuse_surrogates(content)
        messages.append({"role": role, "content": content})
    return tuple(messages)


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError("lone-surrogate", f"character {error.start} is half of a surrogate pair") from error


def _string(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise RecordError("bad-field", f"{key!r} must be a string, it is {_kind(found)}")
    _refuse_surrogates(found)
    return found


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise RecordError("bad-field", f"{key!r} must be an object, it is {_kind(found)}")
    return found


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _keys(value: Mapping[str, Any]) -> str:
    return ", ".join(list(map(str, value))[:8])[:120] or "none"
