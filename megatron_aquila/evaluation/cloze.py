"""Cloze questions scored as continuations, with an exported model in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Continuations = Callable[[Mapping[str, Any]], dict[str, str]]


def cloze_accuracy(
    model_directory: Path,
    questions: Sequence[Mapping[str, Any]],
    continuations: Continuations,
    *,
    batch_size: int = 64,
) -> float:
    """Share of questions whose right option has the highest log-probability after the prompt.

    Args:
        model_directory: a Hugging Face directory with its tokenizer.
        questions: records with `question`, `options` and `answer`.
        continuations: gives the text to append to the prompt for each option.

    The score of an option is log p(prompt + option), summed over all tokens but the first: the options of a
    question share the prompt, so only the options differ, wherever the tokenizer puts its borders.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    model = AutoModelForCausalLM.from_pretrained(model_directory).eval()
    texts: list[tuple[int, str, list[int]]] = []
    for number, question in enumerate(questions):
        for letter, continuation in continuations(question).items():
            ids = tokenizer(question["question"] + continuation, add_special_tokens=False)["input_ids"]
            texts.append((number, letter, ids))

    scores: list[dict[str, float]] = [{} for _ in questions]
    texts.sort(key=lambda text: len(text[2]))  # little padding
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        longest = max(len(ids) for *_, ids in batch)
        # Padding on the right is never attended to by a causal model, and its labels are masked below.
        tokens_BS = torch.tensor([ids + [0] * (longest - len(ids)) for *_, ids in batch])
        lengths_B = torch.tensor([len(ids) for *_, ids in batch])
        with torch.no_grad():
            logps_BSV = model(tokens_BS).logits[:, :-1].float().log_softmax(-1)
        logps_BS = logps_BSV.gather(-1, tokens_BS[:, 1:, None]).squeeze(-1)
        counted_BS = torch.arange(1, longest) < lengths_B[:, None]
        for (number, letter, _), score in zip(batch, (logps_BS * counted_BS).sum(-1).tolist()):
            scores[number][letter] = score
    right = [
        max(found, key=lambda letter: found[letter]) in question["answer"] for found, question in zip(scores, questions)
    ]
    return sum(right) / len(right)
