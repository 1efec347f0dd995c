"""Which evaluation items a version of the training data holds, and how a model scores with and without them.

Items are found as the step `decontaminate` finds them: n-grams of words (en) or characters (zh) after folding. A report
(`contamination.json`) is of one version of the data, whose digest it carries.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_tools.corpus.decontaminate import DecontaminateConfig
from data_tools.inputs import resolve_inputs
from data_tools.manifest import read_manifest
from data_tools.publish import sha256_file, write_whole
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation import statistics
from megatron_aquila.evaluation.contamination_scan import Entry, FileScan, Scan, read_items
from megatron_aquila.evaluation.results import Interval

FILE = "contamination.json"
FORMAT = 1
_TRAINING = (".jsonl", ".ndjson", ".json", ".parquet")
_NOT_EVALUATED = ("train", "dev")  # splits of sets that the catalogue does not know


class ContaminationError(AquilaError):
    """Training data or a report that cannot be read, or that belong to other data."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Settings(_Record):
    """How items are looked for; the lengths are those of `data_tools.corpus.decontaminate`."""

    options_alone: bool = Field(
        default=False,
        description="options, and a right answer as long as an n-gram, are evidence without their question. Finds "
        "reworded questions; but a list of options that serves several questions (CMB's B1 type) then stands for each "
        "of them, and a sentence out of a textbook for the question it answers",
    )
    words: int = Field(default=13, ge=2, le=100, description="n-gram of questions that are not mostly Chinese")
    characters: int = Field(default=13, ge=2, le=100, description="n-gram of Chinese questions")


class Shown(_Record):
    """A training record that holds an item."""

    training_id: str
    file: str
    part: str = Field(description="question, short question, case, options or answer")
    ratio: float = Field(description="share of the part's n-grams")
    excerpt: str = Field(description="what stands there, private values masked, at most 160 characters")


class FlaggedItem(_Record):
    id: str
    records: int = Field(description="training records that hold it")
    evidence: tuple[Shown, ...] = Field(description="the clearest three")


class Share(_Record):
    """Of n items, those that training data holds. `too_short` ones cannot be told from ordinary text."""

    n: int
    flagged: int
    too_short: int
    share: float
    interval: Interval = Field(description="Wilson, 95 %")


class SetContamination(Share):
    """One evaluation file."""

    path: str
    data: str = Field(description="SHA-256 of the file, by which results are matched")
    parts: dict[str, int] = Field(description="flagged items by the part that was found most clearly")
    items: tuple[FlaggedItem, ...]
    short_ids: tuple[str, ...]


class TrainingFile(_Record):
    path: str
    bytes: int
    sha256: str
    records: int
    holding: int = Field(description="records that hold any item")
    unreadable: dict[str, int]


class TrainingData(_Record):
    """One argument: a published directory or files."""

    path: str
    digest: str = Field(description="SHA-256 of its manifest; of files without one, of their names and SHA-256")
    files: tuple[TrainingFile, ...]


class Contamination(_Record):
    format: int = FORMAT
    settings: Settings
    training: tuple[TrainingData, ...]
    digest: str = Field(description="names this version of all the training data together")
    sets: dict[str, SetContamination]
    tasks: dict[str, Share] = Field(description="the same by task, where a set serves several")


def evaluation_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Name → file: of a directory of sets (DATA/SET/SPLIT.jsonl) the splits that are scored; files as they are.

    Raises:
        ContaminationError: nothing is there, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        inside = dict(_scored(path)) if path.is_dir() else {path.stem: path}
        if not inside:
            raise ContaminationError(f"{path} holds no evaluation set: fetch one with `aquila eval fetch`")
        for name, file in inside.items():
            if not file.is_file():
                raise ContaminationError(f"there is no file of questions {file}")
            if name in found:
                raise ContaminationError(f"{found[name]} and {file} are both called {name}: rename one")
            found[name] = file
    return found


