"""CMB (FreedomIntelligence/CMB, Apache-2.0): exam questions with options (CMB-Exam) and cases (CMB-Clin)."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer
from data_tools.dialogues.importers.fields import (
    as_record,
    assistant,
    exchange,
    in_order,
    joined,
    kind,
    labels,
    string,
    strings,
    text,
    user,
)
from data_tools.records import Message, Question, RecordError, record_id

_SINGLE, _MULTIPLE = "单项选择题", "多项选择题"
_TASKS = {
    "zh": {
        False: "不需要做任何分析和解释，直接输出答案选项。",
        True: "请分析每个选项，并最后给出答案。",
        None: "请选出正确的答案。",
    },
    "en": {
        False: "Give the letters of the answer, without any analysis or explanation.",
        True: "Look at each option, and give the answer at the end.",
        None: "Choose the right answer.",
    },
}
"""What is asked for: letters alone, an explanation and letters, or simply an answer. The Chinese ones of the first two
are CMB's official wordings (src/utils.py)."""
CASE = "以下是一位病人的病例：\n{description}\n{question}"

_LABELS = {key: key for key in ("exam_type", "exam_class", "exam_subject", "question_type")}
_BETWEEN_LETTERS = " ,、;.|/"
_NO_ANSWER = ("", "NULL", "无")


