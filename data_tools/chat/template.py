"""What a chat template is: the pieces of a layout, and the Jinja that says the same."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import NamedTuple

from data_tools.records import RecordError

Message = Mapping[str, str]
# Counted in a template's digest: one more when the same pieces come to be rendered otherwise.
_RENDERING = 1


class ChatError(RecordError):
    """Messages that a template cannot render."""


class Frame(NamedTuple):
    """What stands before and after the text of a message."""

    opening: str
    closing: str


class AssistantFrame(NamedTuple):
    """`opening` is the generation prompt. `lead` and `closing`, around the text, are trained on with it; `trailer` is
    not: whoever generates puts it there.
    """

    opening: str
    lead: str
    closing: str
    trailer: str


class Span(NamedTuple):
    """A piece of a conversation: a control token or text. `ends` says that an assistant's turn ends with it."""

    text: str
    is_control: bool
    trained: bool
    ends: bool = False


@dataclass(frozen=True)
class ChatTemplate:
    """The layout of a conversation.

    Attributes:
        system: around the system message; None where the layout has no place for one.
        default_system: the system message of a conversation that brings none; None for none at all.
        control_tokens: what in the frames is a control token, encoded by its id.
    """

    name: str
    system: Frame | None
    user: Frame
    assistant: AssistantFrame
    default_system: str | None = None
    control_tokens: tuple[str, ...] = ()

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """Control tokens that close an assistant's turn; none where text closes it (`assistant.closing`)."""
        return tuple(token for token in self.control_tokens if token in self.assistant.closing)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over all that decides a rendering; the name does not."""
        pieces = {key: value for key, value in asdict(self).items() if key != "name"}
        text = json.dumps([_RENDERING, pieces], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, messages: Sequence[Message]) -> None:
        """Refuse what cannot be rendered.

        Raises:
            ChatError: `bad-messages` (none, or one without a role and a text), `bad-roles` (anything but user and
                assistant in turn, after at most one system message), `system-not-in-template`, `empty-content` (a user
                or assistant who says nothing), `lone-surrogate`.
        """
        if not messages:
            raise ChatError("bad-messages", "a conversation needs at least one message")
        for number, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
                raise ChatError("bad-messages", f"message {number} has no 'role' and 'content' that are strings")
            role, content = message.get("role"), message["content"]
            if role == "system" and number == 0:
                if self.system is None:
                    raise ChatError(
                        "system-not-in-template", f"the {self.name} template has no place for a system text"
                    )
            elif role != ("user", "assistant")[(number - (messages[0].get("role") == "system")) % 2]:
                raise ChatError(
                    "bad-roles",
                    f"message {number} is of {role!r:.40}: user and assistant must speak in turn, the user first, "
                    "after at most one system message",
                )
            elif not content or content.isspace():
                raise ChatError("empty-content", f"message {number}, of {role!r}, holds nothing but white space")
            if not content.isascii():
                try:
                    content.encode()
                except UnicodeEncodeError as error:
                    place = f"character {error.start} of message {number}"
                    raise ChatError("lone-surrogate", f"{place} is half of a surrogate pair") from error

    def spans(
        self, messages: Sequence[Message], *, trained_from: int = 0, generation_prompt: bool = False
    ) -> list[Span]:
        """The conversation in pieces, in order. Assistant messages before number `trained_from` are not trained on.

        Raises:
            ChatError: see `check`.
        """
        self.check(messages)
        pieces: list[Span] = []
        if self.system is not None and messages[0]["role"] != "system" and self.default_system is not None:
            pieces += self._framed(self.system, self.default_system)
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                frame, trained = self.assistant, number >= trained_from
                pieces += self._piece(frame.opening)
                pieces += self._piece(frame.lead, trained=trained)
                pieces.append(Span(message["content"], False, trained))
                pieces += self._piece(frame.closing, trained=trained)
                pieces += self._piece(frame.trailer)
                pieces[-1] = pieces[-1]._replace(ends=True)
            elif message["role"] == "user" or self.system is None:
                pieces += self._framed(self.user, message["content"])
            else:
                pieces += self._framed(self.system, message["content"])
        if generation_prompt:
            pieces += self._piece(self.assistant.opening)
        return pieces

    def text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The rendered conversation as text, in which control tokens cannot be told from text."""
        return "".join(span.text for span in self.spans(messages, generation_prompt=generation_prompt))

    def jinja(self, *, generation_markers: bool = False) -> str:
        """The template for transformers and what else reads its `chat_template`.

        Args:
            generation_markers: mark the trained text with `{% generation %}`, for transformers'
                `return_assistant_tokens_mask`. Other readers of the template do not know the mark.
        """
        content = "message['content']"
        if self.system is None:
            sentence = f"The {self.name} template has no place for a system message."
            system, default = f"{{{{- raise_exception({_quoted(sentence)}) -}}}}", ""
        else:
            system = _output(self.system.opening, "messages[0]['content']", self.system.closing)
            given = self.default_system
            default = "" if given is None else _output(self.system.opening + given + self.system.closing)
        begin, end = ("{%- generation -%}", "{%- endgeneration -%}") if generation_markers else ("", "")
        frame = self.assistant
        lines = [
            "{%- if messages[0]['role'] == 'system' -%}",
            f"{system}{{%- set first = 1 -%}}",
            "{%- else -%}",
            f"{default}{{%- set first = 0 -%}}",
            "{%- endif -%}",
            "{%- for message in messages[first:] -%}",
            "{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}",
            "{{- raise_exception('User and assistant must speak in turn, the user first.') -}}",
            "{%- endif -%}",
            "{%- if message['role'] == 'user' -%}",
            _output(self.user.opening, content, self.user.closing),
            "{%- else -%}",
            _output(frame.opening),
            f"{begin}{_output(frame.lead, content, frame.closing)}{end}",
            _output(frame.trailer),
            "{%- endif -%}",
            "{%- endfor -%}",
            "{%- if add_generation_prompt -%}",
            _output(frame.opening),
            "{%- endif -%}",
        ]
        return "\n".join(line for line in lines if line)

    def _framed(self, frame: Frame, content: str) -> list[Span]:
        return [*self._piece(frame.opening), Span(content, False, False), *self._piece(frame.closing)]

    def _piece(self, text: str, *, trained: bool = False) -> tuple[Span, ...]:
        return _split(text, self.control_tokens, trained)


@cache
def _split(text: str, control_tokens: tuple[str, ...], trained: bool) -> tuple[Span, ...]:
    """Fixed text of a template, in its control tokens and what lies between them."""
    parts = re.split(f"({'|'.join(map(re.escape, control_tokens))})", text) if control_tokens else [text]
    return tuple(Span(part, part in control_tokens, trained) for part in parts if part)


def _quoted(text: str) -> str:
    """A Jinja string: its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _output(*parts: str) -> str:
    """A Jinja statement that prints `parts`: fixed text, except for those that name a message's content."""
    terms = [part if part.endswith("['content']") else _quoted(part) for part in parts if part]
    return f"{{{{- {' + '.join(terms)} -}}}}" if terms else ""
