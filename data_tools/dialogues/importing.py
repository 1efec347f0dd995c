"""Raw files become dialogues: OUTPUT/imported/ holds what the importers made of each file, in parts of a few thousand.

A file is imported once: its parts and its account are committed under a key of all that decides them. The parts are
what the steps read, so that work is spread, and taken up after a kill, part by part, however the raw files are cut.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_tools.commits import commit, committed, counts_of, digest_of
from data_tools.corpus.batch import Row, dialogue_text, normal_language
from data_tools.corpus.recipe import Source
from data_tools.dialogues.importers import IMPORTERS, importer
from data_tools.files import ReadOptions
from data_tools.inputs import InputError, RunError, resolve_inputs
from data_tools.pool import Pool
from data_tools.publish import LOCK, atomic_path
from data_tools.quarantine import Fault, Quarantine
from data_tools.record_writer import RecordWriter
from data_tools.records import Dialogue, RecordError, stable_id

DIRECTORY = "imported"
OWN_FORMAT = "dialogues"  # whose ids are kept as they are
_FORMAT_VERSION = 1
_PART = 4096  # dialogues


class DialogueSource(BaseModel):
    """Files of one origin in one published format. `name` is what selection and report call them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what selection and report call it
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    # what the files are: `aquila data import --list` shows the formats
    format: str
    # files, directories and patterns
    files: tuple[str, ...] = Field(min_length=1)
    # tried in this order on each line; the format's own if left out
    encoding: tuple[str, ...] | None = None
    # longer records go to quarantine
    max_line_mib: int = Field(default=64, gt=0)

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            importer(value)
        except InputError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("encoding")
    @classmethod
    def _encodings(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None:
            ReadOptions(value)  # now, and not where the first file is opened
        return value

    def read_options(self) -> ReadOptions:
        """How its bytes become records."""
        return ReadOptions(self.encoding or importer(self.format).encodings, self.max_line_mib << 20)


class ImportedSource(Source):
    """Parts of imported dialogues, as the runner reads them."""

    def row(self, value: Any, path: Path, offset: int) -> Row:
        """The dialogue in a parsed record. Raises RecordError."""
        dialogue = Dialogue.from_json(value, source_file=path.name, offset=offset)
        meta = {**dialogue.meta, "scores": dialogue.scores} if dialogue.scores else dialogue.meta
        text = dialogue_text(dialogue.messages)
        return Row(dialogue.id, text, normal_language(dialogue.lang), meta, dialogue.messages)


@dataclass
class Account:
    """What a file held: units = dialogues + blank + quarantined."""

    units: int = 0
    dialogues: int = 0
    blank: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    damage: str | None = None


@dataclass(frozen=True)
class _File:
    source: int
    path: Path
    name: str  # of its records without an id
    size: int
    key: str


class FileImport:
    """The dialogues of one file, in order; what cannot be used goes to `quarantine`. `name` is the file's in the ids of
    records that have none.

    Attributes:
        account: complete once the iteration has ended.
    """

    def __init__(self, source: DialogueSource, path: Path, name: str, quarantine: Quarantine) -> None:
        self.account = Account()
        self._source, self._path, self._name, self._quarantine = source, path, name, quarantine
        self._importer = importer(source.format)
        self._reader = self._importer.reader(path, source.read_options())

    @property
    def consumed(self) -> int:
        """Bytes taken off the disk so far."""
        return self._reader.consumed

    def __iter__(self) -> Iterator[Dialogue]:
        account, reader = self.account, self._reader
        for item in reader:
            if isinstance(item, Fault):
                self._refuse(item)
                continue
            try:
                found = self._importer.convert(item.value)
            except RecordError as error:
                self._refuse(Fault(item.line, item.offset, error.reason, error.detail, item.head))
                continue
            account.dialogues += 1
            meta = dict(found.meta)
            yield Dialogue(
                self._id(found.id, item.offset),
                found.messages,
                normal_language(found.lang),
                self._source.name,
                meta.pop("scores", {}),
                meta,
            )
        account.units, account.blank, account.damage = reader.units, reader.blank, reader.damage
        lost = account.units - account.dialogues - account.blank - sum(account.quarantined.values())
        if lost:
            raise RunError(f"{self._path}: {lost} records of {account.units} are not accounted for: please report this")

    def _refuse(self, fault: Fault) -> None:
        self._quarantine.add(str(self._path), fault)
        refused = self.account.quarantined
        refused[fault.reason] = refused.get(fault.reason, 0) + 1

    def _id(self, given: str | None, offset: int) -> str:
        """With its source's name: published sets number their records from 1, each of them."""
        if given is None:
            return stable_id(f"{self._source.name}/{self._name}", offset)
        return given if self._source.format == OWN_FORMAT else f"{self._source.name}:{given}"


class _ImportFiles:
    """The work of the pool: files by their number in the plan."""

    def __init__(self, plan: "ImportPlan") -> None:
        self._plan = plan

    def start(self) -> None:
        """Nothing is loaded."""

    def do(self, task: int, report: Callable[[int], None]) -> None:
        plan, file = self._plan, self._plan.files[task]
        parts: list[Path] = []
        quarantined = plan.quarantine(file)
        with (
            atomic_path(quarantined, sync=False) as temporary,
            Quarantine(temporary) as quarantine,
            ExitStack() as stack,
        ):
            writer: RecordWriter | None = None
            dialogues = FileImport(plan.sources[file.source], file.path, file.name, quarantine)
            for dialogue in dialogues:
                if writer is None or writer.records == _PART:
                    stack.close()
                    parts.append(plan.part(file, len(parts)))
                    writer = stack.enter_context(RecordWriter(parts[-1], sync=False))
                    report(min(dialogues.consumed, file.size))
                writer.write(dialogue.to_json())
            stack.close()
            temporary.touch()
        counts = {"account": asdict(dialogues.account), "parts": [part.name for part in parts]}
        commit(plan.marker(file), counts, [quarantined, *parts])
        report(file.size)


class ImportPlan:
    """Which raw files there are, and where what becomes of them lies.

    Raises:
        InputError: nothing to read, a file that is not there, or one in two sources.
    """

    def __init__(self, output: Path, sources: Sequence[DialogueSource]) -> None:
        self.directory = output / DIRECTORY
        self.sources = sources
        self.files: list[_File] = []
        seen: dict[Path, str] = {}
        for number, source in enumerate(sources):
            try:
                paths = resolve_inputs(source.files, IMPORTERS[source.format].suffixes)
            except InputError as error:
                raise InputError(f"source {source.name}: {error}") from error
            for path, name in zip(paths, _names(paths)):
                other = seen.setdefault(path.resolve(), source.name)
                if other != source.name:
                    raise InputError(f"{path} is in source {other} and in source {source.name}: give it to one")
                status = path.stat()
                key = digest_of(
                    {
                        "version": [_FORMAT_VERSION, version("megatron-aquila")],
                        "file": [str(path.absolute()), name, status.st_size, status.st_mtime_ns],
                        "source": source.model_dump(mode="json", exclude={"files"}),
                    }
                )
                self.files.append(_File(number, path, name, status.st_size, key))

    def run(self, workers: int, on_progress: Callable[[int, int], None]) -> None:
        """Import what is not imported yet, and remove what belongs to no file any more.

        Raises:
            RunError, WorkerDiedError, StorageError: what was finished is kept.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        keys = {file.key for file in self.files}
        for path in self.directory.iterdir():
            if path.name == LOCK or path.is_dir():  # the one is held by this run, the other is somebody else's
                continue
            if path.suffix == ".tmp" or path.name.split(".")[0] not in keys:
                path.unlink()
        todo = [number for number, file in enumerate(self.files) if committed(self.marker(file)) is None]
        total = sum(file.size for file in self.files)
        before = total - sum(self.files[number].size for number in todo)
        with Pool(_ImportFiles(self), min(workers, len(todo))) as pool:
            pool.run(todo, lambda done: on_progress(before + done, total))

    def imported(self) -> list[ImportedSource]:
        """What the runner reads: the parts of each source that has any.

        Raises:
            InputError: the files were not imported.
        """
        found = []
        for number, source in enumerate(self.sources):
            parts = [
                str(self.directory / name)
                for file in self.files
                if file.source == number
                for name in self._counts(file)["parts"]
            ]
            if parts:
                found.append(ImportedSource(name=source.name, files=tuple(parts)))
        return found

    def account(self, read: dict[str, Any]) -> dict[str, Any]:
        """The report's account of the input: the raw files instead of the parts that `read` is about."""
        quarantined: dict[str, int] = {}
        files = []
        units = blank = made = 0
        for file in self.files:
            account = Account(**self._counts(file)["account"])
            units, blank, made = units + account.units, blank + account.blank, made + account.dialogues
            for reason, number in account.quarantined.items():
                quarantined[reason] = quarantined.get(reason, 0) + number
            files.append(
                {
                    "path": str(file.path),
                    "source": self.sources[file.source].name,
                    "bytes": file.size,
                    "documents": account.dialogues,
                    "quarantined": sum(account.quarantined.values()),
                    "damage": account.damage,
                }
            )
        if made != read["documents"]:
            raise RunError(f"{made:,} dialogues were imported and {read['documents']:,} read: please report this")
        return {
            **read,
            "units": units,
            "blank": blank,
            "quarantined": dict(sorted(quarantined.items())),
            "files": files,
        }

    def quarantines(self) -> list[Path]:
        """The refused records of each file."""
        return [self.quarantine(file) for file in self.files]

    def marker(self, file: _File) -> Path:
        """Says that a file is imported."""
        return self.directory / f"{file.key}.json"

    def quarantine(self, file: _File) -> Path:
        """Of one file."""
        return self.directory / f"{file.key}.quarantine.jsonl"

    def part(self, file: _File, number: int) -> Path:
        """Of one file."""
        return self.directory / f"{file.key}.{number:05d}.jsonl.zst"

    def _counts(self, file: _File) -> dict[str, Any]:
        try:
            return counts_of(self.marker(file))
        except FileNotFoundError as error:
            raise InputError(
                f"{file.path} is not imported, or has changed since: run `aquila data dialogues` on this machine"
            ) from error


def _names(paths: Sequence[Path]) -> list[str]:
    """What tells the files of a source apart, wherever they lie: their names, and where several have the same one
    (`train.jsonl` in each of two directories) what differs in their paths too.
    """
    equal: dict[str, list[str]] = {}
    for path in paths:
        equal.setdefault(path.name, []).append(str(path.absolute().parent))
    common = {name: os.path.commonpath(parents) for name, parents in equal.items()}
    return [path.absolute().relative_to(common[path.name]).as_posix() for path in paths]


def import_to_file(inputs: Sequence[str], format_name: str, output: Path) -> Account:
    """The dialogues of `inputs` in one file `output`; refused records go to OUTPUT.quarantine.jsonl.

    Raises:
        InputError: no such format or file, or an output that cannot be written. StorageError.
    """
    suffixes = importer(format_name).suffixes
    source = DialogueSource(name=format_name, format=format_name, files=tuple(inputs))
    paths = resolve_inputs(inputs, suffixes)
    if output.resolve() in {path.resolve() for path in paths}:
        raise InputError(f"{output} is one of the files to import: choose another output")
    try:
        writer = RecordWriter(output)
    except ValueError as error:
        raise InputError(f"--output: {error}") from error
    total, reasons = Account(), Counter[str]()
    refused = output.with_name(f"{output.name}.quarantine.jsonl")
    with atomic_path(refused) as temporary, writer:
        with Quarantine(temporary) as quarantine:
            for path, name in zip(paths, _names(paths)):
                dialogues = FileImport(source, path, name, quarantine)
                for dialogue in dialogues:
                    writer.write(dialogue.to_json())
                account = dialogues.account
                total.units, total.blank = total.units + account.units, total.blank + account.blank
                total.dialogues += account.dialogues
                total.damage = total.damage or (account.damage and f"{path}: {account.damage}")
                reasons.update(account.quarantined)
        temporary.touch()
    if not reasons:
        refused.unlink()
    total.quarantined = dict(sorted(reasons.items()))
    return total
