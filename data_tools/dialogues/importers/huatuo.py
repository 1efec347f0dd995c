"""Huatuo-26M (FreedomIntelligence, Apache-2.0): encyclopedia 364k, knowledge graph 798k, Lite 178k, test set 6,000.

The consultation part (about 25 M rows) is published with web addresses in place of answers: every row is refused.
"""

import re
from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import as_record, exchange, labels, strings
from data_tools.records import RecordError

_URL = re.compile(r"(?:https?://|www\.)[!-~]+")
_QUESTION_KEYS = ("questions", "question", "instruction")
_ANSWER_KEYS = ("answers", "answer", "output")
_LABELS = {"label": "department", "related_diseases": "disease", "score": "published_score"}


class Huatuo(Importer):
    """`questions` and `answers` (lists, in the encyclopedia lists of lists); Lite has `question` and `answer`, the test
    set `instruction` and `output` as lists of one.

    Several questions are one question in other words: the first is taken, and the others are counted in `meta`. Several
    answers are parts of one (the values of a relation in the graph): they are taken in order, a line each.
    """

    name: ClassVar[str] = "huatuo"
    title: ClassVar[str] = "Huatuo-26M: encyclopedia, knowledge graph, Lite and test set"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `no-question`, `no-answer`,
        `answer-is-a-url`.
        """
        record = as_record(value)
        questions, answers = (
            strings(record, next((key for key in keys if record.get(key)), keys[0]))
            for keys in (_QUESTION_KEYS, _ANSWER_KEYS)
        )
        if answers and all(_URL.fullmatch(answer) for answer in answers):
            raise RecordError("answer-is-a-url", "the answer is the address of a web page: its text was not published")
        messages = exchange(questions[0] if questions else "", "\n".join(dict.fromkeys(answers)))
        meta = {"kind": "qa", **labels(record, _LABELS)}
        if len(questions) > 1:
            meta["paraphrases"] = len(questions) - 1
        return Imported(messages, "zh", meta=meta)
