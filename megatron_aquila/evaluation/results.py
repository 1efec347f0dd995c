"""The form that every evaluation leaves on disk: a directory of items, and a summary that is made of them.

    OUTPUT/
      results.json          `Evaluation`: which model, which data, how asked, and each task's figures
      items/TASK.jsonl      `Item`s: one line a question, in the order of the data
      answers/SET.jsonl     what the model said in dialogues, for the judge

Statistics, comparisons, contamination and the report read items; nothing but a table is read from the summary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_tools.publish import fsync, write_whole
from megatron_aquila.errors import AquilaError

FILE = "results.json"
ITEMS = "items"
FOLDER = "evaluation"  # of a run or an export: its evaluations, a directory each
FORMAT = 1


class ResultsError(AquilaError):
    """A directory does not hold an evaluation that this version can read."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Item(_Record):
    """What a model made of one question."""

    id: str
    cluster: str = Field(description="questions of one cluster share a text or a case; of its own: the id")
    right: bool
    invalid: bool = Field(
        default=False, description="no answer could be read out of what the model said: counts as wrong"
    )
    answer: tuple[str, ...] = Field(description="the right letters or words")
    said: tuple[str, ...] | None = Field(description="what the model chose; None where invalid")
    subject: str | None = Field(default=None, description="the class or subject that the question belongs to")
    logps: dict[str, float] | None = Field(default=None, description="log-likelihood of each option, nats")
    text: str | None = Field(default=None, description="what the model wrote, where it was asked to write")


class Interval(_Record):
    low: float
    high: float


class Average(_Record):
    """A mean over tasks or items, between 0 and 1, with its 95 % interval."""

    value: float
    interval: Interval


class TaskResult(_Record):
    """One task's figures. Accuracy counts invalid answers as wrong."""

    group: str | None = Field(description="the group that averages it, if any")
    n: int
    right: int
    invalid: int
    accuracy: float
    interval: Interval = Field(description="Wilson, 95 %")
    standard_error: float | None = Field(
        description="clustered; equals the simple one where every cluster has one item. None: one cluster is all"
    )
    clusters: int
    metrics: dict[str, float] = Field(default_factory=dict, description="further ones, such as macro_f1")
    shots: int
    kind: str = Field(description="log-likelihood or generation")
    data: str = Field(description="SHA-256 of the questions' file")
    prompt: str = Field(description="SHA-256 of the task's definition, prompts included")
    warnings: tuple[str, ...] = ()


class GroupResult(_Record):
    """Averages over the tasks of a group: `macro` weighs tasks alike, `micro` items."""

    tasks: tuple[str, ...]
    n: int
    macro: Average
    micro: Average


class ModelFacts(_Record):
    """Which model was asked, and through what."""

    name: str
    path: str
    kind: str = Field(description="checkpoint or huggingface")
    digest: str = Field(description="identifies the weights")
    step: int | None
    backend: str = Field(description="aquila, hf or vllm")
    layout: str
    precision: str
    chat_template: str | None = Field(description="the template that questions were put in; None: plain text")


class Evaluation(_Record):
    format: int = FORMAT
    model: ModelFacts
    suite: str | None
    seed: int
    limit: int | None = Field(default=None, description="only so many questions of each task were asked; None: all")
    max_new_tokens: int | None = Field(default=None, description="where answers were cut; None: as each task says")
    tasks: dict[str, TaskResult]
    groups: dict[str, GroupResult]
    dialogues: dict[str, int] = Field(default_factory=dict, description="dialogue set → answers written")
    versions: dict[str, str]
    began: str = Field(description="ISO 8601, UTC")
    seconds: float


def write(directory: Path, evaluation: Evaluation, items: Mapping[str, Sequence[Item]]) -> None:
    """Publish an evaluation in the place of what stands there.

    `results.json` goes first and comes last: a directory that has it is whole, wherever a process was killed.
    """
    folder = directory / ITEMS
    folder.mkdir(parents=True, exist_ok=True)
    (directory / FILE).unlink(missing_ok=True)
    fsync(directory)
    for old in (*folder.glob("*.jsonl"), *folder.glob("*.jsonl.*.tmp"), *directory.glob(f"{FILE}.*.tmp")):
        old.unlink()
    for task, rows in items.items():
        write_item_file(folder / f"{task}.jsonl", rows)
    write_whole(directory / FILE, (evaluation.model_dump_json(indent=1) + "\n").encode())


def write_item_file(path: Path, items: Iterable[Item]) -> None:
    """One line an item, published whole."""
    write_lines(path, map(_line, items))


def _line(item: Item) -> dict[str, Any]:
    """JSON has no infinity: log-likelihoods that hold one are left out, and what was said is kept."""
    line = item.model_dump(exclude_defaults=True)
    if item.logps is not None and not all(map(math.isfinite, item.logps.values())):
        del line["logps"]
    return line


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, published whole."""
    write_whole(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))


def read(directory: Path) -> Evaluation:
    """Raises: ResultsError."""
    path = directory / FILE if directory.is_dir() else directory
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{directory} holds no {FILE}: give a directory that `aquila eval run` wrote") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultsError(f"{path} is not an evaluation of format {FORMAT}, which this version reads")
    try:
        return Evaluation.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ResultsError(f"{path}: {where}: {error.errors()[0]['msg']}") from error


def read_items(directory: Path, task: str) -> list[Item]:
    """The items of a task, in the order of its data.

    Raises:
        ResultsError: there are none, or a line is not an item.
    """
    path = directory / ITEMS / f"{task}.jsonl"
    if not path.is_file():
        raise ResultsError(f"{path} is missing: the evaluation has no items of {task}")
    return read_item_file(path)


def read_item_file(path: Path) -> list[Item]:
    """What `write_item_file` wrote.

    Raises:
        ResultsError: a line is not an item.
    """
    items = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            items.append(Item.model_validate_json(line))
        except ValidationError as error:
            raise ResultsError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
    return items


def find(directory: Path) -> list[Path]:
    """The evaluations of a run or an export, by name."""
    return sorted(path.parent for path in (directory / FOLDER).glob(f"*/{FILE}"))
