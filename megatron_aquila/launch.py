"""From one command to a world of processes: those that :mod:`megatron_aquila.nodes` starts on this machine, or the
world that torchrun or Slurm has made.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from megatron_aquila.config import ParallelConfig, RunConfig
from megatron_aquila.errors import ConfigError

if TYPE_CHECKING:
    from megatron_aquila.nodes.meeting import Nodes

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
    """Have the kernel kill this rank when its launcher (ours, or torchrun) dies, by SIGKILL too.

    Launchers start ranks in sessions of their own: without this, killing the launcher leaves them training, and
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
            f"{parallel.sizes} x data_parallel {parallel.data_parallel or 1} needs {named} GPUs and this machine has "
            f"{gpus}: use several machines (recipes/launch/torchrun.sh, srun) or a smaller layout"
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


def environment_of(config: RunConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that CUDA's libraries read at their start and that this run wants; what is set already stays.

    CUDA_DEVICE_MAX_CONNECTIONS=1: Megatron starts a tensor-parallel communication before the product that it is to
    overlap with, and before Blackwell only a single queue keeps them in that order.
    The others: bit-equal repetition (`training.deterministic`), which cuBLAS, Transformer Engine and NCCL each want to
    be told of.
    """
    wanted: dict[str, str] = {}
    if config.device == "cpu":
        return wanted
    if config.parallel.tensor_parallel > 1 and config.parallel.sharding != "full":
        wanted["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    if config.training.deterministic:
        wanted |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0", "NCCL_ALGO": "Ring"}
    return {name: value for name, value in wanted.items() if name not in environ}


def visible_gpus() -> int:
    """GPUs that torch sees here, counted without taking a context on any."""
    import torch

    return torch.cuda.device_count()


def run_processes(
    count: int, arguments: Sequence[str], module: str = "megatron_aquila", *, max_restarts: int = 0
) -> int:
    """Run ``python -m module *arguments`` as ``count`` ranks on this machine; returns the exit code.

    0 when every rank ends well; else the code of the rank that failed first, 128 + signal if it was killed. After a
    failure that is neither a user's error (2) nor a stop by a signal (75) the ranks are started again, at most
    ``max_restarts`` times. Signals are passed on to the ranks; see :class:`megatron_aquila.nodes.agent.Agent`.
    Sets OMP_NUM_THREADS to each rank's share of the cores unless it is set.
    """
    from megatron_aquila.nodes.meeting import Nodes

    return run_on_node(count, arguments, module, nodes=Nodes(), max_restarts=max_restarts, pause=5.0)


def run_on_node(
    count: int, arguments: Sequence[str], module: str = "megatron_aquila", *, nodes: "Nodes", **options: Any
) -> int:
    """:func:`run_processes` for one of several nodes; ``options`` are those of the Agent.

    Raises MeetingError when the nodes do not come together.
    """
    from megatron_aquila.nodes.agent import Agent

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    return Agent([sys.executable, "-u", "-m", module, *arguments], count, nodes, **options).run()


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
