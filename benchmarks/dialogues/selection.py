"""The diversity of a selection, in one process: our walk, the same in plain blocks of whole vectors, and Deita's loop,
one candidate at a time (hkust-nlp/deita's `IterativeFilter` with its kept vectors normalised once, not again for every
candidate). Rounds are interleaved; all must keep the same.

Vectors: n-grams of the real sample dialogues, each once more with some of its characters changed until there are
enough; or clusters of random numbers whose dimensions shrink, as a model's do. Prints dialogues a second, the ratios,
and pairs compared over all pairs.

    python -m benchmarks.dialogues.selection [--dialogues 20000] [--dimensions 512] [--threshold 0.9] [--no-loop]
"""

import random
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.corpus.texts import sample_texts
from data_tools.dialogues.diversity import KEPT, ArrayVectors, DiversityWalk
from data_tools.dialogues.embedding import NgramEmbedding

_CHANGED = 0.2  # of a text's characters, at most
_DECAY = 0.5  # of a dimension's deviation, as a power of its number
_PER_CLUSTER = 20

Vectors = npt.NDArray[np.float32]


def main(
    dialogues: Annotated[int, typer.Option(help="How many.")] = 20_000,
    dimensions: Annotated[int, typer.Option(help="Numbers of a vector.")] = 512,
    threshold: Annotated[float, typer.Option(help="A cosine.")] = 0.9,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    loop: Annotated[bool, typer.Option(help="Walk as Deita does, too.")] = True,
    blocks: Annotated[bool, typer.Option(help="Walk in plain blocks, too.")] = True,
) -> None:
    """Time the walks on each kind of vector and compare what they keep."""
    print(
        f"{'':10}{'dialogues':>10}{'kept':>10}{'ours /s':>10}{'blocks /s':>11}{'loop /s':>10}{'blocks x':>10}"
        f"{'loop x':>8}{'pairs':>8}{'whole':>9}  same"
    )
    for name, make in (("n-grams", _texts), ("clusters", _clusters)):
        vectors = make(dialogues, dimensions)
        ways: dict[str, Callable[[Vectors, float], list[int]]] = {"ours": _ours}
        ways |= {"blocks": _blocks} if blocks else {}
        ways |= {"loop": _loop} if loop else {}
        times: dict[str, list[float]] = {way: [] for way in ways}
        kept: dict[str, list[int]] = {}
        for _ in range(rounds):
            for way, walk in ways.items():
                began = time.perf_counter()
                kept[way] = walk(vectors, threshold)
                times[way].append(time.perf_counter() - began)
        best = {way: min(seconds) for way, seconds in times.items()}
        speeds = {way: f"{len(vectors) / best[way]:,.0f}" if way in best else "" for way in ("ours", "blocks", "loop")}
        ratios = {way: f"{best[way] / best['ours']:.1f}" if way in best else "" for way in ("blocks", "loop")}
        walker = _walked(vectors, threshold, None)[0]
        pairs = len(vectors) * (len(vectors) - 1) / 2
        print(
            f"{name:10}{len(vectors):10,}{len(kept['ours']):10,}{speeds['ours']:>10}{speeds['blocks']:>11}{speeds['loop']:>10}"
            f"{ratios['blocks']:>10}{ratios['loop']:>8}{walker.compared / pairs:8.1%}{walker.checked / pairs:9.2%}"
            f"  {'yes' if all(some == kept['ours'] for some in kept.values()) else 'NO'}"
        )


def _ours(vectors: Vectors, threshold: float) -> list[int]:
    return _walked(vectors, threshold, None)[1]


def _blocks(vectors: Vectors, threshold: float) -> list[int]:
    return _walked(vectors, threshold, False)[1]


def _walked(vectors: Vectors, threshold: float, shorten: bool | None) -> tuple[DiversityWalk, list[int]]:
    walker = DiversityWalk(ArrayVectors(vectors), threshold, shorten=shorten)
    count = len(vectors)
    outcome = walker(np.arange(count), np.zeros(count, np.int64), [count], count).outcome
    return walker, np.flatnonzero(outcome == KEPT).tolist()


def _loop(vectors: Vectors, threshold: float) -> list[int]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.empty_like(unit)
    found: list[int] = []
    for place, vector in enumerate(unit):
        if not (kept[: len(found)] @ vector > threshold).any():
            kept[len(found)] = vector
            found.append(place)
    return found


def _texts(count: int, dimensions: int) -> Vectors:
    texts = sample_texts("zh", count)
    draw = random.Random(0)
    alphabet = sorted(set("".join(texts[:500])))
    while len(texts) < count:
        source = list(texts[draw.randrange(len(texts))])
        for place in draw.sample(range(len(source)), int(len(source) * draw.uniform(0, _CHANGED))):
            source[place] = draw.choice(alphabet)
        texts.append("".join(source))
    return NgramEmbedding(dimensions=dimensions).vectors(texts, ["zh"] * count)


def _clusters(count: int, dimensions: int) -> Vectors:
    draw = np.random.default_rng(0)
    deviations = (np.arange(1, dimensions + 1) ** -_DECAY).astype(np.float32)
    centres = draw.standard_normal((max(1, count // _PER_CLUSTER), dimensions), np.float32) * deviations
    vectors = np.empty((count, dimensions), np.float32)
    for start in range(0, count, 4096):
        size = min(4096, count - start)
        noise = draw.standard_normal((size, dimensions), np.float32) * deviations
        spread = draw.uniform(0, 1, (size, 1)).astype(np.float32)
        vectors[start : start + size] = centres[draw.integers(0, len(centres), size)] + noise * spread
    return vectors


if __name__ == "__main__":
    typer.run(main)
