"""The decontaminate step beside datatrove's NGramsDecontFilter: the same questions, texts and length of n-grams.

The index holds 10,000 questions of each language and the clinic's; datatrove's filter reads a file of the same n-grams
in its own units (its indexer needs lighteval and takes no files). Rounds are interleaved, datatrove judges a sample.
Prints documents per CPU second, the ratio, and how many documents of the sample each finds: ours asks for half of a
question's n-grams close together, datatrove for one. Run on a machine at rest:

    python -m benchmarks.corpus.decontamination [--data DIR] [--questions 10000] [--rounds 3]
"""

import gzip
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.corpus.texts import DATATROVE_LANGUAGES, SHARED, sample_texts
from data_tools.corpus.batch import Batch
from data_tools.corpus.decontaminate import Decontaminate, DecontaminateConfig
from data_tools.corpus.step_config import Resources

_BATCH = 1024
_PEER_DOCUMENTS = 250
_NGRAM = 13


def main(
    data: Annotated[Path, typer.Option(help="The real sample data; without it, documents of the clinic.")] = SHARED,
    questions: Annotated[int, typer.Option(min=1, help="Of each language, beside the clinic's.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Time both on Chinese and on English documents."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cut = {lang: list(islice(_questions(data, lang), questions)) for lang in ("zh", "en")}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        began = time.process_time()
        step = _ours(place, cut)
        print(f"{step.items:,} questions indexed in {time.process_time() - began:.1f} s")
        print(
            f"{'':4}{'documents':>10}{'ours /s':>12}{'datatrove /s':>14}{'ratio':>8}"
            f"{'ours find':>11}{'datatrove finds':>17}"
        )
        for lang in ("zh", "en"):
            texts = sample_texts(lang, 1 << 30, data)
            sample = texts[:_PEER_DOCUMENTS]
            peer = _peer(place / lang, cut[lang], lang)
            peer(sample[:2])  # its words are loaded
            best = [0.0, 0.0]
            for _ in range(rounds):
                for who, work, documents in ((0, lambda t: _found(step, t), texts), (1, peer, sample)):
                    began = time.process_time()
                    work(documents)
                    best[who] = max(best[who], len(documents) / (time.process_time() - began))
            print(
                f"{lang:4}{len(texts):10,}{best[0]:12,.0f}{best[1]:14,.0f}{best[0] / best[1]:8.1f}"
                f"{_found(step, sample):11,}{peer(sample):17,}"
            )


def _ours(place: Path, cut: dict[str, list[str]]) -> Decontaminate:
    from data_tools.clinic import make_world
    from data_tools.clinic import questions as clinic_questions

    records = [
        {"id": f"{lang}-{number}", "question": text} for lang, texts in cut.items() for number, text in enumerate(texts)
    ]
    path = place / "questions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, *clinic_questions(make_world())]))
    return DecontaminateConfig(questions=(str(path),)).build(Resources(None, 0))  # type: ignore[arg-type]


def _found(step: Decontaminate, texts: list[str]) -> int:
    found = 0
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        found += sum(drop is not None for drop in step(Batch([""] * len(part), part, [""] * len(part), [], [])).drops)
    return found


def _peer(place: Path, questions: list[str], lang: str) -> Callable[[list[str]], int]:
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    config = NGramsDecontConfig(n_grams=_NGRAM)
    place.mkdir()
    peer = NGramsDecontFilter(str(place), config, language=DATATROVE_LANGUAGES[lang])
    # xxhash 4 takes no str any more, which datatrove 0.10.1 hands to it.
    hash_bytes = peer.hash_func
    peer.hash_func = lambda text: hash_bytes(text.encode())
    hashes = {
        peer.hash_func(" ".join(gram))
        for question in questions
        for gram in ngrams(peer.tokenizer.word_tokenize(simplify_text(question, config.norm_config)), _NGRAM)
    }
    np.array(sorted(hashes), config.hash_config.np_descr).tofile(place / "sample.index.hashes")
    print(f"{lang}: {len(hashes):,} n-grams for datatrove")

    def judge(texts: list[str]) -> int:
        return sum(peer.filter(Document(text=text, id="")) is not True for text in texts)

    return judge


def _questions(data: Path, lang: str) -> Iterator[str]:
    """The beginning of every twentieth document that is looked through, then passages of books and of ChatDoctor."""
    texts = sample_texts(lang, 1 << 30, data)
    for text in texts[::20]:
        yield from islice(_passages(text, lang), 1)
    if data.is_dir() and lang == "zh":
        with gzip.open(data / "tcm_books.jsonl.gz") as lines:
            for line in lines:
                yield from _passages(json.loads(line)["text"], lang)
    elif data.is_dir():
        for record in json.loads((data / "chatdoctor5k.json").read_bytes()):
            yield from _passages(f"{record['input']} {record['output']}", lang)
    else:
        for text in texts[1::20]:
            yield from _passages(text, lang)


def _passages(text: str, lang: str) -> Iterator[str]:
    """Cuts of 20 to 60 characters or words, one after the other."""
    units = list(text) if lang == "zh" else re.findall(r"\S+\s*", text)
    rng = random.Random(len(text))
    start = 0
    while start + 20 <= len(units):
        length = rng.randint(20, 60)
        yield "".join(units[start : start + length])
        start += length


if __name__ == "__main__":
    typer.run(main)
