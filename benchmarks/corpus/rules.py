"""The rules step beside datatrove's own blocks: GopherRepetition, GopherQuality, C4Quality and FineWebQuality.

Same documents, one core, rounds interleaved; each of datatrove's filters sees every document, and may stop at its first
failing rule. It splits words as in its own pipelines (spaCy; jieba for Chinese) where those are installed, and with our
units through its WordTokenizer always; it judges a sample of the documents. Prints documents per CPU second, the
best of the rounds, and the ratios by language. Run on a machine at rest:

    python -m benchmarks.corpus.rules [--data DIR] [--documents 2000] [--rounds 3]
"""

import csv
import gzip
import importlib.util
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from data_tools.corpus.batch import Batch
from data_tools.corpus.rules import Rules, RulesConfig
from data_tools.corpus.step_config import Resources

_PEER_DOCUMENTS = 150
_BATCH = 1024


def main(
    data: Annotated[
        Path | None, typer.Option(help="The real sample data; else documents of the sample clinic.")
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="Of each language.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Time both sides on Chinese and on English documents."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    step = RulesConfig().build(Resources(tokenizer=None, seed=0))  # type: ignore[arg-type]
    print(f"{'':4}{'documents':>10}{'characters':>12}  {'who':28}{'docs/s':>10}{'MB/s':>8}{'ratio':>8}")
    for language in ("en", "zh"):
        texts = list(islice(_real(data, language) if data else _clinic(language), documents))
        peers = _peers(language)
        sample = texts[:: max(1, len(texts) // _PEER_DOCUMENTS)][:_PEER_DOCUMENTS]
        for filters in peers.values():
            _judge(filters, sample[:2])  # models are loaded
        best: dict[str, float] = {}
        for _ in range(rounds):
            rates = {"aquila rules": len(texts) / _seconds(partial(_step, step, texts, language))}
            for name, filters in peers.items():
                rates[name] = len(sample) / _seconds(partial(_judge, filters, sample))
            best = {name: max(rate, best.get(name, 0.0)) for name, rate in rates.items()}
        mean = sum(map(len, texts)) / len(texts)
        size = sum(len(text.encode()) for text in texts) / len(texts) / 1e6
        for name, rate in best.items():
            ratio = best["aquila rules"] / rate
            print(f"{language:4}{len(texts):10,}{mean:12.0f}  {name:28}{rate:10,.0f}{rate * size:8.2f}{ratio:8.1f}")


def _seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _step(step: Rules, texts: list[str], language: str) -> None:
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        step(Batch([""] * len(part), part, [language] * len(part), [""] * len(part), [{} for _ in part]))


def _judge(filters: list[Any], texts: list[str]) -> None:
    from datatrove.data import Document
    from datatrove.utils.text import split_into_parts

    for filter_ in filters:
        split_into_parts.cache_clear()
        for text in texts:
            filter_.filter(Document(text=text, id=""))


def _peers(language: str) -> dict[str, list[Any]]:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    from benchmarks.corpus.datatrove_words import Words

    units: dict[str, Any] = {"datatrove, our words": Words("characters" if language == "zh" else "words")}
    needed = ("spacy", "jieba") if language == "zh" else ("spacy",)
    if all(importlib.util.find_spec(name) for name in needed):
        units["datatrove, its own words"] = "cmn_Hani" if language == "zh" else "eng"
    else:
        print(f"{language}: without {' and '.join(needed)}, datatrove's own words are not timed")
    return {
        name: [
            GopherRepetitionFilter(language=unit),
            GopherQualityFilter(language=unit),
            C4QualityFilter(language=unit),
            FineWebQualityFilter(language=unit),
        ]
        for name, unit in units.items()
    }


def _clinic(language: str) -> Iterator[str]:
    """Documents of about 2,000 (en) and 600 (zh) bytes, made of the clinic's short ones."""
    from data_tools.clinic import documents, general_documents, make_world

    parts: list[str] = []
    for pair in zip(documents(make_world(), stage=1), general_documents()):
        for record in pair:
            if record["lang"] == language:
                parts.append(record["text"])
                if sum(map(len, parts)) > (1900 if language == "en" else 190):
                    yield "\n".join(parts)
                    parts = []


def _real(data: Path, language: str) -> Iterator[str]:
    """MedQuAD; Chinese dialogues: in random order."""
    if language == "en":
        with gzip.open(data / "medquad_sample.jsonl.gz") as lines:
            texts = [f"{record['question']}\n{record['answer']}" for record in map(json.loads, lines)]
    else:
        with (data / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
            texts = [f"{row['ask']}\n{row['answer']}" for row in csv.DictReader(rows)]
    random.Random(0).shuffle(texts)
    yield from texts


if __name__ == "__main__":
    typer.run(main)
