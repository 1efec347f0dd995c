"""Which solved questions stand before a question: seeded, and the same as lm-eval draws (0.4.13)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

SEED = 1234
"""lm-eval's `fewshot_random_seed`."""

Doc = Mapping[str, Any]
Draw = Literal["first", "random"]


def examples_for_each(
    examples: Sequence[Doc], shots: int, questions: int, draw: Draw, seed: int = SEED
) -> Iterator[Sequence[Doc]]:
    """The examples of each of so many questions, in order.

    `first`: the first of them, for all alike (MMLU, C-Eval, CMMLU). `random`: drawn anew for each question by one
    generator that goes on from question to question (`lm_eval.api.samplers.ContextSampler`), so that the draw of a
    question depends on its place.
    """
    generator = random.Random(seed)
    pool = list(examples)
    for _ in range(questions):
        if not shots:
            yield ()
        elif draw == "first":
            yield pool[:shots]
        else:
            yield generator.sample(pool, shots)


def within_examination(
    questions: Sequence[dict[str, Any]], examples: Sequence[Doc], shots: int, seed: int = SEED
) -> list[dict[str, Any]]:
    """The questions with `examples`: drawn among those of the same exam_type and exam_class, as CMB does, by the
    question's id.

    Where an examination has fewer, all of them are shown.
    """
    by_examination = defaultdict(list)
    for example in examples:
        by_examination[example["meta"]["subject"]].append(example)
    drawn = []
    for question in questions:
        pool = by_examination[question["meta"]["subject"]]
        generator = random.Random(f"{seed} {question['id']}")
        drawn.append({**question, "examples": generator.sample(pool, min(shots, len(pool)))})
    return drawn
