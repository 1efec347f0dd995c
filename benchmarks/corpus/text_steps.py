"""The text steps beside what they replace: datatrove's PIIFormatter, ftfy and py3langid on every document.

One core, the sample data in batches, rounds interleaved, least CPU time of each. Prints µs a document, documents a
second and ratios. datatrove is timed where it is installed.

    python -m benchmarks.corpus.text_steps [--documents 10000] [--rounds 3]
"""

import csv
import gzip
import importlib.util
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from data_tools.corpus.batch import Batch
from data_tools.corpus.language import LanguageConfig
from data_tools.corpus.normalise import NormaliseConfig
from data_tools.corpus.privacy import PrivacyConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
_BATCH = 1000
_PEERS = {"ftfy on everything": "normalise", "py3langid on everything": "language", "datatrove PIIFormatter": "privacy"}


def main(
    documents: Annotated[int, typer.Option(min=100)] = 10_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Time the steps and their peers on the same texts."""
    texts = _texts(documents)
    size = sum(len(text.encode()) for text in texts) / len(texts)
    print(f"{len(texts)} documents of {size:.0f} bytes on average")
    batches = [_batch(texts[first : first + _BATCH]) for first in range(0, len(texts), _BATCH)]
    ways: dict[str, Callable[[], object]] = {}
    simplifying = NormaliseConfig(traditional_to_simplified=True).build()
    for step in (NormaliseConfig().build(), LanguageConfig().build(), PrivacyConfig().build(), simplifying):
        name = "normalise, with t2s" if step is simplifying else step.name
        ways[name] = lambda step=step: [step(batch) for batch in batches]  # type: ignore[misc]
    for name, function in _peers().items():
        ways[name] = lambda function=function: [function(text) for text in texts]  # type: ignore[misc]
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - start)
    for name, seconds in least.items():
        peer = f"  {seconds / least[_PEERS[name]]:.1f} times {_PEERS[name]}" if name in _PEERS else ""
        print(f"{name:28}{seconds / len(texts) * 1e6:9.1f} µs/doc{len(texts) / seconds:11.0f} docs/s{peer}")
    three = sum(least[name] for name in ("normalise", "language", "privacy"))
    print(f"{'the three steps':28}{three / len(texts) * 1e6:9.1f} µs/doc{len(texts) / three:11.0f} docs/s")


def _peers() -> dict[str, Callable[[str], object]]:
    import ftfy
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    peers = {"ftfy on everything": ftfy.fix_text, "py3langid on everything": identifier.classify}
    if importlib.util.find_spec("datatrove"):
        from datatrove.pipeline.formatters import PIIFormatter

        peers["datatrove PIIFormatter"] = PIIFormatter().format
    return peers


def _texts(count: int) -> list[str]:
    """Two thirds Chinese dialogues, one third English: the mix that the floors were measured on."""
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as file:
        chinese = [f"{row['title']}\n{row['ask']}\n{row['answer']}" for row in csv.DictReader(file)]
    with gzip.open(SHARED / "medquad_sample.jsonl.gz") as file:
        english = [f"{record['question']}\n{record['answer']}" for record in map(json.loads, file)]
    texts = [*chinese[: count * 2 // 3], *english[: count - count * 2 // 3]]
    random.Random(1).shuffle(texts)
    return texts


def _batch(texts: list[str]) -> Batch:
    count = len(texts)
    return Batch([str(place) for place in range(count)], texts, [""] * count, [""] * count, [{} for _ in texts])


if __name__ == "__main__":
    typer.run(main)
