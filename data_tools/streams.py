"""Bytes off the disk, in bounded memory: plain ranges, gzip, zstd; then cut into lines or array elements."""

import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 20
EXCERPT_BYTES = 200
_BOM = b"\xef\xbb\xbf"
_ZSTD_SLICE = 512  # a slice of this size cannot unfold to more than 16 MiB (4-byte blocks of 128 KiB)


class DamagedStreamError(Exception):
    """A compressed stream or container ends early or is corrupt. All that could be read was yielded
    before.
    """


class ByteSource:
    """The decompressed bytes of one file as an iterator of chunks.

    `consumed` counts bytes taken off the disk, for progress. Several gzip members or zstd frames in a row are
    one stream, as `cat a.gz b.gz` makes them.

    Raises (while iterating):
        DamagedStreamError: after the last good chunk of a truncated or corrupt stream.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        self.path = path
        self.consumed = 0
        self._start = start

    def __iter__(self) -> Iterator[bytes]:
        if self.path.suffix == ".gz":
            return self._gzip()
        if self.path.suffix == ".zst":
            return self._zstd()
        return self._raw()

    def _raw(self) -> Iterator[bytes]:
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._start)
            while chunk := file.read(CHUNK):
                self.consumed += len(chunk)
                yield chunk

    def _gzip(self) -> Iterator[bytes]:
        member = zlib.decompressobj(wbits=31)
        fresh = True  # nothing of the present member read yet
        for chunk in self._raw():
            data = chunk
            while data:
                if fresh:
                    data = data.lstrip(b"\0")  # padding between members, as tape and block tools leave it
                    if not data:
                        break
                try:
                    output = member.decompress(data, CHUNK)
                except zlib.error as error:
                    raise DamagedStreamError(f"the gzip stream is corrupt ({error})") from error
                fresh = False
                if output:
                    yield output
                data = member.unconsumed_tail
                if member.eof:
                    data = member.unused_data
                    member, fresh = zlib.decompressobj(wbits=31), True
        while not fresh and (output := member.decompress(b"", CHUNK)):
            yield output
        if not fresh and not member.eof:
            raise DamagedStreamError("the gzip stream ends in the middle of a member: the file is truncated")

    def _zstd(self) -> Iterator[bytes]:
        import zstandard

        decompressor = zstandard.ZstdDecompressor()
        frame, fresh = decompressor.decompressobj(), True
        for chunk in self._raw():
            view = memoryview(chunk)
            for begin in range(0, len(chunk), _ZSTD_SLICE):
                data = bytes(view[begin : begin + _ZSTD_SLICE])
                while data:
                    try:
                        output = frame.decompress(data)
                    except zstandard.ZstdError as error:
                        raise DamagedStreamError(f"the zstd stream is corrupt ({error})") from error
                    fresh, data = False, b""
                    if output:
                        yield output
                    if frame.eof:
                        data = frame.unused_data
                        frame, fresh = decompressor.decompressobj(), True
        if not fresh:
            raise DamagedStreamError("the zstd stream ends in the middle of a frame: the file is truncated")


class Piece(NamedTuple):
    """A line, or an element of an array, before anyone has looked inside.

    `number` counts lines from 1 (from the range's first line where reading starts inside a file), `offset` is
    the byte offset in the decompressed file. `size` is the piece's whole length. `refusal` is None, or why
    `data` is not the whole: `cut-off` (the stream is damaged here) or `line-too-long` (only the head was
    kept).
    """

    number: int
    offset: int
    data: bytes | bytearray
    size: int
    refusal: str | None = None


class _Pending:
    """A piece being gathered over chunks, in at most `limit` bytes: beyond it only the head and the size are
    kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self._limit:
            self._data += part
        else:
            room = max(0, EXCERPT_BYTES - len(self._data))
            self._data = self._data[:EXCERPT_BYTES] + part[:room]

    def take(self, number: int, offset: int, *, cut: bool = False) -> Piece:
        """The gathered piece; the next one starts empty."""
        refusal = "cut-off" if cut else "line-too-long" if self.size > self._limit else None
        piece = Piece(number, offset, _without_bom(self._data, offset), self.size, refusal)
        self._data, self.size = bytearray(), 0
        return piece


def split_lines(chunks: Iterable[bytes], *, start: int = 0, end: int | None = None, limit: int) -> Iterator[Piece]:
    r"""Cut a stream at every "\n". A byte-order mark at offset 0 is dropped.

    With a range, the lines are those whose first byte lies in [start, end): any division of a file into
    ranges gives each line once. For start > 0 the chunks must begin at start - 1, so that a line that begins
    exactly at `start` is told from one that began before.

    Args:
        limit: lines longer than this many bytes come with their head only.

    Raises:
        DamagedStreamError: passed on from `chunks`, after the unfinished line.
    """
    number, offset = 1, start
    pending = _Pending(limit)
    if start > 0:
        chunks = iter(chunks)
        rest, offset = _after_first_newline(chunks, start - 1, end)
        if rest is None:
            return
        chunks = _chain(rest, chunks)
    damage: DamagedStreamError | None = None
    iterator = iter(chunks)
    while True:
        try:
            chunk = next(iterator, None)
        except DamagedStreamError as error:
            damage, chunk = error, None
        if chunk is None:
            break
        *complete, last = chunk.split(b"\n")
        for part in complete:
            if end is not None and offset >= end:
                return
            size = len(part) + pending.size
            if size == len(part) <= limit:
                yield Piece(number, offset, part if offset else _without_bom(part, 0), size)
            else:
                pending.add(part)
                yield pending.take(number, offset)
            number += 1
            offset += size + 1
        if end is not None and offset >= end:
            return
        if last:
            pending.add(last)
    if pending.size and (end is None or offset < end):
        yield pending.take(number, offset, cut=damage is not None)
    if damage is not None:
        raise damage


def _after_first_newline(chunks: Iterator[bytes], offset: int, end: int | None) -> tuple[bytes | None, int]:
    for chunk in chunks:
        if end is not None and offset >= end:  # one line fills the whole range and more: none begins here
            break
        found = chunk.find(b"\n")
        if found >= 0:
            return chunk[found + 1 :], offset + found + 1
        offset += len(chunk)
    return None, offset


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _without_bom(data: bytes | bytearray, offset: int) -> bytes | bytearray:
    return data[len(_BOM) :] if offset == 0 and data.startswith(_BOM) else data


_SPACE = re.compile(rb"[ \t\r\n]*")
_OUTSIDE = re.compile(rb'["\[\]{}]')
_OUTSIDE_TOP = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')


def split_array(chunks: Iterable[bytes], *, limit: int) -> Iterator[Piece]:
    """Cut a JSON array into its elements without parsing them: only strings and brackets are followed.

    The bytes must be UTF-8 (in GB18030 a bracket may be half of a character). White space around elements is
    dropped; `number` is the line on which an element starts.

    Raises:
        DamagedStreamError: from `chunks`, or because the array is not closed, or something follows it.
    """
    number, offset = 1, 0  # of the first byte not yet looked at, then of the element's start
    depth, in_string, escaped, closed = 0, False, False, False
    pending = _Pending(limit)
    begin: tuple[int, int] | None = None  # line and offset of the present element
    damage: DamagedStreamError | None = None
    iterator = iter(chunks)
    while True:
        try:
            chunk = next(iterator, None)
        except DamagedStreamError as error:
            damage, chunk = error, None
        if chunk is None:
            break
        position = 0
        if offset == 0 and chunk.startswith(_BOM):
            position = len(_BOM)
        line_mark = 0  # up to here the newlines of the chunk are counted in `number`
        while position < len(chunk):
            if closed:
                if chunk[position:].strip():
                    raise DamagedStreamError(f"something follows the end of the array at byte {offset + position}")
                break
            if depth == 0:
                position += len(chunk[position:]) - len(chunk[position:].lstrip())
                if position == len(chunk):
                    break
                if chunk[position : position + 1] != b"[":
                    raise DamagedStreamError("the file is neither a JSON array nor JSON lines")
                depth, position = 1, position + 1
                continue
            if begin is None:
                space = _SPACE.match(chunk, position)
                assert space is not None  # it matches nothing at all, too
                position = space.end()
                number += chunk.count(b"\n", line_mark, position)
                line_mark = position
                if position == len(chunk):
                    break
                begin = number, offset + position
            mark = position
            separator = False
            while position < len(chunk):
                if escaped:
                    escaped, position = False, position + 1
                    continue
                pattern = _INSIDE if in_string else _OUTSIDE_TOP if depth == 1 else _OUTSIDE
                match = pattern.search(chunk, position)
                if match is None:
                    position = len(chunk)
                    break
                position = match.end()
                sign = match.group()
                if sign == b'"':
                    in_string = not in_string
                elif sign == b"\\":
                    escaped = True
                elif sign in b"[{":
                    depth += 1
                elif sign == b",":
                    separator = True
                else:
                    depth -= 1
                    closed = separator = depth == 0
                if separator:
                    break
            pending.add(chunk[mark : position - 1] if separator else chunk[mark:position])
            if separator:
                if pending.size:
                    yield pending.take(*begin)
                begin = None
        number += chunk.count(b"\n", line_mark)
        offset += len(chunk)
    if pending.size and begin is not None:
        yield pending.take(*begin, cut=True)
    if damage is not None:
        raise damage
    if depth > 0:
        raise DamagedStreamError("the JSON array is not closed: the file is truncated")
