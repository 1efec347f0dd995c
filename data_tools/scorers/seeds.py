"""Labelled seeds: read, checked, freed of duplicates, split and balanced.

A seed is a record {"text", "label" or "score", "lang"?, "source"?, "id"?} of any format of `data_tools.files`.
"""

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_tools.corpus.batch import LANGUAGES, Batch
from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.manifest import manifest_path, read_manifest
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import RecordError, record_id, record_text, stable_id
from data_tools.scorers.protocol import Task

Part = Literal["train", "validation", "test"]
_CJK = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")
_GUESS_CHARACTERS = 2000
_CHINESE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Seed:
    """A labelled text. `target` is a label, or a score as a float; `key` the same for texts that differ in white space,
    case or width alone.
    """

    id: str
    text: str
    target: str | float
    lang: str
    source: str
    key: bytes


@dataclass
class SeedCounts:
    """What became of the records: all = blank + refused + duplicates + conflicting + kept.

    duplicates: further records of a text that is kept once; conflicting: records of texts whose labels do not agree.
    """

    records: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicting: int = 0
    kept: int = 0
    by_language: Counter[str] = field(default_factory=Counter)
    by_label: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Sorted, for a manifest."""
        whole = {"records": self.records, "duplicates": self.duplicates, "conflicting": self.conflicting}
        tables = {"refused": self.refused, "by_language": self.by_language, "by_label": self.by_label}
        return {**whole, "kept": self.kept, **{name: dict(sorted(table.items())) for name, table in tables.items()}}


def guess_language(text: str) -> str:
    """`zh` where a fifth of the letters among the first 2,000 characters are Chinese, else `en`, or `other` where there
    are none: for seeds that do not say.
    """
    head = text[:_GUESS_CHARACTERS]
    letters = len(_LETTER.findall(head))
    if not letters:
        return "other"
    return "zh" if len(_CJK.findall(head)) >= _CHINESE_SHARE * letters else "en"


def text_key(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in width, case or white space alone."""
    plain = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(plain.encode(), digest_size=16).digest()


def labelled_range(inputs: Sequence[Path]) -> tuple[float, float] | None:
    """The lowest and the highest score that the seeds may have, as the manifests of `aquila data label` beside the
    files say; None where none of them does.

    Raises:
        InputError: two files have different scales.
        ManifestError: a manifest that is none.
    """
    found: dict[tuple[float, float], Path] = {}
    for path in inputs:
        manifest = read_manifest(manifest_path(path)) or {}
        scores = manifest.get("scores") if manifest.get("artefact") == "seeds" else None
        if scores:
            found.setdefault((float(scores[0]), float(scores[1])), path)
    if len(found) > 1:
        (first, one), (second, other) = list(found.items())[:2]
        raise InputError(
            f"{one} has scores from {first[0]:g} to {first[1]:g} and {other} from {second[0]:g} to {second[1]:g}: "
            "train a scorer of each"
        )
    return next(iter(found), None)


def read_seeds(
    inputs: Sequence[Path],
    task: Task,
    quarantine: Path,
    *,
    max_bad_fraction: float = 0.01,
    score_tolerance: float = 1.0,
) -> tuple[list[Seed], SeedCounts]:
    """The seeds of `inputs` in their order; records that cannot be used go to the file `quarantine`.

    A task without labels takes those it finds. A text that is labelled several times is kept once where its labels are
    equal (scores: within `score_tolerance`; their mean is taken) and left out where they are not, as Aquila-Med's
    authors do with two labels of GPT-4 for each document.

    Raises:
        InputError: a file cut off or damaged, more than `max_bad_fraction` of the records refused (the first is
            named), or nothing left.
    """
    counts = SeedCounts()
    found: list[Seed] = []
    first: str | None = None
    with Quarantine(quarantine) as refused:
        for path in inputs:
            reader = FileReader(path, ReadOptions())
            for record in reader:
                try:
                    if isinstance(record, Fault):
                        raise RecordError(record.reason, record.detail)
                    found.append(_seed(record.value, task, path.name, record.offset))
                except RecordError as error:
                    refused.add(path.name, Fault(record.line, record.offset, error.reason, error.detail, record.head))
                    first = first or f"{path} line {record.line}: {error}"
            if reader.damage is not None:
                raise InputError(f"{path} cannot be read to its end ({reader.damage}): mend it or leave it out")
            counts.records += reader.units - reader.blank
    counts.refused = refused.reasons
    bad = counts.refused.total()
    if bad > max_bad_fraction * counts.records:
        raise InputError(
            f"{bad:,} of {counts.records:,} seeds cannot be used, more than max_bad_fraction {max_bad_fraction:g} "
            f"allows; the first: {first}"
        )
    kept = _agreeing(found, score_tolerance, counts)
    if not kept:
        raise InputError(
            f"{', '.join(map(str, inputs))} hold no usable seed: give records with text and label or score"
        )
    counts.kept = len(kept)
    counts.by_language = Counter(seed.lang for seed in kept)
    counts.by_label = Counter(seed.target for seed in kept if isinstance(seed.target, str))
    return kept, counts