class CMB(Importer):
    """A row of CMB-Exam asks in the official wording without examples, and its answer is 答案是AB。 Where the row has
    an explanation it asks for one, and the answer is the explanation and 所以答案是AB。 A case of CMB-Clin is a
    dialogue: its description stands before the first question.

    Every option with words in it is shown, those of one character too (CMB's own worker loses them).
    """

    name: ClassVar[str] = "cmb"
    title: ClassVar[str] = "CMB-Exam (CMB-train, CMB-val) and CMB-Clin (CMB-Clin-qa.json)"

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: as `question_of`; of a case `no-question`, `no-answer`, `blank-message`."""
        record = as_record(value)
        if "QA_pairs" in record:
            return _case(record)
        question = question_of(record)
        explained = bool(question.explanation)
        prompt = choice_prompt(
            question, explain=explained, exam=exam_of(record), question_type=text(record, "question_type")
        )
        messages = exchange(prompt, choice_answer(question, question.answer, explanation=explained))
        return Imported(messages, "zh", meta={"kind": "options", **labels(record, _LABELS)})


def question_of(value: object, *, unanswered: bool = False) -> Question:
    """The question of a row of CMB-Exam. Its id is the row's, or (only the test rows have one) 16 hex digits of BLAKE2b
    over question and options: the same question has the same id wherever it stands.

    Args:
        unanswered: take test rows, which come without answers, too: their `answer` is ().

    Raises:
        RecordError: `not-an-object`, `bad-field`, `bad-id`, `lone-surrogate`, `no-question`, `bad-options` (fewer than
            two with words in them), `no-answer`, `bad-answer` (not letters of options, or several to a question
            that has one answer).
    """
    record = as_record(value)
    asked_for = text(record, "question")
    if not asked_for:
        raise RecordError("no-question", "'question' is missing or blank")
    options = _options(record)
    answer = _letters(text(record, "answer"), options)
    if not answer and not unanswered:
        raise RecordError("no-answer", "the row has no answer, as those of CMB-test: they are for evaluation")
    if len(answer) > 1 and text(record, "question_type") == _SINGLE:
        raise RecordError("bad-answer", f"a {_SINGLE} (one answer) has {len(answer)} answers")
    identity = "" if record.get("id") == "" else record_id(record)
    if not identity:
        content = "\0".join([asked_for, *(f"{letter}\0{option}" for letter, option in options.items())])
        identity = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    return Question(
        identity,
        asked_for,
        options,
        answer,
        "\n".join(strings(record, "explanation")),
        "cmb",
    )


def exam_of(record: Mapping[str, Any]) -> str:
    """What the official wording calls the examination of a row: 中国{exam_type}中{exam_class}考试, or "".

    Raises:
        RecordError: `bad-field`, `lone-surrogate`.
    """
    exam_type, exam_class = text(record, "exam_type"), text(record, "exam_class")
    if exam_type and exam_class:
        return f"中国{exam_type}中{exam_class}考试"
    return f"中国{exam_type or exam_class}考试" if exam_type or exam_class else ""


def choice_prompt(
    question: Question, lang: str = "zh", *, explain: bool | None = None, exam: str = "", question_type: str = ""
) -> str:
    """The user's words for a multiple-choice question; in Chinese the official wording of CMB, without its examples.

    Args:
        lang: "zh", or any other for English.
        explain: ask for an explanation before the answer, for letters and nothing else, or (None) leave it open.
        exam: in Chinese, whose question it is: see `exam_of`.
        question_type: in Chinese; without it, told by the number of answers.
    """
    several = len(question.answer) > 1
    options = "\n".join(f"{letter}. {option}" for letter, option in question.options.items())
    if lang == "zh":
        head = f"以下是{exam and exam + '的'}一道{question_type or (_MULTIPLE if several else _SINGLE)}，"
        return f"{head}{_TASKS['zh'][explain]}\n{question.question}\n{options}"
    head = f"The following is a multiple-choice question with {'several right answers' if several else 'one answer'}. "
    return f"{head}{_TASKS['en'][explain]}\n{question.question}\n{options}"


def choice_answer(
    question: Question,
    letters: Sequence[str],
    lang: str = "zh",
    *,
    with_text: bool = False,
    explanation: bool = False,
) -> str:
    """The assistant's words when it answers `letters`: 答案是AC。 or, with the question's explanation before it,
    …所以答案是AC。 as in CMB's examples. `with_text` adds the options of these letters, a line each: the letters still
    stand first, where CMB's scorer looks for them.
    """
    chosen = "".join(letters)
    before = question.explanation if explanation else ""
    if lang == "zh":
        said = f"{before}所以答案是{chosen}。" if before else f"答案是{chosen}。"
    else:
        said = f"{before}\nSo the answer is {chosen}." if before else f"The answer is {chosen}."
    return joined((said, *(f"{letter}. {question.options[letter]}" for letter in letters if with_text)))


def _options(record: dict[str, Any]) -> dict[str, str]:
    found = record.get("option", record.get("options"))
    if not isinstance(found, dict):
        raise RecordError("bad-options", f"'option' must map letters to texts, it is {kind(found)}")
    options = {}
    for key in sorted(found):
        if found[key] is not None and (option := string(found[key], f"option.{key}")):
            letter = unicodedata.normalize("NFKC", key).strip().upper()
            if len(letter) != 1 or not ("A" <= letter <= "Z") or letter in options:
                raise RecordError("bad-options", f"{key!r:.20} is not a letter of its own")
            options[letter] = option
    if len(options) < 2:
        raise RecordError("bad-options", f"a choice needs two options with words in them, this has {len(options)}")
    return options


def _letters(answer: str, options: dict[str, str]) -> tuple[str, ...]:
    """The letters of an answer such as "ABC", in the options' order."""
    if answer in _NO_ANSWER:
        return ()
    given = {sign for sign in unicodedata.normalize("NFKC", answer).upper() if sign not in _BETWEEN_LETTERS}
    if not given or not given <= options.keys():
        raise RecordError("bad-answer", f"'answer' must hold letters of {''.join(options)}, it is {answer!r:.40}")
    return tuple(letter for letter in options if letter in given)


def _case(record: dict[str, Any]) -> Imported:
    pairs, description = record["QA_pairs"], text(record, "description")
    if not isinstance(pairs, list):
        raise RecordError("bad-field", f"'QA_pairs' must be an array, it is {kind(pairs)}")
    messages: list[Message] = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, dict):
            raise RecordError("bad-field", f"'QA_pairs[{number}]' must be an object, it is {kind(pair)}")
        question, solution = text(pair, "question"), "\n".join(strings(pair, "solution"))
        if not number and question and description:
            question = CASE.format(description=description, question=question)
        messages += (user(question), assistant(solution))
    ordered, left_out = in_order(messages)
    return Imported(ordered, "zh", meta={"kind": "qa", **labels(record, {"id": "record"}), **left_out})
