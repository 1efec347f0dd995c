"""What the ends of ranks mean for a run."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from megatron_aquila.errors import DONE, HUNG, TRY_AGAIN, USER_ERROR

FINAL = frozenset({DONE, USER_ERROR, TRY_AGAIN})  # starting the ranks again would not help, or is not wanted

# Seconds that the other ranks have, after one ended so, to end by themselves: to save, to write their stacks.
_GRACE = {USER_ERROR: 5.0, TRY_AGAIN: 900.0, HUNG: 20.0}
_GRACE_AFTER_CRASH = 2.0


class End(NamedTuple):
    """A rank that has ended; `code` is negative for a signal, as in `subprocess`."""

    rank: int
    code: int


class Verdict(NamedTuple):
    """`code`: that of a process (128 + n for signal n); `sentence`: what to say of it, empty where ranks have."""

    code: int
    sentence: str = ""

    @property
    def final(self) -> bool:
        return self.code in FINAL


def grace(codes: Iterable[int]) -> float | None:
    """Seconds that the ranks still running are waited for after others ended so; None: as long as they take."""
    seconds = [_GRACE.get(code, _GRACE_AFTER_CRASH) for code in codes if code != DONE]
    return min(seconds) if seconds else None


def judge(ends: Sequence[End], asked: Sequence[int] = ()) -> Verdict:
    """One verdict of `ends`, in the order in which the ranks ended by themselves.

    A user's error outweighs all else, since the ranks that break down beside it do so because of it; a crash outweighs
    a stop, as one rank's part of the save is missing. `asked` are signals that the launcher passed on: a rank that
    died of one had not begun to listen, and had nothing to save.
    """
    failures = [End(end.rank, TRY_AGAIN if -end.code in asked else end.code) for end in ends if end.code != DONE]
    if not failures:
        return Verdict(DONE)
    if any(end.code == USER_ERROR for end in failures):
        first = next(end for end in failures if end.code == USER_ERROR)
    else:
        first = next((end for end in failures if end.code != TRY_AGAIN), failures[0])
    if first.code == TRY_AGAIN:
        return Verdict(TRY_AGAIN)
    if first.code < 0:
        name = signal.Signals(-first.code).name
        return Verdict(128 - first.code, f"rank {first.rank} was killed by {name}; the others were stopped")
    return Verdict(first.code, f"rank {first.rank} ended with exit code {first.code}; the others were stopped")


def with_other_nodes(own: Verdict, others: Verdict | None, *, unfinished: bool) -> Verdict:
    """The verdict of this node's ranks and what another node has told of its own; `unfinished`: ranks of this node did
    not end by themselves.
    """
    if others is None or own.code == USER_ERROR:
        return own
    if others.final or unfinished or own.code == TRY_AGAIN:
        return others
    return own
