"""Our side: a recipe through `megatron_aquila.trainer`, as `aquila train` runs it, in one process.

python -m benchmarks.training.our_side '{"stage": …}'      (a `Task` as JSON; prints a `Result`)
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field

import torch

from benchmarks.training.task import BETA, LEARNING_RATE, Clock, Result, Task
from megatron_aquila.config import RunConfig
from megatron_aquila.engine.device import choose_device
from megatron_aquila.engine.parallel import parallel_world
from megatron_aquila.trainer import Trainer

_LOGITS_MIB = 64  # of logits at once: beyond it they are computed again, which here is faster than fresh memory


@dataclass
class _Ticks:
    """A sink of the trainer's: it is written to at the end of every step."""

    clock: Clock
    samples: str
    losses: list[float] = field(default_factory=list)

    def write(self, step: int, values: dict[str, float]) -> None:
        self.clock.tick(round(values[f"train/{self.samples}"]))
        self.losses.append(values["train/loss"])

    def close(self) -> None: ...


def main(task: Task) -> Result:
    torch.set_num_threads(task.threads)
    run = recipe(task)
    device = choose_device(run.device)
    with parallel_world(run, device) as layout:
        began = time.perf_counter()
        trainer = Trainer(run, device, layout)
        before = time.perf_counter() - began
        ticks = _Ticks(Clock(), trainer.stage.sample_name)
        trainer.sinks = [ticks]
        try:
            trainer.run()
        finally:
            trainer.close()
    if trainer.samples != task.samples:
        raise RuntimeError(f"{trainer.samples} samples were trained on, not {task.samples}")
    return ticks.clock.result(task.warm_up, sum(ticks.losses) / len(ticks.losses), before)


def recipe(task: Task) -> RunConfig:
    """One pass over all samples of the index, in packs."""
    tree = {
        "name": "benchmark",
        "stage": task.stage,
        "device": "cpu",
        "output": f"{task.output}/run",
        "model": {"shape": "from-weights", "weights": task.model},
        "data": {
            "train": [{"path": task.prefix}],
            "split": [1, 0, 0],
            "sequence_length": task.pack,
            "tokenizer": task.tokenizer,
        },
        "training": {"epochs": 1, "global_batch_size": task.batch, "precision": "fp32", "logits_mib": _LOGITS_MIB},
        "optimizer": {"lr": LEARNING_RATE, "weight_decay": 0.0, "schedule": {"kind": "constant"}},
        "checkpoint": {"every": 10**9},
        "evaluation": {"every": 0},
        "logging": {"every": 1, "tensorboard": False},
        "preference": {"beta": BETA},
    }
    return RunConfig.model_validate(tree)


if __name__ == "__main__":
    print(json.dumps(asdict(main(Task(**json.loads(sys.argv[1]))))))
