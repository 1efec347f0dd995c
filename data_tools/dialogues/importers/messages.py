"""Lists of messages: OpenAI's and TRL's formats, and the dialogues that this package writes."""

from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, in_order, kind, string
from data_tools.records import Dialogue, Message, RecordError, record_id

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOLS = ("tool", "function")


class OpenAIMessages(Importer):
    """`messages` of {"role", "content"}, or TRL's `prompt` and `completion`. A content may be a list of text parts.
    Dialogues with calls of tools, or with pictures, are refused.
    """

    name: ClassVar[str] = "messages"
    title: ClassVar[str] = "messages of role and content: OpenAI's and TRL's formats (also prompt and completion)"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-id`, `bad-field`, `no-messages`, `bad-messages`, `tool-turn`,
        `not-text`, and those of `fields.in_order`.
        """
        record = as_record(value)
        keys = ("prompt", "completion") if "messages" not in record and "completion" in record else ("messages",)
        messages = [
            _message(f"{key}[{number}]", item) for key in keys for number, item in enumerate(_list(record, key))
        ]
        ordered, left_out = in_order(messages)
        return Imported(ordered, id=record_id(record), meta={"kind": "qa", **left_out})


class Dialogues(Importer):
    """`records.Dialogue`: id, lang, scores and meta are kept, and the messages as they are but for white space at
    their ends.
    """

    name: ClassVar[str] = "dialogues"
    title: ClassVar[str] = "the dialogues that aquila writes: id, messages, lang, source, scores, meta"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: as `records.Dialogue.from_json`, and `blank-message`."""
        dialogue = Dialogue.from_json(value, source_file="", offset=0)
        messages = tuple({**message, "content": message["content"].strip()} for message in dialogue.messages)
        for number, message in enumerate(messages):
            if not message["content"]:
                raise RecordError("blank-message", f"messages[{number}] ({message['role']}) holds no words")
        meta = {"kind": "qa", **dialogue.meta}
        if dialogue.source:
            meta["origin"] = dialogue.source
        if dialogue.scores:
            meta["scores"] = dialogue.scores
        return Imported(messages, dialogue.lang, record_id(value), meta)


def _list(record: dict[str, Any], key: str) -> list[Any]:
    found = record.get(key)
    if found is None or found == []:
        raise RecordError("no-messages", f"the record has no {key!r}, or there is nothing in it")
    if not isinstance(found, list):
        raise RecordError("bad-messages", f"{key!r} must be an array of messages, it is {kind(found)}")
    return found


def _message(place: str, item: object) -> Message:
    if not isinstance(item, dict):
        raise RecordError("bad-messages", f"{place} must be an object, it is {kind(item)}")
    role = string(item.get("role"), f"{place}.role")
    if role in _TOOLS or item.get("tool_calls") or item.get("function_call"):
        raise RecordError("tool-turn", f"{place} calls a tool or answers for one: not a dialogue in words alone")
    if role not in _ROLES:
        raise RecordError("bad-messages", f"{place}: 'role' must be one of {', '.join(_ROLES)}, not {role!r:.40}")
    return {"role": _ROLES[role], "content": _content(item.get("content"), place)}


def _content(content: object, place: str) -> str:
    if not isinstance(content, list):
        return string(content, f"{place}.content")
    parts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise RecordError("not-text", f"{place}.content holds a part that is not text, such as a picture")
        parts.append(string(part.get("text"), f"{place}.content"))
    return "\n".join(parts).strip()
