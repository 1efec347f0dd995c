"""Which documents answer requests, and how they lie in packs: lists and arrays, before any model.

Documents of a pack that begin alike are a piece: their prefix stands once, before what each goes on with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megatron_aquila.datasets.packing import pack
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.prefixes import shared_prefixes

IntArray = npt.NDArray[np.int64]

# Documents go on after their prefix in one call of attention when the shortest of them has this share of the longest
# one's tokens, and all no more than so many keys: padding, and the copies of the prefix, stay small.
_LIKE = 0.75
_KEYS = 1 << 16


@dataclass(frozen=True)
class TokenRequest:
    """The log-likelihood of `continuation` after `context`, at least one id each."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True)
class _Document:
    """Tokens `[n]`, and the requests (by number) that are read off it."""

    tokens: IntArray
    requests: tuple[int, ...]


@dataclass(frozen=True)
class _Piece:
    """Documents that lie in one pack; of more than one, the first `prefix` tokens are the same and stand there once."""

    prefix: int
    documents: tuple[_Document, ...]

    @property
    def length(self) -> int:
        return self.prefix + sum(len(document.tokens) - self.prefix for document in self.documents)


@dataclass(frozen=True)
class Pack:
    """Tokens and positions `[T]`, bounds, padding included; and which places are asked for which tokens.

    A document that goes on after a prefix has bounds of its own, and so has the prefix. `spans` as in `PrefixedPack`,
    documents that go on after rows given as those rows and the lengths of all of them; empty where none does.

    Question m: place `rows[row_of[m]]`, token `tokens_M[m]`; `order` puts the answers back into the order of
    `requests`, whose continuations lie end to end.
    """

    tokens: IntArray
    positions: IntArray
    bounds: list[int]
    spans: list[int | tuple[tuple[int, int], list[int]]]
    rows: IntArray
    row_of: IntArray
    targets: IntArray
    order: IntArray
    requests: tuple[int, ...]


def packs_of(requests: Sequence[TokenRequest], layout: Layout, pack_tokens: int, *, share: bool) -> list[Pack]:
    """This replica's packs, of one request or more. All replicas have as many: fully sharded weights need that.

    share: whether what documents have in common at their beginning may stand in a pack once.
    """
    return _packs(_pieces(_documents(requests), share), requests, layout, pack_tokens)


def _documents(requests: Sequence[TokenRequest]) -> list[_Document]:
    """Distinct token sequences, none the beginning of another, with the requests that each serves."""
    # Big-endian bytes sort as the ids do, and begin each other as the ids do.
    keyed = sorted(
        (np.fromiter((*request.context, *request.continuation[:-1]), dtype=">u4").tobytes(), number)
        for number, request in enumerate(requests)
    )
    documents: list[_Document] = []
    key, members = keyed[-1][0], [keyed[-1][1]]
    # From the last backwards: what begins another one stands right before it, or before another that begins it.
    for shorter, number in reversed(keyed[:-1]):
        if not key.startswith(shorter):
            documents.append(_Document(np.frombuffer(key, dtype=">u4").astype(np.int64), tuple(members)))
            key, members = shorter, []
        members.append(number)
    documents.append(_Document(np.frombuffer(key, dtype=">u4").astype(np.int64), tuple(members)))
    return documents


def _pieces(documents: Sequence[_Document], share: bool) -> list[_Piece]:
    """Documents with a prefix in common, longest first, and every other one by itself."""
    groups = shared_prefixes([document.tokens for document in documents]) if share else []
    alone = set(range(len(documents)))
    pieces = []
    for prefix, members in groups:
        alone.difference_update(members)
        ordered = sorted((documents[number] for number in members), key=lambda document: -len(document.tokens))
        pieces.append(_Piece(prefix, tuple(ordered)))
    return pieces + [_Piece(0, (documents[number],)) for number in sorted(alone)]


def _cut(piece: _Piece, capacity: int) -> Iterator[_Piece]:
    """Pieces of at most `capacity` tokens; a document that has the prefix to itself shares nothing."""
    first, length = 0, piece.prefix
    for number, document in enumerate(piece.documents):
        own = len(document.tokens) - piece.prefix
        if length + own > capacity:
            yield _whole(piece.prefix, piece.documents[first:number])
            first, length = number, piece.prefix
        length += own
    yield _whole(piece.prefix, piece.documents[first:])


