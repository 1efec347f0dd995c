"""Our fine-tuning beside TRL's trainers on the CPU: DPO and SFT, the real vocabulary and a small one.

Both sides start from one model (Llama, 4 layers of 128, float32), train on the same token ids and masks, once through,
and run in processes of their own, in turn: A B A B. Timed are the steps after the warm-up; peak memory is the
process's. Ends with 1 when the sides' losses differ, and only then. Run on a machine at rest:

    python -m benchmarks.training [--data chatdoctor.json] [--tokenizer DIR] [--rounds N] [--threads N] [--output DIR]
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from benchmarks.training.report import Case, show_case, show_goals
from benchmarks.training.samples import (
    clinic_records,
    doctor_records,
    index,
    save_model,
    train_tokenizer,
)
from benchmarks.training.task import OURS, Task, run

_WIDTH = 140  # of tables that go to a file
_KINDS = {"dpo": "pairs", "sft": "dialogues"}
_SMALL_VOCABULARY = 4096
# TRL's variants, which `trl_side.SETTINGS` spells out; importing that would import TRL here
_RIVALS = {
    "dpo": ("TRL", "TRL, reference first", "TRL, reference first, one at a time"),
    "sft": ("TRL", "TRL, no padding"),
}


@dataclass(frozen=True)
class Plan:
    """Sizes of one stage at one vocabulary."""

    stage: str
    vocabulary: int
    batch: int
    steps: int
    warm_up: int = 1


PLANS = (
    Plan("dpo", 100_008, 16, 2),
    Plan("sft", 100_008, 16, 3),
    Plan("dpo", _SMALL_VOCABULARY, 16, 8),
    Plan("sft", _SMALL_VOCABULARY, 16, 12),
)


def main(
    data: Annotated[Path | None, typer.Option(help="JSON list of instruction/input/output [synthetic clinic].")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Of the large vocabulary [one trained on the data].")] = None,
    output: Annotated[Path, typer.Option(help="Directory.")] = Path("build/benchmarks/training"),
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    threads: Annotated[int, typer.Option(help="Of each process (as many as there are cores).")] = 0,
    length: Annotated[int, typer.Option(help="Tokens of a sequence at most.")] = 512,
    pack: Annotated[int, typer.Option(help="Tokens of a pack of ours.")] = 1024,
) -> None:
    """Measure, print, write."""
    threads = threads or len(os.sched_getaffinity(0))
    measure(PLANS, data, tokenizer, output, rounds=rounds, threads=threads, length=length, pack=pack)


def measure(
    plans: tuple[Plan, ...],
    data: Path | None,
    tokenizer: Path | None,
    output: Path,
    *,
    rounds: int,
    threads: int,
    length: int,
    pack: int,
) -> None:
    """Raises typer.Exit(1) when the sides did not compute the same loss."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(f"{threads} threads a process, {rounds} rounds, sequences of at most {length} tokens, fp32")
    most = max(plan.batch * (plan.warm_up + plan.steps) for plan in plans)
    dialogues, pairs = doctor_records(data) if data else clinic_records(max(most, 2000))
    records = {"dpo": pairs, "sft": dialogues}
    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        small = train_tokenizer(dialogues, place / "tokenizer", _SMALL_VOCABULARY if data else _SMALL_VOCABULARY // 2)
        models: dict[int, Path] = {}
        for number, plan in enumerate(plans):
            folder = place / str(number)
            folder.mkdir()
            chosen = small if tokenizer is None or plan.vocabulary == _SMALL_VOCABULARY else tokenizer
            if plan.vocabulary not in models:
                models[plan.vocabulary] = save_model(plan.vocabulary, place / f"model{plan.vocabulary}")
            task = Task(
                stage=plan.stage,
                side=OURS,
                prefix=str(folder / "samples"),
                tokenizer=str(chosen),
                model=str(models[plan.vocabulary]),
                output="",
                batch=plan.batch,
                length=length,
                pack=pack,
                warm_up=plan.warm_up,
                steps=plan.steps,
                threads=threads,
            )
            index(records[plan.stage][: task.samples], _KINDS[plan.stage], chosen, length, Path(task.prefix))
            case = Case(plan.stage, plan.vocabulary)
            for turn in range(rounds):
                for side in (OURS, *_RIVALS[plan.stage]):
                    result = run(replace(task, side=side, output=str(folder / f"{side} {turn}")))
                    case.rounds.setdefault(side, []).append(result)
            show_case(console, case)
            cases.append(case)
    show_goals(console, cases)
    wrong = [line for case in cases for line in case.wrong()]
    for line in wrong:
        console.print(f"[red]{line}[/]")
    output.mkdir(parents=True, exist_ok=True)
    results = {"threads": threads, "data": str(data or "synthetic clinic"), "cases": [case.as_json() for case in cases]}
    (output / "results.json").write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    console.print(f"written: {output / 'results.json'}")
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
