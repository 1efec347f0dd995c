"""ChatDoctor's sets (Kent0n-Li/ChatDoctor): HealthCareMagic-100k, iCliniq-10k, GenMedGPT-5k (chatdoctor5k.json)."""

from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, exchange, joined, text

CONSTANT_INSTRUCTIONS = (
    "If you are a doctor, please answer the medical questions based on the patient's description.",
)


class ChatDoctor(Importer):
    """`input` is the patient's question; the answer is `output`, or in iCliniq `answer_icliniq`, the physician's (and
    never `answer_chatgpt` or `answer_chatdoctor`).

    The instruction is one sentence for all 112,165 + 5,452 rows. It is left out: it says nothing of the patient, is not
    part of how the model will be asked, and would count in every score of complexity. Any other instruction stands
    before the question.
    """

    name: ClassVar[str] = "chatdoctor"
    title: ClassVar[str] = "ChatDoctor: HealthCareMagic-100k.json, iCliniq.json, GenMedGPT-5k (chatdoctor5k.json)"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `no-question`, `no-answer`."""
        record = as_record(value)
        instruction, question = text(record, "instruction"), text(record, "input")
        if instruction not in CONSTANT_INSTRUCTIONS:
            question = joined((instruction, question))
        is_icliniq = any(key.startswith("answer_") for key in record)
        answer = text(record, "answer_icliniq" if is_icliniq else "output")
        return Imported(exchange(question, answer), "en", meta={"kind": "qa"})
