"""Files of answers → what there is to judge. What is not asked about is counted by its reason, never passed over."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_tools.preferences.author import Language, prompt_language
from data_tools.records import Messages
from megatron_aquila.evaluation.judge.summary import JudgeError, Source


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class Row(BaseModel):
    """A line of a file of answers; keys that the judge has no use for may stand there too."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1)
    round: int = Field(ge=1)
    lang: str = ""
    messages: tuple[_Message, ...] = Field(min_length=1)
    answer: str
    reference: str | None = None
    finished: bool = True

    def conversation(self) -> Messages:
        """What the model saw."""
        return tuple({"role": message.role, "content": message.content} for message in self.messages)


@dataclass(frozen=True)
class AnswerFile:
    """Rows in the order of the file, and what names it."""

    rows: tuple[Row, ...]
    source: Source


@dataclass(frozen=True)
class Item:
    """An answer that is asked about. `other`: the answer that it is compared with, "" for a rubric. `reference`: ""
    where there is none. `canary`: the kind of a known pair, "" for an item of the data.
    """

    id: str
    round: int
    lang: Language
    conversation: Messages
    answer: str
    other: str = ""
    reference: str = ""
    finished: bool = True
    canary: str = ""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.id} round {self.round}"


@dataclass(frozen=True)
class Drawn:
    """Items in the order of the file. rows: drawn; rows = items + the sum of skipped. `unmatched`: rows of the other
    file that no drawn row of this one answers.
    """

    items: tuple[Item, ...]
    rows: int
    skipped: Counter[str] = field(default_factory=Counter)
    unmatched: int = 0


def read_answers(path: Path, name: str | None = None) -> AnswerFile:
    """The answers in a .jsonl file.

    Raises:
        JudgeError: it is not there, holds none, a line is not an answer, or two answer the same round.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JudgeError(
            f"{path} cannot be read ({error.strerror}): give a file of answers, answers/SET.jsonl"
        ) from error
    rows: list[Row] = []
    lines: dict[tuple[str, int], int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise JudgeError(f"{path}, line {number}: {f'{where}: ' if where else ''}{problem['msg']}") from error
        if (first := lines.setdefault((row.id, row.round), number)) != number:
            raise JudgeError(
                f"{path}, line {number}: round {row.round} of {row.id} was answered in line {first} already"
            )
        rows.append(row)
    if not rows:
        raise JudgeError(f"{path} holds no answers")
    called = name or _called(path)
    return AnswerFile(tuple(rows), Source(name=called, file=path.name, rows=len(rows), sha256=_digest(content)))


def pair_items(answers: AnswerFile, against: AnswerFile | None, limit: int | None = None, seed: int = 0) -> Drawn:
    """The answers with what they are compared with: the other file's answers to the same messages, or the references.

    Skipped: `no-question` (the messages do not end in the patient's), `unsupported-language`, `no-reference`,
    `no-counterpart` (the other file does not answer it), `different-messages` (the two models saw different
    conversations).
    """
    others: Mapping[tuple[str, int], Row] = {(row.id, row.round): row for row in against.rows} if against else {}
    rows = draw(answers.rows, limit, seed)
    skipped: Counter[str] = Counter()
    items = []
    for row in rows:
        reason, lang = _unusable(row)
        other = others.get((row.id, row.round))
        text = other.answer if other is not None else row.reference or ""
        if not reason and against is not None and other is None:
            reason = "no-counterpart"
        if not reason and other is not None and other.messages != row.messages:
            reason = "different-messages"
        if not reason and against is None and not text.strip():
            reason = "no-reference"
        if reason or lang is None:
            skipped[reason] += 1
        else:
            items.append(_item(row, lang, text))
    drawn = {(row.id, row.round) for row in rows}
    return Drawn(tuple(items), len(rows), skipped, sum(key not in drawn for key in others) if limit is None else 0)


def rubric_items(answers: AnswerFile, limit: int | None = None, seed: int = 0) -> Drawn:
    """The answers with their solutions, where they have one. Skipped: `no-question`, `unsupported-language`."""
    rows = draw(answers.rows, limit, seed)
    skipped: Counter[str] = Counter()
    items = []
    for row in rows:
        reason, lang = _unusable(row)
        if reason or lang is None:
            skipped[reason] += 1
        else:
            items.append(_item(row, lang))
    return Drawn(tuple(items), len(rows), skipped)


def draw(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """All rounds of `limit` dialogues, those with the smallest hashes, in the order of the file: a larger draw holds a
    smaller one.
    """
    if limit is None:
        return list(rows)
    names = sorted({row.id for row in rows}, key=lambda name: _digest(f"{seed}:{name}".encode()))
    kept = set(names[:limit])
    return [row for row in rows if row.id in kept]


def _unusable(row: Row) -> tuple[str, Language | None]:
    if row.messages[-1].role != "user":
        return "no-question", None
    lang = prompt_language(row.lang, row.conversation())
    return ("", lang) if lang is not None else ("unsupported-language", None)


def _item(row: Row, lang: Language, other: str = "") -> Item:
    reference = (row.reference or "").strip() and (row.reference or "")
    return Item(row.id, row.round, lang, row.conversation(), row.answer, other, reference, row.finished)


def _called(path: Path) -> str:
    """RUN or EXPORT of RUN/evaluation/NAME/answers/SET.jsonl, else the file's name."""
    parts = path.absolute().parts
    if len(parts) > 5 and parts[-2] == "answers" and parts[-4] == "evaluation":
        return parts[-5]
    return path.name.partition(".")[0]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