def _scored(data: Path) -> Iterator[tuple[str, Path]]:
    from megatron_aquila.evaluation.tasks.catalog import DIALOGUE_SETS, tasks

    scored = {(task.set, task.split) for task in tasks().values()}
    scored |= {(found.set, found.split) for found in DIALOGUE_SETS.values()}
    known = {name for name, _ in scored}
    for path in sorted(data.glob("*/*.jsonl")):
        name, split = path.parent.name, path.stem
        if (name, split) in scored if name in known else split not in _NOT_EVALUATED:
            yield f"{name}/{split}", path


def training_files(path: Path) -> tuple[str | None, dict[str, Path], dict[str, str]]:
    """The manifest's digest (None without a manifest), name → file, and name → SHA-256 where the manifest says it.

    Of a directory that `aquila data corpus`, `dialogues` or `pairs` published: what is trained on.

    Raises:
        ContaminationError: a file is missing or has another size than the manifest says.
        InputError: there is no file that can be read.
    """
    manifest = read_manifest(path / "manifest.json") if path.is_dir() else None
    if manifest is None:
        files = resolve_inputs([str(path)], _TRAINING)
        return None, {str(file.relative_to(path)) if path.is_dir() else file.name: file for file in files}, {}
    listed: dict[str, dict[str, Any]] = manifest.get("files", {})
    inside = f"{manifest.get('noun', 'documents')}/"
    names = [name for name in sorted(listed) if name.startswith(inside) or name == "pairs_train.jsonl"]
    if not names:
        raise ContaminationError(
            f"{path / 'manifest.json'} names no documents, dialogues or pairs: give a directory that "
            "`aquila data corpus`, `dialogues` or `pairs` published, or files"
        )
    for name in names:
        file = path / name
        if not file.is_file() or file.stat().st_size != listed[name]["bytes"]:
            raise ContaminationError(f"{file} is not what {path / 'manifest.json'} says: publish the data anew")
    digest = sha256_file(path / "manifest.json")
    return digest, {name: path / name for name in names}, {name: listed[name]["sha256"] for name in names}