def _seed(value: object, task: Task, file: str, offset: int) -> Seed:
    text = record_text(value)
    assert isinstance(value, dict)
    lang = value.get("lang") or guess_language(text)
    source = value.get("source") or ""
    if not isinstance(lang, str) or not isinstance(source, str):
        raise RecordError("bad-field", "'lang' and 'source' must be strings")
    lang = lang if lang in LANGUAGES else "other"
    target = _label(value, task) if task.name == "classification" else _score(value, task)
    return Seed(record_id(value) or stable_id(file, offset), text, target, lang, source, text_key(text))


def _label(value: Mapping[str, Any], task: Task) -> str:
    label = value.get("label")
    if not isinstance(label, str) or not label.strip():
        raise RecordError("bad-label", f"'label' must be a non-empty string, it is {label!r:.60}")
    if task.labels and label not in task.labels:
        raise RecordError("bad-label", f"'label' must be one of {', '.join(task.labels)}, it is {label!r:.60}")
    return label


def _score(value: Mapping[str, Any], task: Task) -> float:
    given = value.get("score")
    try:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError
        score = float(given)  # of a .csv it comes as a string
    except ValueError:
        raise RecordError("bad-score", f"'score' must be a number, it is {given!r:.60}") from None
    if not task.low <= score <= task.high:  # refuses NaN too
        raise RecordError("bad-score", f"'score' must lie from {task.low:g} to {task.high:g}, it is {score:g}")
    return score


def _agreeing(seeds: Iterable[Seed], tolerance: float, counts: SeedCounts) -> list[Seed]:
    groups: dict[bytes, list[Seed]] = {}
    for seed in seeds:
        groups.setdefault(seed.key, []).append(seed)
    kept = []
    for group in groups.values():
        scores = [seed.target for seed in group if isinstance(seed.target, float)]
        if scores:
            agree = max(scores) - min(scores) <= tolerance
        else:
            agree = len({seed.target for seed in group}) == 1
        if not agree:
            counts.conflicting += len(group)
            continue
        counts.duplicates += len(group) - 1
        head = group[0]
        target = math.fsum(scores) / len(scores) if scores else head.target
        kept.append(Seed(head.id, head.text, target, head.lang, head.source, head.key))
    return kept


def split(seeds: Sequence[Seed], *, seed: int, validation: float, test: float) -> dict[Part, list[Seed]]:
    """Each seed in one part, by a hash of its text: equal texts never straddle, and a new seed moves no other."""
    parts: dict[Part, list[Seed]] = {"train": [], "validation": [], "test": []}
    for item in seeds:
        digest = hashlib.blake2b(item.key, digest_size=8, key=f"split {seed}".encode()).digest()
        place = int.from_bytes(digest, "big") / 2**64
        parts["test" if place < test else "validation" if place < test + validation else "train"].append(item)
    return parts


def balanced(seeds: Sequence[Seed], by: Sequence[str]) -> npt.NDArray[np.int64]:
    """How often each seed is taken, at least once, so that all groups are of the size of the largest.

    `by` names what makes a group: "language", "label" or both. Up-sampling to equal shares is what the paper does for
    Chinese and English.
    """
    names = [tuple(item.lang if one == "language" else item.target for one in by) for item in seeds]
    sizes = Counter(names)
    largest = max(sizes.values())
    met: Counter[tuple[str | float, ...]] = Counter()
    times = np.empty(len(seeds), np.int64)
    for place, name in enumerate(names):
        whole, rest = divmod(largest, sizes[name])
        times[place] = whole + (met[name] < rest)
        met[name] += 1
    return times


def batch_of(seeds: Sequence[Seed]) -> Batch:
    """The seeds as a batch of documents."""
    return Batch(
        [seed.id for seed in seeds],
        [seed.text for seed in seeds],
        [seed.lang for seed in seeds],
        [seed.source for seed in seeds],
        [{} for _ in seeds],
    )
