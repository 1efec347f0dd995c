"""Log-likelihoods of continuations, on whatever layout the model lies.

Requests become documents: one a distinct `context + continuation[:-1]`, or none where that begins another one, as the
shorter answers to a question do; so the letters of a multiple-choice question cost one forward. Documents are laid end
to end in packs, attention stays within each, and nothing is computed for padding but at the end of a pack that
must have the length of the others. What documents of a pack have in common at their beginning, as questions after the
same examples do, stands in it once (`prefixes.py`). A score depends on neither neighbours nor pack size, beyond
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func

from megatron_aquila.engine.attention import Continuations, DocumentAttention
from megatron_aquila.engine.model import bare
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.scored_packs import Pack, TokenRequest, packs_of
from megatron_aquila.engine.scored_rows import QuestionedPack, Questions

__all__ = ["TokenRequest", "TokenScore", "inference", "score"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenScore:
    """`logp`: float64 sum of the float32 log-probabilities of the continuation's tokens, `token_logps`, in nats.

    `greedy`: whether each of them is the model's most likely one.
    """

    logp: float
    greedy: bool
    token_logps: tuple[float, ...]


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
    packs = packs_of(requests, layout, pack_tokens, share=_shares(chunks))
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


def _shares(chunks: Sequence[torch.nn.Module]) -> bool:
    """Whether the layers can let documents go on after a prefix; those of Transformer Engine cannot."""
    layers = [layer for chunk in chunks for layer in bare(chunk).decoder.layers]
    return all(isinstance(layer.self_attention.core_attention, DocumentAttention) for layer in layers)


def _forward(
    chunks: Sequence[torch.nn.Module], packs: Sequence[Pack], device: torch.device
) -> list[tuple[tuple[int, ...], FloatArray]]:
    """Per pack its requests and `[2, M]`, log-probabilities and greedy flags in their order; [] on all stages but the
    last one."""
    found: list[tuple[Pack, torch.Tensor]] = []

    def forward_step(iterator: Iterator[Pack], model: torch.nn.Module) -> tuple[torch.Tensor, Any]:
        batch = next(iterator)
        tokens = torch.from_numpy(batch.tokens).unsqueeze(0).to(device)
        positions = torch.from_numpy(batch.positions).unsqueeze(0).to(device)
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
            # The schedule's messages are for one context-parallel rank's part; here each has a pack of its own.
            seq_length=len(packs[0].tokens) * parallel_state.get_context_parallel_world_size(),
            micro_batch_size=1,
            forward_only=True,
        )
    return [(batch.requests, answers.cpu().numpy()[:, batch.order]) for batch, answers in found]


def _questioned(batch: Pack, device: torch.device) -> QuestionedPack:
    cu_seqlens = torch.tensor(batch.bounds, dtype=torch.int32, device=device)
    longest = int(batch.positions.max()) + 1
    starts = np.searchsorted(batch.row_of, np.arange(len(batch.rows) + 1))
    return QuestionedPack(
        qkv_format=None if batch.spans else "thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        bounds=batch.bounds,
        positions=torch.from_numpy(batch.positions).to(device) if batch.spans else None,
        spans=_spans(batch, device),
        questions=Questions(
            rows=torch.from_numpy(batch.rows).to(device),
            row_of=torch.from_numpy(batch.row_of).to(device),
            tokens=torch.from_numpy(batch.targets).to(device),
            starts=starts.tolist(),
        ),
    )


def _spans(batch: Pack, device: torch.device) -> list[int | Continuations]:
    spans: list[int | Continuations] = []
    first = 0
    for span in batch.spans:
        if isinstance(span, int):
            spans.append(span)
            first += span
            continue
        prefix, lengths = span
        lengths_B1 = np.array(lengths)[:, None]
        places_S = np.arange(lengths[0])
        firsts_B1 = first + lengths_B1.cumsum(axis=0) - lengths_B1
        rows_BS = firsts_B1 + np.minimum(places_S, lengths_B1 - 1)
        kept = np.flatnonzero(places_S < lengths_B1)
        spans.append(Continuations(prefix, torch.from_numpy(rows_BS).to(device), torch.from_numpy(kept).to(device)))
        first += sum(lengths)
    return spans
