"""Whether ranks that must hold the same weights do: bit by bit, by one checksum a parameter.

Which ranks those are follows from where parameters lie in the global tensors (`placement.py`): two ranks that hold the
same blocks of one hold copies. These are data-parallel replicas, norms on tensor-parallel ranks, and tied embeddings on
the first and the last pipeline stage; and of fully sharded weights what is left of that, the norms.

Megatron's `--check-weight-hash-across-dp-replicas-interval` converts every parameter to float32 on the host and takes
its SHA-1 there, for data-parallel replicas only. Here the weights are read once, where they lie: 14 GB for 7B in bf16
on one rank, 5 to 10 ms at 1.5 to 3 TB/s; 16 bytes a parameter and rank go over the network.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import torch
import torch.distributed as dist

from megatron_aquila.engine.fsdp import held_parts
from megatron_aquila.engine.model import bare
from megatron_aquila.engine.parallel import Layout
from megatron_aquila.engine.placement import place_parameters
from megatron_aquila.global_tensors import global_shapes

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_COLUMNS = 4096
_EMPTY = 0  # the key of rows that only fill up


@torch.no_grad()
def differing_replicas(chunks: Sequence[torch.nn.Module], layout: Layout) -> list[str]:
    """The parameters whose bits differ among ranks that must hold copies, each with the ranks; empty if all agree.

    Every rank calls it, and gets the same. With `parallel.overlap_param_gather`, `gather_parameters` comes first:
    before that, replicas do differ.
    """
    if layout.world_size == 1:
        return []
    shape = bare(chunks[0]).shape
    held = dict(_held(chunks, layout))
    device = next(chunks[0].parameters()).device
    # A rank holds each global tensor once at most, in parts where it is fully sharded: one.
    table = torch.zeros(len(global_shapes(shape)), 2, dtype=torch.int64, device=device)
    table[: len(held), 0] = torch.tensor([_key(name) for name in held], device=device)
    table[: len(held), 1] = torch.stack([checksum(flat) for flat in held.values()])
    tables = [torch.empty_like(table) for _ in range(layout.world_size)]
    dist.all_gather(tables, table)

    found: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # key → checksum → ranks
    for rank, rows in enumerate(torch.stack(tables).tolist()):
        for key, value in rows:
            if key != _EMPTY:
                found[key][value].append(rank)
    differing = {key: by_value for key, by_value in found.items() if len(by_value) > 1}
    if not differing:
        return []
    known = layout.gather({_key(name): name for name in held if _key(name) in differing})
    names = {key: name for of_rank in known for key, name in of_rank.items()}
    return sorted(_sentence(names[key].partition("|")[0], by_value) for key, by_value in differing.items())


def checksum(flat: torch.Tensor) -> torch.Tensor:
    """A 0-dimensional int64 of the bits of a flat tensor, computed where it lies, in one pass and without a copy.

    Taken as 64-bit words (what is left over, as integers of the element's size) and summed by columns, the columns with
    odd weights, modulo 2⁶⁴: one flipped bit always changes it, and so does an exchange of two elements unless they are
    a multiple of 4096 words apart.
    """
    per_word = 8 // flat.element_size()
    aligned = flat.numel() // (per_word * _COLUMNS) * per_word * _COLUMNS
    weights = _weights(flat.device)
    rest = flat[aligned:].view(_INTEGERS[flat.element_size()]).long()
    total = (rest * weights[torch.arange(rest.numel(), device=flat.device) % _COLUMNS]).sum()
    if aligned:
        words = flat[:aligned]
        if words.data_ptr() % 8:  # a copy of it on another rank may lie otherwise: the sum must not depend on that
            words = words.clone()
        total = total + (words.view(torch.int64).view(-1, _COLUMNS).sum(0) * weights).sum()
    return total


@cache
def _weights(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**62), 2**62, (_COLUMNS,), dtype=torch.int64, generator=generator)
    return (2 * drawn + 1).to(device)


def _held(chunks: Sequence[torch.nn.Module], layout: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    """What this rank holds of each parameter, flat, under a name that its copies have too: `NAME|WHERE`."""
    parts = held_parts(chunks)
    for parameter, placement in place_parameters(chunks, bare(chunks[0]).shape, layout):
        flat, start = parameter.detach().view(-1), 0
        if parts:
            if parameter not in parts:  # other ranks hold all of it
                continue
            flat, start = parts[parameter].model, parts[parameter].start
        if flat.numel():
            where = [(block.local, block.extent, block.offset) for block in placement.blocks]
            yield f"{placement.name}|{placement.local_shape} {where} {start}+{flat.numel()}", flat


@cache
def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") + 1


def _sentence(name: str, by_value: Mapping[int, Sequence[int]]) -> str:
    """Names the fewest, or, where no value has the most ranks, all."""
    groups = sorted((list(ranks) for ranks in by_value.values()), key=lambda ranks: (len(ranks), ranks))
    *odd, last = groups
    if len(odd) > 1 or len(odd[0]) == len(last):
        return f"{name}: {' and '.join(map(_ranks, sorted(groups)))} differ"
    return f"{name}: {_ranks(odd[0])} {'differs' if len(odd[0]) == 1 else 'differ'} from {_ranks(last)}"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
