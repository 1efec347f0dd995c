"""Files of dialogues as plain text: one block of lines a dialogue, found without holding more than one."""

import re
from collections.abc import Iterator
from pathlib import Path

from data_tools.files import ReadOptions, Record, decode
from data_tools.quarantine import Fault
from data_tools.records import RecordError
from data_tools.streams import EXCERPT_BYTES, ByteSource, DamagedStreamError, Piece, split_lines


class BlockReader:
    """Iterates over the blocks of a MedDialog .txt file (also .gz and .zst): a `Record` whose value is the block's
    text with "\\n" between its lines, or a `Fault` for the whole block.

    A block begins with a line `id=7`. Where that is missing, one begins after the blank line that ends a Dialogue, if
    what follows is an address or a heading. Other blank lines stay: within a block they end its parts.

    Attributes, complete once the iteration has ended:
        units: blocks met: records + faults. blank is 0: blank lines between blocks belong to the one before.
        damage: why the file could not be read to its end, or None. What stood before was yielded.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.units = 0
        self.blank = 0
        self.damage: str | None = None
        self._options = options
        self._source = ByteSource(path)

    @property
    def consumed(self) -> int:
        """Bytes taken off the disk so far."""
        return self._source.consumed

    def __iter__(self) -> Iterator[Record | Fault]:
        block: _Block | None = None
        limit = self._options.max_line_bytes
        try:
            for piece in split_lines(self._source, limit=limit):
                line = piece.data.strip()
                if block is None or block.ends_before(line):
                    if block is not None:
                        yield self._taken(block)
                    block = _Block(piece, limit) if line or piece.refusal else None
                if block is not None:
                    block.add(piece, line)
        except DamagedStreamError as error:
            self.damage = str(error)
            if block is not None:
                block.refuse("cut-off", "the file is damaged in this dialogue, which is unfinished")
        if block is not None:
            yield self._taken(block)

    def _taken(self, block: "_Block") -> Record | Fault:
        self.units += 1
        first, head = block.first, bytes(block.data[:EXCERPT_BYTES])
        if block.fault is not None:
            return Fault(first.number, first.offset, *block.fault, head)
        try:
            # Line by line only where the block is not of one encoding, or of none
            text = decode(block.data, self._options.encodings[:1])
        except RecordError:
            lines = []
            for number, data in enumerate(block.data.split(b"\n"), first.number):
                try:
                    lines.append(decode(data, self._options.encodings))
                except RecordError as error:
                    return Fault(first.number, first.offset, error.reason, f"line {number}: {error.detail}", head)
            text = "\n".join(lines)
        return Record(first.number, first.offset, text.replace("\r\n", "\n").removesuffix("\n"), head)


class _Block:
    """A block being gathered, in at most `limit` bytes: beyond it only the head is kept."""

    def __init__(self, first: Piece, limit: int) -> None:
        self.first = first
        self.data = bytearray()
        self.fault: tuple[str, str] | None = None
        self._limit = limit
        self._has_dialogue = False
        self._after_blank = False

    def ends_before(self, line: bytes | bytearray) -> bool:
        """Whether `line`, stripped, begins another block."""
        if line.startswith(b"id"):
            return _ID.fullmatch(line) is not None
        return self._after_blank and self._has_dialogue and (line.startswith(b"http") or line == b"Description")

    def add(self, piece: Piece, line: bytes | bytearray) -> None:
        """Take the next line; `line` is its data, stripped."""
        self._after_blank = not line
        if line == b"Dialogue":
            self._has_dialogue = True
        if self.fault is not None:
            return
        self.data += piece.data
        self.data += b"\n"
        if piece.refusal == "line-too-long" or len(self.data) > self._limit + 1:  # the last line end does not count
            limit = f"{self._limit:,}"
            self.refuse("line-too-long", f"at line {piece.number} the dialogue passes the limit of {limit} bytes")

    def refuse(self, reason: str, detail: str) -> None:
        """Keep nothing but the head. The first reason stays."""
        self.fault = self.fault or (reason, detail)
        del self.data[EXCERPT_BYTES:]


_ID = re.compile("id(?:[ \t=:]|：)*[0-9]+".encode())
"""`id=7`, `id 7`, `id：7`; not a sentence that begins so."""
