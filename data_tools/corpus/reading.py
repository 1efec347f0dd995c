"""Where the batches of a phase come from: the input files, or what the phase before let pass."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_tools.corpus.batch import LANGUAGES, Batch
from data_tools.corpus.chain import Documents
from data_tools.corpus.plan import CorpusShard
from data_tools.corpus.recipe import Source
from data_tools.files import FileReader
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import Document, RecordError
from data_tools.tokenizers import Tokenizer

_BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 1 << 20
_BLOCK = 1 << 20  # bytes of a stored file that are looked at together


@dataclass
class Read:
    """What a shard's part of the input held: units = documents + blank + quarantined. `span`: bytes of its lines."""

    units: int = 0
    documents: int = 0
    characters: int = 0
    tokens: int = 0
    blank: int = 0
    span: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    damage: str | None = None


class Input:
    """The documents of a shard's part of an input file. Bad records go to `quarantine`.

    Attributes:
        read: complete once the iteration has ended.
    """

    def __init__(self, shard: CorpusShard, source: Source, tokenizer: Tokenizer, quarantine: Quarantine) -> None:
        self.read = Read()
        self._shard, self._source, self._tokenizer, self._quarantine = shard, source, tokenizer, quarantine
        self._reader = FileReader(shard.path, source.read_options(), start=shard.start, end=shard.end)

    @property
    def consumed(self) -> int:
        """Bytes taken off the disk so far, at most the shard's weight."""
        return min(self._reader.consumed, self._shard.weight)

    def __iter__(self) -> Iterator[Documents]:
        for documents in _batches(self._documents()):
            self.read.tokens += int(documents.batch.token_counts(self._tokenizer).sum())
            self.read.characters += sum(map(len, documents.batch.texts))
            self.read.documents += len(documents)
            yield documents
        reader = self._reader
        self.read.units, self.read.blank, self.read.span = reader.units, reader.blank, reader.span
        self.read.damage = reader.damage
        self.read.quarantined = dict(sorted(self._quarantine.reasons.items()))

    def _documents(self) -> Iterator[tuple[Document, int]]:
        source = self._source
        for item in self._reader:
            if isinstance(item, Fault):
                self._quarantine.add(str(self._shard.path), item)
                continue
            try:
                document = Document.from_json(
                    item.value,
                    source_file=self._shard.path.name,
                    offset=item.offset,
                    text_keys=source.text_key,
                    id_key=source.id_key,
                )
            except RecordError as error:
                fault = Fault(item.line, item.offset, error.reason, error.detail, item.head)
                self._quarantine.add(str(self._shard.path), fault)
                continue
            meta = (
                document.meta if document.source in ("", source.name) else {**document.meta, "origin": document.source}
            )
            yield Document(document.id, document.text, _language(document.lang), source.name, meta), item.offset


def stored_documents(path: Path, source: str) -> Iterator[Documents]:
    """What `stored` made records of. Plainly read: the file's checksum was compared, and its records were checked when
    they were read first.
    """
    counts: list[int] = []

    def documents() -> Iterator[tuple[Document, int]]:
        for line in _lines(path):
            value = orjson.loads(line)
            counts.append(value["tokens"])
            yield Document(value["id"], value["text"], value["lang"], source, value["meta"]), value["offset"]

    for batch in _batches(documents()):
        batch.batch.know_token_counts(counts[: len(batch)])
        del counts[: len(batch)]
        yield batch


def stored(documents: Documents, tokens: np.ndarray) -> Iterator[dict[str, Any]]:
    """The records of a batch between two phases; tokens: their numbers, [N]."""
    batch = documents.batch
    for place, offset in enumerate(documents.offsets):
        yield {
            "id": batch.ids[place],
            "text": batch.texts[place],
            "lang": batch.langs[place],
            "meta": batch.metas[place],
            "offset": offset,
            "tokens": int(tokens[place]),
        }


def _lines(path: Path) -> Iterator[bytes]:
    import zstandard

    begun: list[bytes] = []  # blocks of a line that goes on
    with zstandard.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            first, *lines = block.split(b"\n")
            begun.append(first)
            if lines:
                yield b"".join(begun)
                yield from lines[:-1]
                begun = [lines[-1]]


def _batches(documents: Iterator[tuple[Document, int]]) -> Iterator[Documents]:
    taken: list[Document] = []
    offsets: list[int] = []
    characters = 0
    for document, offset in documents:
        taken.append(document)
        offsets.append(offset)
        characters += len(document.text)
        if len(taken) == _BATCH_DOCUMENTS or characters > _BATCH_CHARACTERS:
            yield _batch(taken, offsets)
            taken, offsets, characters = [], [], 0
    if taken:
        yield _batch(taken, offsets)


def _batch(documents: list[Document], offsets: list[int]) -> Documents:
    batch = Batch(
        [document.id for document in documents],
        [document.text for document in documents],
        [document.lang for document in documents],
        [document.source for document in documents],
        [document.meta for document in documents],
    )
    return Documents(batch, offsets)


def _language(given: str) -> str:
    """The language that a record says it has, in our terms: zh for zh-CN, other for de."""
    language = given.lower().replace("_", "-").split("-")[0]
    return language if language in LANGUAGES or not language else "other"
