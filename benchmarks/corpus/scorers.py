"""What a domain score costs beside tokenisation: linear over token counts, and fastText, on one core.

Rounds interleaved; documents and MB of text a second of processor time, the least of each way. `linear` is the score
alone, over ids that are there already; `step` the whole domain step over them; `words` fastText's form of the text,
which is a part of `fasttext`.

    taskset -c 0 python -m benchmarks.corpus.scorers [--input FILE.jsonl] [--tokenizer DIR] [--seeds FILE.jsonl]
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from data_tools.clinic.documents import documents
from data_tools.clinic.general import general_documents
from data_tools.clinic.world import make_world
from data_tools.corpus.batch import Batch
from data_tools.corpus.domain import DomainConfig
from data_tools.corpus.step_config import Resources
from data_tools.scorers import load_scorer
from data_tools.scorers.fasttext_model import words
from data_tools.scorers.linear import LinearScorer
from data_tools.scorers.training import train_scorer
from data_tools.tokenizer_training import train_from_texts
from data_tools.tokenizers import load_tokenizer

_BATCH = 1024


def main(
    input: Annotated[Path | None, typer.Option(help="A .jsonl with `text`; else documents of the clinic.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Else a sentencepiece one of 8,000 tokens is trained.")] = None,
    seeds: Annotated[Path | None, typer.Option(help="Labelled seeds with `medical`; else the clinic's.")] = None,
    count: Annotated[int, typer.Option(help="Documents at most.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Train both scorers on the seeds and time them on the documents."""
    records = clinic(count) if input is None else [orjson.loads(line) for line in islice(input.open("rb"), count)]
    texts = [record["text"] for record in records]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if tokenizer is None:
            train_from_texts(texts, tokenizer := place / "tokenizer", vocab_size=8000)
        coder = load_tokenizer(tokenizer)
        if seeds is None:
            (seeds := place / "seeds.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in clinic(4000)))
        for kind in ("linear", "fasttext"):
            start = time.process_time()
            report = train_scorer([seeds], place / kind, kind=kind, task="classification", tokenizer=coder)
            quality = report["test"]["all"]["labels"]["medical"]
            print(
                f"{kind}: {report['seeds']['parts']['train']:,} seeds in {time.process_time() - start:.1f} s; medical "
                f"precision {quality['precision']:.4f}, recall {quality['recall']:.4f}, F1 {quality['f1']:.4f}"
            )
        linear, fasttext = load_scorer(place / "linear", coder), load_scorer(place / "fasttext")
        assert isinstance(linear, LinearScorer)
        config = {"stages": [{"scorer": place / "linear"}]}
        step = DomainConfig.model_validate(config).build(Resources(coder, seed=0))
        batches = [batch_of(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
        coder.encode_batch(texts[:_BATCH])

        ids = [batch.token_ids(coder) for batch in batches]
        ways: dict[str, Callable[[], Any]] = {
            "tokenise": lambda: [coder.encode_batch(batch.texts) for batch in batches],
            "linear": lambda: [linear.score_ids(rows) for rows in ids],
            "step": lambda: [step(batch) for batch in batches],
            "words": lambda: [words(text, 2000, 2) for text in texts],
            "fasttext": lambda: [fasttext.score(batch) for batch in batches],
        }
        best = dict.fromkeys(ways, float("inf"))
        for _, (name, way) in itertools.product(range(rounds), ways.items()):
            start = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - start)
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokens = sum(len(row) for rows in ids for row in rows)
    print(f"{len(texts):,} documents, {size:.1f} MB, {tokens:,} tokens")
    for name, seconds in best.items():
        share = seconds / best["tokenise"]
        print(f"{name:9} {len(texts) / seconds:10,.0f} docs/s {size / seconds:8.1f} MB/s {share:6.2f} of tokenisation")


def clinic(count: int) -> list[dict[str, Any]]:
    """Medical and general documents by turns, labelled."""
    medical = documents(make_world(0, 24), stage=1, count=(count + 1) // 2)
    general = general_documents(count=count // 2)
    pairs = itertools.zip_longest(medical, general)
    labelled = (({**one, "label": "medical"}, other and {**other, "label": "other"}) for one, other in pairs)
    return [record for record in itertools.chain.from_iterable(labelled) if record]


def batch_of(texts: list[str]) -> Batch:
    """The texts as a batch."""
    count = len(texts)
    return Batch([str(n) for n in range(count)], texts, [""] * count, [""] * count, [{} for _ in texts])


if __name__ == "__main__":
    typer.run(main)
