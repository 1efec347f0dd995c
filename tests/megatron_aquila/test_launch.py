"""How many processes, started how, and what becomes of their exit codes."""

import json
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

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
from megatron_aquila.nodes import agent
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
from pathlib import Path
folder, what = Path(sys.argv[1]), sys.argv[2]
rank = os.environ["RANK"]
attempt = len(list(folder.glob(f"{rank}.started.*")))
(folder / f"{rank}.started.{attempt}").touch()
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")
(folder / f"{rank}.json").write_text(json.dumps({key: os.environ[key] for key in keys}))
if what == "fail" and rank == "1":
    sys.exit(7)
if what == "die" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "mend" and rank == "1":  # the others break down at once, because of it or not
    time.sleep(0.3)
    sys.exit(2)
if what == "mend":
    sys.exit(1)
if what == "once" and rank == "1" and attempt < 2:
    sys.exit(1)
if what in ("end", "once"):
    sys.exit(0)
def stop(number, _):
    if (folder / f"{rank}.asked").exists():
        os._exit(128 + number)
    (folder / f"{rank}.asked").touch()
    if rank == "1":  # its part of the save takes longer
        time.sleep(1.5)
    (folder / f"{rank}.saved").write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, stop)
(folder / f"{rank}.ready").touch()
time.sleep(60)
"""


def launch(folder: Path, what: str, environment: dict[str, str], max_restarts: int) -> None:
    """The launcher's process."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(folder / "errors", os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    with mock.patch.object(agent, "_LONGEST_PAUSE", 0.1):
        code = run_processes(2, [str(folder), what], module="rank_program", max_restarts=max_restarts)
    sys.exit(code)


def start(folder: Path, what: str, max_restarts: int = 0) -> BaseProcess:
    """The launcher, in its own process, over two ranks of RANK_PROGRAM."""
    (folder / "rank_program.py").write_text(RANK_PROGRAM)
    unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(folder)])
    return forked(launch, folder, what, environment, max_restarts)


def end(folder: Path, launcher: BaseProcess, seconds: float = 300) -> tuple[int | None, str]:
    """Its exit code, once it has one, and what it wrote to stderr."""
    launcher.join(seconds)
    return launcher.exitcode, (folder / "errors").read_text()


def starts(folder: Path) -> int:
    return len(list(folder.glob("1.started.*")))


def wait_for(folder: Path, pattern: str, count: int, launcher: BaseProcess) -> None:
    deadline = time.monotonic() + 300
    while len(list(folder.glob(pattern))) < count:
        assert launcher.is_alive(), (folder / "errors").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def test_a_crash_is_started_again_until_it_is_none(tmp_path: Path) -> None:
    code, errors = end(tmp_path, start(tmp_path, "once", max_restarts=5))
    assert (code, starts(tmp_path)) == (0, 3)
    sentence = "rank 1 ended with exit code 1; the others were stopped; they start again in 0.1 s"
    assert errors.splitlines() == [f"{sentence} (restart {count} of 5)" for count in (1, 2)]


def test_restarts_are_bounded(tmp_path: Path) -> None:
    code, errors = end(tmp_path, start(tmp_path, "fail", max_restarts=1))
    assert (code, starts(tmp_path)) == (7, 2), errors


def test_a_users_error_is_not_tried_again_whoever_breaks_down_beside_it(tmp_path: Path) -> None:
    code, errors = end(tmp_path, start(tmp_path, "mend", max_restarts=5))
    assert (code, starts(tmp_path)) == (2, 1), errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_rank_and_the_slowest_is_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    launcher = start(tmp_path, "wait", max_restarts=5)
    wait_for(tmp_path, "*.ready", 2, launcher)
    assert launcher.pid is not None
    os.kill(launcher.pid, number)
    assert end(tmp_path, launcher, 60) == (75, "")
    assert [(tmp_path / f"{rank}.saved").read_text() for rank in (0, 1)] == [number.name, number.name]
    assert starts(tmp_path) == 1


def test_the_second_signal_is_passed_on_too(tmp_path: Path) -> None:
    launcher = start(tmp_path, "wait", max_restarts=5)
    wait_for(tmp_path, "*.ready", 2, launcher)
    launcher.terminate()
    wait_for(tmp_path, "1.asked", 1, launcher)
    launcher.terminate()
    code, errors = end(tmp_path, launcher, 60)
    assert (code, starts(tmp_path)) == (128 + signal.SIGTERM, 1), errors
    assert not (tmp_path / "1.saved").exists()
