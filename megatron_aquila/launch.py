"""From one command to a world of processes: torchrun on this machine, or the world that Slurm has made.

torchrun runs inside this process (``torch.distributed.run``), which forwards SIGINT and SIGTERM to the ranks,
ends the others when one fails, and needs no second launcher in memory.
"""

import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.errors import ConfigError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Divided(Protocol):
    """What is run on a device by a layout: a training run, an evaluation."""

    @property
    def device(self) -> str: ...

    @property
    def parallel(self) -> ParallelConfig: ...


def in_world(environ: Mapping[str, str]) -> bool:
    """Whether a launcher has already made this process one rank of a world."""
    return "RANK" in environ and "WORLD_SIZE" in environ


def end_with_launcher(environ: Mapping[str, str]) -> None:
    """Have the kernel kill this rank when its torchrun agent dies, by SIGKILL too.

    torch's agent starts ranks in sessions of their own: without this, killing the launcher leaves them training, and
    a run that is started again writes into the same folder as its orphans. Linux only; elsewhere nothing is done.
    """
    if "TORCHELASTIC_RUN_ID" not in environ or not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)


def processes_needed(config: Divided, gpus: int) -> int:
    """How many processes ``config`` asks for on a machine with ``gpus`` visible GPUs.

    On CPU as many as the layout names, with one replica unless it names more; on GPUs one for each, or as
    many as the layout names when it names the number of replicas. Raises ConfigError when GPUs are lacking.
    """
    parallel = config.parallel
    named = parallel.model_parallel * (parallel.data_parallel or 1)
    if config.device == "cpu" or (config.device == "auto" and gpus == 0):
        return named
    if gpus == 0:
        raise ConfigError("device is cuda and torch sees no GPU: run `aquila doctor`, or set device=cpu")
    if named > gpus:
        raise ConfigError(
            f"parallel.tensor_parallel {parallel.tensor_parallel} x pipeline_parallel "
            f"{parallel.pipeline_parallel} x data_parallel {parallel.data_parallel or 1} needs {named} GPUs and "
            f"this machine has {gpus}: use several machines (torchrun, srun) or a smaller layout"
        )
    return gpus if parallel.data_parallel is None else named


def require_environment(config: RunConfig, environ: Mapping[str, str]) -> None:
    """Raise ConfigError when a variable that CUDA reads at its start would spoil the run."""
    single_queue = environ.get("CUDA_DEVICE_MAX_CONNECTIONS") == "1"
    if config.parallel.sharding == "full" and config.device != "cpu" and single_queue:
        raise ConfigError(
            "parallel.sharding full gathers weights while it computes, and CUDA_DEVICE_MAX_CONNECTIONS=1 lets a GPU "
            "do one thing at a time: unset the variable"
        )


def visible_gpus() -> int:
    """GPUs that torch sees here, counted without taking a context on any."""
    import torch

    return torch.cuda.device_count()


def run_processes(count: int, arguments: Sequence[str], module: str = "megatron_aquila") -> int:
    """Run ``python -m module *arguments`` as ``count`` ranks on this machine; returns the exit code.

    0 when every rank ends well; else the code of the rank that failed first, 128 + signal if it was killed.
    Sets OMP_NUM_THREADS to each rank's share of the cores unless it is set.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    # The ranks say themselves what went wrong; torchrun's log of their ends would bury it.
    logging.disable(logging.ERROR)
    try:
        torchrun.main(["--standalone", f"--nproc-per-node={count}", "--module", module, *arguments])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"rank {rank} was killed by {name}; the others were stopped", file=sys.stderr)
            return 128 - failure.exitcode
        print(f"rank {rank} ended with exit code {failure.exitcode}; the others were stopped", file=sys.stderr)
        return failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    finally:
        logging.disable(logging.NOTSET)
    return 0


def environment_from_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables for a task of ``srun``; empty outside one, in a step of one task, or under
    torchrun.

    MASTER_ADDR is the step's first host and MASTER_PORT follows from the job's id, so that every task derives
    the same without talking to another; either may be set beforehand. Raises ConfigError when Slurm's hosts
    are missing.
    """
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if in_world(environ) or "SLURM_PROCID" not in environ or tasks == 1:
        return {}
    hosts = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    address = environ.get("MASTER_ADDR") or first_host(hosts)
    if not address:
        raise ConfigError("SLURM_STEP_NODELIST is empty: set MASTER_ADDR to the first host of the job")
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": address,
        # below Linux's ephemeral ports, which begin at 32768
        "MASTER_PORT": environ.get("MASTER_PORT") or str(15000 + int(environ.get("SLURM_JOB_ID", "0")) % 15000),
    }


def first_host(hosts: str) -> str:
    """The first host of Slurm's compressed list: ``gpu[007-009,12],login`` begins with ``gpu007``."""
    match = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", hosts)
    return "".join(part or "" for part in match.groups()) if match else ""
