"""What a run did and when: `events.jsonl`, one object an event, kept over every restart; and what the time went into.

    {"time": seconds since 1970, "event": …, "step": …, "seconds": what it took, "training_seconds": …}

event: "start" or "resume" (seconds: of making data, model and optimizer ready), "evaluated" (validation), "questions",
"saved" (seconds: that training waited; `checkpoint`: the step that was saved), "warning", "anomaly" (`kind`, `value`,
`expected`, `policy`, and `samples`, the ids of the batch), "replicas" (weights that differ), "stopped" (by a signal),
"end". Those that are told to people have a `message`. training_seconds: spent in training steps by this process so far.
"start" and "resume" have `reached`, the last step that a process before this one logged.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_aquila.metrics import complete_lines

FILE = "events.jsonl"
BEGINNINGS = ("start", "resume")
# What the time between two events of a process is counted under, beside training; see `goodput`.
_KINDS = {"evaluated": "validation", "questions": "questions", "saved": "saving"}

Event = dict[str, Any]


class EventLog:
    """Appends events to a file, each flushed at once; without a path it only counts the seconds of training."""

    def __init__(self, path: Path | None, step: int) -> None:
        """Go on with what `path` holds, less a half-written last line; begin anew at step 0 after a run that ended."""
        self.training_seconds = 0.0
        self._file = None
        if path is not None:
            kept = complete_lines(path)
            if step == 0 and kept and json.loads(kept[-1])["event"] == "end":
                kept = []
            partial = path.with_suffix(".tmp")
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            partial.replace(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, seconds: float = 0.0, **facts: Any) -> None:
        if self._file is None:
            return
        head = {"time": time.time(), "event": event, "step": step, "seconds": seconds}
        self._file.write(json.dumps({**head, "training_seconds": self.training_seconds, **facts}) + "\n")
        self._file.flush()

    @contextmanager
    def timed(self, event: str, step: int) -> Iterator[None]:
        """Write `event` when the block has ended well, with the seconds that it took."""
        began = time.perf_counter()
        yield
        self.write(event, step, time.perf_counter() - began)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count the block as training."""
        began = time.perf_counter()
        yield
        self.training_seconds += time.perf_counter() - began

    @property
    def is_displaced(self) -> bool:
        """Whether another process has begun in this folder since: it has put a file of its own in this one's place."""
        if self._file is None:
            return False
        try:
            there = Path(self._file.name).stat()
        except FileNotFoundError:
            return False
        try:
            return not os.path.samestat(there, os.fstat(self._file.fileno()))
        except OSError as error:
            if error.errno == errno.ESTALE:  # so NFS speaks of a file that another machine has replaced
                return True
            raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read(path: Path) -> list[Event]:
    """The events of a run, without a half-written last line; none where there is no file."""
    return [json.loads(line) for line in complete_lines(path)]


@dataclass(frozen=True)
class Goodput:
    """What share of a run's time went into training steps that are part of it in the end.

    by_kind: seconds, which add up to `total_seconds`: "training" (the productive ones), "repeated" (steps that were
    trained again after a restart), "startup", "validation", "questions", "saving", "down" (from the last event of a
    process that was killed to the start of the next; the steps that it took after that event are in it, since nothing
    tells how long they took), "other". restarts: processes after the first, but for those that followed a finished run.
    steps_repeated: steps that were trained again.
    """

    total_seconds: float
    productive_seconds: float
    share: float
    by_kind: dict[str, float]
    restarts: int
    steps_repeated: int


@dataclass
class _Process:
    """The events of one process: its beginning and what followed."""

    events: list[Event]

    @property
    def first_step(self) -> int:
        step: int = self.events[0]["step"]
        return step

    @property
    def reached(self) -> int:
        """Not the last event's step: of a save that ends late it is an earlier one."""
        return max(event["step"] for event in self.events)

    @property
    def began(self) -> float:
        return float(self.events[0]["time"] - self.events[0]["seconds"])

    @property
    def ended(self) -> bool:
        return bool(self.events[-1]["event"] == "end")

    def training_until(self, step: int) -> float:
        """Seconds of training from this process's first step to `step`, between two events in proportion to steps."""
        before = self.events[0]
        for event in self.events[1:]:
            if event["step"] >= step and event["step"] > before["step"]:
                share = (step - before["step"]) / (event["step"] - before["step"])
                gained = event["training_seconds"] - before["training_seconds"]
                return float(before["training_seconds"] + max(share, 0.0) * gained)
            before = event
        return float(before["training_seconds"])


def goodput(events: Sequence[Event], records: Sequence[Mapping[str, Any]]) -> Goodput | None:
    """Where the time of a run went, over all of its processes; None where there are no events.

    Args:
        events: as `read` gives them.
        records: of `metrics.jsonl` (`metrics.read`); they tell how far a process came that was killed, or that runs
            still, after its last event.

    A process's steps are part of the run up to the step at which a later process went on. What a process did between
    its last event and the present is counted from the metrics: steps and `throughput/step_seconds`.
    """
    processes = _processes(events)
    if not processes:
        return None
    kinds = dict.fromkeys(("training", "repeated", "startup", *_KINDS.values(), "down", "other"), 0.0)
    restarts = steps_repeated = 0
    total = 0.0
    # The step at which this process's part of the run ends: no further than where any later process began.
    kept_until = [min((later.first_step for later in processes[i + 1 :]), default=None) for i in range(len(processes))]
    for place, (process, kept) in enumerate(zip(processes, kept_until)):
        last = process.events[-1]
        trained = last["training_seconds"]
        good = trained if kept is None else process.training_until(max(kept, process.first_step))
        tail = 0.0 if kept is not None or process.ended else _tail(process.reached, records)
        kinds["training"] += good + tail
        kinds["repeated"] += trained - good
        kinds["startup"] += process.events[0]["seconds"]
        spent = trained + process.events[0]["seconds"]
        for event in process.events:
            if event["event"] in _KINDS:
                kinds[_KINDS[event["event"]]] += event["seconds"]
                spent += event["seconds"]
        lasted = last["time"] - process.began
        kinds["other"] += max(lasted - spent, 0.0)
        total += max(lasted, spent) + tail
        if place + 1 == len(processes):
            continue
        following = processes[place + 1]
        reached = max(following.events[0].get("reached") or 0, process.reached)
        steps_repeated += max(reached - following.first_step, 0)
        if process.ended:  # asked to go on with a finished run: the time between is nobody's
            continue
        down = max(following.began - last["time"], 0.0)
        kinds["down"] += down
        total += down
        restarts += 1
    productive = kinds["training"]
    return Goodput(total, productive, productive / total if total else 0.0, kinds, restarts, steps_repeated)


def _processes(events: Sequence[Event]) -> list[_Process]:
    found: list[_Process] = []
    for event in events:
        if event["event"] in BEGINNINGS:
            found.append(_Process([event]))
        elif found:
            found[-1].events.append(event)
    return found


def _tail(step: int, records: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of the training steps after `step`, as far as they were logged."""
    seconds = 0.0
    for record in records:
        if record["step"] > step and record.get("throughput/step_seconds") is not None:
            seconds += (record["step"] - step) * record["throughput/step_seconds"]
            step = record["step"]
    return seconds
