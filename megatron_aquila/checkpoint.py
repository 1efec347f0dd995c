"""Checkpoints that survive a kill, a full disk and a flipped bit.

On disk, under a run's checkpoint folder:

    step-00000100/             a complete checkpoint: it gets this name by one rename, or not at all
        shard-00000.safetensors …    what the ranks wrote
        state.json                   everything that is not a tensor
        manifest.json, .sha256       size and SHA-256 of each file (manifest.py)
    LATEST                     the name of the newest one, for people and scripts; never trusted here
    BEST                       the name of the one of lowest validation loss, where a run keeps it
    damaged-step-00000200/     found damaged on load, kept for the user
    .tmp-…                     a save or a deletion that did not end; removed by `sweep`

Communication comes in as a `Communicator`. Every collective step goes through `_together`: a failure on any
one rank is the same `CheckpointError` on all of them, and nobody waits for a rank that has given up.
"""

import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal, Protocol, TypeVar, cast

from data_tools.publish import fsync
from megatron_aquila.errors import AquilaError
from megatron_aquila.manifest import (
    MANIFEST,
    SEAL,
    Damage,
    altered_files,
    check_listing,
    flush_and_digest,
    read_listed,
    read_manifest,
    versions,
    write_flushed,
    write_manifest,
)
from megatron_aquila.shards import ShardReader

logger = logging.getLogger(__name__)

Verify = Literal["full", "sizes", "off"]
T = TypeVar("T")

_FORMAT = 1
_STATE = "state.json"
_LATEST, _BEST = "LATEST", "BEST"
# A second save of a step moves the first one aside, to `….replaced`, for the moment between two renames.
_NAME = re.compile(r"step-(\d{8,})(\.replaced)?")


FOLDER = "checkpoints"
"""Where a run keeps its checkpoints."""


class CheckpointError(AquilaError):
    """A checkpoint could not be saved, or there is none that can be trusted."""


class Communicator(Protocol):
    """The ranks that save and load together; they share a file system. Values are small and JSON-able."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """The value that rank `source` gave."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on all ranks, in rank order."""

    def barrier(self) -> None:
        """Returns once every rank has called it."""


