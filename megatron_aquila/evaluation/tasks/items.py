"""From what a model answered to `Item`s, whatever asked it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_aquila.evaluation.results import Item
from megatron_aquila.evaluation.tasks.catalog import Task
from megatron_aquila.evaluation.tasks.extraction import MULTIPLE, chosen_letters
from megatron_aquila.evaluation.tasks.naming import names_the_answer

Doc = Mapping[str, Any]


def choice_item(question: Doc, logps: Sequence[float]) -> Item:
    """The option of the highest log-likelihood is what the model said; of equal ones the first, as in lm-eval.

    Args:
        logps: of the options, in their order, nats. One that is not a number makes the item invalid.
    """
    by_letter = dict(zip(question["options"], logps, strict=True))
    invalid = any(math.isnan(logp) for logp in logps)
    said = None if invalid else (max(by_letter, key=lambda letter: by_letter[letter]),)
    return Item(
        **_facts(question),
        right=said is not None and said[0] in question["answer"],
        invalid=invalid,
        answer=tuple(question["answer"]),
        said=said,
        logps=None if invalid else by_letter,
    )


def written_item(question: Doc, text: str) -> Item:
    """What a written answer says: letters of options (exactly the right ones), or a word out of `values`."""
    if "options" in question:
        several = question.get("meta", {}).get("question_type") == MULTIPLE or len(question["answer"]) > 1
        said = chosen_letters(text, question["options"], several=several)
        right = said is not None and set(said) == set(question["answer"])
        return Item(
            **_facts(question),
            right=right,
            invalid=said is None,
            answer=tuple(question["answer"]),
            said=said,
            text=text,
        )
    named = tuple(value for value in question["values"] if _named(text, value))
    return Item(
        **_facts(question),
        right=names_the_answer(text, question["answer"], question["values"]),
        invalid=not named,
        answer=(question["answer"],),
        said=named or None,
        text=text,
    )


def item_of(task: Task, doc: Doc, sample: Mapping[str, Any]) -> Item:
    """The item of a sample that lm-eval logged (`log_samples`): `filtered_resps` holds (log-likelihood, greedy) for
    each choice, or the text.
    """
    answers = sample["filtered_resps"]
    if task.kind == "log-likelihood":
        return choice_item(doc, [float(logp) for logp, _ in answers])
    return written_item(doc, answers[0])


def _named(text: str, value: str) -> bool:
    return names_the_answer(text, value, [value])


def _facts(question: Doc) -> dict[str, Any]:
    meta = question.get("meta") or {}
    return {
        "id": question["id"],
        "cluster": str(meta.get("cluster") or question["id"]),
        "subject": meta.get("subject") or question.get("lang"),
    }
