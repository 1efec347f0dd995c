"""What the YAML definitions name with `!function`: lm-eval calls these."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_aquila.evaluation.tasks.data import DATA_VARIABLE, EvaluationDataError, examples_of, load_split
from megatron_aquila.evaluation.tasks.draws import within_examination
from megatron_aquila.evaluation.tasks.extraction import MULTIPLE, chosen_letters
from megatron_aquila.evaluation.tasks.naming import names_the_answer
from megatron_aquila.evaluation.tasks.prompts import (
    ceval,
    cloze,
    cloze_choices,
    cmb,
    first_right,
    letter_choices,
    letters,
    medmcqa,
    medqa,
    mmlu,
    pubmedqa,
    right_indices,
    said_by_user,
)

__all__ = [
    "ceval",
    "cloze",
    "cloze_choices",
    "cmb",
    "cmb_results",
    "dataset",
    "first_right_letter",
    "letter_choices",
    "letters",
    "medmcqa",
    "medqa",
    "mmlu",
    "pubmedqa",
    "right_index",
    "right_indices",
    "right_letters",
    "said_by_user",
    "value",
    "words_results",
]

Doc = Mapping[str, Any]


class Docs(list[dict[str, Any]]):
    """Records as lm-eval takes them: it asks a data set for its columns, and reads it as a list (0.4.13)."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(key for record in self[:1] for key in record)


def dataset(
    *,
    set: str = "",
    split: str = "",
    examples: str | None = None,
    subject: str | None = None,
    rows: int | None = None,
    examples_shown: int = 0,
    data: str | None = None,
    file: str | None = None,
    examples_file: str | None = None,
    **others: object,
) -> dict[str, Docs]:
    """The questions (`test`) and the examples (`examples`) of a task; no data set library, no cache, no network.

    Args:
        data: the directory that `aquila eval fetch` filled; in lm-eval `--metadata '{"data": "…"}'`, or the environment
            variable AQUILA_EVALUATION_DATA.
        file, examples_file: files of questions instead.
        examples_shown: of CMB, how many examples each question carries.
        others: what else lm-eval passes along.

    Raises:
        EvaluationDataError: no place is named, or what is there is not the set.
    """
    if file is not None:
        asked = load_split(Path(file), rows=None)
        shown = load_split(Path(examples_file), rows=None) if examples_file else []
        return {"test": Docs(asked), "examples": Docs(shown)}
    place = data or os.environ.get(DATA_VARIABLE)
    if not place:
        raise EvaluationDataError(
            f'where are the evaluation sets? Give their directory as metadata {{"data": …}} or in {DATA_VARIABLE}'
        )
    asked = load_split(Path(place), set, split, subject=subject, rows=rows)
    shown = examples_of(Path(place), set, examples, subject=subject) if examples else []
    if examples_shown:
        asked = within_examination(asked, shown, examples_shown)
    return {"test": Docs(asked), "examples": Docs(shown)}


def right_index(doc: Doc) -> int:
    """The right option's place, of a question that has one."""
    return right_indices(doc)[0]


def first_right_letter(doc: Doc) -> str:
    """What an example shows as its answer, where a question may have several."""
    return first_right(doc, letter_choices(doc))


def right_letters(doc: Doc) -> str:
    return "".join(doc["answer"])


def value(doc: Doc) -> str:
    return str(doc["answer"])


def cmb_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """Exact match of the set of letters; an answer that cannot be read is wrong."""
    said = chosen_letters(results[0], doc["options"], several=doc["meta"]["question_type"] == MULTIPLE)
    return {"acc": float(said == tuple(doc["answer"])), "invalid": float(said is None)}


def words_results(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    return {"acc": float(names_the_answer(results[0], doc["answer"], doc["values"]))}
