"""A multiple-choice question as a prompt and as answers, in the CMB importer's words: fine-tuning and preference
training see the same.
"""

from dataclasses import dataclass
from typing import Literal

from data_tools.corpus.folding import CHARACTERS, unit_of
from data_tools.dialogues.importers import cmb
from data_tools.dialogues.importers.fields import text
from data_tools.preferences.split import prompt_key
from data_tools.records import Messages, Question

Letters = tuple[str, ...]
Format = Literal["questions", "cmb"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A question in `lang` (zh or en), and what its record says of the examination, for the Chinese wording."""

    question: Question
    lang: str
    exam: str = ""
    question_type: str = ""


def choice_of(value: object, format: Format, *, source_file: str, offset: int) -> Choice:
    """The question of a parsed record; its language is told by the characters of question and options.

    Raises:
        RecordError: it cannot be used.
    """
    if format == "questions":
        question = Question.from_json(value, source_file=source_file, offset=offset)
        return Choice(question, _language(question))
    question = cmb.question_of(value)
    assert isinstance(value, dict)
    return Choice(question, _language(question), cmb.exam_of(value), text(value, "question_type"))


def _language(question: Question) -> str:
    words = " ".join((question.question, *question.options.values()))
    return "zh" if unit_of(words) == CHARACTERS else "en"


def choice_key(choice: Choice) -> bytes:
    """Equal for questions that differ in letters, in the order of their options and in what folding takes away alone,
    whatever the wording around them.
    """
    parts = (choice.question.question, *sorted(choice.question.options.values()))
    return prompt_key(tuple({"role": "user", "content": part} for part in parts))


def choice_prompt(choice: Choice, *, explain: bool | None) -> Messages:
    """The user's message: it asks for an explanation too, for the answer alone, or (None) leaves that open."""
    words = cmb.choice_prompt(
        choice.question, choice.lang, explain=explain, exam=choice.exam, question_type=choice.question_type
    )
    return ({"role": "user", "content": words},)


def choice_answer(choice: Choice, letters: Letters, *, with_text: bool, explanation: bool) -> Messages:
    """The assistant's message that names `letters`, the question's explanation before them or not."""
    words = cmb.choice_answer(choice.question, letters, choice.lang, with_text=with_text, explanation=explanation)
    return ({"role": "assistant", "content": words},)
