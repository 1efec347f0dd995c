"""How a model reads a conversation: by a template of ours, or by the Jinja that came with its Hugging Face directory.

Both give pieces of text, of which some are control tokens. With a template of ours, a control token in what a user
wrote stays text; of foreign Jinja, which gives one string, those in messages cannot be told from the layout's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data_tools.chat import TEMPLATES, ChatEncoder, ChatError, ChatTemplate, Message
from data_tools.tokenizers import Tokenizer
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.pairs import Piece, split_controls

_MAX_TEMPLATE = 1 << 20  # published ones have under 20,000 characters


class ChatFormatError(AquilaError):
    """A conversation cannot be laid out for this model."""


class ChatFormat(Protocol):
    """name: of the template. jinja: what transformers would render with. stop_ids: close an assistant's turn;
    stop_text: the same where text does it, else None."""

    name: str
    jinja: str
    stop_ids: list[int]
    stop_text: str | None

    def pieces(self, messages: Sequence[Message], *, answers: bool = True) -> list[Piece]:
        """The conversation, up to where the assistant begins to speak; without `answers`, up to the end of the last
        message, which the assistant is to go on with.

        Raises:
            ChatFormatError: the layout has no place for these messages.
        """


class TemplateFormat:
    """A template of `data_tools.chat`."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        """Raises: TokenizerError."""
        self.template = template
        self.name, self.jinja = template.name, template.jinja()
        self.stop_ids = ChatEncoder(template, tokenizer).stop_ids
        self.stop_text: str | None = None if self.stop_ids else template.assistant.closing

    def pieces(self, messages: Sequence[Message], *, answers: bool = True) -> list[Piece]:
        if self.template.system is None and messages and messages[0]["role"] == "system":
            messages = messages[1:]  # as lm-eval's hf: a layout without a place for it goes without
        before, begun = (messages, []) if answers else (messages[:-1], messages[-1:])
        try:
            spans = self.template.spans(before, generation_prompt=True)
        except ChatError as error:
            raise ChatFormatError(f"the conversation does not fit the chat template {self.name}: {error}") from error
        pieces = [Piece(span.text, span.is_control) for span in spans]
        for message in begun:
            pieces += [Piece(self.template.assistant.lead), Piece(message["content"])]
        return pieces


class ForeignFormat:
    """Jinja that is none of ours, rendered by transformers."""

    def __init__(self, directory: Path, jinja: str, tokenizer: Tokenizer) -> None:
        """Raises: ChatFormatError: transformers is missing."""
        try:
            from transformers import AutoTokenizer
        except ModuleNotFoundError:
            raise ChatFormatError(
                f"{directory}: its chat template is none of ours, and transformers, which renders it, is not "
                "installed: pip install 'megatron-aquila[huggingface]'"
            ) from None
        self.name, self.jinja = "chat_template.jinja", jinja
        self._theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        self._controls = tokenizer.special_tokens
        self.stop_ids: list[int] = []  # generation_config.json names them
        self.stop_text: str | None = None

    def pieces(self, messages: Sequence[Message], *, answers: bool = True) -> list[Piece]:
        from jinja2 import TemplateError

        def render(chosen: Sequence[Message]) -> str:
            text: str = self._theirs.apply_chat_template(
                [dict(message) for message in chosen],
                chat_template=self.jinja,
                tokenize=False,
                add_generation_prompt=answers,
                continue_final_message=not answers,
            )
            return text

        try:
            text = render(messages)
        except TemplateError:
            try:
                text = render([message for message in messages if message["role"] != "system"])
            except TemplateError as error:
                raise ChatFormatError(f"the model's chat template refuses the conversation: {error}") from error
        return split_controls(text, self._controls)


def check_template_size(directory: Path, jinja: str) -> None:
    """Raises: ChatFormatError: it is no chat template by its size."""
    if len(jinja) > _MAX_TEMPLATE:
        raise ChatFormatError(
            f"{directory}: its chat template has {len(jinja):,} characters, more than the {_MAX_TEMPLATE:,} that are "
            "taken: it is damaged or hostile; lay the model's own beside it as chat_template.jinja"
        )


def format_of_directory(directory: Path, tokenizer: Tokenizer) -> ChatFormat | None:
    """That of a Hugging Face directory; None where it has no chat template."""
    jinja = _jinja_of(directory)
    if jinja is None:
        return None
    check_template_size(directory, jinja)
    for template in TEMPLATES.values():
        if template.jinja() == jinja:
            return TemplateFormat(template, tokenizer)
    return ForeignFormat(directory, jinja, tokenizer)


def _jinja_of(directory: Path) -> str | None:
    own = directory / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    config = directory / "tokenizer_config.json"
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(template, list):  # several by name, as transformers 4 wrote them
        template = {each["name"]: each["template"] for each in template}.get("default")
    return template
