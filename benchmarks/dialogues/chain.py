"""All of `aquila data dialogues` that needs no model: raw files in, cleaned, deduplicated, decontaminated and selected
dialogues out, as packed indexes. Seconds, and the peak of memory of all processes.

    python -m benchmarks.dialogues.chain --tokenizer DIR [--dialogues 320000] [--workers 2]

The raw files are a Toyhom table (GB18030), a ChatDoctor array and a ShareGPT array of two to four exchanges, 54, 14 and
32 of 100 as far as the paper's shares of zh, en and several turns go. Their sentences are those of real text
(`benchmarks.corpus.texts`), drawn anew for each dialogue, with the lengths that the real ones have, so that few are
duplicates of each other; every 50th is repeated. There are no scores without models: the selection draws by the hash of
the ids; with `--diversity` it compares n-gram vectors too.
"""

import argparse
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.corpus.texts import sample_texts
from benchmarks.memory import peaks
from data_tools.clinic import make_world, questions

_SENTENCE = re.compile(r"[^。！？.!?\n]+[。！？.!?\n]+")
_REPEATED = 50
_SHARES = (("table", 0.54), ("array", 0.14), ("chat", 0.32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--template", default="aquila-v1")
    parser.add_argument("--dialogues", type=int, default=320_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--diversity", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _write(directory, arguments.dialogues)
        (directory / "recipe.yaml").write_text(yaml.safe_dump(_recipe(directory, arguments)))
        size = sum(path.stat().st_size for path in directory.glob("raw_*"))
        began = time.perf_counter()
        command = [sys.executable, "-m", "megatron_aquila", "data", "dialogues", str(directory / "recipe.yaml")]
        process = subprocess.Popen(
            [*command, "--workers", str(arguments.workers), "--no-progress"], stderr=subprocess.PIPE
        )
        seen = peaks(process)
        seconds = time.perf_counter() - began
        assert process.stderr is not None
        said = process.stderr.read().decode()
        if process.returncode:
            raise SystemExit(said)
        funnel = json.loads((directory / "out" / "funnel.json").read_bytes())
        print(said)
        print(
            f"{arguments.dialogues:,} dialogues, {size / 1e6:.0f} MB, {arguments.workers} workers: {seconds:.0f} s, "
            f"{arguments.dialogues / seconds:,.0f} dialogues/s; {funnel['stages'][0]['documents']:,} selected; "
            f"peak MiB, parent + workers: {' + '.join(f'{peak / 2**20:.0f}' for peak in seen)}"
        )


def _recipe(directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    sources = [
        {"name": "table", "format": "toyhom", "files": [str(directory / "raw_table.csv")]},
        {"name": "array", "format": "chatdoctor", "files": [str(directory / "raw_array.json")]},
        {"name": "chat", "format": "sharegpt", "files": [str(directory / "raw_chat.json")]},
    ]
    names = ("normalise", "language", "shape", "unsafe", "privacy", "deduplicate")
    select: dict[str, Any] = {"step": "select", "score": None}
    if arguments.diversity:
        select["diversity"] = {"threshold": 0.9}
    decontaminate = {"step": "decontaminate", "questions": [str(directory / "questions.jsonl")]}
    return {
        "output": str(directory / "out"),
        "tokenizer": str(arguments.tokenizer),
        "template": arguments.template,
        "sources": sources,
        "steps": [*({"step": name} for name in names), decontaminate, select],
    }


def _write(directory: Path, count: int) -> None:
    world = make_world(0)
    (directory / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions(world)))
    draw = random.Random(0)
    zh, en = (_Words(language, draw) for language in ("zh", "en"))
    numbers = [int(count * share) for _, share in _SHARES]
    with (directory / "raw_table.csv").open("w", encoding="gb18030", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("department", "title", "ask", "answer"))
        for question, answer in _repeating(zh.exchange, numbers[0]):
            rows.writerow(("科", question[:20], question, answer))
    with (directory / "raw_array.json").open("w", encoding="utf-8") as file:
        records = (
            {"instruction": "", "input": question, "output": answer}
            for question, answer in _repeating(en.exchange, numbers[1])
        )
        _write_array(file, records)
    with (directory / "raw_chat.json").open("w", encoding="utf-8") as file:
        chats = (
            [{"from": role, "value": words} for pair in turns for role, words in zip(("human", "gpt"), pair)]
            for turns in _repeating(zh.exchanges, numbers[2])
        )
        _write_array(file, ({"id": str(number), "conversations": chat} for number, chat in enumerate(chats)))


class _Words:
    """Questions and answers of real sentences."""

    def __init__(self, language: str, draw: random.Random) -> None:
        texts = sample_texts(language, 1 << 30)
        heads = [text.partition("\n") for text in texts]
        self._asked = [sentence for head, _, _ in heads for sentence in _SENTENCE.findall(f"{head}。")]
        self._said = [sentence for _, _, rest in heads for sentence in _SENTENCE.findall(rest)]
        self._lengths = [(len(head), min(len(rest), 1500)) for head, _, rest in heads]
        self._draw = draw

    def exchange(self) -> tuple[str, str]:
        """(question, answer)"""
        asked, said = self._draw.choice(self._lengths)
        return self._text(self._asked, asked), self._text(self._said, said)

    def exchanges(self) -> list[tuple[str, str]]:
        """Two to four of them."""
        return [self.exchange() for _ in range(self._draw.randint(2, 4))]

    def _text(self, sentences: list[str], length: int) -> str:
        text = self._draw.choice(sentences)
        while len(text) < length:
            text += self._draw.choice(sentences)
        return text.strip()


def _repeating(make: Any, count: int) -> Iterator[Any]:
    made = None
    for number in range(count):
        if made is None or number % _REPEATED:
            made = make()
        yield made


def _write_array(file: Any, records: Iterator[dict[str, Any]]) -> None:
    file.write("[")
    for number, record in enumerate(records):
        file.write((",\n" if number else "") + json.dumps(record, ensure_ascii=False))
    file.write("]\n")


if __name__ == "__main__":
    main()