class SingleProcess:
    """The world of one rank."""

    rank = 0
    world_size = 1

    def broadcast(self, value: Any, source: int = 0) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that passed the check asked for."""

    path: Path
    step: int
    state: dict[str, Any]
    manifest: dict[str, Any]

    def reader(self) -> ShardReader:
        """Its tensors."""
        return ShardReader(self.path)


# -- saving ----------------------------------------------------------------------------------------------


def save(
    root: Path,
    step: int,
    write: Callable[[Path], None],
    *,
    state: dict[str, Any],
    keep: int | None,
    communicator: Communicator,
    best: bool = False,
) -> Path:
    """Publish a checkpoint atomically. Every rank calls it.

    Args:
        root: the run's checkpoint folder, made if need be, on a file system that all ranks share.
        write: writes this rank's files (no folders) into the folder it is given; no two ranks may use one
            file name.
        state: JSON-able; rank 0's is saved.
        keep: delete all but so many of the newest sound checkpoints, judged by manifest and sizes; None keeps
            all. The one just written, the best one, damaged ones and whatever else lies in `root` are never deleted.
        best: from now on this is the run's best checkpoint: kept, and opened by those who start from the run.

    Returns:
        `root/step-<8 digits>`. One that was there already is replaced; at any moment `find` sees one of them.

    Raises:
        CheckpointError: on all ranks, when any of them failed; it names the rank and the reason. Earlier
            checkpoints are as they were.
    """
    return Saving(root, step, write, state=state, keep=keep, communicator=communicator, best=best).finish()


class Saving:
    """A save under way: the arguments are those of `save`. Every rank makes one, and calls `finish`.

    With `background` this rank's files are written by a thread; `write` must then read nothing that training changes.
    """

    def __init__(
        self,
        root: Path,
        step: int,
        write: Callable[[Path], None],
        *,
        state: dict[str, Any],
        keep: int | None,
        communicator: Communicator,
        best: bool = False,
        background: bool = False,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1 or None, not {keep}")
        self.step = step
        self._root, self._keep, self._best, self._communicator = root, keep, best, communicator
        self._temporary = root / communicator.broadcast(f".tmp-{step}-{uuid.uuid4().hex}")
        rank = communicator.rank
        encoded = json.dumps(state, indent=1) if rank == 0 and background else None  # as the state is now

        def stage() -> dict[str, dict[str, Any]]:
            content = (encoded or json.dumps(state, indent=1)).encode() if rank == 0 else b""
            own = self._temporary / str(rank)  # a folder for each rank tells it which files are its own
            own.mkdir(parents=True)
            write(own)
            if rank == 0:
                write_flushed(own / _STATE, content)
            return flush_and_digest(own)

        self._stage: Callable[[], dict[str, dict[str, Any]]] = stage
        self._thread: Thread | None = None
        if background:
            staged: Future[dict[str, dict[str, Any]]] = Future()
            self._thread = Thread(target=_fulfil, args=(staged, stage), name=f"save-{step}", daemon=True)
            self._stage = staged.result
            self._thread.start()

    @property
    def is_written(self) -> bool:
        """Whether `finish` would not wait for this rank's files."""
        return self._thread is None or not self._thread.is_alive()

    def finish(self) -> Path:
        """Wait for every rank's files and publish them; see `save`."""
        root, step, temporary, communicator = self._root, self.step, self._temporary, self._communicator
        final = root / f"step-{step:08d}"

        def publish() -> None:
            files = _merge(temporary, staged)
            manifest = {
                "format": _FORMAT,
                "step": step,
                "world_size": communicator.world_size,
                "versions": versions("megatron-aquila", "megatron-core", "torch", "safetensors"),
                "files": files,
            }
            write_manifest(temporary, manifest)
            fsync(temporary)
            _move_into_place(temporary, final)
            _point(final, _LATEST)
            if self._best:
                _point(final, _BEST)
            if self._keep is not None:
                _prune(root, self._keep, final)

        try:
            staged = _together(communicator, f"saving step {step} to {root}", self._stage)
            _on_first_rank(communicator, f"publishing {final}", publish)
        except CheckpointError:
            if communicator.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            communicator.barrier()
            raise
        return final


def _fulfil(promise: Future[T], action: Callable[[], T]) -> None:
    try:
        promise.set_result(action())
    except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
        promise.set_exception(error)


