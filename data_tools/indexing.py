"""Samples → PREFIX.bin / PREFIX.idx: plan shards, encode those that are not done yet, join, publish.

For documents the output equals that of Megatron-LM's preprocess_data.py on the same documents in the same order.
It does not depend on the number of workers and shards. Killed at any moment, the next run takes up the shards
that were finished.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_tools.indexed import merge, token_dtype
from data_tools.inputs import InputError, RunError, resolve_inputs
from data_tools.manifest import (
    dataset_files,
    loss_mask_prefix,
    manifest_path,
    package_versions,
    read_manifest,
    write_manifest,
)
from data_tools.pool import Pool
from data_tools.publish import LOCK, atomic_path, exclusive, fsync, remove_leftovers, sha256_file
from data_tools.ranges import InputFile, range_problem
from data_tools.samples import CHAT_NOTES, IndexOptions, SampleEncoder, sample_encoder
from data_tools.shards import (
    FORMAT_VERSION,
    Shard,
    ShardCounts,
    encode_shard,
    finished,
    ids_path,
    plan_shards,
    quarantine_path,
)
from data_tools.tokenizers import TokenizerError, load_tokenizer

_SUMS = ("documents", "sequences", "tokens", "characters", "text_bytes", "units", "blank")
_CHAT_SUMS = ("trained_tokens", *CHAT_NOTES)
_DUPLICATE_BUCKET = 1 << 23  # ids looked at together: 64 MiB


class IndexingError(RunError):
    """The dataset cannot be made as asked."""


@dataclass(frozen=True)
class IndexSummary:
    """What a run did: the manifest it wrote, and what is true of this run only."""

    prefix: Path
    manifest: dict[str, Any]
    seconds: float
    shards_done: int
    shards_reused: int


class _EncodeShards:
    """Workers load the tokenizer anew; this process has it already."""

    def __init__(
        self, tokenizer: Path, eod: str | None, options: IndexOptions, directory: Path, encoder: SampleEncoder
    ) -> None:
        self._tokenizer, self._eod, self._options, self._directory = tokenizer, eod, options, directory
        self._encoder: SampleEncoder | None = encoder

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def start(self) -> None:
        if self._encoder is None:
            self._encoder = sample_encoder(self._options, load_tokenizer(self._tokenizer, eod=self._eod))

    def do(self, task: Shard, report: Callable[[int], None]) -> ShardCounts:
        assert self._encoder is not None
        return encode_shard(task, self._options, self._encoder, self._directory, report)


def quarantine_file(prefix: Path) -> Path:
    """Where the bad records of the dataset `prefix` go."""
    return prefix.with_name(f"{prefix.name}.quarantine.jsonl")


def work_directory(prefix: Path) -> Path:
    """Where finished shards wait until all are done; removed in the end."""
    return prefix.with_name(f"{prefix.name}.shards")


def build_index(
    inputs: Sequence[str],
    tokenizer: Path,
    prefix: Path,
    options: IndexOptions,
    *,
    eod: str | None = None,
    workers: int = 1,
    max_bad_fraction: float = 0.1,
    allow_truncated: bool = False,
    shard_bytes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> IndexSummary:
    """Make the dataset `prefix` of the samples in `inputs`.

    Args:
        inputs: files, directories and patterns; `resolve_inputs` says in which order they are read.
        tokenizer: directory or file; `eod` names its end-of-document token where the default is not meant.
        max_bad_fraction: of the records; more than that in quarantine, and nothing is published. Good samples that
            are dropped for their length do not count as bad.
        allow_truncated: publish what a damaged file held before the damage.
        on_progress: called with bytes done and bytes in all (on disk, the finished shards of a former run
        included).

    Raises:
        InputError: it cannot be begun. IndexingError: it cannot be finished. WorkerDiedError. StorageError.
    """
    began = time.monotonic()
    files = [InputFile.at(path) for path in resolve_inputs(inputs)]
    encoder = _load(tokenizer, eod, options)
    _check_output(prefix)
    shards = plan_shards(files, options, encoder.digest, shard_bytes)
    plan = sha256(" ".join([str(FORMAT_VERSION), *(shard.key for shard in shards)]).encode()).hexdigest()
    directory = work_directory(prefix)
    with exclusive(directory, prefix):
        present = _published(prefix, plan)
        if present is not None:
            _judge(present, prefix, max_bad_fraction, allow_truncated)
            shutil.rmtree(directory)
            return IndexSummary(prefix, present, time.monotonic() - began, 0, len(shards))
        _clean(directory, prefix, shards)
        done = {shard.key: counts for shard in shards if (counts := finished(shard, directory)) is not None}
        todo = [shard for shard in shards if shard.key not in done]
        before, total = (
            sum(shard.weight for shard in shards if shard.key in done),
            sum(s.weight for s in shards),
        )
        work = _EncodeShards(tokenizer, eod, options, directory, encoder)
        with Pool(work, min(workers, len(todo))) as pool:
            encoded, digests = pool.run(
                todo,
                lambda current: on_progress(before + current, total),
                hash_files=[file.path for file in files],
            )
        done.update({shard.key: count for shard, count in zip(todo, encoded)})
        results = [done[shard.key] for shard in shards]
        _check_balance(files, shards, results)
        manifest = _manifest(files, digests, shards, results, options, encoder, plan)
        manifest["counts"]["duplicate_ids"] = count_duplicates([ids_path(s.output(directory)) for s in shards])
        _publish_quarantine(prefix, shards, results, directory)
        _judge(manifest, prefix, max_bad_fraction, allow_truncated)
        _publish(prefix, [shard.output(directory) for shard in shards], manifest, encoder.masked)
        shutil.rmtree(directory)
    return IndexSummary(prefix, manifest, time.monotonic() - began, len(todo), len(shards) - len(todo))


def count_duplicates(paths: Sequence[Path]) -> int:
    """How many ids (uint64 hashes in the files `paths`) were there before; memory is bounded by working in
    buckets.
    """
    total = sum(path.stat().st_size for path in paths) // 8
    buckets = -(-total // _DUPLICATE_BUCKET)
    repeated = 0
    for bucket in range(buckets):
        parts = []
        for path in paths:
            ids = np.fromfile(path, np.uint64)
            parts.append(ids[ids % np.uint64(buckets) == bucket])
        ids = np.concatenate(parts)
        repeated += len(ids) - len(np.unique(ids))
    return repeated


def _load(path: Path, eod: str | None, options: IndexOptions) -> SampleEncoder:
    try:
        return sample_encoder(options, load_tokenizer(path, eod=eod))
    except TokenizerError as error:
        raise InputError(str(error)) from error


def _check_output(prefix: Path) -> None:
    if not prefix.parent.is_dir():
        raise InputError(f"the output directory {prefix.parent} does not exist: make it first")
    if not os.access(prefix.parent, os.W_OK | os.X_OK):
        raise InputError(f"the output directory {prefix.parent} cannot be written to")
    if prefix.is_dir() or not prefix.name:
        raise InputError(f"the output {prefix} is a directory: give a path prefix, such as {prefix / 'corpus'}")


def _clean(directory: Path, prefix: Path, shards: Sequence[Shard]) -> None:
    """Remove what killed runs left half written, and shards of other inputs, options or tokenizers."""
    for path in (*dataset_files(prefix, masked=True).values(), manifest_path(prefix), quarantine_file(prefix)):
        remove_leftovers(path)
    keys = {shard.key for shard in shards}
    for path in directory.iterdir():
        if path.name != LOCK and (path.suffix == ".tmp" or path.name.split(".")[0] not in keys):
            path.unlink()


def _published(prefix: Path, plan: str) -> dict[str, Any] | None:
    """The manifest of a former run, if it did the same and its files have the sizes it says."""
    manifest = read_manifest(manifest_path(prefix))
    if manifest is None or manifest.get("plan") != plan:
        return None
    files = dataset_files(prefix, masked=True)
    for name, facts in manifest["files"].items():
        if not files[name].exists() or files[name].stat().st_size != facts["bytes"]:
            return None
    return manifest


def _check_balance(files: Sequence[InputFile], shards: Sequence[Shard], results: Sequence[ShardCounts]) -> None:
    """Every unit read is a sample, blank, in quarantine or dropped, and the ranges of a file cover all of its bytes.

    Raises:
        IndexingError: a record got lost or was taken twice, or an input changed.
    """
    spans: Counter[int] = Counter()
    for shard, counts in zip(shards, results):
        spans[shard.file] += counts.span
        if counts.balance():
            raise IndexingError(f"{shard.path}: the counts are off by {counts.balance()}: please report this")
    for number, file in enumerate(files):
        if problem := range_problem(file, spans[number]):
            raise IndexingError(problem)


def _manifest(
    files: Sequence[InputFile],
    digests: Sequence[str],
    shards: Sequence[Shard],
    results: Sequence[ShardCounts],
    options: IndexOptions,
    encoder: SampleEncoder,
    plan: str,
) -> dict[str, Any]:
    tokenizer = encoder.tokenizer
    sums = (*_SUMS, *_CHAT_SUMS) if encoder.masked else _SUMS
    groups = ("quarantined", "dropped") if encoder.masked else ("quarantined",)
    inputs: list[dict[str, Any]] = [
        {
            "path": str(file.path),
            "bytes": file.size,
            "sha256": digest,
            **dict.fromkeys(sums, 0),
            **{group: {} for group in groups},
        }
        for file, digest in zip(files, digests)
    ]
    for shard, counts in zip(shards, results):
        entry = inputs[shard.file]
        for name in sums:
            entry[name] += counts.notes.get(name, 0) if name in CHAT_NOTES else getattr(counts, name)
        for group in groups:
            entry[group] = dict(Counter(entry[group]) + Counter(getattr(counts, group)))
        if counts.damage:
            entry["damage"] = counts.damage
    totals: dict[str, Counter[str]] = {group: Counter() for group in groups}
    for entry in inputs:
        for group in groups:
            totals[group].update(entry[group])
    reasons = {group: dict(sorted(total.items())) for group, total in totals.items()}
    return {
        "format": "megatron-indexed",
        "version": FORMAT_VERSION,
        "plan": plan,
        **encoder.facts(),
        "tokenizer": {
            "name": tokenizer.name,
            "kind": tokenizer.kind,
            "digest": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "eod_id": tokenizer.eod_id,
        },
        "options": asdict(options),
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "counts": {
            **{name: sum(entry[name] for entry in inputs) for name in sums},
            **({"dropped": reasons["dropped"]} if encoder.masked else {}),
            "quarantined": totals["quarantined"].total(),
        },
        "quarantined": reasons["quarantined"],
        "inputs": inputs,
        "shards": len(shards),
        "packages": package_versions(),
    }


def _judge(manifest: dict[str, Any], prefix: Path, max_bad_fraction: float, allow_truncated: bool) -> None:
    """Decide whether what came out may be published.

    Raises:
        InputError: there is no sample at all. IndexingError: damaged inputs, or too many bad records.
    """
    counts, kind = manifest["counts"], manifest["kind"]
    damaged = [entry for entry in manifest["inputs"] if "damage" in entry]
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in manifest["quarantined"].items())
    if damaged and not allow_truncated:
        more = f" (and {len(damaged) - 1} more damaged files)" if len(damaged) > 1 else ""
        documents = damaged[0]["documents"]
        raise IndexingError(
            f"{damaged[0]['path']}: {damaged[0]['damage']}; {documents:,} {kind} stand before"
            f" it{more}: get a whole copy, or give --allow-truncated to index what is there"
        )
    dropped = counts.get("dropped", {})
    if not counts["documents"]:
        why = f"all {counts['quarantined']:,} records are bad ({reasons})" if reasons else "the inputs are empty"
        if dropped:
            lost = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
            why = f"{lost}, {counts['quarantined']:,} bad records: raise --max-length"
        where = f" (see {quarantine_file(prefix)})" if reasons or dropped else ""
        raise InputError(f"no {kind} at all: {why}{where}")
    records = counts["documents"] + sum(dropped.values()) + counts["quarantined"]
    fraction = counts["quarantined"] / records
    if fraction > max_bad_fraction:
        raise IndexingError(
            f"{counts['quarantined']:,} of {records:,} records ({fraction:.1%}) are bad ({reasons}), more "
            f"than the {max_bad_fraction:.1%} allowed: see {quarantine_file(prefix)}, mend them or raise "
            "--max-bad-fraction"
        )


def _publish_quarantine(prefix: Path, shards: Sequence[Shard], results: Sequence[ShardCounts], directory: Path) -> None:
    """Join the shards' quarantines, with what was dropped; only now are the lines before a shard known."""
    target = quarantine_file(prefix)
    if not any(counts.quarantined or counts.dropped for counts in results):
        target.unlink(missing_ok=True)
        return
    lines_before: Counter[int] = Counter()
    with atomic_path(target) as temporary, temporary.open("wb") as joined:
        for shard, counts in zip(shards, results):
            with quarantine_path(shard.output(directory)).open("rb") as part:
                for line in part:
                    fault = orjson.loads(line)
                    fault["line"] += lines_before[shard.file]
                    joined.write(orjson.dumps(fault, option=orjson.OPT_APPEND_NEWLINE))
            lines_before[shard.file] += counts.units


def _publish(prefix: Path, parts: Sequence[Path], manifest: dict[str, Any], masked: bool) -> None:
    """Join the shards and write the manifest. Without .idx there is no dataset, so that goes first and comes
    last, with the loss masks complete before it.
    """
    manifest_path(prefix).unlink(missing_ok=True)
    staged = work_directory(prefix) / "joined"
    merge(parts, staged)
    if masked:
        merge([loss_mask_prefix(part) for part in parts], loss_mask_prefix(staged))
    ready = dataset_files(staged, masked=masked)
    manifest["files"] = {
        name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in ready.items()
    }
    targets = dataset_files(prefix, masked=True)
    targets["idx"].unlink(missing_ok=True)
    for name in targets.keys() - ready.keys():  # of an earlier dataset of another kind
        targets[name].unlink(missing_ok=True)
    for name, path in ready.items():
        if name != "idx":
            path.replace(targets[name])
    write_manifest(manifest_path(prefix), manifest)
    ready["idx"].replace(targets["idx"])
    fsync(prefix.parent)
