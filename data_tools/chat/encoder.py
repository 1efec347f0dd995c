"""Messages → token ids and the mask of what is trained on."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_tools.chat.layouts import TEMPLATES
from data_tools.chat.template import ChatError, ChatTemplate, Message, Span
from data_tools.tokenizers import Tokenizer, TokenizerError


class Turns(NamedTuple):
    """One rendered conversation of n tokens.

    Attributes:
        tokens: int32 [n].
        mask: uint8 [n], 1 where a token is trained on. A token that holds any character of trained text counts.
        ends: for each assistant turn, the number of tokens up to and including its closing and trailer. Cut there,
            the tokens are those of the conversation up to that turn, but for layouts that close with text
            (aquila-chat), where a tokenizer may join the closing to what follows it.
    """

    tokens: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint8]
    ends: list[int]


@dataclass
class _Run:
    """A control token, or all the text between two of them, which is encoded as one (as transformers does)."""

    text: str = ""
    control: int | None = None
    trained: list[tuple[int, int]] = field(default_factory=list)  # characters
    ends: list[int] = field(default_factory=list)  # characters

    def append(self, span: Span) -> None:
        begin, end = len(self.text), len(self.text) + len(span.text)
        self.text += span.text
        if span.trained:
            if self.trained and self.trained[-1][1] == begin:
                begin = self.trained.pop()[0]
            self.trained.append((begin, end))
        if span.ends:
            self.ends.append(end)

    @property
    def borders(self) -> set[int]:
        """Places inside the text at which it matters where tokens lie."""
        return {*itertools.chain(*self.trained), *self.ends} - {0, len(self.text)}


class ChatEncoder:
    """Renders conversations of one template into the ids of one tokenizer.

    Raises:
        TokenizerError: the tokenizer lacks a control token of the template.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        missing = [token for token in template.control_tokens if token not in tokenizer.special_tokens]
        if missing:
            known = {*tokenizer.special_tokens}
            fitting = [name for name, other in TEMPLATES.items() if known.issuperset(other.control_tokens)]
            raise TokenizerError(
                f"the tokenizer {tokenizer.name} lacks {', '.join(missing)}, which the chat template {template.name} "
                f"needs as control tokens: templates that fit it are {', '.join(fitting)}."
            )
        self.template = template
        self.tokenizer = tokenizer
        self._control = {token: tokenizer.special_tokens[token] for token in template.control_tokens}

    @property
    def stop_ids(self) -> list[int]:
        """The ids of the template's stop tokens."""
        return [self._control[token] for token in self.template.stop_tokens]

    def encode(self, messages: Sequence[Message], *, trained_from: int = 0) -> Turns:
        """`messages` as tokens; they may end with a user's message, but see `prompt`.

        Args:
            trained_from: assistant messages before this number are not trained on; for a preference pair, the length
                of its prompt.

        Raises:
            ChatError: see `ChatTemplate.check`.
        """
        return self._encode([self.template.spans(messages, trained_from=trained_from)])[0]

    def encode_batch(
        self, conversations: Iterable[Sequence[Message]], *, trained_from: Iterable[int] | None = None
    ) -> list[Turns]:
        """The same as `encode` of each conversation, faster. One bad conversation is an error for all of them: ask
        `ChatTemplate.check` before.
        """
        begins = itertools.repeat(0) if trained_from is None else trained_from
        return self._encode([self.template.spans(one, trained_from=begin) for one, begin in zip(conversations, begins)])

    def prompt(self, messages: Sequence[Message]) -> npt.NDArray[np.int32]:
        """Messages that end with the user's, and the generation prompt: int32 [n].

        They begin the tokens of the conversation with its answer, but where a tokenizer joins the end of the
        generation prompt to the answer: its blank in aquila-legacy, its line end in chatml before white space.

        Raises:
            ChatError: see `ChatTemplate.check`; `bad-roles` where the last message is not the user's.
        """
        spans = self.template.spans(messages, generation_prompt=True)
        if messages[-1]["role"] != "user":
            raise ChatError("bad-roles", "a prompt must end with a message of 'user'")
        return self._encode([spans])[0].tokens

    def _encode(self, conversations: list[list[Span]]) -> list[Turns]:
        rendered = [self._runs(spans) for spans in conversations]
        encoded: dict[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.int32] | None]] = {}
        for continues in (False, True):
            runs = [run for first, *rest in rendered for run in (rest if continues else [first]) if run.control is None]
            exact = [run for run in runs if run.borders]
            for run, (ids, spans) in zip(
                exact, self.tokenizer.encode_spans([run.text for run in exact], continues=continues)
            ):
                encoded[id(run)] = ids, spans
            plain = [run for run in runs if not run.borders]
            for run, ids in zip(plain, self.tokenizer.encode_batch([run.text for run in plain], continues=continues)):
                encoded[id(run)] = ids, None
        return [_joined(runs, encoded) for runs in rendered]

    def _runs(self, spans: list[Span]) -> list[_Run]:
        runs: list[_Run] = []
        for span in spans:
            if span.is_control:
                runs.append(_Run(control=self._control[span.text]))
            elif not runs or runs[-1].control is not None:
                runs.append(_Run())
            runs[-1].append(span)
        return runs


def _joined(
    runs: list[_Run], encoded: Mapping[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.int32] | None]]
) -> Turns:
    tokens, masks, ends, length = [], [], [], 0
    for run in runs:
        if run.control is not None:
            ids, spans = np.array([run.control], np.int32), None
        else:
            ids, spans = encoded[id(run)]
        if spans is None:
            mask = np.full(len(ids), bool(run.trained), np.uint8)
            ends += [length + len(ids) for _ in run.ends]
        else:
            mask = np.zeros(len(ids), np.uint8)
            for begin, end in run.trained:
                mask[(spans[:, 0] < end) & (spans[:, 1] > begin)] = 1
            ends += [length + int(np.count_nonzero(spans[:, 0] < end)) for end in run.ends]
        tokens.append(ids)
        masks.append(mask)
        length += len(ids)
    return Turns(np.concatenate(tokens), np.concatenate(masks), ends)
