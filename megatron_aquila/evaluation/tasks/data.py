"""Evaluation sets on disk: DATA/SET/SPLIT.jsonl and DATA/SET/manifest.json, as `aquila eval fetch` leaves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.files import FileReader, ReadOptions
from data_tools.manifest import ManifestError, read_manifest
from data_tools.publish import sha256_file
from data_tools.quarantine import Fault
from data_tools.records import RecordError
from megatron_aquila.errors import AquilaError

DATA_VARIABLE = "AQUILA_EVALUATION_DATA"
MANIFEST = "manifest.json"
FORMAT = 1

Record = dict[str, Any]


class EvaluationDataError(AquilaError):
    """An evaluation set is missing, or is not what it should be."""


def split_path(data: Path, name: str, split: str) -> Path:
    return data / name / f"{split}.jsonl"


def load_split(
    data: Path, name: str = "", split: str = "", *, subject: str | None = None, rows: int | None = None
) -> list[Record]:
    """The records of a split, in its order; with `subject` those whose `meta.subject` it is.

    Args:
        data: the directory of the sets; without `name`, a file of questions.
        rows: how many there must be, unless the set was fetched with any number of rows.

    Raises:
        EvaluationDataError: the file is missing, a line is no question, ids repeat, or the number is another.
    """
    path = split_path(data, name, split) if name else data
    if not path.is_file():
        raise EvaluationDataError(
            f"{path} is missing: fetch the set with `aquila eval fetch {name} --from … --data {data}`"
            if name
            else f"there is no file of questions {path}"
        )
    records, seen = [], dict[str, int]()
    for number, record in read_lines(path):
        if first := seen.get(record["id"]):
            raise EvaluationDataError(f"{path}, line {number}: the id {record['id']!r} stands in line {first} too")
        seen[record["id"]] = number
        if subject is None or record.get("meta", {}).get("subject") == subject:
            records.append(record)
    if not records:
        raise EvaluationDataError(f"{path} holds no question{f' of {subject}' if subject else ''}")
    if rows is not None and len(records) != rows and not read_set(data, name).get("any_rows"):
        raise EvaluationDataError(
            f"{path}: {len(records):,} rows{f' of {subject}' if subject else ''} where the published set has {rows:,}: "
            "fetch it anew, or with --any-rows if you mean to score these"
        )
    return records


def examples_of(data: Path, name: str, split: str, *, subject: str | None = None) -> list[Record]:
    """The solved questions that may stand before a question; none where the user did not lay them in."""
    if not split_path(data, name, split).is_file():
        return []
    return load_split(data, name, split, subject=subject)


def read_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """Line numbers and records, checked; `FileReader` says which formats and compressions.

    Raises:
        EvaluationDataError: with file and line.
    """
    reader = FileReader(path, ReadOptions())
    stem = path.name.split(".")[0] or path.name
    for found in reader:
        if isinstance(found, Fault):
            raise EvaluationDataError(f"{path}, line {found.line}: {found.detail}")
        try:
            yield found.line, check_record(found.value, f"{stem}-{found.line}")
        except RecordError as error:
            raise EvaluationDataError(f"{path}, line {found.line}: {error.detail}") from error
    if reader.damage is not None:
        raise EvaluationDataError(f"{path} is damaged: {reader.damage}")


def check_record(value: Any, place: str) -> Record:
    """A question (`options`), a conversation that asks for a word (`messages`, `answer`, `values`) or a dialogue
    (`rounds`). A question without an id is named by its place.

    Raises:
        RecordError: it is none of these.
    """
    if not isinstance(value, dict):
        raise RecordError("not-an-object", "a record must be a JSON object")
    if "options" in value:
        return _question(value, place)
    if not isinstance(value.get("id"), str) or not value["id"]:
        raise RecordError("bad-id", "'id' must be a string")
    if "messages" in value:
        return _asked_in_words(value)
    return _dialogue(value)


def _question(value: Record, place: str) -> Record:
    """As `data_tools.records.Question`, but that an option may be blank: some published ones are."""
    question, options, answer = value.get("question"), value["options"], value.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise RecordError("no-question", "'question' is missing or blank")
    if not isinstance(options, dict) or len(options) < 2 or not all(isinstance(x, str) for x in options.values()):
        raise RecordError("bad-options", "'options' must map at least two letters to texts")
    if (
        not isinstance(answer, list)
        or not answer
        or not all(isinstance(letter, str) and letter in options for letter in answer)
        or len(set(answer)) != len(answer)
    ):
        raise RecordError("bad-answer", f"'answer' must list letters out of {list(options)}, it is {answer!r:.60}")
    return {**value, "id": str(value.get("id") or place), "meta": _meta(value)}


def _meta(value: Mapping[str, Any]) -> dict[str, Any]:
    meta = value.get("meta", {})
    if not isinstance(meta, dict):
        raise RecordError("bad-field", "'meta' must be an object")
    return meta


def _asked_in_words(value: Record) -> Record:
    messages = value["messages"]
    if (
        not isinstance(messages, list)
        or len(messages) != 1
        or not isinstance(messages[0], dict)
        or messages[0].get("role") != "user"
        or not isinstance(messages[0].get("content"), str)
    ):
        raise RecordError("bad-messages", "'messages' must hold one message, of the user")
    values = value.get("values")
    if not isinstance(values, list) or not values or not all(isinstance(x, str) and x for x in values):
        raise RecordError("bad-field", "'values' must list the words that may be named")
    if value.get("answer") not in values:
        raise RecordError("bad-answer", f"'answer' must be one of 'values', it is {value.get('answer')!r:.60}")
    return {**value, "meta": _meta(value)}


def _dialogue(value: Record) -> Record:
    rounds = value.get("rounds")
    if not isinstance(rounds, list) or not rounds:
        raise RecordError("no-messages", "the record has neither 'options' nor 'messages' nor 'rounds'")
    for number, one in enumerate(rounds):
        if not isinstance(one, dict) or not isinstance(one.get("user"), str) or not one["user"].strip():
            raise RecordError("bad-messages", f"rounds[{number}]: 'user' must be words of the user")
        if not isinstance(one.get("reference"), str | None):
            raise RecordError("bad-messages", f"rounds[{number}]: 'reference' must be a text or null")
    return {**value, "meta": _meta(value)}


def read_set(data: Path, name: str) -> dict[str, Any]:
    """The manifest of a set; {} where there is none.

    Raises:
        EvaluationDataError: it is not a manifest.
    """
    try:
        return read_manifest(data / name / MANIFEST) or {}
    except ManifestError as error:
        raise EvaluationDataError(str(error)) from error


def verify(data: Path, names: Sequence[str] = ()) -> list[str]:
    """What is wrong with the sets in `data` (all, or those named), one sentence a file; [] where nothing is.

    Raises:
        EvaluationDataError: there is no set, or not the one named.
    """
    found = list(names) or sorted(path.parent.name for path in data.glob(f"*/{MANIFEST}"))
    if not found:
        raise EvaluationDataError(f"{data} holds no evaluation set: fetch one with `aquila eval fetch`")
    return [fault for name in found for fault in _faults(data, name)]


def _faults(data: Path, name: str) -> Iterator[str]:
    manifest = read_set(data, name)
    if not manifest:
        raise EvaluationDataError(f"{data / name / MANIFEST} is missing: fetch {name} anew")
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("splits"), dict):
        yield f"{data / name / MANIFEST} is not a manifest of format {FORMAT}: fetch {name} anew"
        return
    for split, facts in manifest["splits"].items():
        path = split_path(data, name, split)
        if not path.is_file():
            yield f"{path} is missing"
            continue
        if sha256_file(path) != facts["sha256"]:
            yield f"{path} has changed since it was fetched: its SHA-256 is not the manifest's"
        try:
            count = len(load_split(path))
        except EvaluationDataError as error:
            yield str(error)
            continue
        if count != facts["rows"]:
            yield f"{path} has {count:,} rows where the manifest has {facts['rows']:,}"
    known = {f"{split}.jsonl" for split in manifest["splits"]} | {MANIFEST}
    for path in sorted((data / name).iterdir()):
        if path.name not in known:
            yield f"{path} is not in the manifest"
