"""What the demo asks its models and what it makes of their answers: scores with error bars, comparison, judge,
contamination, cards, report. Everything goes through what `aquila eval`, `judge`, `export` and `report` call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from data_tools.clinic import make_world
from data_tools.clinic.server import ClinicServer
from megatron_aquila.demo_data import moves, tiny_recipe
from megatron_aquila.evaluation import comparison, contamination, contamination_scores, results
from megatron_aquila.evaluation.judge import run as judge
from megatron_aquila.evaluation.judge.config import JudgeConfig, PairConfig, RubricConfig, load
from megatron_aquila.evaluation.judge.table import table as judge_table
from megatron_aquila.evaluation.results import Item
from megatron_aquila.evaluation.run import evaluate
from megatron_aquila.evaluation.settings import EvaluationSettings
from megatron_aquila.evaluation.tasks.fetch import fetch
from megatron_aquila.report.page import make_report, write_report

CLOZE, WORDS = "aqm_clinic_cloze", "aqm_clinic_words"
DIALOGUES = 60  # that the judge reads
_SETTINGS: Mapping[str, Any] = {"precision": "fp32", "device": "cpu", "batch_size": 64, "max_new_tokens": 64}


@dataclass(frozen=True)
class Answers:
    """What a model said: items of the clinic's cloze questions, of general ones, and of questions in words."""

    cloze: Sequence[Item]
    general: Sequence[Item]
    words: Sequence[Item] = ()


def prepare_questions(directory: Path) -> None:
    """Lay the clinic's questions into `directory`/evaluation, as `aquila eval fetch` does with any published set."""
    fetch("clinic", str(directory / "data"), directory / "evaluation")


def ask(directory: Path, model: Path, *, chats: bool) -> Answers:
    """Put the questions to a run or an export; those in words only to a model that `chats`."""
    cloze, general = CLOZE, directory / "data" / "general_questions.jsonl"
    _, asked = _evaluate(directory, model, [cloze, f"{general}:cloze"], "questions", chat=False)
    words = _evaluate(directory, model, [WORDS], "words", chat=True)[1][WORDS] if chats else ()
    return Answers(asked[cloze], asked["general_questions"], words)


def _evaluate(
    directory: Path, model: Path, names: Sequence[str], output: str, *, chat: bool
) -> tuple[Path, dict[str, list[Item]]]:
    settings = EvaluationSettings(**_SETTINGS, chat=chat)
    done = evaluate(
        model,
        names,
        suite=None,
        data=directory / "evaluation",
        output=model / results.FOLDER / output,
        settings=settings,
    )
    assert done is not None  # this is the only process
    path, found = done
    return path, {task: results.read_items(path, task) for task in found.tasks}


def compare(earlier: Path, later: Path, console: Console) -> None:
    """Print what preference training did to the answers, question by question."""
    for name in ("questions", "words"):
        found = comparison.compare(earlier / results.FOLDER / name, later / results.FOLDER / name)
        for shown in comparison.tables(found, console.width):
            console.print(shown)


def have_judged(directory: Path, runs: Sequence[Path], console: Console) -> None:
    """Have `runs` answer held-out dialogues, and each of them judged, against the references and by a rubric; prints
    what the judge says of the last.
    """
    dialogues = _dialogues(directory / "pairs" / "pairs_valid.jsonl", directory / "evaluation" / "clinic.jsonl")
    kinds: Mapping[str, type[JudgeConfig]] = {"judge_pair": PairConfig, "judge_rubric": RubricConfig}
    with ClinicServer(make_world(seed=0)) as server:
        for model in runs:
            path, _ = _evaluate(directory, model, [str(dialogues)], "dialogues", chat=True)
            for name, kind in kinds.items():
                changes = [
                    *moves(name, partial(load, kind), directory),
                    f"name={model.name.upper()}",
                    f"answers={path / 'answers' / 'clinic.jsonl'}",
                    f"output={model / results.FOLDER / name.replace('_', '-')}",
                    f"model.base_url={server.url}",
                ]
                summary = judge.run(load(kind, tiny_recipe(name), changes))
                if model == runs[-1]:  # the report shows the others
                    console.print(judge_table(summary))


def _dialogues(pairs: Path, output: Path) -> Path:
    """The held-out conversations that preference pairs were made of, with the better answer as reference."""
    rows: list[dict[str, Any]] = []
    for line in pairs.read_bytes().splitlines():
        pair = orjson.loads(line)
        said = [message["content"] for message in (*pair["prompt"], *pair["chosen"])]
        if pair["kind"] == "subjective" and len(rows) < DIALOGUES:
            rounds = [{"user": user, "reference": answer} for user, answer in zip(said[::2], said[1::2], strict=True)]
            rows.append({"id": pair["id"], "lang": pair["lang"], "rounds": rounds})
    results.write_lines(output, rows)
    return output


def look_for_leaks(directory: Path, run: Path, console: Console) -> None:
    """Which questions stand in the raw text, and which in what training read of it."""
    (run / results.FOLDER).mkdir(exist_ok=True)
    made = [directory / name for name in ("corpus", "sft", "pairs")]
    for title, training, output in (
        ("in the raw text", [directory / "data" / "raw"], run.parent / "contamination-raw.json"),
        ("in what was trained on", made, run / results.FOLDER / "contamination.json"),
    ):
        found = contamination.find_contamination(training, [directory / "evaluation"])
        contamination.write(found, output)
        console.print(f"Evaluation questions {title}:")
        console.print(contamination_scores.table(found))


def write_page(directory: Path, run: Path) -> Path:
    """The report of a run and all that it was trained from."""
    page = directory / "report.html"
    write_report(make_report([run], []), page)
    return page
