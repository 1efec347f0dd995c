"""What `aquila eval run` is asked for by name: tasks, groups and suites, dialogue sets, and files of the user's own.

A file of questions (records with `options`) is a task: `FILE`, or `FILE:cloze` where the options end the question's
sentence. A file of dialogues (`messages` as for fine-tuning, or `rounds`) is a dialogue set.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.files import COMPRESSIONS, FileReader, ReadOptions
from data_tools.quarantine import Fault
from data_tools.records import RecordError, dialogue_messages
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.tasks.catalog import (
    DIALOGUE_SETS,
    SUITES,
    Form,
    Task,
    expand,
    groups,
    questions_task,
    tasks,
)
from megatron_aquila.evaluation.tasks.data import load_split

_FORMS: Mapping[str, Form] = {"letters": "letters", "cloze": "cloze"}


class ChosenError(AquilaError):
    """Nothing, or something that does not exist, was asked for."""


@dataclass(frozen=True)
class Dialogues:
    """A dialogue set to answer, as `evaluation/answers.py` takes it."""

    name: str
    rows: Sequence[Mapping[str, Any]]


@dataclass
class Chosen:
    """Everything that was asked for; `name` says it in a word, for a directory."""

    name: str
    suite: str | None = None
    tasks: list[Task] = field(default_factory=list)
    dialogues: list[Dialogues] = field(default_factory=list)


def choose(names: Sequence[str], suite: str | None, data: Path) -> Chosen:
    """Resolve `names` and the suite, each thing once; a suite may stand among the names.

    Raises:
        ChosenError, UnknownTaskError, EvaluationDataError: there is nothing, or no such thing.
    """
    if suite is not None and suite not in SUITES:
        raise ChosenError(f"there is no suite {suite!r}: choose out of {', '.join(SUITES)}")
    wanted = list(dict.fromkeys([*([suite] if suite else []), *names]))
    suites = [name for name in wanted if name in SUITES]
    if not wanted:
        raise ChosenError("say what to ask: a task, a group, a file of questions, or --suite (see `aquila eval tasks`)")
    if len(suites) > 1:
        raise ChosenError(f"{' and '.join(suites)} are asked in different ways: evaluate them one after the other")
    chosen = Chosen(_short("+".join(map(_word, wanted))), suites[0] if suites else None)
    for name in wanted:
        file, _, form = name.rpartition(":")
        if name in DIALOGUE_SETS:
            found = DIALOGUE_SETS[name]
            _add_dialogues(chosen, name, load_split(data, found.set, found.split, rows=found.rows))
        elif Path(name).is_file():
            _add_file(chosen, Path(name))
        elif Path(file).is_file():
            if form not in _FORMS:
                raise ChosenError(f"{name}: a file of questions is asked in the form {' or '.join(_FORMS)}, not {form}")
            _add(chosen, _of_file(Path(file), _FORMS[form]))
        else:
            for task in _named(name):
                _add(chosen, task)
    return chosen


def _named(name: str) -> list[Task]:
    path = Path(name.removesuffix(":cloze").removesuffix(":letters"))
    known = [*SUITES, *groups(), *tasks(), *DIALOGUE_SETS]
    if name not in known:
        if path.is_dir():
            raise ChosenError(f"{name} is a directory: give a file of questions or dialogues, or the name of a task")
        if path.name != name or path.suffix:
            raise ChosenError(f"there is no file {path}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`aquila eval tasks` lists them"
        raise ChosenError(f"there is no task, group, suite or dialogue set {name!r}: {hint}")
    return expand([name])


def _add(chosen: Chosen, task: Task) -> None:
    same = next((known for known in chosen.tasks if known.name == task.name), None)
    if same is None:
        chosen.tasks.append(task)
    elif same.file is None or task.file is None or same.file.resolve() != task.file.resolve():
        if same.file != task.file:
            raise ChosenError(f"{same.file} and {task.file} have one name, {task.name}: rename a file")
    elif same.digest != task.digest:
        raise ChosenError(f"{task.file} is asked for in both forms, letters and cloze: ask for one at a time")


def _add_dialogues(chosen: Chosen, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    same = next((known for known in chosen.dialogues if known.name == name), None)
    if same is None:
        chosen.dialogues.append(Dialogues(name, rows))
    elif same.rows != rows:
        raise ChosenError(f"two files of dialogues have one name, {name}: rename a file")


def _of_file(path: Path, form: Form = "letters") -> Task:
    task = questions_task(path, form, name=_free_name(path))
    other = next((row["id"] for row in load_split(path) if "options" not in row), None)
    if other is not None:
        raise ChosenError(
            f"{path}: the record {other} has no options: give questions and dialogues in files of their own"
        )
    return task


def _add_file(chosen: Chosen, path: Path) -> None:
    first = next(_records(path), None)
    if first is None:
        raise ChosenError(f"{path} holds no record: give a file of questions or of dialogues")
    if "options" in first[1]:
        _add(chosen, _of_file(path))
    elif "messages" in first[1]:
        _add_dialogues(chosen, _free_name(path), [_rounds(value, path, number) for number, value in _records(path)])
    else:
        rows = load_split(path)  # which says what is wrong with a line
        other = next((row["id"] for row in rows if "rounds" not in row), None)
        if other is not None:
            raise ChosenError(f"{path}: the record {other} has no rounds, unlike the first")
        _add_dialogues(chosen, _free_name(path), [{"lang": "", **row} for row in rows])


def _free_name(path: Path) -> str:
    """A file's name without its suffixes, as that of its task; the names that ship are not for other questions."""
    name = _word(path.name)
    if name in {*groups(), *tasks(), *DIALOGUE_SETS}:
        raise ChosenError(f"{path}: {name} is the name of a task or set that ships: rename the file")
    return name


def _rounds(value: Mapping[str, Any], path: Path, number: int) -> dict[str, Any]:
    """A dialogue of `messages` as rounds; a system message would change every model's part in it, and is refused."""
    try:
        messages = dialogue_messages(value)
    except RecordError as error:
        raise ChosenError(f"{path}, line {number}: {error.detail}") from error
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise ChosenError(
            f"{path}, line {number}: user and assistant must take turns, without a system message; questions without "
            "answers are 'rounds' of 'user' alone"
        )
    said = [message["content"] for message in messages]
    return {
        "id": str(value.get("id") or f"{path.stem}-{number}"),
        "lang": value.get("lang") or "",
        "rounds": [{"user": user, "reference": answer} for user, answer in zip(said[::2], said[1::2])],
    }


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        reader = FileReader(path, ReadOptions())
    except ValueError as error:
        raise ChosenError(str(error)) from error
    for found in reader:
        if isinstance(found, Fault):
            raise ChosenError(f"{path}, line {found.line}: {found.detail}")
        if not isinstance(found.value, dict):
            raise ChosenError(f"{path}, line {found.line}: a record must be a JSON object")
        yield found.line, found.value
    if reader.damage is not None:
        raise ChosenError(f"{path} is damaged: {reader.damage}")


def _word(name: str) -> str:
    """A name that can stand in a file's: of a path its last part without suffixes."""
    file, _, form = name.rpartition(":")
    path, form = (Path(file), f"-{form}") if form in _FORMS else (Path(name), "")
    if path.suffix in COMPRESSIONS:
        path = path.with_suffix("")
    stem = re.sub(r"[^\w-]+", "-", path.stem).strip("-") or "questions"
    return stem + form


def _short(name: str) -> str:
    """At most 80 characters, and still one for each."""
    return name if len(name) <= 80 else f"{name[:71]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