def find_contamination(
    training: Sequence[Path],
    evaluation: Sequence[Path],
    settings: Settings | None = None,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Contamination:
    """Look for every item of the evaluation files in all of the training data.

    Args:
        training: published directories, or files and directories of documents, dialogues and pairs.
        evaluation: directories of sets, or files of questions.
        on_progress: called with the bytes read and their total.

    Raises:
        ContaminationError, EvaluationDataError, InputError: something is missing or damaged.
    """
    from data_tools.pool import Pool, WorkerDiedError

    settings = settings or Settings()
    files = evaluation_files(evaluation)
    config = _config(settings, files.values())
    sources = [(path, *training_files(path)) for path in training]
    tasks = [(file, name) for _, _, inside, _ in sources for name, file in inside.items()]
    unhashed = [file for _, _, inside, known in sources for name, file in inside.items() if name not in known]
    total = sum(file.stat().st_size for file, _ in tasks)
    try:
        with Pool(Scan(list(files.values()), config), workers) as pool:
            scans, hashes = pool.run(tasks, lambda done: on_progress(done, total), hash_files=unhashed)
    except WorkerDiedError as error:
        raise ContaminationError(
            "a worker process died (killed, or out of memory): run the same command again with fewer --workers"
        ) from error
    for (file, _), scan in zip(tasks, scans):
        if scan.damage:
            raise ContaminationError(f"{file} cannot be read to its end: {scan.damage}; get a whole copy")
        if not scan.records and scan.unreadable:
            reason = scan.unreadable.most_common(1)[0][0]
            raise ContaminationError(
                f"{file} holds no document, dialogue, pair or question ({reason}): import it with `aquila data` first"
            )
    whole = FileScan()
    for scan in scans:
        whole.merge(scan)
    found = read_items(list(files.values()))
    short = found.too_short(found.index(config))
    sets = {
        name: _set(place, path, [entry for entry in found.entries if entry.file == place], whole, short)
        for place, (name, path) in enumerate(files.items())
    }
    read_scans, read_hashes = iter(scans), iter(hashes)
    data = tuple(
        _training(path, digest, inside, known, read_scans, read_hashes) for path, digest, inside, known in sources
    )
    return Contamination(
        settings=settings,
        training=data,
        digest=data[0].digest if len(data) == 1 else _digest(source.digest for source in data),
        sets=sets,
        tasks=_by_task(sets),
    )


def _config(settings: Settings, files: Iterable[Path]) -> DecontaminateConfig:
    default = DecontaminateConfig(questions=tuple(map(str, files)))
    return default.model_copy(
        update={
            "options_alone": settings.options_alone,
            "parts": ("question", "options", "answer") if settings.options_alone else ("question", "options"),
            "words": default.words.model_copy(update={"ngram": settings.words}),
            "characters": default.characters.model_copy(update={"ngram": settings.characters}),
        }
    )


def _training(
    path: Path,
    digest: str | None,
    files: dict[str, Path],
    known: dict[str, str],
    scans: Iterator[FileScan],
    hashes: Iterator[str],
) -> TrainingData:
    made = []
    for name, file in files.items():
        scan = next(scans)
        made.append(
            TrainingFile(
                path=name,
                bytes=file.stat().st_size,
                sha256=known.get(name) or next(hashes),
                records=scan.records,
                holding=scan.holding,
                unreadable=dict(scan.unreadable),
            )
        )
    whole = digest or _digest(part for file in made for part in (file.path, file.sha256))
    return TrainingData(path=str(path), digest=whole, files=tuple(made))


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _set(place: int, path: Path, entries: Sequence[Entry], whole: FileScan, short: set[Entry]) -> SetContamination:
    flagged = [entry for entry in entries if entry in whole.evidence]
    short_ids = tuple(entry.id for entry in entries if entry in short)
    return SetContamination(
        **_share(len(entries), len(flagged), len(short_ids)).model_dump(),
        path=str(path),
        data=sha256_file(path),
        parts=dict(Counter(whole.evidence[entry][0].part for entry in flagged)),
        items=tuple(
            FlaggedItem(
                id=entry.id,
                records=whole.times[entry],
                evidence=tuple(Shown(**one._asdict()) for one in whole.evidence[entry]),
            )
            for entry in flagged
        ),
        short_ids=short_ids,
    )


def _share(n: int, flagged: int, too_short: int) -> Share:
    interval = statistics.wilson(flagged, n)
    return Share(n=n, flagged=flagged, too_short=too_short, share=flagged / n, interval=interval)


def _by_task(sets: dict[str, SetContamination]) -> dict[str, Share]:
    """Tasks of the catalogue that are asked part of a set."""
    from megatron_aquila.evaluation.tasks.catalog import tasks
    from megatron_aquila.evaluation.tasks.data import load_split

    found: dict[str, Share] = {}
    seen: set[tuple[str, str | None]] = set()
    for task in tasks().values():
        key = f"{task.set}/{task.split}"
        if task.subject is None or key not in sets or (key, task.subject) in seen:
            continue  # variants of a task ask the same questions
        seen.add((key, task.subject))
        ids = {
            record["id"] for record in load_split(Path(sets[key].path)) if record["meta"].get("subject") == task.subject
        }
        if ids:
            flagged = sum(item.id in ids for item in sets[key].items)
            found[task.name] = _share(len(ids), flagged, sum(name in ids for name in sets[key].short_ids))
    return found


def write(contamination: Contamination, path: Path) -> None:
    """Publish a report; a directory gets contamination.json. Raises StorageError."""
    path = path / FILE if path.is_dir() else path
    write_whole(path, (contamination.model_dump_json(indent=1) + "\n").encode())


def read_report(path: Path) -> Contamination:
    """Raises: ContaminationError."""
    path = path / FILE if path.is_dir() else path
    try:
        return Contamination.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ContaminationError(f"{path} is missing: make it with `aquila eval contamination`") from None
    except (ValidationError, ValueError) as error:
        raise ContaminationError(f"{path} is not a contamination report of format {FORMAT}") from error
