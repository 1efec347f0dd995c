"""Multiple-choice questions with three examples, scored by our class and by lm-eval's `hf` on the CPU, side by side.

One model (Llama, random weights, float32), the same requests through the same interface of lm-eval, in one process and
in turn: A B A B. Four letters a question. Ends with 1 when a log-probability or a choice differs, and only then. Run on
a machine at rest:

    python -m benchmarks.evaluation [--questions N] [--hidden N] [--layers N] [--vocabulary N] [--rounds N]
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

_LETTERS = "ABCD"
_SHOTS = 3
_OURS, _THEIRS = "ours", "lm-eval hf"
_TOLERANCE = 1e-4
_VOCABULARY = 1024  # of the tokenizer; the model's own may be larger, as those of real ones are

Pair = tuple[str, str]


def main(
    questions: Annotated[int, typer.Option(min=4)] = 64,
    hidden: Annotated[int, typer.Option(help="Width of the model.")] = 256,
    layers: Annotated[int, typer.Option(help="Layers of the model.")] = 4,
    vocabulary: Annotated[int, typer.Option(help="Ids of the model.")] = 32_000,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    threads: Annotated[int, typer.Option(help="Of the process (as many as there are cores).")] = 0,
    pack: Annotated[int, typer.Option(help="Tokens of a pack of ours.")] = 2048,
    batches: Annotated[list[int] | None, typer.Option(help="Batch sizes of hf's [1, 8, 32]; the best counts.")] = None,
) -> None:
    """Measure and print."""
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers.utils import logging

    from megatron_aquila.evaluation.lm import AquilaLM

    logging.disable_progress_bar()
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        pairs, texts = make_pairs(questions)
        model = save_model(Path(scratch), texts, hidden, layers, vocabulary)
        with AquilaLM.open(model, precision="fp32", device="cpu", pack_tokens=pack) as ours:
            parameters = ours.model.shape.parameters()
            sides: dict[str, Callable[[], list[Any]]] = {_OURS: lambda: _scored(ours, pairs)}
            for size in batches or [1, 8, 32]:
                theirs = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=size)
                sides[f"{_THEIRS}, batch {size}"] = lambda theirs=theirs: _scored(theirs, pairs)  # type: ignore[misc]
            tokens = sum(len(ours.tok_encode(context)) for context, _ in pairs) // len(_LETTERS)
            console.print(
                f"{questions} questions of {tokens // questions} tokens on average, {len(pairs)} requests; "
                f"{parameters / 1e6:.1f} M parameters, fp32, {threads} threads, best of {rounds} rounds"
            )
            seconds, answers = _measure(sides, rounds)
    wrong = _differences(answers)
    _show(console, seconds)
    console.print(f"largest difference of a log-probability: {wrong[0]:.1e}; choices that differ: {wrong[1]}")
    if wrong[0] > _TOLERANCE or wrong[1]:
        raise typer.Exit(1)


def make_pairs(count: int) -> tuple[list[Pair], list[str]]:
    """Context and letter of each request, and texts to train a tokenizer on: the synthetic clinic's questions, each
    after three others."""
    from data_tools.clinic import dialogues, make_world

    records = list(dialogues(make_world(), count=count * len(_LETTERS) + _SHOTS))
    spoken = [(r["messages"][-2]["content"], r["messages"][-1]["content"]) for r in records]
    shown = []
    for number in range(count + _SHOTS):
        options = [spoken[(number * len(_LETTERS) + i) % len(spoken)][1][:80] for i in range(len(_LETTERS))]
        lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS, options)]
        shown.append("\n".join([spoken[number][0][:300], *lines, "Answer:"]))
    examples = "".join(f"{text} {_LETTERS[i]}\n\n" for i, text in enumerate(shown[:_SHOTS]))
    pairs = [(f"{examples}{text}", f" {letter}") for text in shown[_SHOTS:] for letter in _LETTERS]
    return pairs, shown


def save_model(place: Path, texts: list[str], hidden: int, layers: int, vocabulary: int) -> Path:
    """A Llama with random weights and a tokenizer of the texts, in Hugging Face's layout."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from data_tools.tokenizer_training import train_from_texts
    from data_tools.tokenizers import load_tokenizer

    train_from_texts(texts, place / "tokenizer", vocab_size=_VOCABULARY)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).save_pretrained(place / "model")
    load_tokenizer(place / "tokenizer").save_pretrained(place / "model")
    return place / "model"


def _scored(lm: Any, pairs: list[Pair]) -> list[tuple[float, bool]]:
    from lm_eval.api.instance import Instance

    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    scores: list[tuple[float, bool]] = lm.loglikelihood(requests, disable_tqdm=True)
    return scores


def _measure(
    sides: dict[str, Callable[[], list[Any]]], rounds: int
) -> tuple[dict[str, float], dict[str, list[tuple[float, bool]]]]:
    seconds = dict.fromkeys(sides, float("inf"))
    answers = {}
    for _ in range(rounds):
        for side, ask in sides.items():
            began = time.perf_counter()
            answers[side] = ask()
            seconds[side] = min(seconds[side], time.perf_counter() - began)
    return seconds, answers


def _differences(answers: dict[str, list[tuple[float, bool]]]) -> tuple[float, int]:
    """Of the others from ours: the largest of a log-probability, and how many choices."""
    ours, *others = ([logp for logp, _ in found] for found in answers.values())
    largest = max(abs(a - b) for other in others for a, b in zip(ours, other, strict=True))
    differing = sum(a != b for other in others for a, b in zip(_choices(ours), _choices(other), strict=True))
    return largest, differing


def _choices(logps: list[float]) -> list[int]:
    groups = [logps[i : i + len(_LETTERS)] for i in range(0, len(logps), len(_LETTERS))]
    return [group.index(max(group)) for group in groups]


def _show(console: Console, seconds: dict[str, float]) -> None:
    table = Table("", "s", "times ours")
    for side, taken in seconds.items():
        table.add_row(side, f"{taken:.2f}", f"{taken / seconds[_OURS]:.2f}")
    console.print(table)
    best = min(taken for side, taken in seconds.items() if side != _OURS)
    console.print(f"ours is {best / seconds[_OURS]:.2f} times as fast as the best of theirs")


if __name__ == "__main__":
    typer.run(main)
