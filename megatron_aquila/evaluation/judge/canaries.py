"""Known pairs: the reference of a question against an answer that no judge may prefer. A judge that fails on them, or
that an answer talks over, is not worth its verdicts on the rest. Pure: made of the items, drawn by hash.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice, pairwise

from megatron_aquila.evaluation.judge.reading import Item
from megatron_aquila.evaluation.judge.summary import Canaries

KINDS = ("empty", "scrambled", "unrelated")
"""The worse answer: no word; the reference with its characters shuffled; the reference of another dialogue, the least
like it of several."""
_SHORTEST = 8  # characters of a reference; "Yes." shuffled, or beside another's "Yes.", is no worse
_CHOICE = 16  # references of other dialogues that are looked at


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
    able = [item for item in items if len(item.reference.strip()) >= _SHORTEST and len(set(item.reference)) > 2]
    able.sort(key=lambda item: _digest(seed, item))
    found = []
    for number, item in enumerate(able[:count]):
        kind = KINDS[number % len(KINDS)]
        others = _others(able, item, number) if kind == "unrelated" else []
        if kind == "unrelated" and not others:
            kind = "scrambled"
        if kind == "empty":
            worse = ""
        elif kind == "scrambled":
            worse = _shuffled(item.reference, random.Random(_digest(seed, item)))
        else:
            worse = min(others, key=lambda text: _alike(text, item.reference))
        found.append((item, worse, kind))
    return found


def _others(able: Sequence[Item], item: Item, number: int) -> list[str]:
    """References of other dialogues of the language, from the place `number` on."""
    turned = chain(islice(able, number, None), islice(able, number))
    others = (other for other in turned if other.id != item.id and other.lang == item.lang)
    return list(islice((other.reference for other in others if other.reference != item.reference), _CHOICE))


def _shuffled(text: str, generator: random.Random) -> str:
    characters = list(text)
    while "".join(characters) == text:
        generator.shuffle(characters)
    return "".join(characters)


def _alike(one: str, other: str) -> float:
    """Share of two texts' pairs of characters that both hold (Jaccard)."""
    a, b = ({*pairwise(text)} for text in (one, other))
    return len(a & b) / len(a | b)


def _digest(seed: int, item: Item) -> str:
    return hashlib.sha256(f"canary:{seed}:{item.id}:{item.round}".encode()).hexdigest()
