"""What one measured process is asked to do, and what it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = "ours"
BETA = 0.1
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Task:
    """Train `warm_up + steps` steps of `batch` samples of the index at `prefix`, once through, and say how long.

    stage: "sft" or "dpo". side: `OURS` or a name of `benchmarks.training.trl_side.SETTINGS`.
    model: a directory in Hugging Face's layout. length: tokens that a sequence has at most. pack: tokens of a pack of
    ours.
    """

    stage: str
    side: str
    prefix: str
    tokenizer: str
    model: str
    output: str
    batch: int
    length: int
    pack: int
    warm_up: int
    steps: int
    threads: int

    @property
    def samples(self) -> int:
        return self.batch * (self.warm_up + self.steps)


@dataclass(frozen=True)
class Result:
    """What the timed steps took together, by the wall and by the processor, and how many samples they had.

    peak: of the process's resident memory, bytes. loss: mean over all steps. before: seconds from the trainer's making
    to its first step: for a reference that is computed first, that pass and all else.
    """

    samples: int
    seconds: float
    cpu_seconds: float
    peak: int
    loss: float
    before: float

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds


@dataclass
class Clock:
    """Ticks at the end of every step."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    peak: int = 0

    def tick(self, samples: int) -> None:
        """samples: trained on so far."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.samples.append(samples)
        self.peak = peak_memory()

    def result(self, warm_up: int, loss: float, before: float) -> Result:
        """Of the steps after the first `warm_up`, at least one."""
        return Result(
            self.samples[-1] - self.samples[warm_up - 1],
            self.wall[-1] - self.wall[warm_up - 1],
            self.cpu[-1] - self.cpu[warm_up - 1],
            self.peak,
            loss,
            before,
        )


class TaskError(RuntimeError):
    """A measured process failed; the message ends with what it said."""


def run(task: Task, timeout: float = 1800) -> Result:
    """Run the task in a process of its own.

    Raises:
        TaskError: it failed, or took longer than `timeout` seconds.
    """
    module = "benchmarks.training.our_side" if task.side == OURS else "benchmarks.training.trl_side"
    environment = os.environ | {
        "OMP_NUM_THREADS": str(task.threads),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(Path(task.output) / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    command = [sys.executable, "-W", "ignore", "-m", module, json.dumps(asdict(task))]
    try:
        finished = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise TaskError(f"{task.side}, {task.stage}: no result after {timeout:.0f} s") from None
    if finished.returncode:
        raise TaskError(f"{task.side}, {task.stage}:\n{(finished.stderr or finished.stdout).strip()[-3000:]}")
    return Result(**json.loads(finished.stdout.splitlines()[-1]))


def peak_memory() -> int:
    """Bytes that this process has had resident at most; `ru_maxrss` would begin at its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")
