"""What the importers share: fields of a record taken with their type checked, and messages put in order.

Reasons of refusal: `not-an-object`, `bad-field`, `lone-surrogate`, `no-question`, `no-answer`, `blank-message`,
`late-system`. What an importer puts into `meta` are labels (a department, a number) and never prose: the privacy step
cleans messages, it does not read labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_tools.records import Message, Messages, RecordError

_NAMES = {str: "a string", list: "an array", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}


def as_record(value: object) -> dict[str, Any]:
    """`value`, a JSON object.

    Raises:
        RecordError: `not-an-object`.
    """
    if not isinstance(value, dict):
        raise RecordError("not-an-object", f"a record must be a JSON object, this is {kind(value)}")
    return value


def text(record: Mapping[str, Any], key: str) -> str:
    """The string under `key` without white space at its ends; "" where the key is missing or null.

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    found = record.get(key)
    return "" if found is None else string(found, key)


def string(value: object, place: str) -> str:
    """`value`, a string, without white space at its ends; `place` names it in an error.

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    if not isinstance(value, str):
        raise RecordError("bad-field", f"{place!r} must be a string, it is {kind(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            detail = f"character {error.start} of {place!r} is half of a surrogate pair"
            raise RecordError("lone-surrogate", detail) from error
    return value.strip()


def strings(record: Mapping[str, Any], key: str) -> list[str]:
    """The texts under `key`, a string or an array of strings, however deep; blank ones left out.

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    found: list[str] = []
    waiting: list[object] = [record.get(key)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        elif value is not None and (content := string(value, key)):
            found.append(content)
    return found


def labels(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`meta` out of a record's short fields: names[key] is what `meta` calls the field `key`. Those that are missing,
    null or blank are left out; a number stays one.

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    found: dict[str, Any] = {}
    for key, name in names.items():
        value = record.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
        elif content := text(record, key):
            found[name] = content
    return found


def exchange(question: str, answer: str) -> Messages:
    """One question, one answer.

    Raises:
        RecordError: `no-question`, `no-answer`, where it is "".
    """
    if not question:
        raise RecordError("no-question", "the record asks nothing: its question is missing or blank")
    if not answer:
        raise RecordError("no-answer", "the question has no answer: it is missing or blank")
    return user(question), assistant(answer)


def history(record: Mapping[str, Any]) -> list[Message]:
    """The messages under "history": pairs of a question and its answer, as LLaMA-Factory's alpaca format has them.

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    found = record.get("history")
    if found is None:
        return []
    if not isinstance(found, list):
        raise RecordError("bad-field", f"'history' must be an array of [question, answer], it is {kind(found)}")
    messages: list[Message] = []
    for number, pair in enumerate(found):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError("bad-field", f"'history[{number}]' must be [question, answer], two strings")
        question, answer = (string(side, f"history[{number}]") for side in pair)
        messages += (user(question), assistant(answer))
    return messages


def in_order(messages: Sequence[Message], *, skip_blank: bool = False) -> tuple[Messages, dict[str, Any]]:
    """A dialogue that begins with the user (after system messages) and ends with the assistant, the two in turn.

    Messages of one role in a row become one, joined by a newline. Words of the assistant before the first question
    and questions after the last answer are left out: no template can place the former, and the latter teach nothing.

    Args:
        messages: contents stripped.
        skip_blank: a blank message stands for a picture or a sound, and is passed over. Otherwise it is refused,
            unless it is the last one's answer: that question was not answered.

    Returns:
        the dialogue, and for `meta` how many messages were left out: {} or {"left_out": {"leading", "dangling"}}.

    Raises:
        RecordError: `late-system` (a system message after the first question), `blank-message`, `no-question`,
            `no-answer`.
    """
    if not any(message["role"] == "user" and message["content"] for message in messages):
        raise RecordError("no-question", "no message of the user holds any words")
    merged = _merged(messages, skip_blank)
    start = next(place for place, message in enumerate(merged) if message["role"] != "system")
    system, turns = merged[:start], merged[start:]
    if any(message["role"] == "system" for message in turns):
        raise RecordError("late-system", "a system message stands after the dialogue has begun")
    leading = int(turns[0]["role"] == "assistant")
    dangling = int(turns[-1]["role"] == "user")
    kept = turns[leading : len(turns) - dangling]
    if not kept:
        raise RecordError("no-answer", "no question is followed by an answer of the assistant")
    left_out = {"leading": leading, "dangling": dangling}
    return (*system, *kept), {"left_out": left_out} if leading or dangling else {}


def user(content: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """A message of the assistant."""
    return {"role": "assistant", "content": content}


def joined(parts: Iterable[str]) -> str:
    """The parts that are not "", a line each."""
    return "\n".join(part for part in parts if part)


def kind(value: object) -> str:
    """What a JSON value is, for an error: never the value itself, which may be private."""
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


def _merged(messages: Sequence[Message], skip_blank: bool) -> list[Message]:
    end = len(messages)
    while end and not messages[end - 1]["content"]:
        end -= 1
    merged: list[Message] = []
    for number, message in enumerate(messages[:end]):
        if not message["content"]:
            if skip_blank or message["role"] == "system":
                continue
            raise RecordError("blank-message", f"message {number} ({message['role']}) holds no words")
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {"role": message["role"], "content": f"{merged[-1]['content']}\n{message['content']}"}
        else:
            merged.append(message)
    return merged
