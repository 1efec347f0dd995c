"""`aquila chat`: a conversation in the terminal, or answers to the questions of a pipe.

What is said stays in memory: no history file, no log. What a model writes is shown, never obeyed: control characters
reach the terminal as pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from data_tools.chat import Message
from data_tools.pages.html import visible
from megatron_aquila.release.talker import Talker, TalkError

NOTICE = (
    "This is a language model, not a doctor: what it says may be false, and is no medical advice.\n"
    "这是语言模型，不是医生：其回答可能有误，不构成医疗建议。"
)
HELP = """\
/system TEXT   tell the model something before a new conversation; without TEXT: nothing
/reset         begin a new conversation
/exit          leave (Ctrl-D does too)
/help          this
Ctrl-C stops an answer."""


@dataclass
class Conversation:
    """Rounds of a question and its answer, the oldest first; after at most one text of the system."""

    system: str | None = None
    rounds: list[tuple[str, str]] = field(default_factory=list)

    def messages(self, question: str) -> list[Message]:
        """Everything so far, and a new question."""
        found = [] if self.system is None else [{"role": "system", "content": self.system}]
        for asked, answered in self.rounds:
            found += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        return [*found, {"role": "user", "content": question}]

    def fit(self, question: str, encode: Callable[[Sequence[Message]], list[int]], room: int) -> tuple[list[int], int]:
        """The prompt, after forgetting the oldest rounds until it fits into `room` tokens; how many those were.

        Raises:
            TalkError: the question alone is too long; nothing is forgotten then.
        """
        for forgotten in range(len(self.rounds) + 1):
            kept = Conversation(self.system, self.rounds[forgotten:])
            prompt = encode(kept.messages(question))
            if len(prompt) <= room:
                self.rounds = kept.rounds
                return prompt, forgotten
        raise TalkError(
            f"the question is {len(prompt):,} tokens long with what stands around it, and {room:,} are left for it: "
            "shorten it, or give a smaller --max-new-tokens"
        )


def chat(model: Path, *, system: str | None, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Talk until the input ends or the user leaves. In a pipe each line is a question: answers go to standard output,
    everything else to standard error.

    Raises:
        TalkError: there is nothing that answers at `model`.
    """
    import torch

    with _exported(model) as directory:
        talker = Talker(directory)
        torch.manual_seed(seed)
        room = talker.context - max_new_tokens
        if room < 1:
            raise TalkError(
                f"--max-new-tokens {max_new_tokens:,} leaves no room for a question: the model's context is "
                f"{talker.context:,} tokens"
            )
        terminal = sys.stdin.isatty()
        _note(NOTICE)
        if terminal:
            _note("/help tells the commands.")
        conversation = Conversation(_given(system))
        for line in _lines(terminal):
            if line.startswith("/"):
                if not _obey(line, conversation):
                    return
            elif line:
                try:
                    _answer(talker, conversation, line, room, max_new_tokens, temperature, terminal=terminal)
                except TalkError as error:
                    _note(f"({error})")


def _answer(
    talker: Talker,
    conversation: Conversation,
    question: str,
    room: int,
    max_new_tokens: int,
    temperature: float,
    *,
    terminal: bool,
) -> None:
    prompt, forgotten = conversation.fit(question, talker.prompt, room)
    if forgotten:
        _note(f"(the {forgotten} oldest rounds no longer fit into the model's context, and are forgotten)")
    said: list[str] = []

    def say(piece: str) -> None:
        said.append(piece)
        print(visible(piece), end="", flush=True)

    note = None
    try:
        _, ended = talker.answer(prompt, say, max_new_tokens=max_new_tokens, temperature=temperature)
        if not ended:
            note = f"(cut off at {max_new_tokens:,} tokens: --max-new-tokens)"
    except KeyboardInterrupt:
        if not terminal:
            raise
        note = "(stopped)"
    print(flush=True)
    if note:
        _note(note)
    answer = "".join(said)
    if answer.strip():  # templates refuse a message that says nothing
        conversation.rounds.append((question, answer))


def _obey(line: str, conversation: Conversation) -> bool:
    """Carry out a command; False to leave."""
    command, _, rest = line.partition(" ")
    if command in ("/exit", "/quit"):
        return False
    if command == "/reset":
        conversation.rounds.clear()
        _note("(a new conversation)")
    elif command == "/system":
        conversation.rounds.clear()
        conversation.system = _given(rest)
        _note("(a new conversation, without a system text)" if conversation.system is None else "(a new conversation)")
    elif command == "/help":
        _note(HELP)
    else:
        _note(f"(there is no command {command!r}: /help tells those there are)")
    return True


def _given(text: str | None) -> str | None:
    return text.strip() or None if text else None


def _lines(terminal: bool) -> Iterator[str]:
    """What is asked, a line at a time, without half characters of a broken encoding."""
    if not terminal:
        for line in sys.stdin:
            yield _clean(line)
        return
    import readline  # noqa: F401 (gives input() its keys and its history, which is never written)

    while True:
        try:
            yield _clean(input("\n> "))
        except KeyboardInterrupt:
            _note("\n(/exit or Ctrl-D leaves)")
        except EOFError:
            print()
            return


def _clean(line: str) -> str:
    return line.encode("utf-8", "replace").decode("utf-8", "replace").strip()


def _note(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)


@contextmanager
def _exported(model: Path) -> Iterator[Path]:
    """A Hugging Face directory as it is; a run or a checkpoint exported to a temporary one for as long as it takes."""
    from megatron_aquila.checkpoint import open_checkpoint
    from megatron_aquila.huggingface import export_checkpoint, is_huggingface

    if is_huggingface(model):
        yield model
        return
    checkpoint = open_checkpoint(model)
    with TemporaryDirectory(prefix="aquila-chat-") as directory:
        yield export_checkpoint(checkpoint, Path(directory) / "model")
