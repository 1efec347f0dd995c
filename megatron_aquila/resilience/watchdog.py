"""Ends a rank that is stuck, with what it and all others were doing, and says meanwhile that it lives.

Under `<output>/ranks`, for rank 3:

- `rank-00003.json`: {"time", "phase", "step", "seconds" in the phase, "host", "pid", "started" as the kernel counts},
  replaced once a second.
- `rank-00003.stack`: the stacks of its threads, where a rank hung; empty while all is well. SIGUSR2 has a rank write
  them at any time, and go on.
- `HANG`: who hung first, and in what. Every rank that sees it writes its stack and ends.

What an earlier start left there of stacks and HANG is kept once, as `….before`, so that a restart hides no evidence.

Two threads. The guard looks at the clock and nothing else, so that a disk that does not answer cannot hold it up: all
that it writes, it has others write, and does not wait for long. The pulse reads and writes the files. Where the main
thread is stuck in C with Python's lock in hand, neither can run: a rank beside it that sees its stack missing has it
written by SIGUSR2, and faulthandler's own thread, which needs no lock, ends the process with exit code 1.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megatron_aquila.errors import HUNG

FOLDER = "ranks"
HANG = "HANG"

logger = logging.getLogger(__name__)

_TICK = 0.2  # seconds between two looks at the clock
_BEAT = 1.0  # seconds between two heartbeats, and between two looks for HANG


class _Phase:
    __slots__ = ("began", "name", "step", "timeout", "until")

    def __init__(self, name: str, step: int, timeout: float, now: float) -> None:
        self.name, self.step, self.timeout, self.began = name, step, timeout, now
        self.until = now + timeout if timeout else None  # monotonic; None: no limit


class Watchdog:
    """The watchdog of a rank. One a process: faulthandler has one timer.

    A process that was stopped and goes on (SIGSTOP, a machine that was asleep) is not counted as stuck meanwhile, as
    far as the guard is concerned; faulthandler's timer, which is set later by a quarter of the limit and twice `grace`,
    goes on.
    """

    def __init__(self, output: Path, rank: int, *, world_size: int | None = None, grace: float = 5.0) -> None:
        """Start watching; what an earlier run left in the folder is tidied up first.

        Args:
            output: of the run; all ranks of a machine at least should see the same.
            world_size: files of ranks beyond it are removed, by rank 0.
            grace: seconds that the other ranks have for their stacks before this one ends.

        Raises:
            OSError: the folder cannot be made.
        """
        self._folder = output / FOLDER
        self._rank, self._grace = rank, grace
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tidy(world_size)
        self._heartbeat = self._folder / f"rank-{rank:05d}.json"
        self._stack = (self._folder / f"rank-{rank:05d}.stack").open("ab", buffering=0)
        self._phase: _Phase | None = None
        self._lock = threading.Lock()  # of the phase and of faulthandler's timer; nothing that blocks is done with it
        self._armed_until: float | None = None
        self._closed = threading.Event()
        self._said_deaf = False
        self._started = _started(os.getpid())
        faulthandler.register(signal.SIGUSR2, file=self._stack, chain=False)
        self._beat("")  # its neighbours know its process from now on
        self._threads = [
            threading.Thread(target=target, name=f"watchdog {target.__name__.strip('_')}", daemon=True)
            for target in (self._guard, self._pulse)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def phase(self, name: str, step: int, timeout: float) -> Iterator[None]:
        """The block may take `timeout` seconds; 0: as long as it likes, and only the heartbeat tells of it.

        A phase within a phase has its own limit, and its time does not count in the outer one.
        """
        outer, now = self._phase, time.monotonic()
        self._enter(_Phase(name, step, timeout, now), now)
        try:
            yield
        finally:
            after = time.monotonic()
            if outer is not None and outer.until is not None:
                outer.until += after - now
            self._enter(outer, after)

    def close(self) -> None:
        """Stop watching; the heartbeat says so."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=self._grace)  # the pulse may be stuck on a disk
        self._disarm()
        faulthandler.unregister(signal.SIGUSR2)
        _bounded(self._leave, self._grace)
        self._stack.close()

    def _leave(self) -> None:
        self._beat("closed")
        if os.fstat(self._stack.fileno()).st_size == 0:
            Path(self._stack.name).unlink(missing_ok=True)

    # -- the clock --------------------------------------------------------------------------------------------

    def _enter(self, phase: _Phase | None, now: float) -> None:
        with self._lock:
            self._phase = phase
            if phase is not None and phase.until is not None:
                self._arm(phase.until - now, now)

    def _arm(self, remaining: float, now: float) -> None:
        """See to it that faulthandler's timer runs out after `remaining` seconds, and not long after.

        To set it costs a thread (30 µs): where it is about right already, it is left alone.
        """
        wanted = 1.25 * remaining + 2 * self._grace
        if self._armed_until is not None and remaining + 2 * self._grace <= self._armed_until - now <= 2 * wanted:
            return
        faulthandler.dump_traceback_later(max(wanted, 0.1), exit=True, file=self._stack)
        self._armed_until = now + wanted

    def _disarm(self) -> None:
        if self._armed_until is not None:
            faulthandler.cancel_dump_traceback_later()
            self._armed_until = None

    def _guard(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(_TICK):
            now = time.monotonic()
            with self._lock:
                phase = self._phase
                if phase is None or phase.until is None:
                    self._disarm()
                    overdue = False
                else:
                    if now - last > 5 * _TICK:  # this thread did not run either: nobody did
                        phase.until += now - last
                    overdue = now > phase.until
            last = now
            if overdue and phase is not None:
                self._end(phase, now - phase.began)

    # -- the end ----------------------------------------------------------------------------------------------

    def _end(self, phase: _Phase, seconds: float) -> None:
        """Have the stacks of all ranks written, and end this one."""
        try:
            ends = time.monotonic() + self._grace
            with self._lock:  # whatever happens from here on
                faulthandler.dump_traceback_later(4 * self._grace + 1, exit=True, file=self._stack)
            stacks = self._stacks()
            announced: list[bool] = []
            recorded = _bounded(lambda: announced.append(self._announce(phase, seconds)), self._grace / 4)
            recorded &= _bounded(lambda: self._stack.write(stacks.encode()), self._grace / 4)
            if not recorded:
                _bounded(lambda: _say(stacks), self._grace / 4)
            if not recorded or announced == [True]:
                _bounded(lambda: _say(self._sentence(phase, seconds, recorded)), self._grace / 4)
            _bounded(self._wake_neighbours, ends - time.monotonic())
            time.sleep(max(ends - time.monotonic(), 0.0))
        finally:
            os._exit(HUNG)

    def _follow(self) -> None:
        """Another rank hangs: write this one's stack, and end when the time for that is over."""
        try:
            ends = time.monotonic() + 1.5 * self._grace  # the one that hung ends first
            stacks = self._stacks()
            _bounded(lambda: self._stack.write(stacks.encode()), self._grace / 2)
            _bounded(self._wake_neighbours, self._grace / 2)
            time.sleep(max(ends - time.monotonic(), 0.0))
        finally:
            os._exit(HUNG)

    def _announce(self, phase: _Phase, seconds: float) -> bool:
        """Write HANG; false where another rank has been quicker."""
        facts = {"rank": self._rank, "phase": phase.name, "step": phase.step, "seconds": round(seconds, 1)}
        with suppress(FileExistsError), (self._folder / HANG).open("x", encoding="utf-8") as file:
            file.write(json.dumps({**facts, "time": time.time(), "host": socket.gethostname()}) + "\n")
            return True
        return False

    def _sentence(self, phase: _Phase, seconds: float, recorded: bool) -> str:
        return (
            f"rank {self._rank} was stuck in {phase.name!r} of step {phase.step} for {seconds:.0f} s and is ended with "
            f"exit code {HUNG}: what every rank was doing is in {self._folder}/rank-*.stack"
            f"{'' if recorded else ' as far as that can be written, and of this rank above'}; if it was only slow, "
            f"give it more than {phase.timeout:g} s (resilience.step_timeout, resilience.save_timeout)\n"
        )

    def _wake_neighbours(self) -> None:
        """Have those ranks of this machine write their stacks whose own threads have not come to it."""
        time.sleep(min(1.5 * _BEAT, self._grace / 2))
        for path in self._folder.glob("rank-*.json"):
            stack = path.with_suffix(".stack")
            with suppress(OSError, ValueError):  # it has ended, or is ending
                beat = json.loads(path.read_text(encoding="utf-8"))
                empty = stack.exists() and stack.stat().st_size == 0
                same = beat["host"] == socket.gethostname() and beat["started"] == _started(beat["pid"])
                if empty and same and beat["started"] is not None:
                    os.kill(beat["pid"], signal.SIGUSR2)

    def _stacks(self) -> str:
        """The stacks of all threads but the watchdog's, innermost call first, without a look at any file."""
        phase = self._phase
        where = f"{phase.name!r} of step {phase.step}" if phase else "no phase"
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        own = {thread.ident for thread in self._threads}
        lines = [f"rank {self._rank}, process {os.getpid()} on {socket.gethostname()}, in {where}"]
        for ident, frame in sys._current_frames().items():
            if ident in own:
                continue
            lines.append(f"\nThread {names.get(ident, ident)!r} (most recent call first):")
            for inner, number in traceback.walk_stack(frame):
                lines.append(f'  File "{inner.f_code.co_filename}", line {number} in {inner.f_code.co_qualname}')
        return "\n".join(lines) + "\n"

    # -- the files --------------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        while not self._closed.wait(_BEAT):
            phase = self._phase
            self._beat(phase.name if phase else "")
            if (self._folder / HANG).exists():
                self._follow()

    def _beat(self, name: str) -> None:
        phase = self._phase
        facts = {
            "time": time.time(),
            "phase": name,
            "step": phase.step if phase else None,
            "seconds": round(time.monotonic() - phase.began, 1) if phase else None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
        }
        partial = self._heartbeat.with_suffix(".tmp")
        try:
            partial.write_text(json.dumps(facts) + "\n", encoding="utf-8")
            partial.replace(self._heartbeat)
        except OSError as error:  # no reason to end a run
            if not self._said_deaf:
                self._said_deaf = True
                logger.warning("%s: no heartbeat can be written there: %s", self._folder, error.strerror)

    def _tidy(self, world_size: int | None) -> None:
        """Before this rank looks for a HANG, it has put the old one away: an old one ends nobody."""
        own = f"rank-{self._rank:05d}"
        for name in (HANG, f"{own}.stack"):
            path = self._folder / name
            with suppress(FileNotFoundError):  # another rank was quicker
                if path.stat().st_size:
                    path.replace(self._folder / f"{name}.before")
                else:
                    path.unlink()
        (self._folder / f"{own}.json").unlink(missing_ok=True)
        if self._rank == 0 and world_size is not None:
            for path in self._folder.glob("rank-*"):
                number = path.name[len("rank-") :].partition(".")[0]
                if number.isdecimal() and int(number) >= world_size:
                    path.unlink(missing_ok=True)


def _started(pid: int) -> int | None:
    """When a process of this machine began, in clock ticks since boot: no other has the same number and the same time.

    None where it is gone, or where this is not Linux.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _bounded(action: Callable[[], object], seconds: float) -> bool:
    """Whether `action`, which may never return, has ended well within `seconds`."""
    done = []

    def run() -> None:
        with suppress(OSError):
            action()
            done.append(True)

    thread = threading.Thread(target=run, name="watchdog hand", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.0))
    return bool(done)


def _say(text: str) -> None:
    os.write(2, text.encode())  # sys.stderr may be locked by the thread that is stuck
