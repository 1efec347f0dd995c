"""What all ranks settle together at the end of a step, in one small all_reduce."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from megatron_aquila.errors import TrainingError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience.ledger import Ledger, fingerprint
from megatron_aquila.resilience.signals import StopSignals
from megatron_aquila.saves import Saves

if TYPE_CHECKING:
    from megatron_aquila.engine.parallel import Layout

Sample = tuple[int, ...]


class Settled(NamedTuple):
    """The same on all ranks, but for the name of the signal."""

    stop: str  # the signal that asks for an end, or nothing
    written: bool  # every rank has written its files of a save under way, if there is one


def wanted_end(layout: Layout, signals: StopSignals) -> str:
    """The signal that asks for an end, or nothing. Every rank calls it, and what one received counts for all."""
    return _named(signals, layout.total([int(signals.received is not None)])[0])


def _named(signals: StopSignals, stops: int) -> str:
    return (signals.received or "a signal to another rank") if stops else ""


class StepEnd:
    """Whether any rank was asked to stop, all have written their part of a save, the folder is still this process's,
    and what was trained on.
    """

    def __init__(self, layout: Layout, ledger: Ledger, events: EventLog, saves: Saves, signals: StopSignals) -> None:
        self._layout, self._ledger, self._events, self._saves, self._signals = layout, ledger, events, saves, signals

    def settle(self, step: int, samples: Sequence[Sample], own: Sequence[Sample] | None) -> Settled:
        """Write the ledger's line, and settle how to go on.

        Args:
            samples: of the global batch of `step`.
            own: those that this rank computed with; None where all ranks left the batch out.

        Raises:
            LedgerError: what the ranks computed with is not what the step has.
            TrainingError: another process has begun to train in this folder.
        """
        layout = self._layout
        # Of the ranks that share a replica one speaks for all.
        is_silent = own is None or layout.tensor_rank or layout.pipeline_rank or layout.context_rank
        trained = 0 if is_silent else fingerprint(own or ())
        stops, unwritten, trained, displaced = layout.total(
            [int(self._signals.received is not None), self._saves.unwritten, trained, int(self._events.is_displaced)]
        )
        if displaced:
            raise TrainingError(
                f"another process has begun to train in the same folder (its events.jsonl is another file now), so "
                f"this one ends, at step {step}: its checkpoints are sound, and the other goes on from the last"
            )
        if own is None:
            self._ledger.write(step, samples, fingerprint(samples), skipped=True)
        else:
            self._ledger.write(step, samples, trained)
        return Settled(_named(self._signals, stops), not unwritten)
