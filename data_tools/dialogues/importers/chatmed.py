"""ChatMed_Consult (michaelwzhu, CC-BY-4.0): about 550,000 consultations, answered by gpt-3.5-turbo."""

from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, exchange, text


class ChatMed(Importer):
    """`query` and `response`. ChatMed_Consult-v0.3.json holds JSON Lines, whatever its name says."""

    name: ClassVar[str] = "chatmed"
    title: ClassVar[str] = "ChatMed_Consult: ChatMed_Consult-v0.3.json"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `no-question`, `no-answer`."""
        record = as_record(value)
        return Imported(exchange(text(record, "query"), text(record, "response")), "zh", meta={"kind": "qa"})