def sweep(root: Path, communicator: Communicator) -> None:
    """Remove what an interrupted save left behind. Every rank calls it at start-up, before `find`.

    Raises:
        CheckpointError: on all ranks, when something could not be removed.
    """

    def clean() -> None:
        for aside in root.glob("step-*.replaced"):
            original = aside.with_suffix("")
            if original.exists():
                _discard(aside)
            else:
                aside.rename(original)
        for leftover in root.glob(".tmp-*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()

    _on_first_rank(communicator, f"removing leftovers from {root}", clean)


def _merge(temporary: Path, staged: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Bring the ranks' files into one folder; their digests in one table."""
    files: dict[str, dict[str, Any]] = {}
    for rank, written in enumerate(staged):
        for name, digest in written.items():
            if name in files or name in {MANIFEST, SEAL}:
                raise CheckpointError(f"rank {rank} wrote {name}, a name that is taken")
            files[name] = digest
            (temporary / str(rank) / name).rename(temporary / name)
        (temporary / str(rank)).rmdir()
    return files


def _move_into_place(temporary: Path, final: Path) -> None:
    """Give the complete checkpoint its name; one that has it already stays findable throughout."""
    aside = final.with_name(f"{final.name}.replaced")
    if final.exists():
        if aside.exists():
            _discard(aside)
        final.rename(aside)
    temporary.rename(final)
    fsync(final.parent)
    if aside.exists():
        _discard(aside)


def _point(final: Path, pointer: str) -> None:
    temporary = final.with_name(f".tmp-{pointer}-{uuid.uuid4().hex}")
    write_flushed(temporary, f"{final.name}\n".encode())
    temporary.replace(final.with_name(pointer))
    fsync(final.parent)


def _best(root: Path) -> Path | None:
    """The checkpoint that BEST names, whether or not it is still there."""
    pointer = root / _BEST
    return root / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None


def _prune(root: Path, keep: int, written: Path) -> None:
    """Delete the sound checkpoints beyond the newest `keep`. Failing to is no failure of the save."""
    kept = (written, _best(root))
    for path in [path for path in _candidates(root) if _is_ours(path)][keep:]:
        if path not in kept:
            try:
                _discard(path)
            except OSError as error:
                logger.warning("could not delete the old checkpoint %s: %s", path, error)


def _is_ours(path: Path) -> bool:
    """Whether manifest and sizes are those of a checkpoint of this format."""
    try:
        manifest = read_manifest(path)
        check_listing(path, manifest)
    except Damage:
        return False
    return manifest["format"] == _FORMAT


def _discard(path: Path) -> None:
    """Delete a checkpoint so that no half of one is ever seen under its name."""
    doomed = path.with_name(f".tmp-discarded-{uuid.uuid4().hex}")
    path.rename(doomed)
    shutil.rmtree(doomed)


# -- loading ---------------------------------------------------------------------------------------------


def find(root: Path, *, verify: Verify = "full", communicator: Communicator) -> Checkpoint | None:
    """The newest sound checkpoint; None only if there never was one. Every rank calls it and gets the same.

    A damaged one is renamed to `damaged-…`, told of in a warning, and the next newest is tried.

    Args:
        verify: "full" hashes every file, shared out over ranks and threads; "sizes" looks for missing, extra
            and truncated files; "off" trusts the files. Manifest and state are compared with their digests
            in any case.

    Raises:
        CheckpointError: there are or were checkpoints, but none is sound.
    """
    return _newest_sound(root, verify, communicator, set_damaged_aside=True)


def open_checkpoint(path: Path, verify: Verify = "full") -> Checkpoint:
    """The checkpoint `path`; of a run or folder the best one, where it keeps one, else the newest sound one.

    One process; renames nothing.

    Raises:
        CheckpointError: the checkpoint is damaged, or there is none.
    """
    path = path.resolve()
    if (path / FOLDER).is_dir():
        path = path / FOLDER
    path = _best(path) or path
    if _NAME.fullmatch(path.name) or (path / MANIFEST).exists():
        found = _verified(path, verify, SingleProcess())
        if isinstance(found, str):
            raise CheckpointError(f"checkpoint {path} is damaged: {found}")
        return found
    newest = _newest_sound(path, verify, SingleProcess(), set_damaged_aside=False)
    if newest is None:
        raise CheckpointError(f"there is no checkpoint in {path}: expected a folder step-<8 digits> there")
    return newest


def _newest_sound(
    root: Path, verify: Verify, communicator: Communicator, *, set_damaged_aside: bool
) -> Checkpoint | None:
    def look() -> tuple[list[str], bool]:
        had_some = any(root.glob("damaged-step-*")) or (root / _LATEST).exists()
        return [path.name for path in _candidates(root)], had_some

    names, had_some = _on_first_rank(communicator, f"looking for checkpoints in {root}", look)
    damages: list[str] = []
    for name in names:
        path = root / name
        found = _verified(path, verify, communicator)
        if isinstance(found, Checkpoint):
            if communicator.rank == 0:
                for damage in damages:
                    logger.warning("DAMAGED CHECKPOINT %s; using %s instead", damage, name)
            return found
        kept = ""
        if set_damaged_aside:
            kept = _on_first_rank(communicator, f"renaming {path}", partial(_set_aside, path))
        damages.append(f"{path}: {found}{kept}")
    if damages or had_some:
        reasons = "; ".join(damages) or "there are only damaged ones, or LATEST names one that is gone"
        raise CheckpointError(f"no sound checkpoint in {root} ({reasons}): restore one or use a new folder")
    return None


def _candidates(root: Path) -> list[Path]:
    """Folders named as checkpoints, newest first; one moved aside comes after the one that replaces it."""
    if not root.is_dir():
        return []
    named = [(match, path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    named.sort(key=lambda pair: (-int(pair[0][1]), pair[1].name))
    return [path for _, path in named if path.is_dir()]


def _set_aside(path: Path) -> str:
    """Rename a damaged checkpoint; says where it went."""
    number, damaged = 1, path.with_name(f"damaged-{path.name}")
    while damaged.exists():
        number += 1
        damaged = path.with_name(f"damaged-{path.name}.{number}")
    try:
        path.rename(damaged)
    except OSError as error:  # a read-only folder need not keep us from an older checkpoint
        return f" (could not be renamed: {error.strerror})"
    return f" (kept as {damaged.name})"


def _verified(path: Path, verify: Verify, communicator: Communicator) -> Checkpoint | str:
    """The checkpoint, or what is wrong with it. Every rank calls it and gets the same."""

    def look() -> dict[str, Any]:
        try:
            manifest = read_manifest(path)
            if manifest["format"] != _FORMAT:
                raise CheckpointError(
                    f"its format is {manifest['format']} and this megatron-aquila reads {_FORMAT}: "
                    f"use version {manifest['versions']['megatron-aquila']}, which wrote it"
                )
            if verify != "off":
                check_listing(path, manifest)
            return {"manifest": manifest, "state": json.loads(read_listed(path, _STATE, manifest))}
        except Damage as damage:
            return {"damage": str(damage)}

    looked = _on_first_rank(communicator, f"reading {path}", look)
    if "damage" in looked:
        return looked["damage"]
    manifest = looked["manifest"]
    if verify == "full":
        files = manifest["files"]
        # Largest first, dealt out in turn: ranks get about the same number of bytes.
        names = sorted(files, key=lambda name: (-files[name]["size"], name))
        own = names[communicator.rank :: communicator.world_size]
        found = _together(communicator, f"verifying {path}", lambda: altered_files(path, manifest, own))
        altered = [damage for damages in found for damage in damages]
        if altered:
            return "; ".join(altered)
    return Checkpoint(path, manifest["step"], looked["state"], manifest)


# -- all ranks -------------------------------------------------------------------------------------------


def _together(communicator: Communicator, what: str, action: Callable[[], T]) -> list[T]:
    """Run `action` on every rank; all results, on all ranks. If it fails on one rank, all raise."""
    cause: Exception | None = None
    outcome: dict[str, Any]
    try:
        outcome = {"value": action()}
    except Exception as error:  # noqa: BLE001 - raised again below, once the other ranks have heard of it
        cause = error
        is_sentence = isinstance(error, AquilaError | OSError)
        outcome = {"failure": str(error) if is_sentence else repr(error)}
    outcomes = communicator.gather(outcome)
    failures = [f"rank {i}: {each['failure']}" for i, each in enumerate(outcomes) if "failure" in each]
    if failures:
        more = f"; and {len(failures) - 3} more ranks" if len(failures) > 3 else ""
        raise CheckpointError(f"{what} failed: {'; '.join(failures[:3])}{more}") from cause
    return [each["value"] for each in outcomes]


def _on_first_rank(communicator: Communicator, what: str, action: Callable[[], T]) -> T:
    """Run `action` on rank 0 only; its result, or its failure, on all ranks."""
    values = _together(communicator, what, lambda: action() if communicator.rank == 0 else None)
    return cast(T, values[0])
