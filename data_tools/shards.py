"""One shard of an indexing run: which bytes it covers, how they become tokens, and how it is committed.

A shard is a byte range of a plain .jsonl file, or a whole file of any other kind. Its key is a digest of
everything that its output depends on, and names its files; a shard whose marker is there and sound is never
done twice.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from data_tools.commits import commit, committed, digest_of
from data_tools.files import FileReader
from data_tools.indexed import IndexedWriter, token_dtype
from data_tools.manifest import dataset_files, loss_mask_prefix
from data_tools.publish import atomic_path
from data_tools.quarantine import Fault, Quarantine
from data_tools.ranges import InputFile, plan_ranges
from data_tools.records import RecordError, record_id
from data_tools.samples import Content, IndexOptions, SampleEncoder
from data_tools.tokenizers import LONG_DOCUMENT
from data_tools.truncation import TooLongError

FORMAT_VERSION = 1
_BATCH_CHARACTERS = 1 << 20
_BATCH_SAMPLES = 4096


@dataclass(frozen=True)
class Shard:
    """`end` is None for a whole file. `weight`: bytes on disk, for progress."""

    file: int
    path: Path
    start: int
    end: int | None
    weight: int
    key: str

    def output(self, directory: Path) -> Path:
        """The prefix of the shard's files."""
        return directory / self.key


@dataclass
class ShardCounts:
    """What a shard took in and gave out: units = documents + blank + quarantined + dropped.

    documents: samples that were kept, of whatever kind. notes: how many of them by what was done to them. dropped: by
    reason, good ones that are too long.
    """

    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    characters: int = 0
    text_bytes: int = 0
    units: int = 0
    blank: int = 0
    span: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    damage: str | None = None

    def balance(self) -> int:
        """Zero, unless a record was lost or counted twice."""
        refused = sum(self.quarantined.values()) + sum(self.dropped.values())
        return self.units - self.documents - self.blank - refused


def plan_shards(
    files: Sequence[InputFile], options: IndexOptions, encoder_digest: str, shard_bytes: int | None = None
) -> list[Shard]:
    """The shards of a run, in document order; see `plan_ranges`."""
    shards = []
    for number, start, end, weight in plan_ranges(files, shard_bytes):
        file = files[number]
        identity = {
            "version": FORMAT_VERSION,
            "input": [str(file.path.absolute()), file.size, file.mtime_ns, start, end],
            "encoder": encoder_digest,
            "options": asdict(options),
        }
        shards.append(Shard(number, file.path, start, end, weight, digest_of(identity)))
    return shards


def marker_path(output: Path) -> Path:
    """The file whose presence says that the shard is done."""
    return output.with_name(f"{output.name}.json")


def ids_path(output: Path) -> Path:
    """64-bit hashes (uint64) of the ids the shard's samples brought along, in order."""
    return output.with_name(f"{output.name}.ids")


def quarantine_path(output: Path) -> Path:
    """The shard's bad records; lines are counted from the shard's first."""
    return output.with_name(f"{output.name}.quarantine.jsonl")


def finished(shard: Shard, directory: Path) -> ShardCounts | None:
    """The counts of a shard that is done and whose files are whole, else None."""
    counts = committed(marker_path(shard.output(directory)))
    return None if counts is None else ShardCounts(**counts)


