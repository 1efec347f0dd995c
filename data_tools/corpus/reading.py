"""Where the batches of a phase come from: the input files, or what the phase before let pass."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data_tools.corpus.batch import Batch, Row, dialogue_text
from data_tools.corpus.chain import Documents
from data_tools.corpus.plan import CorpusShard
from data_tools.corpus.recipe import Source
from data_tools.files import FileReader
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import RecordError
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
        for documents in _batches(self._documents(), self._source.name):
            self.read.tokens += int(documents.batch.token_counts(self._tokenizer).sum())
            self.read.characters += sum(map(len, documents.batch.texts))
            self.read.documents += len(documents)
            yield documents
        reader = self._reader
        self.read.units, self.read.blank, self.read.span = reader.units, reader.blank, reader.span
        self.read.damage = reader.damage
        self.read.quarantined = dict(sorted(self._quarantine.reasons.items()))

    def _documents(self) -> Iterator[tuple[Row, int]]:
        path = self._shard.path
        for item in self._reader:
            if isinstance(item, Fault):
                self._quarantine.add(str(path), item)
                continue
            try:
                row = self._source.row(item.value, path, item.offset)
            except RecordError as error:
                fault = Fault(item.line, item.offset, error.reason, error.detail, item.head)
                self._quarantine.add(str(path), fault)
                continue
            yield row, item.offset


def stored_documents(path: Path, source: str) -> Iterator[Documents]:
    """What `stored` made records of. Plainly read: the file's checksum was compared, and its records were checked when
    they were read first.
    """
    counts: list[int] = []

    def documents() -> Iterator[tuple[Row, int]]:
        for line in _lines(path):
            value = orjson.loads(line)
            counts.append(value["tokens"])
            messages = tuple(value.get("messages", ()))
            text = dialogue_text(messages) if messages else value["text"]
            yield Row(value["id"], text, value["lang"], value["meta"], messages), value["offset"]

    for batch in _batches(documents(), source):
        batch.batch.know_token_counts(counts[: len(batch)])
        del counts[: len(batch)]
        yield batch


def stored(documents: Documents, tokens: np.ndarray) -> Iterator[dict[str, Any]]:
    """The records of a batch between two phases; tokens: their numbers, [N]."""
    batch = documents.batch
    for place, offset in enumerate(documents.offsets):
        yield {
            "id": batch.ids[place],
            **({"messages": batch.messages[place]} if batch.messages else {"text": batch.texts[place]}),
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


def _batches(rows: Iterator[tuple[Row, int]], source: str) -> Iterator[Documents]:
    taken: list[Row] = []
    offsets: list[int] = []
    characters = 0
    for row, offset in rows:
        taken.append(row)
        offsets.append(offset)
        characters += len(row.text)
        if len(taken) == _BATCH_DOCUMENTS or characters > _BATCH_CHARACTERS:
            yield _batch(taken, offsets, source)
            taken, offsets, characters = [], [], 0
    if taken:
        yield _batch(taken, offsets, source)


def _batch(rows: list[Row], offsets: list[int], source: str) -> Documents:
    ids, texts, langs, metas, messages = map(list, zip(*rows))
    batch = Batch(ids, texts, langs, [source] * len(rows), metas, messages if any(messages) else [])
    return Documents(batch, offsets)
