"""What became of a document: `aquila data why ID`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.corpus.outputs import id_hash
from data_tools.corpus.publication import DECISIONS
from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.manifest import read_manifest
from data_tools.quarantine import Fault


@dataclass(frozen=True)
class Fate:
    """What became of one document of that id.

    decision: why it does not go on (step, reason, detail, …), or None where it is in a stage. places: where it is:
    file and line (from 1) of each copy. members: of its cluster of duplicates, itself included.
    """

    decision: Mapping[str, Any] | None
    places: tuple[tuple[Path, int], ...] = ()
    meta: Mapping[str, Any] | None = None
    members: tuple[Mapping[str, Any], ...] = ()


def fates(output: Path, name: str) -> list[Fate]:
    """What became of every document with the id `name` in the corpus that was published in `output`.

    Empty where no such document was read (or it was quarantined, and never had an id).

    Raises:
        InputError: there is no corpus.
    """
    manifest = read_manifest(output / "manifest.json")
    if manifest is None or manifest.get("format") != "corpus":
        raise InputError(f"{output} holds no corpus and no dialogues: give the output directory of a recipe")
    decisions = output / DECISIONS
    found = []
    for ids in sorted(decisions.glob("*.ids")):
        lines = _lines(ids, name)
        if not lines or ".in." in ids.name:
            continue
        for decision in _records(ids.with_suffix(".jsonl.zst"), lines):
            if decision["id"] == name:
                cluster = decision["detail"].get("cluster") if decision["step"] == "deduplicate" else None
                found.append(Fate(decision, members=_members(output, cluster)))
    found += _kept(output / manifest["noun"], decisions, name)
    return found


def _kept(kept: Path, decisions: Path, name: str) -> Iterator[Fate]:
    places: list[tuple[Path, int]] = []
    meta = None
    for ids in sorted(decisions.glob("*.in.*.ids")):
        lines = _lines(ids, name)
        if not lines:
            continue
        shard, stage = ids.name.removesuffix(".ids").split(".in.")
        path = kept / stage / f"{shard}.jsonl.zst"
        for line, record in zip(lines, _records(path, lines)):
            if record["id"] == name or record["id"].startswith(f"{name}#"):
                places.append((path, line))
                meta = {**record.get("scores", {}), **record["meta"]}
    if places:
        yield Fate(None, tuple(places), meta)


def _members(output: Path, cluster: int | None) -> tuple[Mapping[str, Any], ...]:
    path = output / "clusters.jsonl.zst"
    if cluster is None or not path.exists():
        return ()
    members = []
    for item in FileReader(path, ReadOptions()):
        assert not isinstance(item, Fault)
        if item.value["cluster"] == cluster:
            members.append(item.value)
        elif item.value["cluster"] > cluster:  # they are in order
            break
    return tuple(members)


def _lines(ids: Path, name: str) -> list[int]:
    """The lines, from 1, whose id has the hash of `name`."""
    hashes = np.fromfile(ids, np.uint64)
    return [int(place) + 1 for place in np.flatnonzero(hashes == np.uint64(id_hash(name)))]


def _records(path: Path, lines: list[int]) -> Iterator[dict[str, Any]]:
    wanted = set(lines)
    for item in FileReader(path, ReadOptions(max_line_bytes=1 << 40)):
        assert not isinstance(item, Fault)
        if item.line in wanted:
            yield item.value
        if item.line >= lines[-1]:
            return
