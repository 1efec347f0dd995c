"""Log-likelihoods of continuations, on whatever layout the model lies.

Requests become documents: one a distinct `context + continuation[:-1]`, or none where that begins another one, as the
shorter answers to a question do; so the letters of a multiple-choice question cost one forward. Documents are laid end
to end in packs, attention stays within each, and nothing is computed for padding but at the end of a pack that
must have the length of the others. A score depends on neither neighbours nor pack size, beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_aquila.datasets.batch import restarting_positions
from megatron_aquila.datasets.packing import pack
from megatron_aquila.engine.model import bare
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.scored_rows import QuestionedPack, Questions

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenRequest:
    """The log-likelihood of `continuation` after `context`, at least one id each."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True)
class TokenScore:
    """`logp`: float64 sum of the float32 log-probabilities of the continuation's tokens, `token_logps`, in nats.

    `greedy`: whether each of them is the model's most likely one.
    """

    logp: float
    greedy: bool
    token_logps: tuple[float, ...]


@dataclass(frozen=True)
class _Document:
    """Tokens `[n]`, and the requests (by number) that are read off it."""

    tokens: IntArray
    requests: tuple[int, ...]


@dataclass(frozen=True)
class _Pack:
    """Tokens `[T]`, bounds of documents, padding included; and which places are asked for which tokens.

    Question m: place `rows[row_of[m]]`, token `tokens_M[m]`; `order` puts the answers back into the order of
    `requests`, whose continuations lie end to end.
    """

    tokens: IntArray
    bounds: list[int]
    rows: IntArray
    row_of: IntArray
    targets: IntArray
    order: IntArray
    requests: tuple[int, ...]


def score(
    chunks: Sequence[torch.nn.Module],
    requests: Sequence[TokenRequest],
    *,
    layout: Layout,
    device: torch.device,
    pack_tokens: int,
) -> list[TokenScore]:
    """The score of each request. Every rank calls it with the same arguments and gets all of them.

    Replicas share the work. Weights that are spread over ranks must have been gathered (`gather_parameters`); the
    chunks keep their mode.

    Args:
        chunks: the model's chunks on this rank, bare or wrapped for data parallelism.
        pack_tokens: tokens of a forward; a longer request has a longer one, to itself.

    Raises:
        ValueError: a request has no context or no continuation, or a token is not of the vocabulary.
    """
    _check(requests, bare(chunks[0]).shape.vocab_size)
    if not requests:
        return []
    packs = _packs(_documents(requests), requests, layout, pack_tokens)
    mine = _forward(chunks, packs, device)
    is_owner = parallel_state.is_pipeline_last_stage(ignore_virtual=True) and layout.tensor_rank == 0
    scores: list[TokenScore | None] = [None] * len(requests)
    for owned in layout.gather(mine if is_owner else []):
        for members, values in owned:
            start = 0
            for number in members:
                stop = start + len(requests[number].continuation)
                logps = values[0, start:stop].astype(np.float64)
                scores[number] = TokenScore(
                    float(logps.sum()), bool(values[1, start:stop].all()), tuple(logps.tolist())
                )
                start = stop
    assert all(found is not None for found in scores)
    return scores  # type: ignore[return-value]


def _check(requests: Sequence[TokenRequest], vocab_size: int) -> None:
    for number, request in enumerate(requests):
        if not len(request.context) or not len(request.continuation):
            raise ValueError(f"request {number} needs at least one token of context and one of continuation")
        for ids in (request.context, request.continuation):
            if min(ids) < 0 or max(ids) >= vocab_size:
                raise ValueError(
                    f"request {number} has a token that is outside the vocabulary of {vocab_size}: "
                    "it was made with another tokenizer"
                )


