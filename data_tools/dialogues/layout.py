"""Dialogues as token ids of a transformers tokenizer, every text tokenised by itself, so that the ids of a turn are the
same whatever stands before it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_tools.chat import ChatTemplate, get_template
from data_tools.inputs import InputError

Unit = Literal["answer", "exchange"]
Message = Mapping[str, str]


@dataclass(frozen=True)
class LaidOutTurn:
    """An exchange in the ids of a dialogue: it begins at `begin` with what the layout puts before the question, and
    ends before `end`, after the last token of the answer. `counted`: int64, the places of the tokens whose loss is
    the turn's.
    """

    begin: int
    end: int
    counted: npt.NDArray[np.int64]


@dataclass(frozen=True)
class LaidOut:
    """A dialogue as int64 ids. Its first `head` ids begin every dialogue or are the system message: no history."""

    ids: npt.NDArray[np.int64]
    head: int
    turns: tuple[LaidOutTurn, ...]

    @classmethod
    def empty(cls) -> "LaidOut":
        """No ids and no turns."""
        return cls(np.zeros(0, np.int64), 0, ())


Layout = Callable[[Sequence[Message]], LaidOut]


@dataclass(frozen=True)
class _Frames:
    """Ids before and after a message, by role; `start` before all, `default` where there is no system message."""

    start: list[int]
    default: list[int]
    around: Mapping[str, tuple[list[int], list[int]]]


def make_layout(coder: Any, template: str, unit: Unit) -> Layout:
    """The layout `template` ("plain" or a chat template's name) over `coder`, a tokenizer of transformers.

    plain: the token that begins a text (where the tokenizer has none, the one that ends a text), then the messages with
    a line end after each but the last. A chat template: as it says, and nothing before it.

    Control tokens are such only where the template puts them; what a message holds is text. The layout raises
    ChatError for dialogues that the template cannot render; plain renders any.

    Raises:
        InputError: the tokenizer lacks a control token of the template, or has no token that begins or ends a text.
    """
    chat = None if template == "plain" else get_template(template)
    frames = _plain(coder) if chat is None else _framed(coder, chat)

    def lay_out(messages: Sequence[Message]) -> LaidOut:
        if chat is not None:
            chat.check(messages)
        texts = _text_ids(coder, [message["content"] for message in messages])
        return _assemble(messages, texts, frames, unit)

    return lay_out


def _assemble(messages: Sequence[Message], texts: Sequence[list[int]], frames: _Frames, unit: Unit) -> LaidOut:
    ids = list(frames.start)
    if not messages or messages[0]["role"] != "system":
        ids += frames.default
    head = len(ids)
    turns: list[LaidOutTurn] = []
    begin: int | None = None  # of the exchange that is going on
    counted: list[range] = []
    for number, (message, text) in enumerate(zip(messages, texts)):
        role = message["role"]
        opening, closing = frames.around[role]
        if role == "user" and begin is None:
            begin = len(ids)
        ids += opening
        if role == "assistant" or (role == "user" and unit == "exchange"):
            counted.append(range(len(ids), len(ids) + len(text)))
        ids += text
        if role == "assistant":
            places = np.concatenate([np.array(part, np.int64) for part in counted])
            counted = []
            if begin is not None:
                turns.append(LaidOutTurn(begin, len(ids), places))
            begin = None
        ids += closing
        if number == 0 and role == "system":
            head = len(ids)
    return LaidOut(np.array(ids, np.int64), head, tuple(turns))


def _plain(coder: Any) -> _Frames:
    start = coder.eos_token_id if coder.bos_token_id is None else coder.bos_token_id
    if start is None:
        raise InputError(
            f"the tokenizer {coder.name_or_path} has no token that begins or ends a text, and the first token of a "
            "turn needs one before it: set bos_token in its tokenizer_config.json, or take a chat template"
        )
    between = _text_ids(coder, ["\n"])[0]
    return _Frames([start], [], {role: ([], between) for role in ("system", "user", "assistant")})


def _framed(coder: Any, chat: ChatTemplate) -> _Frames:
    known = coder.get_vocab()
    if missing := [token for token in chat.control_tokens if token not in known]:
        raise InputError(
            f"the tokenizer {coder.name_or_path} lacks {', '.join(missing)}, which the chat template {chat.name} needs "
            "as control tokens: take the template that the model was trained with, or plain"
        )

    def ids(text: str) -> list[int]:
        parts = re.split(f"({'|'.join(map(re.escape, chat.control_tokens))})", text) if chat.control_tokens else [text]
        found: list[int] = []
        for part in parts:
            found += [known[part]] if part in chat.control_tokens else _text_ids(coder, [part])[0]
        return found

    assistant = chat.assistant
    around = {
        "user": (ids(chat.user.opening), ids(chat.user.closing)),
        "assistant": (ids(assistant.opening + assistant.lead), ids(assistant.closing + assistant.trailer)),
    }
    default: list[int] = []
    if chat.system is not None:
        around["system"] = ids(chat.system.opening), ids(chat.system.closing)
        if chat.default_system is not None:
            default = ids(chat.system.opening + chat.default_system + chat.system.closing)
    return _Frames([], default, around)


def _text_ids(coder: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text by itself; what looks like a control token in it is text."""
    if not texts:
        return []
    found: list[list[int]] = coder(
        list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )["input_ids"]
    return found
