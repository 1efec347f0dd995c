"""torchrun.sh and slurm.sbatch, with stand-ins for Python, srun and scontrol that write down what they were given."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[3] / "recipes" / "launch"
ROOT = LAUNCH.parents[1]

# Runs what srun was asked to run, once; passes signals on, as srun does.
SRUN = """\
#!/usr/bin/env bash
printf '%s\\n' "$@" >"$TEST_FOLDER/srun"
env >"$TEST_FOLDER/environment"
trap 'echo USR1 >>"$TEST_FOLDER/signals"; sleep 0.3; exit 75' USR1
trap 'echo TERM >>"$TEST_FOLDER/signals"; sleep 0.3; exit 75' TERM
touch "$TEST_FOLDER/running"
if [[ $SRUN_CODE == wait ]]; then
    while :; do sleep 0.05; done
fi
exit "$SRUN_CODE"
"""
SCONTROL = """\
#!/usr/bin/env bash
if [[ $1 == show ]]; then
    printf 'gpu007\\ngpu008\\n'
else
    printf '%s\\n' "$*" >>"$TEST_FOLDER/scontrol"
fi
"""
PYTHON = """\
#!/usr/bin/env bash
printf '%s\\n' "$@"
[[ -z ${RANK:-}${WORLD_SIZE:-}${MASTER_ADDR:-} ]] || echo "left over"
exit 75
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TEST_FOLDER": str(tmp_path),
        "SRUN_CODE": "0",
        "AQUILA": str(ROOT),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "gpu[007-008]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
    }


def batch(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", *(arguments or ("r.yaml", "a b=1"))],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def given(folder: Path) -> list[str]:
    return (folder / "srun").read_text().splitlines()


def test_one_launcher_a_node(tmp_path: Path, environment: dict[str, str]) -> None:
    assert batch(tmp_path, environment)[0] == 0
    assert given(tmp_path)[:4] == ["--ntasks-per-node", "1", "--kill-on-bad-exit=0", "--wait=900"]
    assert given(tmp_path)[-3:] == [f"{ROOT}/recipes/launch/torchrun.sh", "r.yaml", "a b=1"]
    told = (tmp_path / "environment").read_text().splitlines()
    assert {"NNODES=2", "GPUS=8", "RDZV_ENDPOINT=gpu007:18456", "JOB_ID=123456"} <= set(told)
    assert not (tmp_path / "scontrol").exists()


def test_what_srun_runs_on_a_node(tmp_path: Path, environment: dict[str, str]) -> None:
    """The command that srun got, run as its second task would."""
    assert batch(tmp_path, environment)[0] == 0
    command = given(tmp_path)[given(tmp_path).index("bash") :]
    told = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    told |= {"SLURM_NODEID": "1", "PYTHON": "python", "RANK": "3", "PATH": environment["PATH"]}
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=60)
    said = done.stdout.splitlines()
    assert done.returncode == 75, done.stderr
    assert said[:2] == ["-m", "megatron_aquila.nodes"]
    assert said[said.index("--node-rank") + 1] == "1"
    assert said[said.index("--endpoint") + 1] == "gpu007:18456"
    assert said[said.index("--") :] == ["--", "train", "r.yaml", "a b=1"]


def test_one_task_a_rank_and_containers(tmp_path: Path, environment: dict[str, str]) -> None:
    ranks = {**environment, "LAUNCH": "rank", "CONTAINER_IMAGE": "nvcr.io#nvidia/pytorch:25.09-py3", "PYTHON": "python"}
    assert batch(tmp_path, ranks)[0] == 0
    assert given(tmp_path)[:2] == ["--container-image", "nvcr.io#nvidia/pytorch:25.09-py3"]
    assert given(tmp_path)[-6:] == ["python", "-m", "megatron_aquila", "train", "r.yaml", "a b=1"]
    assert given(tmp_path)[given(tmp_path).index("--ntasks-per-node") + 1] == "8"
    assert batch(tmp_path, {**ranks, "CONTAINER_RUNTIME": "apptainer", "CONTAINER_IMAGE": "a.sif"})[0] == 0
    assert given(tmp_path)[given(tmp_path).index("apptainer") :][:3] == ["apptainer", "exec", "--nv"]
    code, said = batch(tmp_path, {**ranks, "CONTAINER_RUNTIME": "docker"})
    assert (code, "it must be pyxis or apptainer" in said) == (2, True)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (75, True), (1, True), (76, True), (137, True)])
def test_exit_codes(tmp_path: Path, environment: dict[str, str], code: int, requeued: bool) -> None:
    assert batch(tmp_path, {**environment, "SRUN_CODE": str(code)})[0] == code
    assert (tmp_path / "scontrol").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol").read_text() == "requeue 123456\n"


def test_crashes_are_bounded_and_stops_are_not(tmp_path: Path, environment: dict[str, str]) -> None:
    for code in (1, 75, 1, 75):
        batch(tmp_path, {**environment, "SRUN_CODE": str(code), "MAX_CRASHES": "2"})
    assert (tmp_path / "scontrol").read_text().count("requeue") == 4
    code, said = batch(tmp_path, {**environment, "SRUN_CODE": "9", "MAX_CRASHES": "2"})
    assert (code, "it had crashed 2 times before" in said) == (9, True)
    assert (tmp_path / "scontrol").read_text().count("requeue") == 4


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_signal_before_the_limit_is_passed_on_and_waited_for(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    with subprocess.Popen(
        ["bash", LAUNCH / "slurm.sbatch", "r.yaml"], env={**environment, "SRUN_CODE": "wait"}, cwd=tmp_path
    ) as job:
        deadline = time.monotonic() + 60
        while not (tmp_path / "running").exists():
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(number)
        assert job.wait(60) == 75
    assert (tmp_path / "signals").read_text() == number.name.removeprefix("SIG") + "\n"
    assert (tmp_path / "scontrol").read_text() == "requeue 123456\n"


def test_what_is_missing_is_said(tmp_path: Path, environment: dict[str, str]) -> None:
    assert subprocess.run([LAUNCH / "torchrun.sh"], capture_output=True).returncode == 2
    told = subprocess.run([LAUNCH / "torchrun.sh", "--help"], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0 and "RDZV_ENDPOINT" in told.stdout and "set -" not in told.stdout
    code, said = batch(tmp_path, {**environment, "AQUILA": str(tmp_path)})
    assert (code, "set AQUILA to it" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "two"], "--nodes two is neither a number nor two"),
        (["--nodes", "3:1"], "the first number is at least 1 and at most the second"),
        (["--nodes", "2"], "--endpoint is missing: must be host:port, or the path of a file"),
        (["--nodes", "2", "--endpoint", "host"], "--endpoint host must be host:port"),
    ],
)
def test_options_of_a_node(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    from megatron_aquila.nodes.__main__ import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr("sys.argv", ["nodes", *arguments, "--", "train", "r.yaml"])
        main()
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
