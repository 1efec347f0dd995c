"""What a question looks like to the model. Pure: a question record in, strings out.

Each function makes the very string of the task that others publish numbers with, which its first line names; a record
is as `data_tools.records.Question` with `meta`. Options and questions are taken as they are published, spaces included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.clinic.questions import continuations

Doc = Mapping[str, Any]


def options(doc: Doc) -> str:
    """A line `A. text` an option."""
    return "".join(f"{letter}. {text}\n" for letter, text in doc["options"].items())


def mmlu(doc: Doc) -> str:
    """lm-eval `mmlu_*` (hendrycks/test)."""
    return f"{doc['question'].strip()}\n{options(doc)}Answer:"


def ceval(doc: Doc) -> str:
    """lm-eval `ceval-valid_*` and `cmmlu_*`."""
    return f"{doc['question'].strip()}\n{options(doc)}答案："


def medqa(doc: Doc) -> str:
    """lm-eval `medqa_4options`."""
    return f"Question: {doc['question']}\n{options(doc)}Answer:"


def medmcqa(doc: Doc) -> str:
    """lm-eval `medmcqa`."""
    return f"Question: {doc['question']}\nChoices:\n{options(doc)}Answer:"


def pubmedqa(doc: Doc) -> str:
    """lm-eval `pubmedqa`."""
    contexts = "\n".join(doc["meta"]["contexts"])
    return f"Abstract: {contexts}\nQuestion: {doc['question']}\nAnswer:"


def cmb(doc: Doc) -> str:
    """FreedomIntelligence/CMB, its answer-only wording.

    With examples (`doc["examples"]`: questions of the same examination) each exchange stands as 问：… 答：…, as in the
    template that CMB's README gives.
    """
    examples = doc.get("examples") or ()
    if not examples:
        return _cmb_question(doc)
    shown = "".join(f"问：{_cmb_question(x)}\n答：答案是{''.join(x['answer'])}。\n" for x in examples)
    return f"{shown}问：{_cmb_question(doc)}\n答："


def _cmb_question(doc: Doc) -> str:
    meta = doc["meta"]
    head = f"以下是中国{meta['exam_type']}中{meta['exam_class']}考试的一道{meta['question_type']}，"
    return f"{head}不需要做任何分析和解释，直接输出答案选项。\n{doc['question']}\n{options(doc).removesuffix(chr(10))}"


def letters(doc: Doc) -> str:
    """A question of the user's own: as C-Eval if it holds Chinese characters, else as MMLU."""
    return ceval(doc) if any("一" <= character <= "鿿" for character in doc["question"]) else mmlu(doc)


def cloze(doc: Doc) -> str:
    """The beginning of a sentence, that the options end."""
    return str(doc["question"])


def said_by_user(doc: Doc) -> str:
    """The one message of a record with `messages`; tasks in lm-eval have a single turn."""
    return str(doc["messages"][-1]["content"])


def letter_choices(doc: Doc) -> list[str]:
    """The letters (or words: yes, no, maybe) that name the options."""
    return list(doc["options"])


def cloze_choices(doc: Doc) -> list[str]:
    """What is appended to the question for each option, in their order."""
    return list(continuations(doc).values())


def right_indices(doc: Doc) -> list[int]:
    """Places of the right options."""
    return [place for place, letter in enumerate(doc["options"]) if letter in doc["answer"]]


def first_right(doc: Doc, choices: Sequence[str]) -> str:
    """What an example shows as its answer."""
    return choices[right_indices(doc)[0]]
