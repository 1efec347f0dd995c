"""Known pairs: the reference of a question against an answer that no judge may prefer. A judge that fails on them, or
that an answer talks over, is not worth its verdicts on the rest. Pure: made of the items, drawn by hash.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace

from megatron_aquila.evaluation.judge.reading import Item
from megatron_aquila.evaluation.judge.summary import Canaries

KINDS = ("empty", "scrambled", "unrelated")
"""The worse answer: no word; the reference with its characters shuffled; the reference of another dialogue."""


def pair_canaries(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Up to `count` items whose answer is the reference and whose other answer is of a kind of `KINDS`, in turn."""
    return [
        replace(item, answer=item.reference, other=worse, canary=kind)
        for item, worse, kind in _draw(items, count, seed)
    ]


def rubric_canaries(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """Two items for each: the reference as the answer, then the worse one."""
    found = []
    for item, worse, kind in _draw(items, count, seed):
        found += [replace(item, answer=text, canary=kind) for text in (item.reference, worse)]
    return found


def tallied(results: Sequence[tuple[str, bool | None]]) -> Canaries | None:
    """`results`: kind, and whether the better answer won; None: no valid verdict. None for no results."""
    if not results:
        return None
    kinds = {
        kind: (sum(passed is True for found, passed in results if found == kind), n)
        for kind in KINDS
        if (n := sum(found == kind for found, _ in results))
    }
    return Canaries(
        n=len(results),
        passed=sum(passed is True for _, passed in results),
        invalid=sum(passed is None for _, passed in results),
        kinds=kinds,
    )


def _draw(items: Sequence[Item], count: int, seed: int) -> list[tuple[Item, str, str]]:
    """Items with a reference, the worse answer and its kind."""
    able = [item for item in items if item.reference]
    able.sort(key=lambda item: _digest(seed, item))
    found = []
    for number, item in enumerate(able[:count]):
        kind = KINDS[number % len(KINDS)]
        others = [other.reference for other in able if other.id != item.id and other.lang == item.lang]
        others = [text for text in others if text != item.reference]
        if kind == "unrelated" and not others:
            kind = "scrambled"
        if kind == "empty":
            worse = ""
        elif kind == "scrambled":
            characters = list(item.reference)
            random.Random(_digest(seed, item)).shuffle(characters)
            worse = "".join(characters)
        else:
            worse = others[number % len(others)]
        found.append((item, worse, kind))
    return found


def _digest(seed: int, item: Item) -> str:
    return hashlib.sha256(f"canary:{seed}:{item.id}:{item.round}".encode()).hexdigest()
