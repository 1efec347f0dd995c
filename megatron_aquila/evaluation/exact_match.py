"""Questions answered in words by an exported model in transformers, and counted right by the value they must name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answered:
    """A question's last message, what the model said to it, and whether that is right."""

    question: str
    said: str
    right: bool


@dataclass(frozen=True)
class ExactMatch:
    """Shares of right answers between 0 and 1: of all questions, and by the value of each group key.

    examples: the first question of each combination of those values, in their order.
    """

    accuracy: float
    groups: dict[str, dict[str, float]]
    examples: tuple[Answered, ...]


def names_the_answer(said: str, answer: str, values: Sequence[str]) -> bool:
    """Whether a text names `answer` and no other one of `values`; capitals do not matter.

    What else it says does not matter either: neither wording nor politeness is scored. A list of guesses is wrong. A
    value inside a longer Latin word is not named: "liver" is not in "delivered".
    """

    def named(value: str) -> bool:
        return re.search(rf"(?<![a-z]){re.escape(value.lower())}(?![a-z])", said.lower()) is not None

    return named(answer) and not any(named(value) for value in values if value.lower() != answer.lower())


def exact_match(
    model_directory: Path,
    questions: Sequence[Mapping[str, Any]],
    *,
    group_by: Sequence[str] = ("split", "lang"),
    batch_size: int = 128,
    max_new_tokens: int = 48,
) -> ExactMatch:
    """Ask an assistant and count the answers that name the right value (`names_the_answer`).

    Args:
        model_directory: a Hugging Face directory with its tokenizer, chat template and generation_config.
        questions: records with `messages` (ending in the user's), `answer`, `values` and the keys of `group_by`.
        group_by: keys of a question; the accuracy of each of their values is given too.
        max_new_tokens: where an answer is cut that does not end.

    Decoding is greedy and ends at an eos token of generation_config.json.

    Raises:
        ValueError: there is no question, or the tokenizer has no chat template.
    """
    if not questions:
        raise ValueError("there is no question to ask: give at least one")
    said = _answers(model_directory, [question["messages"] for question in questions], batch_size, max_new_tokens)
    right = [names_the_answer(text, q["answer"], q["values"]) for text, q in zip(said, questions)]
    groups = {
        key: {
            value: _share(r for r, question in zip(right, questions) if question[key] == value)
            for value in sorted({question[key] for question in questions})
        }
        for key in group_by
    }
    first: dict[tuple[Any, ...], int] = {}
    for number, question in enumerate(questions):
        first.setdefault(tuple(question[key] for key in group_by), number)
    examples = tuple(
        Answered(questions[i]["messages"][-1]["content"], said[i], right[i]) for _, i in sorted(first.items())
    )
    return ExactMatch(_share(right), groups, examples)


def _share(right: Iterable[bool]) -> float:
    counted = list(right)
    return sum(counted) / len(counted)


def _answers(
    model_directory: Path, conversations: Sequence[Sequence[Mapping[str, str]]], batch_size: int, max_new_tokens: int
) -> list[str]:
    """The model's answer to each conversation, in order, without its closing token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    if tokenizer.chat_template is None:
        raise ValueError(f"{model_directory}: its tokenizer has no chat template; export a model that was fine-tuned")
    model = AutoModelForCausalLM.from_pretrained(model_directory).eval()
    eos = model.generation_config.eos_token_id
    ends = set(eos) if isinstance(eos, list) else {eos} - {None}
    prompts: list[tuple[int, list[int]]] = []
    for number, messages in enumerate(conversations):
        encoded = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        prompts.append((number, encoded["input_ids"]))

    said = [""] * len(prompts)
    prompts.sort(key=lambda prompt: len(prompt[1]))  # little padding
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        longest = max(len(ids) for _, ids in batch)
        # Padding on the left, so that every answer begins at the same place; the attention mask hides it.
        tokens_BS = torch.tensor([[0] * (longest - len(ids)) + ids for _, ids in batch])
        mask_BS = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for _, ids in batch])
        generated_BS = model.generate(
            tokens_BS, attention_mask=mask_BS, do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0
        )
        for (number, _), ids in zip(batch, generated_BS[:, longest:].tolist()):
            end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
            said[number] = tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
    return said