def _whole(prefix: int, documents: tuple[_Document, ...]) -> _Piece:
    return _Piece(prefix if len(documents) > 1 else 0, documents)


def _packs(pieces: Sequence[_Piece], requests: Sequence[TokenRequest], layout: Layout, pack_tokens: int) -> list[Pack]:
    longest = max(len(document.tokens) for piece in pieces for document in piece.documents)
    # No larger than what gives each stage of each replica something to do.
    share = -(-sum(piece.length for piece in pieces) // (layout.copies * layout.pipeline_size))
    capacity = max(longest, min(pack_tokens, share))
    pieces = [part for piece in pieces for part in _cut(piece, capacity)]
    lengths = np.array([piece.length for piece in pieces])
    packed = pack(lengths, capacity, seed=0)
    groups = [packed[i] for i in range(len(packed))]
    groups.sort(key=lambda group: -int(lengths[group].sum()))
    each = -(-len(groups) // (layout.copies * layout.micro_batch_multiple)) * layout.micro_batch_multiple
    own = groups[layout.copy_rank :: layout.copies]
    own += [np.empty(0, dtype=np.int64)] * (each - len(own))
    # Messages between pipeline stages have one length, and sequence parallelism divides it; else nothing is padded.
    fullest = max(int(lengths[group].sum()) for group in groups) if layout.pipeline_size > 1 else 1
    return [_make_pack([pieces[i] for i in group], requests, fullest, multiple=layout.tensor_size) for group in own]


def _make_pack(pieces: Sequence[_Piece], requests: Sequence[TokenRequest], at_least: int, multiple: int) -> Pack:
    parts: list[IntArray] = []
    positions: list[IntArray] = []
    bounds = [0]
    spans: list[int | tuple[tuple[int, int], list[int]]] = []
    places: list[IntArray] = []
    targets: list[int] = []
    members: list[int] = []

    def lay(tokens: IntArray, first_position: int) -> None:
        parts.append(tokens)
        positions.append(np.arange(first_position, first_position + len(tokens)))
        bounds.append(bounds[-1] + len(tokens))

    for piece in pieces:
        start = bounds[-1]
        if piece.prefix:
            lay(piece.documents[0].tokens[: piece.prefix], 0)
            spans.append(piece.prefix)
        for document in piece.documents:
            own = len(document.tokens) - piece.prefix
            for number in document.requests:
                request = requests[number]
                first = len(request.context) - 1
                asked = np.arange(first, first + len(request.continuation))
                places.append(np.where(asked < piece.prefix, start, bounds[-1] - piece.prefix) + asked)
                targets.extend(request.continuation)
                members.append(number)
            lay(document.tokens[piece.prefix :], piece.prefix)
            if not piece.prefix:
                spans.append(own)
        if piece.prefix:
            before = (start, start + piece.prefix)
            lengths = [len(document.tokens) - piece.prefix for document in piece.documents]
            spans.extend((before, alike) for alike in _alike(lengths, piece.prefix))
    missing = -(-max(bounds[-1], at_least) // multiple) * multiple - bounds[-1]
    if missing:
        lay(np.zeros(missing, dtype=np.int64), 0)
        spans.append(missing)
    asked = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    order = np.argsort(asked, kind="stable")
    rows, row_of = np.unique(asked[order], return_inverse=True)
    return Pack(
        np.concatenate(parts),
        np.concatenate(positions),
        bounds,
        spans if any(piece.prefix for piece in pieces) else [],
        rows,
        row_of,
        np.array(targets, dtype=np.int64)[order],
        np.argsort(order, kind="stable"),
        tuple(members),
    )


def _alike(lengths: Sequence[int], prefix: int) -> Iterator[list[int]]:
    """Neighbours of descending lengths that are worth one call of attention."""
    first = 0
    for number, length in enumerate(lengths):
        longest = lengths[first]
        if length < _LIKE * longest or (number - first + 1) * (prefix + longest) > max(_KEYS, prefix + longest):
            yield list(lengths[first:number])
            first = number
    yield list(lengths[first:])
