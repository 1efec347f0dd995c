"""The loop around a node's ranks: meet, start, watch, and by the exit code end or start again."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from megatron_aquila.errors import DONE, TRY_AGAIN
from megatron_aquila.nodes.meeting import Contact, JobEnded, Meeting, Nodes, Place
from megatron_aquila.nodes.ranks import Ranks
from megatron_aquila.nodes.verdict import Verdict, grace, judge, with_other_nodes

# to which; a terminal that is closed asks the ranks to save
_PASSED_ON = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
}
_SECONDS_TO_END = 10.0  # for ranks that are stopped because others failed; then SIGKILL
_LONGEST_PAUSE = 300.0


class _Asked(BaseException):
    """A signal came while there were no ranks to pass it on to."""


class Agent:
    """Runs `command` as `processes` ranks of this node until the job is done, by this table:

    ======================  ==========================================================================
    0                       done
    2                       the user can mend it: all nodes end with 2
    75                      stopped by a signal and saved: all nodes end with 75
    another, a lost node    started again from the last checkpoint, at most `max_restarts` times
    ======================  ==========================================================================

    A node that comes back, or one more (up to the maximum), has the ranks stop and save, and start as more; that
    counts as no restart. SIGTERM, SIGUSR1 and SIGINT are passed on to the ranks and waited for.
    """

    def __init__(
        self, command: Sequence[str], processes: int, nodes: Nodes, *, max_restarts: int = 0, pause: float = 10.0
    ) -> None:
        self._command, self._processes, self._nodes = command, processes, nodes
        self._max_restarts, self._pause = max_restarts, pause
        self._meeting = Meeting(nodes, processes)
        self._asked: list[int] = []  # signals, in order
        self._ranks: Ranks | None = None
        self._restarts = 0
        self._over = False  # nothing is left that a signal could end

    def run(self) -> int:
        """The exit code. Raises MeetingError when the nodes do not come together."""
        with self._signals():
            try:
                return self._rounds()
            except _Asked:
                return self._stopped()
            except JobEnded as error:
                print(error, file=sys.stderr)
                return DONE

    def _rounds(self) -> int:
        while True:
            place = self._meeting.join()
            verdict, rescaled = self._round(place)
            if rescaled and not self._asked:
                print("a node has come: the ranks have saved and start again as more", file=sys.stderr)
                continue
            if verdict.final or self._asked:
                self._over = True
                self._meeting.leave(place)
                interrupted = signal.SIGINT in self._asked and verdict.code != DONE
                return self._stopped() if interrupted else self._said(verdict)
            if self._restarts == self._max_restarts:
                return self._said(verdict)
            self._restarts += 1
            seconds = min(_LONGEST_PAUSE, self._pause * 2 ** (self._restarts - 1))
            count = f"restart {self._restarts} of {self._max_restarts}"
            print(f"{verdict.sentence}; they start again in {seconds:g} s ({count})", file=sys.stderr, flush=True)
            self._sleep(seconds)

    def _round(self, place: Place) -> tuple[Verdict, bool]:
        """Ranks of this node from their start to their end; and whether they ended in order to start as more."""
        contact = Contact(self._meeting, self._nodes, place)
        ranks = self._ranks = Ranks(self._command, place.first_rank, self._environments(place))
        passed_on, told, rescaled = 0, False, False
        first_failure = None
        try:
            while ranks.running():
                while passed_on < len(self._asked):
                    number = self._asked[passed_on]
                    # To save and end is what a rescale has asked them for already; a second request would end them now.
                    if number == signal.SIGINT or passed_on or not (rescaled and place.node == 0):
                        ranks.signal(number)
                    passed_on += 1
                if contact.rescale and not rescaled and not self._asked:
                    rescaled = True
                    if place.node == 0:
                        ranks.signal(signal.SIGTERM)
                ours = [end.code for end in ranks.ends]
                seconds = grace(ours if contact.failed is None else [*ours, contact.failed.code])
                if seconds is not None:
                    first_failure = first_failure or time.monotonic()
                    verdict = judge(ranks.ends, self._to_listen(rescaled))
                    if not told and verdict.code not in (DONE, TRY_AGAIN):
                        told = True
                        contact.tell(verdict)
                    if time.monotonic() > first_failure + seconds:
                        break
                time.sleep(0.05)
            verdict = judge(ranks.ends, self._to_listen(rescaled))
            if not told and verdict.code not in (DONE, TRY_AGAIN):
                contact.tell(verdict)
            verdict = with_other_nodes(verdict, contact.failed, unfinished=ranks.running())
            return verdict, verdict.code == TRY_AGAIN and (rescaled or self._one_more(contact))
        finally:
            contact.close()
            ranks.end(_SECONDS_TO_END)
            self._ranks = None

    def _to_listen(self, rescaled: bool) -> list[int]:
        return [*self._asked, *([int(signal.SIGTERM)] if rescaled else [])]

    def _one_more(self, contact: Contact) -> bool:
        """Whether ranks that no signal of ours stopped did so because a node has come, as node 0's launcher says."""
        if self._asked or self._nodes.maximum == 1:
            return False
        deadline = time.monotonic() + 3.0
        while not contact.rescale and time.monotonic() < deadline:
            self._sleep(0.1)
        return contact.rescale

    def _environments(self, place: Place) -> list[dict[str, str]]:
        host, port = place.master
        return [
            {
                "RANK": str(place.first_rank + local),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(place.world_size),
                "LOCAL_WORLD_SIZE": str(self._processes),
                "GROUP_RANK": str(place.node),
                "GROUP_WORLD_SIZE": str(place.nodes),
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
                # the store is the launcher's of node 0, and new in each round
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "TORCHELASTIC_RUN_ID": self._nodes.job,
            }
            for local in range(self._processes)
        ]

    def _said(self, verdict: Verdict) -> int:
        if verdict.sentence:
            print(verdict.sentence, file=sys.stderr)
        return verdict.code

    def _stopped(self) -> int:
        return 128 + signal.SIGINT if signal.SIGINT in self._asked else TRY_AGAIN

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._asked:
                raise _Asked
            time.sleep(0.05)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, _: FrameType | None) -> None:
            self._asked.append(_PASSED_ON[signal.Signals(number)])
            if self._ranks is None and not self._over:
                raise _Asked

        before = {number: signal.getsignal(number) for number in _PASSED_ON}
        listening = [number for number, handler in before.items() if handler is not signal.SIG_IGN]  # nohup
        for number in listening:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in listening:
                signal.signal(number, before[number])
