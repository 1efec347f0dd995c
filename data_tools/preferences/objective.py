"""Objective pairs: a multiple-choice question with its key, against a wrong answer. They keep preference training from
unlearning facts (the paper's "alignment tax").

A rejected answer differs from the chosen one in the letters and their texts alone; with `explanation: both` the two
carry the same explanation, so that neither length nor form tells which is right.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_tools.causal_model import CausalModel, CausalSettings
from data_tools.preferences.choices import Choice, Letters, choice_answer, choice_key, choice_prompt
from data_tools.preferences.outcome import Made
from data_tools.preferences.strata import Draw, Member, Traits, prompt_rank
from data_tools.records import PreferencePair, Question

Change = Literal["swapped", "added", "missing"]

NO_WRONG_OPTION, TOO_SHORT = "no-wrong-option", "question-too-short"
SINGLE, MULTIPLE = "single", "multiple"


class ObjectiveConfig(BaseModel):
    """Which questions, and what the answers look like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: tuple[str, ...] = Field(min_length=1)
    """Files, directories and patterns. Training questions only: see `decontaminate`."""
    format: Literal["questions", "cmb"] = "questions"
    """questions: {"question", "options", "answer"} as `aquila data` writes; cmb: CMB-Exam as published."""
    source: str = "questions"
    """Of questions that name none."""
    draw: Draw = Draw(count=3708)
    """How many pairs, of which parts; `kinds` are "single" and "multiple" (right options). 3,708 in the paper."""
    wrong: Literal["random", "likely"] = "random"
    """The rejected answer: drawn at random, as in the paper, or the one that `model` finds most likely after the
    prompt: what the model would have said."""
    model: CausalSettings | None = None
    """Of `likely`: the model that is to be trained, or one like it."""
    answer: Literal["letter", "letter-and-text"] = "letter"
    """What an answer names. The paper does not say. Ours: the letter, as the CMB importer words the answers that
    fine-tuning was on; wrong answers then are as long as right ones."""
    explanation: Literal["none", "chosen", "both"] = "both"
    """Which answers carry the explanation. The paper does not say. Ours: both or neither, since a rejected answer
    without one would be known by its length. It then stands before a wrong letter, and the pair teaches that the answer
    has to agree with it."""
    explained: float = Field(default=0.5, ge=0, le=1)
    """Share of the questions that have an explanation whose pairs carry it; ours."""
    shortest: int = Field(default=4, ge=1)
    """Characters of a question; ours: below that it is a remnant."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.wrong == "likely" and self.model is None:
            raise ValueError("wrong: likely needs model.model, a directory with a language model of transformers")
        return self


class Wrong(NamedTuple):
    """A wrong answer, and what it does to the right one."""

    letters: Letters
    change: Change


def question_member(choice: Choice, config: ObjectiveConfig, seed: int) -> Member[Choice] | str:
    """What a question has for the draw, or the reason why it gives no pair."""
    question = choice.question
    if len(question.question.strip()) < config.shortest:
        return TOO_SHORT
    if not wrong_answers(question):
        return NO_WRONG_OPTION
    kind = SINGLE if len(question.answer) == 1 else MULTIPLE
    rank = prompt_rank(choice_key(choice), seed, "objective")
    return Member(rank, question.id, Traits(choice.lang, question.source or config.source, 1, kind), choice)


def wrong_answers(question: Question) -> list[Wrong]:
    """Every answer one step from the right one: a right option swapped for a wrong one, and, where several are right, a
    wrong one added or a right one missing. In the order of the options; none equals the right answer.

    An option with the text of a right one is not wrong.
    """
    right = set(question.answer)
    right_texts = {_plain(question.options[letter]) for letter in right}
    false = [
        letter for letter, text in question.options.items() if letter not in right and _plain(text) not in right_texts
    ]
    ordered = [letter for letter in question.options if letter in right]
    found = [Wrong(_in_order(question, (right - {one}) | {other}), "swapped") for one in ordered for other in false]
    if len(right) > 1:
        found += [Wrong(_in_order(question, right | {other}), "added") for other in false]
        found += [Wrong(_in_order(question, right - {one}), "missing") for one in ordered]
    return found


def _plain(text: str) -> str:
    return "".join(text.casefold().split())


def _in_order(question: Question, letters: set[str]) -> Letters:
    return tuple(letter for letter in question.options if letter in letters)


def random_wrong(question: Question, seed: int) -> Wrong:
    """One of `wrong_answers`, by the question's id: the kind of change first, each alike, then the letters."""
    generator = random.Random(f"{seed} wrong {question.id} {question.question}")
    found = wrong_answers(question)
    change = generator.choice(sorted({wrong.change for wrong in found}))
    return generator.choice([wrong for wrong in found if wrong.change == change])


def likely_wrong(choices: Sequence[Choice], model: CausalModel) -> list[tuple[Wrong, float]]:
    """Of each question the wrong answer whose letters have the highest mean log-probability a token, where the right
    answer names its own, and that value (nats); of equals the first.

    The letters alone are looked at: they are about as long in every answer, which texts are not. A prompt that is too
    long for the model loses its beginning.
    """
    rows: list[list[int]] = []
    starts: list[int] = []
    found = [wrong_answers(choice.question) for choice in choices]
    for choice, wrongs in zip(choices, found, strict=True):
        [asked] = choice_prompt(choice, explain=False)
        [answered] = choice_answer(choice, (), with_text=False, explanation=False)
        before = f"{asked['content']}\n{answered['content'].rstrip('。.')}"
        prompt = model.encode(before)
        for wrong in wrongs:
            whole = model.encode(before + "".join(wrong.letters))
            # The letters' tokens are those after what both have in common, should a token span the border.
            start = next((i for i, (a, b) in enumerate(zip(prompt, whole)) if a != b), len(prompt))
            cut = max(0, len(whole) - model.max_length)
            rows.append(whole[cut:])
            starts.append(max(1, start - cut))
    means = iter([float(logps[start - 1 :].mean()) for logps, start in zip(model.token_logps(rows), starts)])
    best = []
    for wrongs in found:
        scored = [(wrong, next(means)) for wrong in wrongs]
        best.append(max(scored, key=lambda pair: pair[1]))
    return best


def explains(question: Question, config: ObjectiveConfig, seed: int) -> bool:
    """Whether the pair carries the question's explanation."""
    if config.explanation == "none" or not question.explanation.strip():
        return False
    return random.Random(f"{seed} explained {question.id} {question.question}").random() < config.explained


def objective_pair(
    member: Member[Choice], wrong: Wrong, config: ObjectiveConfig, seed: int, more: Mapping[str, Any]
) -> Made:
    """The pair of a question and one wrong answer; `more` goes into its meta."""
    choice = member.content
    question, with_text = choice.question, config.answer == "letter-and-text"
    explained = explains(question, config, seed)
    right = _in_order(question, set(question.answer))
    ask = True if explained else None if with_text else False  # for letters and nothing else, where these are all
    pair = PreferencePair(
        id=question.id,
        prompt=choice_prompt(choice, explain=ask),
        chosen=choice_answer(choice, right, with_text=with_text, explanation=explained),
        rejected=choice_answer(
            choice, wrong.letters, with_text=with_text, explanation=explained and config.explanation == "both"
        ),
        kind="objective",
    )
    meta = {
        "right": "".join(right),
        "wrong": "".join(wrong.letters),
        "change": wrong.change,
        "drawn": config.wrong,
        "explained": explained,
        **more,
    }
    return Made(pair, member.traits.lang, member.traits.source, meta)
