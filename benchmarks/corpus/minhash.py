"""Deduplication beside datatrove's four MinHash stages (14 x 8, 5-grams), one process each, rounds interleaved.

Both read the same JSON Lines, make signatures, find the duplicates and write which documents go. Prints documents a
second, the ratio, and the sizes of the kept sets. datatrove's word splitters are loaded before the clock starts.

    python -m benchmarks.corpus.minhash [--documents 2000] [--rounds 2]
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer

from benchmarks.corpus.texts import DATATROVE_LANGUAGES, sample_texts
from data_tools.corpus.batch import Batch
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.corpus.near_duplicates import find_duplicates
from data_tools.corpus.step_config import Resources

_BATCH = 1024
_RESOURCES = Resources(None, 0)  # type: ignore[arg-type]  # signatures need no tokenizer


def main(
    documents: Annotated[int, typer.Option(help="Documents of each language.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Time both on each language and compare what they keep."""
    print(
        f"{'':4}{'documents':>10}{'ours /s':>12}{'datatrove /s':>14}{'ratio':>8}"
        f"{'kept':>8}{'datatrove':>11}{'apart':>8}"
    )
    for lang in ("zh", "en"):
        texts = sample_texts(lang, documents)
        _ours(texts[:50], lang)
        _datatrove(texts[:50], lang)
        times: dict[Callable[[list[str], str], list[bool]], list[float]] = {_ours: [], _datatrove: []}
        kept = {}
        for _ in range(rounds):
            for way, seconds in times.items():
                began = time.perf_counter()
                kept[way] = way(texts, lang)
                seconds.append(time.perf_counter() - began)
        ours, theirs = min(times[_ours]), min(times[_datatrove])
        counts = sum(kept[_ours]), sum(kept[_datatrove])
        print(
            f"{lang:4}{len(texts):10,}{len(texts) / ours:12,.0f}{len(texts) / theirs:14,.0f}{theirs / ours:8.1f}"
            f"{counts[0]:8,}{counts[1]:11,}{abs(counts[0] - counts[1]) / counts[1]:8.2%}"
        )


def _ours(texts: list[str], lang: str) -> list[bool]:
    config = DeduplicateConfig()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        source = _write(texts, place / "texts.jsonl")
        sign = config.signer(_RESOURCES)
        read = [orjson.loads(line)["text"] for line in source.read_bytes().splitlines()]
        with (place / "part").open("wb") as file:
            for start in range(0, len(read), _BATCH):
                part = read[start : start + _BATCH]
                sign(Batch([], part, [lang] * len(part), [], [])).tofile(file)
        find_duplicates(config, [place / "part"], place, [place / "verdicts"])
        verdicts = np.load(place / "verdicts", allow_pickle=False)
        gone = set(verdicts["position"][verdicts["drop"]].tolist())
        return [place not in gone for place in range(len(texts))]


def _datatrove(texts: list[str], lang: str) -> list[bool]:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.logging import logger

    logger.remove()
    config = MinhashConfig()
    language = DATATROVE_LANGUAGES[lang]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        _write(texts, place / "in" / "texts.jsonl")
        signatures, buckets, clusters, kept = (
            str(place / name) for name in ("signatures", "buckets", "remove", "kept")
        )
        read = JsonlReader(str(place / "in"), file_progress=False, doc_progress=False)
        sign = MinhashDedupSignature(signatures, config, language=language)
        sign._hash_func = _xxhash64
        stages = [
            ([read, sign], 1),
            ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
            ([MinhashDedupCluster(buckets, clusters, config)], 1),
            ([read, MinhashDedupFilter(clusters), JsonlWriter(kept, "${rank}.jsonl", compression=None)], 1),
        ]
        for stage, (pipeline, tasks) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(place / f"log-{stage}")).run()
        ids = {int(orjson.loads(line)["id"]) for line in (place / "kept" / "00000.jsonl").read_bytes().splitlines()}
        return [place in ids for place in range(len(texts))]


def _xxhash64(shingle: str) -> int:
    """datatrove 0.10.1's default hash function. It hands xxhash a str, which xxhash 4 takes no more."""
    import xxhash

    return int(xxhash.xxh64_intdigest(shingle.encode()))


def _write(texts: list[str], path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps({"text": text, "id": str(k)}) + b"\n" for k, text in enumerate(texts)))
    return path


if __name__ == "__main__":
    typer.run(main)