def encode_shard(
    shard: Shard,
    options: IndexOptions,
    encoder: SampleEncoder,
    directory: Path,
    report: Callable[[int], None],
) -> ShardCounts:
    """Read, encode, write and commit one shard; the marker goes last.

    Samples that are dropped for their length stand in the shard's quarantine too, but count as `dropped`.

    Args:
        report: called now and then with the bytes of the shard that are done.

    Raises:
        StorageError: no space left. OSError: the input cannot be read.
    """
    output = shard.output(directory)
    reader = FileReader(shard.path, options.read, start=shard.start, end=shard.end, columns=encoder.columns)
    dtype = token_dtype(encoder.tokenizer.vocab_size)
    with (
        atomic_path(quarantine_path(output), sync=False) as bad_path,
        Quarantine(bad_path) as quarantine,
        ExitStack() as stack,
    ):
        writer = stack.enter_context(IndexedWriter(output, dtype, sync=False))
        masks = None
        if encoder.masked:
            masks = stack.enter_context(IndexedWriter(loss_mask_prefix(output), np.uint8, sync=False))
        batches = _Batches(encoder, writer, masks, quarantine, str(shard.path))
        for item in reader:
            if isinstance(item, Fault):
                quarantine.add(str(shard.path), item)
                continue
            try:
                content = encoder.read(item.value)
                name = record_id(item.value, options.id_key)
            except RecordError as error:
                fault = Fault(item.line, item.offset, error.reason, error.detail, item.head)
                quarantine.add(str(shard.path), fault)
                continue
            written = batches.add(_Item(content, name, item.line, item.offset, item.head))
            del item, content  # or a huge document would be held while the next one is read
            if written:
                report(min(reader.consumed, shard.weight))
        batches.flush()
        bad_path.touch()
    with atomic_path(ids_path(output), sync=False) as temporary:
        temporary.write_bytes(batches.ids.tobytes())
    counts = batches.counts
    counts.units, counts.blank, counts.span, counts.damage = (
        reader.units,
        reader.blank,
        reader.span,
        reader.damage,
    )
    counts.notes, counts.dropped = dict(batches.notes), dict(sorted(batches.dropped.items()))
    counts.quarantined = dict(sorted((quarantine.reasons - batches.dropped).items()))
    files = (*dataset_files(output, masked=encoder.masked).values(), ids_path(output), quarantine_path(output))
    commit(marker_path(output), asdict(counts), files)
    report(shard.weight)
    return counts


class _Item(NamedTuple):
    """The content of a record with the id it brought along, and its place for the quarantine."""

    content: Content
    name: str | None
    line: int
    offset: int
    head: bytes


class _Batches:
    """Gathers samples, encodes them together, and writes them; those that are refused go to quarantine."""

    def __init__(
        self,
        encoder: SampleEncoder,
        writer: IndexedWriter,
        masks: IndexedWriter | None,
        quarantine: Quarantine,
        file: str,
    ) -> None:
        self.counts = ShardCounts()
        self.ids = array("Q")
        self.notes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._encoder = encoder
        self._writer = writer
        self._masks = masks
        self._quarantine = quarantine
        self._file = file
        self._items: list[_Item] = []
        self._characters = 0

    def add(self, item: _Item) -> bool:
        """Take one sample; True when something was written."""
        characters = sum(map(len, item.content.texts))
        if characters > LONG_DOCUMENT:
            self.flush()
            self._write([item])
            return True
        self._items.append(item)
        self._characters += characters
        if self._characters < _BATCH_CHARACTERS and len(self._items) < _BATCH_SAMPLES:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Encode and write what is gathered."""
        if self._items:
            self._write(self._items)
        self._items, self._characters = [], 0

    def _write(self, items: list[_Item]) -> None:
        tokens, mask, lengths, refused, notes = self._encoder.encode([item.content.sample for item in items])
        if refused:
            items = self._without(items, refused)
        if not items:
            return
        tokenizer = self._encoder.tokenizer
        if int(tokens.max()) >= tokenizer.vocab_size:
            raise ValueError(
                f"tokenizer {tokenizer.name} gave the id {tokens.max()}, its vocabulary has "
                f"{tokenizer.vocab_size}: its files do not fit each other"
            )
        documents = np.full(len(items), self._encoder.sequences)
        self._writer.add(tokens, lengths, documents)
        trained = len(tokens)
        if self._masks is not None:
            assert mask is not None
            self._masks.add(mask, lengths, documents)
            trained = int(np.count_nonzero(mask))
        self.counts.documents += len(items)
        self.counts.sequences += len(lengths)
        self.counts.tokens += len(tokens)
        self.counts.trained_tokens += trained
        self.notes.update(notes)
        texts = [text for item in items for text in item.content.texts]
        text = texts[0] if len(texts) == 1 else "".join(texts)
        self.counts.characters += len(text)
        self.counts.text_bytes += _utf8_size(text)
        self.ids.extend(xxhash.xxh3_64_intdigest(i.name.encode()) for i in items if i.name is not None)

    def _without(self, items: list[_Item], refused: list[tuple[int, RecordError]]) -> list[_Item]:
        for place, error in refused:
            item = items[place]
            self._quarantine.add(self._file, Fault(item.line, item.offset, error.reason, error.detail, item.head))
            if isinstance(error, TooLongError):
                self.dropped[error.reason] += 1
        places = {place for place, _ in refused}
        return [item for place, item in enumerate(items) if place not in places]


def _utf8_size(text: str) -> int:
    if text.isascii():
        return len(text)
    step = 1 << 20  # a huge text is not copied whole only to be measured
    return sum(len(text[begin : begin + step].encode()) for begin in range(0, len(text), step))
