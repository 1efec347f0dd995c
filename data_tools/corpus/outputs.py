"""The files that a piece of work writes: documents that go on, decisions on the others, what global steps need."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import xxhash

from data_tools.corpus.batch import Batch
from data_tools.corpus.chain import Documents
from data_tools.corpus.mix import Census
from data_tools.corpus.plan import ShardFiles
from data_tools.corpus.reading import stored
from data_tools.corpus.tally import Sizes
from data_tools.publish import atomic_path, sha256_file, storage_errors
from data_tools.record_writer import RecordWriter
from data_tools.tokenizers import Tokenizer

Signer = Callable[[Batch], npt.NDArray[Any]]


def id_hash(name: str) -> int:
    """The 64-bit hash under which a document's id is looked up."""
    return xxhash.xxh3_64_intdigest(name.encode())


class _Files:
    """Several files that are published together when the block ends well."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self._stack = ExitStack()

    def _records(self, path: Path, level: int = 3) -> RecordWriter:
        self.files.append(path)
        return self._stack.enter_context(RecordWriter(path, sync=False, level=level))

    def _binary(self, path: Path) -> BinaryIO:
        self.files.append(path)
        temporary = self._stack.enter_context(atomic_path(path, sync=False))
        return self._stack.enter_context(temporary.open("wb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class DecisionOutput(_Files):
    """Why documents do not go on, and the hashes of their ids."""

    def __init__(self, files: ShardFiles) -> None:
        super().__init__()
        self._decisions = self._records(files.decisions)
        self._ids = self._binary(files.decision_ids)

    def write(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Raises StorageError when there is no space left."""
        for decision in decisions:
            self._decisions.write(decision)
        _write(self._ids, np.array([id_hash(decision["id"]) for decision in decisions], np.uint64), self.files[1])


class PhaseOutput(_Files):
    """What a phase of steps writes of a shard."""

    def __init__(self, files: ShardFiles, tokenizer: Tokenizer, signer: Signer | None, census: Census | None) -> None:
        super().__init__()
        self.documents = 0
        self._tokenizer, self._signer, self._census = tokenizer, signer, census
        self._survivors = self._records(files.documents, level=1)  # read once, soon, and removed
        self._decisions = self._stack.enter_context(DecisionOutput(files))
        self.files += self._decisions.files
        self._signatures = None if signer is None else self._binary(files.signatures)
        self._census_file = None if census is None else self._binary(files.census)
        self._signatures_path = files.signatures

    def write(self, documents: Documents, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Raises StorageError when there is no space left."""
        self.decide(decisions)
        if not len(documents):
            return
        sizes = Sizes(documents.batch, self._tokenizer)
        for record in stored(documents, sizes.tokens):
            self._survivors.write(record)
        if self._signer is not None and self._signatures is not None:
            _write(self._signatures, self._signer(documents.batch), self._signatures_path)
        if self._census is not None:
            self._census.add(documents.batch, sizes.characters, sizes.tokens)
        self.documents += len(documents)

    def decide(self, decisions: Sequence[Mapping[str, Any]]) -> None:
        """Write decisions alone. Raises StorageError when there is no space left."""
        self._decisions.write(decisions)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._census is not None and self._census_file is not None:
            with storage_errors(self._signatures_path):
                np.save(self._census_file, self._census.rows())
        super().__exit__(kind, error, trace)


class StageOutput(_Files):
    """The documents of a shard that enter a stage, as often as they do. A shard of which none does leaves empty files.

    A copy beyond the first has "#2" and so on behind its id.
    """

    def __init__(self, documents: Path, ids: Path) -> None:
        super().__init__()
        self.documents = 0
        self._documents = self._records(documents)
        self._ids = self._binary(ids)

    def write(self, documents: Documents, times: Sequence[int]) -> None:
        """Args: times: how often each of the documents enters.

        Raises StorageError when there is no space left.
        """
        batch = documents.batch
        for place, count in enumerate(times):
            for copy in range(count):
                name = batch.ids[place]
                self._documents.write(published_record(batch, place, name if copy == 0 else f"{name}#{copy + 1}"))
        hashes = np.repeat(np.fromiter(map(id_hash, batch.ids), np.uint64, len(batch)), times)
        _write(self._ids, hashes, self.files[1])
        self.documents += int(np.sum(times))

    def facts(self) -> dict[str, Any]:
        """Of the file of documents, once it is there."""
        path = self.files[0]
        return {"documents": self.documents, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def published_record(batch: Batch, place: int, name: str) -> dict[str, Any]:
    """A document or dialogue as it is published, with the id `name`."""
    facts = {"lang": batch.langs[place], "source": batch.sources[place]}
    if not batch.messages:
        return {"id": name, "text": batch.texts[place], **facts, "meta": batch.metas[place]}
    meta = {key: value for key, value in batch.metas[place].items() if key != "scores"}
    scores = batch.metas[place].get("scores", {})
    return {"id": name, "messages": batch.messages[place], **facts, "scores": scores, "meta": meta}


def _write(file: BinaryIO, rows: npt.NDArray[Any], path: Path) -> None:
    with storage_errors(path):
        file.write(np.ascontiguousarray(rows).tobytes())
