"""The whole chain, as `aquila data corpus` runs it: documents a second, and the peak of memory at one and at ten times
the corpus.

    python -m benchmarks.corpus.chain --tokenizer DIR [--documents N] [--workers N] [--times 10]

Documents are made of sentences of real text (`texts.py`), drawn anew for each, with the lengths that the real ones
have: so many different ones as are asked for. Start-up of all processes is within the time.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.corpus.texts import sample_texts
from benchmarks.memory import peaks
from data_tools.clinic.questions import questions
from data_tools.clinic.raw import seed_documents
from data_tools.clinic.world import make_world
from data_tools.scorers.training import train_scorer

_SENTENCE = re.compile(r"[^。！？.!?\n]+[。！？.!?\n]+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", type=int, default=10, help="size of the second corpus; 1 leaves it out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _prepare(directory, arguments.tokenizer)
        heads = f"{'documents':>10}{'MB':>8}{'seconds':>10}{'documents/s':>14}{'MB/s':>8}{'kept':>8}"
        print(f"{heads}{'peak MiB, parent + workers':>32}")
        runs = [
            _run(directory, arguments.documents * times, arguments.workers) for times in sorted({1, arguments.times})
        ]
        if len(runs) == 2:
            (seconds, peak), (more_seconds, more_peak) = runs
            rate = arguments.documents * (arguments.times - 1) / (more_seconds - seconds)
            print(f"each further document: {rate:,.0f} a second, start-up and end left out")
            print(f"peak at {arguments.times} times the corpus: {more_peak / peak:.2f} of the first")


def _prepare(directory: Path, tokenizer: Path) -> None:
    world = make_world(0)
    (directory / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seed_documents(world)))
    (directory / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions(world)))
    seeds, scorer = directory / "seeds.jsonl", directory / "domain"
    train_scorer([seeds], scorer, kind="linear", task="classification", tokenizer=tokenizer)
    recipe = {
        "output": str(directory / "out"),
        "tokenizer": str(tokenizer),
        "index": False,
        "sources": [{"name": "web", "files": [str(directory / "web.jsonl")]}],
        "steps": [
            {"step": "normalise"},
            {"step": "language"},
            {"step": "rules"},
            {"step": "privacy"},
            {"step": "domain", "action": "label", "stages": [{"scorer": str(directory / "domain")}]},
            {"step": "deduplicate"},
            {"step": "decontaminate", "questions": [str(directory / "questions.jsonl")]},
        ],
        "stages": [
            {
                "name": "stage1",
                "tokens": 10**12,
                "max_epochs": 1,
                "parts": [{"name": "zh", "langs": ["zh"], "weight": 1}, {"name": "en", "langs": ["en"], "weight": 1}],
            }
        ],
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def _run(directory: Path, documents: int, workers: int) -> tuple[float, int]:
    """Prints one line; returns seconds, and the peak in bytes."""
    size = _write(directory / "web.jsonl", documents)
    began = time.perf_counter()
    command = [sys.executable, "-m", "megatron_aquila", "data", "corpus", str(directory / "recipe.yaml")]
    process = subprocess.Popen(
        [*command, "--workers", str(workers), "--no-progress"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    seen = peaks(process)
    seconds = time.perf_counter() - began
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    funnel = json.loads((directory / "out" / "funnel.json").read_bytes())
    kept = funnel["stages"][0]["documents"] / documents
    print(
        f"{documents:>10,}{size / 1e6:>8.1f}{seconds:>10.1f}{documents / seconds:>14,.0f}{size / 1e6 / seconds:>8.1f}"
        f"{kept:>8.1%}{' + '.join(f'{peak / 2**20:.0f}' for peak in seen):>32}"
    )
    return seconds, sum(seen)


def _write(path: Path, documents: int) -> int:
    """Returns the bytes of text."""
    draw = random.Random(0)
    pools = []
    for language in ("zh", "en"):
        texts = sample_texts(language, 1 << 30)
        sentences = [sentence for text in texts for sentence in _SENTENCE.findall(text)]
        pools.append((sentences, [len(text) for text in texts]))
    size = 0
    with path.open("wb") as file:
        for number in range(documents):
            sentences, lengths = pools[draw.random() < 0.32]  # the share of English in the reference's mix
            length, text = draw.choice(lengths), ""
            while len(text) < length:
                text += draw.choice(sentences)
            size += len(text.encode())
            file.write(json.dumps({"id": f"d{number}", "text": text}, ensure_ascii=False).encode() + b"\n")
    return size


if __name__ == "__main__":
    main()