@contextmanager
def inference(chunks: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Without gradients and without dropout; afterwards the chunks are in the mode that they were in."""
    modes = [chunk.training for chunk in chunks]
    for chunk in chunks:
        chunk.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for chunk, training in zip(chunks, modes):
            chunk.train(training)


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


def _packs(
    documents: Sequence[_Document], requests: Sequence[TokenRequest], layout: Layout, pack_tokens: int
) -> list[_Pack]:
    """This replica's packs. All replicas have as many, which collectives of fully sharded weights need."""
    lengths = np.array([len(document.tokens) for document in documents])
    # No larger than what gives each stage of each replica something to do.
    share = -(-int(lengths.sum()) // (layout.data_size * layout.pipeline_size))
    capacity = max(int(lengths.max()), min(pack_tokens, share))
    packed = pack(lengths, capacity, seed=0)
    groups = [packed[i] for i in range(len(packed))]
    groups.sort(key=lambda group: -int(lengths[group].sum()))
    each = -(-len(groups) // (layout.data_size * layout.micro_batch_multiple)) * layout.micro_batch_multiple
    own = groups[layout.data_rank :: layout.data_size]
    own += [np.empty(0, dtype=np.int64)] * (each - len(own))
    # Messages between pipeline stages have one length, and sequence parallelism divides it; else nothing is padded.
    longest = max(int(lengths[group].sum()) for group in groups) if layout.pipeline_size > 1 else 1
    return [_make_pack([documents[i] for i in group], requests, longest, multiple=layout.tensor_size) for group in own]


def _make_pack(documents: Sequence[_Document], requests: Sequence[TokenRequest], at_least: int, multiple: int) -> _Pack:
    bounds = [0]
    places: list[IntArray] = []
    targets: list[int] = []
    members: list[int] = []
    for document in documents:
        for number in document.requests:
            request = requests[number]
            first = bounds[-1] + len(request.context) - 1
            places.append(np.arange(first, first + len(request.continuation)))
            targets.extend(request.continuation)
            members.append(number)
        bounds.append(bounds[-1] + len(document.tokens))
    total = -(-max(bounds[-1], at_least) // multiple) * multiple
    tokens = np.zeros(total, dtype=np.int64)
    if documents:
        tokens[: bounds[-1]] = np.concatenate([document.tokens for document in documents])
    if total > bounds[-1]:
        bounds.append(total)
    asked = np.concatenate(places) if places else np.empty(0, dtype=np.int64)
    order = np.argsort(asked, kind="stable")
    rows, row_of = np.unique(asked[order], return_inverse=True)
    return _Pack(
        tokens,
        bounds,
        rows,
        row_of,
        np.array(targets, dtype=np.int64)[order],
        np.argsort(order, kind="stable"),
        tuple(members),
    )


def _forward(
    chunks: Sequence[torch.nn.Module], packs: Sequence[_Pack], device: torch.device
) -> list[tuple[tuple[int, ...], FloatArray]]:
    """Per pack its requests and `[2, M]`, log-probabilities and greedy flags in their order; [] on all stages but the
    last one."""
    found: list[tuple[_Pack, torch.Tensor]] = []

    def forward_step(iterator: Iterator[_Pack], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(iterator)
        tokens = torch.from_numpy(batch.tokens).unsqueeze(0).to(device)
        positions = restarting_positions(batch.bounds).unsqueeze(0).to(device)
        output = model(tokens, positions, None, packed_seq_params=_questioned(batch, device))

        def keep(answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
            found.append((batch, answers))
            # The schedule wants a loss and a count of every micro-batch.
            return torch.zeros((), device=device), torch.ones((), dtype=torch.int, device=device), {}

        return output, keep

    iterators = [iter(packs) for _ in chunks]
    with inference(chunks):
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=iterators if len(chunks) > 1 else iterators[0],
            model=list(chunks) if len(chunks) > 1 else chunks[0],
            num_microbatches=len(packs),
            seq_length=len(packs[0].tokens),
            micro_batch_size=1,
            forward_only=True,
        )
    return [(batch.requests, answers.cpu().numpy()[:, batch.order]) for batch, answers in found]


def _questioned(batch: _Pack, device: torch.device) -> QuestionedPack:
    cu_seqlens = torch.tensor(batch.bounds, dtype=torch.int32, device=device)
    longest = max(end - start for start, end in pairwise(batch.bounds))
    starts = np.searchsorted(batch.row_of, np.arange(len(batch.rows) + 1))
    return QuestionedPack(
        qkv_format="thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        bounds=batch.bounds,
        questions=Questions(
            rows=torch.from_numpy(batch.rows).to(device),
            row_of=torch.from_numpy(batch.row_of).to(device),
            tokens=torch.from_numpy(batch.targets).to(device),
            starts=starts.tolist(),
        ),
    )
