"""Instruction records: Alpaca's format with LLaMA-Factory's `history` and `system`, and AquilaMed-Instruct as BAAI
published it (318k rows, Apache-2.0).
"""

import re
from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import (
    as_record,
    assistant,
    history,
    in_order,
    joined,
    kind,
    labels,
    string,
    text,
    user,
)
from data_tools.records import Message, RecordError


class Alpaca(Importer):
    """`instruction` and, on a line of its own, `input` are the user's words, `output` the answer."""

    name: ClassVar[str] = "alpaca"
    title: ClassVar[str] = "Alpaca: instruction, input, output; LLaMA-Factory's history and system"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `preference-pair` (two outputs),
        `no-question`, `no-answer`, `blank-message`.
        """
        record = as_record(value)
        messages: list[Message] = []
        if system := text(record, "system"):
            messages.append({"role": "system", "content": system})
        messages += [*history(record), user(_question(record)), assistant(_output(record))]
        ordered, left_out = in_order(messages)
        return Imported(ordered, meta={"kind": "qa", **labels(record, {"id": "record"}), **left_out})


class AquilaMedInstruct(Importer):
    """The same keys; the user's words begin with 问: and the answer with 答:, which go.

    How turns before the last are laid out is published nowhere. Read are `history`, and lines that begin with the two
    marks in turn; where these do not alternate from a question to an answer: `unclear-turns`.
    """

    name: ClassVar[str] = "aquila-med-instruct"
    title: ClassVar[str] = "BAAI/AquilaMed-Instruct: medical_train_all_v1.json"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `preference-pair`, `unclear-turns`,
        `no-question`, `no-answer`, `blank-message`.
        """
        record = as_record(value)
        said = [*history(record), user(_question(record)), assistant(_output(record))]
        messages = [message for one in said for message in _marked(one)]
        roles = [message["role"] for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise RecordError("unclear-turns", f"the marks 问: and 答: do not alternate, they give {', '.join(roles)}")
        ordered, left_out = in_order(messages)
        return Imported(ordered, meta={"kind": "qa", **left_out})


_MARK = re.compile(r"^[ \t\u3000]*(问|答)[ \t]*[:：]", re.MULTILINE)


def _marked(message: Message) -> list[Message]:
    """The turns that the marks of a message make; what stands before the first one is the message's own. A mark with
    nothing after it (a question that ends in 答:) makes none.
    """
    own, *rest = _MARK.split(message["content"])
    found = [{"role": message["role"], "content": own}]
    found += [user(content) if mark == "问" else assistant(content) for mark, content in zip(rest[::2], rest[1::2])]
    stripped = [{**turn, "content": turn["content"].strip()} for turn in found]
    return [turn for turn in stripped if turn["content"]] or [{**message, "content": ""}]


def _question(record: dict[str, Any]) -> str:
    return joined((text(record, "instruction"), text(record, "input")))


def _output(record: dict[str, Any]) -> str:
    found = record.get("output")
    if isinstance(found, list):
        raise RecordError(
            "preference-pair", f"'output' is {kind(found)}: a chosen and a rejected answer, not a dialogue"
        )
    return "" if found is None else string(found, "output")
