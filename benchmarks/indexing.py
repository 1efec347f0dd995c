"""`aquila data index` beside Megatron-LM's preprocess_data.py and preprocess_data_fast.py.

Same text, same tokenizer, same cores, whole commands from start to exit, rounds interleaved. Prints wall-clock (least
and median) and CPU seconds, ratios, the bare encoder's rate and our share of it, and the memory of the largest process.
Ends with 1 when the three outputs are not byte for byte the same. Run on a machine at rest:

    python -m benchmarks.indexing [--megabytes 120] [--workers 2] [--tokenizer DIR] [--input FILE.jsonl]
"""

import csv
import filecmp
import gzip
import itertools
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer

from data_tools.tokenizers import Tokenizer, load_tokenizer

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
OURS, HALF = "aquila data index", "aquila, half the text"
_COMMAND = "from data_tools.cli import app; app()"
_BATCH_DOCUMENTS = 1024
_MEASURABLE_SECONDS = 5.0


class Run(NamedTuple):
    """Wall-clock and CPU seconds of a command, and bytes of resident memory of its largest process."""

    seconds: float
    cpu: float
    memory: int


def main(
    megabytes: Annotated[float, typer.Option(help="Text to index, in MB of UTF-8; start-up weighs on less.")] = 120,
    workers: Annotated[int, typer.Option(help="Processes [one per core].")] = 0,
    rounds: Annotated[int, typer.Option(min=3)] = 3,
    tokenizer: Annotated[Path | None, typer.Option(help="Byte-level BPE directory, or tokenizer.json.")] = None,
    input: Annotated[Path | None, typer.Option(help="A .jsonl with `text`; else the sample data.")] = None,
    megatron_lm: Annotated[Path | None, typer.Option(help="A Megatron-LM checkout: its own scripts are timed.")] = None,
) -> None:
    """Time the three ways of indexing and compare what they write."""
    workers = workers or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        texts = list(_take(_documents(input), megabytes * 1e6))
        source, half = _write(texts, place / "text.jsonl"), _write(texts[: len(texts) // 2], place / "half.jsonl")
        sizes = [sum(len(text.encode()) for text in part) / 1e6 for part in (texts, texts[: len(texts) // 2])]
        ours = load_tokenizer(tokenizer or _some_tokenizer(texts, place))
        directory = place / "tokenizer"
        ours.save_pretrained(directory)
        if ours.eod_id != ours.eos_id:
            raise typer.BadParameter("Megatron-LM ends documents with eos: give a tokenizer whose eod is its eos.")
        _refuse_special(texts, ours)

        ways = {
            OURS: _aquila(source, directory, place / "aquila", workers),
            "preprocess_data_fast.py": _megatron("fast", source, directory, place / "fast", workers, megatron_lm),
            "preprocess_data.py": _megatron("slow", source, directory, place / "slow", workers, megatron_lm),
            HALF: _aquila(half, directory, place / "part", workers),
        }
        environment = os.environ | {"RAYON_NUM_THREADS": str(workers), "PYTHONPATH": _python_path()}
        results: dict[str, list[Run]] = {name: [] for name in ways}
        for _, (name, command) in itertools.product(range(rounds), ways.items()):
            for prefix in {OURS: ["aquila"], HALF: ["part"]}.get(name, []):
                for finished in place.glob(f"{prefix}.*"):
                    finished.unlink()  # or the run would find its work done
            results[name].append(_run(command, environment))
        bare = max(_bare_rate(directory, texts, workers) for _ in range(rounds))

        suffix = "_text_document" if megatron_lm else ""
        pairs = {f"{way}.{kind}": (place / f"aquila.{kind}", place / f"{way}{suffix}.{kind}")
                 for way in ("slow", "fast") for kind in ("bin", "idx")}  # fmt: skip
        different = [name for name, (left, right) in pairs.items() if not filecmp.cmp(left, right, shallow=False)]
        _report(results, sizes, len(texts), bare, workers, ours, megatron_lm, different)
        if different:
            raise typer.Exit(1)


def _report(
    results: dict[str, list[Run]],
    sizes: list[float],
    documents: int,
    bare: float,
    workers: int,
    tokenizer: Tokenizer,
    megatron_lm: Path | None,
    different: list[str],
) -> None:
    whole, half = sizes
    scripts = f"the scripts of {megatron_lm}" if megatron_lm else "their way of working, written again"
    print(f"{whole:.1f} MB of text, {documents:,} documents; tokenizer of {tokenizer.vocab_size:,} ids; "
          f"{workers} workers; encoder {tokenizer.backend}; Megatron-LM: {scripts}\n")  # fmt: skip
    print(f"{'':26}{'least s':>9}{'median s':>10}{'MB/s':>8}{'ratio':>8}{'CPU s':>8}{'ratio':>8}{'memory MB':>11}")
    least = {name: min(run.seconds for run in runs) for name, runs in results.items()}
    cpu = {name: min(run.cpu for run in runs) for name, runs in results.items()}
    for name, runs in results.items():
        size = half if name == HALF else whole
        median = statistics.median(run.seconds for run in runs)
        memory = max(run.memory for run in runs) / 1e6
        print(
            f"{name:26}{least[name]:9.2f}{median:10.2f}{size / least[name]:8.1f}{least[name] / least[OURS]:8.2f}"
            f"{cpu[name]:8.1f}{cpu[name] / cpu[OURS]:8.2f}{memory:11.0f}"
        )
    # The second half of the text costs no start-up; of less CPU time than this, most would be noise.
    second_half = cpu[OURS] - cpu[HALF]
    print(f"\nbare encoder, warm, {workers} processes: {bare:.1f} MB per CPU second")
    if second_half < _MEASURABLE_SECONDS:
        print(
            f"our share of it cannot be told from {second_half:.1f} CPU seconds beside start-up: give more --megabytes"
        )
    else:
        steady = (whole - half) / second_half
        print(f"aquila data index, second half of the text: {steady:.1f}, {steady / bare:.0%} of it")
    print("output: " + (f"DIFFERENT: {', '.join(different)}" if different else "byte for byte the same, all three"))


def _run(command: list[str], environment: dict[str, str]) -> Run:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{output.decode(errors='replace')[-3000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _aquila(source: Path, tokenizer: Path, prefix: Path, workers: int) -> list[str]:
    command = [sys.executable, "-c", _COMMAND, "index", str(source), "--tokenizer", str(tokenizer)]
    return [*command, "--output", str(prefix), "--workers", str(workers), "--no-progress"]


def _megatron(
    way: str, source: Path, tokenizer: Path, prefix: Path, workers: int, repository: Path | None
) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.megatron_preprocessing", way, str(source), str(tokenizer), str(prefix)]
    return [*command, str(workers), *([str(repository.resolve())] if repository else [])]


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def _bare_rate(tokenizer: Path, texts: list[str], workers: int) -> float:
    """MB per CPU second of `encode_batch` alone: each process holds its texts and has encoded some before."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(workers), spawn.Queue()
    processes = [
        spawn.Process(target=_encode_share, args=(tokenizer, texts[k::workers], barrier, queue)) for k in range(workers)
    ]
    for process in processes:
        process.start()
    shares = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(size for size, _ in shares) / sum(seconds for _, seconds in shares)


def _encode_share(path: Path, texts: list[str], barrier: Any, queue: Any) -> None:
    tokenizer = load_tokenizer(path)
    batches = [texts[start : start + _BATCH_DOCUMENTS] for start in range(0, len(texts), _BATCH_DOCUMENTS)]
    tokenizer.encode_batch(batches[0])
    barrier.wait()
    began = time.process_time()
    for batch in batches:
        tokenizer.encode_batch(batch)
    queue.put((sum(len(text.encode()) for text in texts) / 1e6, time.process_time() - began))


def _take(documents: Iterator[str], size: float) -> Iterator[str]:
    """Documents until `size` bytes are there, from the start again if they do not last."""
    taken = 0.0
    for text in itertools.cycle(documents):
        if taken >= size:
            return
        taken += len(text.encode())
        yield text


def _documents(source: Path | None) -> Iterator[str]:
    if source is not None:
        with source.open("rb") as lines:
            yield from (orjson.loads(line)["text"] for line in lines)
    elif SHARED.is_dir():
        yield from _sample_documents()
    else:
        from data_tools.clinic import documents, general_documents, make_world

        for pair in zip(documents(make_world(), stage=1), general_documents()):
            yield from (record["text"] for record in pair)


def _sample_documents() -> Iterator[str]:
    """The real sample data in random order, the books cut into chapters of 2,000 characters."""
    texts = []
    with gzip.open(SHARED / "medquad_sample.jsonl.gz") as lines:
        for line in lines:
            record = orjson.loads(line)
            texts.append(f"{record['question']}\n{record['answer']}")
    with (SHARED / "chinese_medical_dialogue_sample.csv").open(encoding="gb18030", newline="") as rows:
        texts += [f"{row['ask']}\n{row['answer']}" for row in csv.DictReader(rows)]
    with gzip.open(SHARED / "tcm_books.jsonl.gz") as lines:
        for line in lines:
            text = orjson.loads(line)["text"]
            texts += [text[start : start + 2000] for start in range(0, len(text), 2000)]
    texts = [text for text in texts if text.strip()]
    random.Random(0).shuffle(texts)
    yield from texts


def _some_tokenizer(texts: list[str], place: Path) -> Path:
    """The real Aquila tokenizer, or a byte-level BPE of 8,000 trained on some of the text."""
    if SHARED.is_dir():
        return SHARED / "aquila_tokenizer"
    import tokenizers

    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(texts[:5000], vocab_size=8000, special_tokens=["<|endoftext|>"], show_progress=False)
    directory = place / "trained"
    directory.mkdir()
    trained.save_model(str(directory))
    (directory / "special_tokens.txt").write_text("</s>\n", encoding="utf-8")
    return directory


def _refuse_special(texts: list[str], tokenizer: Tokenizer) -> None:
    """Megatron-LM turns a literal control token in a text into the control id; such text is no common ground."""
    for text in texts:
        for token in tokenizer.special_tokens:
            if token in text:
                raise typer.BadParameter(f"the text holds a literal {token!r}: give text without control tokens.")


def _write(texts: list[str], path: Path) -> Path:
    with path.open("wb") as file:
        for text in texts:
            file.write(orjson.dumps({"text": text}) + b"\n")
    return path


if __name__ == "__main__":
    typer.run(main)
