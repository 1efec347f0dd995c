"""CMtMedQA (Suprit/CMtMedQA, of Zhongjing): about 70,000 dialogues of several turns, and its test file."""

from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, assistant, history, in_order, joined, labels, text, user
from data_tools.records import RecordError

_LABELS = {"cate1": "department", "cate2": "subject", "id": "record"}


class CMtMedQA(Importer):
    """`history` holds the first turns as [question, answer]; `instruction` (and `input`) and `output` are the last
    turn.

    The 144 safety items of the test file (`instruct`, `output`) are no dialogues of this form: `safety-item`.
    """

    name: ClassVar[str] = "cmtmedqa"
    title: ClassVar[str] = "CMtMedQA (Zhongjing): CMtMedQA.json, CMtMedQA_test.json"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `safety-item`, `no-question`,
        `no-answer`, `blank-message`.
        """
        record = as_record(value)
        if "instruct" in record and "instruction" not in record:
            raise RecordError("safety-item", "the record has 'instruct' for 'instruction': one of the safety questions")
        question = joined((text(record, "instruction"), text(record, "input")))
        messages, left_out = in_order([*history(record), user(question), assistant(text(record, "output"))])
        return Imported(messages, "zh", meta={"kind": "qa", **labels(record, _LABELS), **left_out})
