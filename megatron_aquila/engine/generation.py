"""Answers to prompts, token by token, on whatever layout the model lies.

Tokens of all sequences of a forward lie end to end in one row: whole prompts first, without padding between them, then
the next token of each answer. So a forward is the same thing to every layer in both phases; sequence parallelism
divides the row, pipeline stages pass it on. Keys and values are kept (`attention.KeyValueCache`); an answer that ends
leaves its batch at once. Replicas share the prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_aquila.engine.attention import CachedTokens, DocumentAttention, KeyValueCache
from megatron_aquila.engine.fsdp import FullySharded
from megatron_aquila.engine.model import bare
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.sampling import Decoding, drawn, largest, narrowed, uniform, whole_vocabulary
from megatron_aquila.engine.scoring import inference
from megatron_aquila.errors import AquilaError
from megatron_aquila.kernels.token_logps import Shard

__all__ = ["Decoding", "GenerationError", "generate"]

_PREFILL_TOKENS = 8192  # of prompts in one forward; a longer prompt has one to itself
_BROKEN = -1  # in the place of a token that NaN logits cannot give

Stop = Callable[[int, list[int]], bool]


class GenerationError(AquilaError):
    """The model cannot write answers as it is laid out, or its logits are not numbers."""


@dataclass
class _Answer:
    index: int
    prompt: Sequence[int]
    decoding: Decoding
    ids: list[int] = field(default_factory=list)
    ended: bool = False

    def take(self, token: int) -> bool:
        """Whether the token is part of the answer."""
        if token in self.decoding.stop_ids:
            self.ended = True
            return False
        self.ids.append(token)
        self.ended = token == _BROKEN or len(self.ids) == self.decoding.max_new_tokens
        return True


def generate(
    chunks: Sequence[torch.nn.Module],
    prompts: Sequence[Sequence[int]],
    decoding: Sequence[Decoding],
    *,
    layout: Layout,
    device: torch.device,
    batch_size: int,
    stop: Stop | None = None,
) -> list[list[int]]:
    """The new token ids after each prompt, without the stop id. An answer depends on its own prompt and `Decoding`.

    Every rank calls it with the same arguments, but for `stop`, and gets all answers. The chunks keep their mode.

    Args:
        chunks: the model's chunk on this rank, bare or wrapped in DDP, with Megatron's local layers.
        decoding: one a prompt.
        batch_size: answers that a replica writes side by side; the cache has `batch_size` · longest tokens.
        stop: `stop(index of the prompt, ids so far)` says after each token whether the answer ends with it (stop
            strings); not asked about an answer that is at its end. Asked on rank 0 only; what other ranks give is not
            looked at. It must not raise.

    Raises:
        ValueError: a prompt is empty or has a token outside the vocabulary, or there are not as many decodings.
        GenerationError: weights are fully sharded, the pipeline is virtual, the layers are Transformer Engine's, or a
            logit is not finite.
    """
    vocab_size = _checked(chunks, prompts, decoding, layout)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give 1 or more")
    replica = _Replica(chunks[0], layout, device, vocab_size)
    batches = _batches(prompts, decoding, batch_size, layout.copies)[layout.copy_rank :: layout.copies]
    with inference(chunks):
        growing = (grown for batch in batches for grown in replica.write(batch))
        if layout.broadcast(stop is not None):
            _ask_after_each_token(growing, stop, layout)
        else:
            for _ in growing:
                pass
    is_owner = layout.tensor_rank == 0 and layout.pipeline_rank == 0
    written = {answer.index: answer.ids for batch in batches for answer in batch} if is_owner else {}
    answers = {index: ids for part in layout.gather(written) for index, ids in part.items()}
    for index, ids in sorted(answers.items()):
        if _BROKEN in ids:
            raise GenerationError(
                f"after {len(ids) - 1} tokens of the answer to prompt {index} the model's logits are not finite: "
                "are its weights whole, and does the precision hold them?"
            )
    return [answers[index] for index in range(len(prompts))]


def _checked(
    chunks: Sequence[torch.nn.Module], prompts: Sequence[Sequence[int]], decoding: Sequence[Decoding], layout: Layout
) -> int:
    """The size of the vocabulary."""
    if layout.virtual_size > 1:
        raise GenerationError("answers cannot be written on a virtual pipeline: open the model without one")
    if isinstance(chunks[0], FullySharded):
        raise GenerationError(
            "answers cannot be written by fully sharded weights, whose ranks would wait for each other at every token: "
            "open a checkpoint of them instead"
        )
    model = bare(chunks[0])
    if not all(isinstance(layer.self_attention.core_attention, DocumentAttention) for layer in model.decoder.layers):
        raise GenerationError("only Megatron's local layers keep keys and values: build the model without others")
    if len(prompts) != len(decoding):
        raise ValueError(f"{len(prompts)} prompts have {len(decoding)} decodings: give one for each")
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {index} is empty: give at least one token, such as that which begins a document")
        if min(prompt) < 0 or max(prompt) >= model.shape.vocab_size:
            raise ValueError(f"prompt {index} has a token outside the vocabulary of {model.shape.vocab_size}")
    return model.shape.vocab_size


def _batches(
    prompts: Sequence[Sequence[int]], decoding: Sequence[Decoding], batch_size: int, replicas: int
) -> list[list[_Answer]]:
    """Answers of like length side by side, the longest first; smaller batches where they would not reach everyone."""
    answers = [_Answer(*numbered) for numbered in zip(range(len(prompts)), prompts, decoding)]
    answers.sort(key=lambda answer: -len(answer.prompt))
    size = max(1, min(batch_size, -(-len(answers) // replicas)))
    return [answers[first : first + size] for first in range(0, len(answers), size)]


def _ask_after_each_token(growing: Iterator[list[_Answer]], stop: Stop | None, layout: Layout) -> None:
    """End answers where `stop` of rank 0 says so. Replicas keep step, so that rank 0 sees every answer grow."""
    so_far: dict[int, list[int]] = {}
    while True:
        grown = next(growing, None)
        mine = None if grown is None else {answer.index: answer.ids[-1] for answer in grown if not answer.ended}
        # A single replica's ranks all know the same.
        everyone = layout.gather(mine) if layout.copies > 1 else [mine]
        if all(news is None for news in everyone):
            return
        ended: list[int] = []
        if layout.is_main:
            assert stop is not None
            news = {index: token for part in everyone for index, token in (part or {}).items()}
            for index, token in news.items():
                so_far.setdefault(index, []).append(token)
            ended = [index for index in news if stop(index, list(so_far[index]))]
        stopped = frozenset(layout.broadcast(ended))
        for answer in grown or []:
            answer.ended = answer.ended or answer.index in stopped


class _Replica:
    """The ranks that hold one copy of the model, writing one batch of answers at a time."""

    def __init__(self, chunk: torch.nn.Module, layout: Layout, device: torch.device, vocab_size: int) -> None:
        self.chunk, self.layout, self.device = chunk, layout, device
        self.model = bare(chunk)
        self.config = self.model.config
        self.vocab_size = vocab_size
        self.tensor_group = parallel_state.get_tensor_model_parallel_group()
        self.pipeline_group = parallel_state.get_pipeline_model_parallel_group()

    def write(self, batch: Sequence[_Answer]) -> Iterator[list[_Answer]]:
        """Write the answers; after each token, those that grew by it. Whoever receives them may end them."""
        capacity = max(len(answer.prompt) + answer.decoding.max_new_tokens for answer in batch) - 1
        cache = KeyValueCache(self.config, len(batch), capacity, self.device)
        logits = self._prefill(batch, cache)
        while True:
            tokens = self._next_tokens(batch, logits)
            yield [answer for answer, token in zip(batch, tokens) if answer.take(token)]
            open_slots = [slot for slot, answer in enumerate(batch) if not answer.ended]
            if not open_slots:
                return
            if len(open_slots) < len(batch):
                batch = [batch[slot] for slot in open_slots]
                cache.keep(open_slots)
            logits = self._decode(batch, cache)

    def _prefill(self, batch: Sequence[_Answer], cache: KeyValueCache) -> torch.Tensor | None:
        logits: list[torch.Tensor | None] = []
        first = 0
        while first < len(batch):
            end, total = first + 1, len(batch[first].prompt)
            while end < len(batch) and total + len(batch[end].prompt) <= _PREFILL_TOKENS:
                total += len(batch[end].prompt)
                end += 1
            prompts = [answer.prompt for answer in batch[first:end]]
            lengths = [len(prompt) for prompt in prompts]
            logits.append(
                self._forward(
                    [token for prompt in prompts for token in prompt],
                    [place for length in lengths for place in range(length)],
                    last=torch.tensor(lengths).cumsum(0) - 1,
                    cache=cache,
                    lengths=lengths,
                    first_slot=first,
                )
            )
            first = end
        return None if logits[0] is None else torch.cat([part for part in logits if part is not None])

    def _decode(self, batch: Sequence[_Answer], cache: KeyValueCache) -> torch.Tensor | None:
        positions = [len(answer.prompt) + len(answer.ids) - 1 for answer in batch]
        tokens = [answer.ids[-1] for answer in batch]
        return self._forward(tokens, positions, last=torch.arange(len(batch)), cache=cache, lengths=None)

    def _forward(
        self,
        tokens: list[int],
        positions: list[int],
        *,
        last: torch.Tensor,
        cache: KeyValueCache,
        lengths: Sequence[int] | None,
        first_slot: int = 0,
    ) -> torch.Tensor | None:
        """Logits `[B, V]` of the tokens `last` on the last pipeline stage; None on the others."""
        parts = self.layout.tensor_size if self.config.sequence_parallel else 1
        padding = [0] * (-len(tokens) % parts)
        row_2T = torch.tensor([tokens + padding, positions + padding]).to(self.device)
        cached = CachedTokens(
            max_seqlen_q=cache.capacity,  # one table of rotations for every step
            max_seqlen_kv=cache.capacity,
            cache=cache,
            positions=row_2T[1],
            last=last.to(self.device),
            lengths=lengths,
            first_slot=first_slot,
        )
        if lengths is None:
            cached.longest = max(positions) + 1
            places_L = torch.arange(cached.longest, device=self.device)
            cached.visible = places_L <= row_2T[1, : len(tokens), None, None, None]
        if self.layout.pipeline_rank > 0:
            hidden = torch.empty(
                row_2T.shape[1] // parts,
                1,
                self.config.hidden_size,
                dtype=self.config.pipeline_dtype,
                device=self.device,
            )
            previous = parallel_state.get_pipeline_model_parallel_prev_rank()
            dist.recv(hidden, src=previous, group=self.pipeline_group)
            self.model.set_input_tensor(hidden)
        output: torch.Tensor = self.chunk(row_2T[:1], row_2T[1:], None, packed_seq_params=cached)
        if self.layout.pipeline_rank == self.layout.pipeline_size - 1:
            return output
        following = parallel_state.get_pipeline_model_parallel_next_rank()
        dist.send(output.contiguous(), dst=following, group=self.pipeline_group)
        return None

    def _next_tokens(self, batch: Sequence[_Answer], logits_BV: torch.Tensor | None) -> list[int]:
        """One token a sequence, on every rank of the replica."""
        if logits_BV is None:
            tokens = torch.empty(len(batch), dtype=torch.int64, device=self.device)
        else:
            tokens = self._chosen(batch, logits_BV)
        if self.layout.pipeline_size > 1:
            source = parallel_state.get_pipeline_model_parallel_last_rank()
            dist.broadcast(tokens, src=source, group=self.pipeline_group)
        return tokens.tolist()

    def _chosen(self, batch: Sequence[_Answer], logits_BV: torch.Tensor) -> torch.Tensor:
        shard = Shard(logits_BV.shape[1], self.vocab_size, self.tensor_group)
        tokens_B = largest(logits_BV, shard)
        alike: dict[tuple[float, int, float], list[int]] = {}
        for row, answer in enumerate(batch):
            how = answer.decoding
            if how.temperature > 0:
                alike.setdefault((how.temperature, how.top_k, how.top_p), []).append(row)
        for rows in alike.values():
            uniforms = [uniform(a.decoding.seed, a.prompt, len(a.ids)) for a in (batch[row] for row in rows)]
            rows_b = torch.tensor(rows, device=self.device)
            logits_bW = narrowed(whole_vocabulary(logits_BV[rows_b], shard), batch[rows[0]].decoding)
            draws_b = drawn(logits_bW, torch.tensor(uniforms, dtype=torch.float64, device=self.device))
            tokens_B[rows_b] = torch.where(tokens_B[rows_b] == _BROKEN, _BROKEN, draws_b)
        if alike and shard.ranks > 1:  # sums of probabilities may round differently from one GPU to the next
            source = parallel_state.get_tensor_model_parallel_src_rank()
            dist.broadcast(tokens_B, src=source, group=self.tensor_group)
        return tokens_B
