"""How many processes, started how, and what becomes of their exit codes."""

import json
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from megatron_aquila.config import RunConfig
from megatron_aquila.errors import ConfigError
from megatron_aquila.launch import (
    environment_from_slurm,
    first_host,
    in_world,
    processes_needed,
    require_environment,
    run_processes,
)
from tests.world import forked

ROOT = Path(__file__).parents[2]


def config(device: str = "auto", **parallel: int | str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "launch",
            "device": device,
            "model": {"shape": "aquila-tiny"},
            "data": {"train": [{"path": "a"}], "sequence_length": 64, "tokenizer": "t"},
            "parallel": parallel,
            "training": {"steps": 10, "global_batch_size": 24},
            "optimizer": {"lr": 1e-3},
            "checkpoint": {"every": 5},
            "evaluation": {"every": 0, "batches": 1},
        }
    )


@pytest.mark.parametrize(
    ("device", "parallel", "gpus", "processes"),
    [
        ("cpu", {}, 0, 1),
        ("cpu", {"tensor_parallel": 2, "pipeline_parallel": 2}, 8, 4),
        ("cpu", {"tensor_parallel": 2, "data_parallel": 3}, 0, 6),
        ("auto", {"tensor_parallel": 2}, 0, 2),
        ("auto", {"tensor_parallel": 2}, 8, 8),
        ("cuda", {}, 1, 1),
        ("cuda", {"tensor_parallel": 2, "data_parallel": 2}, 8, 4),
    ],
)
def test_processes_needed(device: str, parallel: dict[str, int], gpus: int, processes: int) -> None:
    assert processes_needed(config(device, **parallel), gpus) == processes


def test_too_few_gpus() -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        processes_needed(config("cuda"), 0)
    with pytest.raises(ConfigError, match="needs 4 GPUs and this machine has 2"):
        processes_needed(config(tensor_parallel=2, pipeline_parallel=2), 2)


def test_one_queue_to_a_gpu_is_not_enough_for_full_sharding() -> None:
    one_queue = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    with pytest.raises(ConfigError, match="CUDA_DEVICE_MAX_CONNECTIONS=1"):
        require_environment(config("cuda", sharding="full"), one_queue)
    require_environment(config("cuda", sharding="full"), {"CUDA_DEVICE_MAX_CONNECTIONS": "8"})
    require_environment(config("cpu", sharding="full"), one_queue)
    require_environment(config("cuda", sharding="optimizer"), one_queue)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[007-009,12],login", "gpu007"),
        ("rack[2,4]-ib", "rack2-ib"),
        ("a1,b[1-2]", "a1"),
        ("", ""),
    ],
)
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_PROCID": "13",
    "SLURM_LOCALID": "5",
    "SLURM_STEP_NUM_TASKS": "24",
    "SLURM_STEP_NODELIST": "node[11-13]",
}


def test_a_task_of_srun_becomes_a_rank() -> None:
    assert environment_from_slurm(SLURM) == {
        "RANK": "13",
        "WORLD_SIZE": "24",
        "LOCAL_RANK": "5",
        "MASTER_ADDR": "node11",
        "MASTER_PORT": "18456",
    }
    assert in_world(environment_from_slurm(SLURM))
    chosen = environment_from_slurm({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert (chosen["MASTER_ADDR"], chosen["MASTER_PORT"]) == ("10.0.0.1", "29500")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "24"},  # the batch script itself, outside srun
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},  # one task: it starts its processes itself
        {**SLURM, "RANK": "3", "WORLD_SIZE": "8"},  # torchrun inside a Slurm job
    ],
)
def test_no_rank_where_slurm_made_no_world(environ: dict[str, str]) -> None:
    assert environment_from_slurm(environ) == {}


def test_slurm_without_hosts() -> None:
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        environment_from_slurm({**SLURM, "SLURM_STEP_NODELIST": ""})


RANK_PROGRAM = """\
import json, os, signal, sys, time
folder, what = sys.argv[1:]
rank = os.environ["RANK"]
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump({key: os.environ[key] for key in keys}, file)
if what == "fail" and rank == "1":
    sys.exit(7)
if what == "die" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if what != "end":
    def stop(*_):
        open(f"{folder}/{rank}.stopped", "w").close()
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    open(f"{folder}/{rank}.ready", "w").close()
    time.sleep(60)
"""


def launch(folder: Path, what: str, environment: dict[str, str]) -> None:
    """The launcher's process."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    sys.exit(run_processes(2, [str(folder), what], module="rank_program"))


def start(folder: Path, what: str) -> BaseProcess:
    """The launcher, in its own process, over two ranks of RANK_PROGRAM."""
    (folder / "rank_program.py").write_text(RANK_PROGRAM)
    unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(folder)])
    return forked(launch, folder, what, environment)


def end(folder: Path, launcher: BaseProcess, seconds: float = 300) -> tuple[int | None, str]:
    """Its exit code, once it has one, and what it wrote to stderr."""
    launcher.join(seconds)
    return launcher.exitcode, (folder / "errors").read_text()


def test_ranks_get_their_places_and_a_share_of_the_cores(tmp_path: Path) -> None:
    code, errors = end(tmp_path, start(tmp_path, "end"))
    assert code == 0, errors
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    for rank in ("0", "1"):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank, "OMP_NUM_THREADS": threads}


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("fail", 7, "rank 1 ended with exit code 7; the others were stopped\n"),
        ("die", 128 + signal.SIGKILL, "rank 1 was killed by SIGKILL; the others were stopped\n"),
    ],
)
def test_the_first_failure_is_the_exit_code(tmp_path: Path, what: str, code: int, said: str) -> None:
    assert end(tmp_path, start(tmp_path, what)) == (code, said)  # one sentence, no traceback


def test_sigterm_reaches_every_rank(tmp_path: Path) -> None:
    launcher = start(tmp_path, "wait")
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("*.ready"))) < 2:
        assert launcher.is_alive(), (tmp_path / "errors").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.terminate()
    assert end(tmp_path, launcher, 60) == (128 + signal.SIGTERM, "")
    assert {path.name for path in tmp_path.glob("*.stopped")} == {"0.stopped", "1.stopped"}
