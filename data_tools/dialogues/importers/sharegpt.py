"""ShareGPT's format: `conversations` of {"from", "value"}, as of FastChat and Aquila2's finetune.py."""

from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, in_order, kind, string, text
from data_tools.records import Message, RecordError, record_id

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}
_TOOLS = {"tool", "function", "function_call", "observation", "tool_call", "tool_response"}


class ShareGPT(Importer):
    """A dialogue often begins in the middle, with the assistant, or ends with a question: those are left out, and
    counted in `meta`. One with calls of tools is refused: without them its answers come from nowhere.
    """

    name: ClassVar[str] = "sharegpt"
    title: ClassVar[str] = "ShareGPT: conversations of from (human, gpt, system) and value"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-id`, `bad-field`, `no-messages`, `bad-messages`,
        `unknown-speaker`, `tool-turn`, and those of `fields.in_order`.
        """
        record = as_record(value)
        messages: list[Message] = []
        if system := text(record, "system"):
            messages.append({"role": "system", "content": system})
        messages += [_message(number, item) for number, item in enumerate(_conversations(record))]
        ordered, left_out = in_order(messages)
        identity = None if record.get("id") == "" else record_id(record)
        return Imported(ordered, id=identity, meta={"kind": "qa", **left_out})


def _conversations(record: dict[str, Any]) -> list[Any]:
    key = "conversations" if "conversations" in record else "items" if "items" in record else "conversation"
    found = record.get(key)
    if found is None or found == []:
        raise RecordError("no-messages", "the record has no 'conversations', or there is nothing in it")
    if not isinstance(found, list):
        raise RecordError("bad-messages", f"{key!r} must be an array of messages, it is {kind(found)}")
    return found


def _message(number: int, item: object) -> Message:
    place = f"conversations[{number}]"
    if not isinstance(item, dict):
        raise RecordError("bad-messages", f"{place} must be an object, it is {kind(item)}")
    speaker = string(item.get("from"), f"{place}.from").lower()
    if speaker in _TOOLS:
        raise RecordError(
            "tool-turn", f"{place} is from {speaker!r}: a dialogue with tools cannot be told without them"
        )
    if speaker not in _ROLES:
        raise RecordError("unknown-speaker", f"{place}: 'from' must be one of {', '.join(_ROLES)}, not {speaker!r:.40}")
    return {"role": _ROLES[speaker], "content": string(item.get("value"), f"{place}.value")}
