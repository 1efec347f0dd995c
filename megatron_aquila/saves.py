"""The checkpoints of a run: the one to go on from, those that are due, and the one that is being written meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from megatron_aquila import checkpoint
from megatron_aquila.config import RunConfig
from megatron_aquila.errors import ConfigError
from megatron_aquila.events import EventLog
from megatron_aquila.resilience.watchdog import Watchdog

if TYPE_CHECKING:
    from megatron_aquila.engine.parallel import Layout
    from megatron_aquila.engine.snapshot import Snapshot


def find_checkpoint(run: RunConfig, layout: Layout, *, goes_back: bool = False) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, as `checkpoint.resume` says. Every rank calls it.

    goes_back: this process has trained already, and takes its own checkpoints whatever `checkpoint.resume` says.
    """
    folder = run.output / checkpoint.FOLDER
    if run.checkpoint.resume == "never" and not goes_back:
        found = layout.broadcast(any(folder.glob("step-*")) if folder.exists() else False)
        if found:
            raise ConfigError(
                f"checkpoint.resume=never, but {folder} holds checkpoints: give another output, or remove them"
            )
        return None
    checkpoint.sweep(folder, layout)
    found = checkpoint.find(folder, verify=run.checkpoint.verify, communicator=layout)
    if found is None and run.checkpoint.resume == "required" and not goes_back:
        raise ConfigError(f"checkpoint.resume=required, but {folder} holds no checkpoint")
    return found


class Saves:
    """Saves a run, one checkpoint at a time; every rank calls every method."""

    def __init__(
        self, run: RunConfig, layout: Layout, snapshot: Snapshot, events: EventLog, watchdog: Watchdog
    ) -> None:
        self._run, self._layout, self._snapshot, self._events, self._watchdog = run, layout, snapshot, events, watchdog
        self._saving: checkpoint.Saving | None = None
        self._spent = 0.0  # seconds that training waited for the save under way

    @property
    def unwritten(self) -> int:
        """1 while this rank's files of a save under way are being written, else 0."""
        return int(self._saving is not None and not self._saving.is_written)

    def begin(self, step: int, state: dict[str, Any], *, best: bool) -> None:
        """Save the run as it is. With `checkpoint.asynchronous` the files are written while training goes on."""
        self.finish(step)
        run = self._run
        began = time.perf_counter()
        with self._watchdog.phase("save", step, run.resilience.save_timeout):
            in_background = run.checkpoint.asynchronous
            self._saving = checkpoint.Saving(
                run.output / checkpoint.FOLDER,
                step,
                self._snapshot.copied() if in_background else self._snapshot.write,
                state=state,
                keep=run.checkpoint.keep,
                communicator=self._layout,
                best=best,
                background=in_background,
            )
        self._spent = time.perf_counter() - began
        if not in_background:
            self.finish(step)

    def finish(self, step: int) -> None:
        """Wait for the save under way, if there is one, and publish it. `step`: where training stands now."""
        saving, self._saving = self._saving, None  # whether it ends well or not, it is not asked again
        if saving is None:
            return
        began = time.perf_counter()
        with self._watchdog.phase("save", step, self._run.resilience.save_timeout):
            saving.finish()
        spent = self._spent + time.perf_counter() - began
        self._events.write("saved", step, spent, checkpoint=saving.step)
