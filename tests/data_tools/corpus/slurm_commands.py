"""Stand-ins for Slurm's commands, for tests: `sbatch` runs a job's array at once, two tasks side by side, and a job
whose dependency failed not at all. What is tested is everything on our side of them, and datatrove's.

With KILL_AFTER=n in the environment the first task of the first job is killed (-9) when n pieces of work are done.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SBATCH = """#!{python}
import sys
sys.path.insert(0, {here!r})
from slurm_commands import sbatch
sbatch(sys.argv[1:])
"""
SRUN = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do case "$1" in -n) shift;; esac; shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/sh\necho localhost\n"


def install(directory: Path) -> None:
    """Put the commands into `directory`, which goes to the front of PATH."""
    directory.mkdir()
    texts = {
        "sbatch": SBATCH.format(python=sys.executable, here=str(Path(__file__).parent)),
        "srun": SRUN,
        "scontrol": SCONTROL,
    }
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)


def sbatch(arguments: list[str]) -> None:
    """Run a job; prints its number as Slurm does."""
    jobs = Path(os.environ["SLURM_TEST_JOBS"])
    number = len(list(jobs.glob("*.code"))) + 1
    script = Path(arguments[-1]).read_text()
    needed = [argument.split(":")[-1] for argument in arguments if argument.startswith("--dependency=afterok")]
    code = 1
    if "merge_stats" in script:
        code = 0
    elif all((jobs / f"{job}.code").read_text() == "0" for job in needed):
        code = _run_array(script, number, [a.removeprefix("--export=ALL,") for a in arguments if "--export" in a])
    (jobs / f"{number}.code").write_text(str(code))
    print(f"Submitted batch job {number}")


def _run_array(script: str, number: int, exported: list[str]) -> int:
    array = next(line.split("=")[1] for line in script.splitlines() if line.startswith("#SBATCH --array"))
    count = int(array.split("%")[0].split("-")[1]) + 1
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_NODELIST": "localhost"}
    environment |= dict(pair.split("=") for pair in exported)
    codes = []
    for first in range(0, count, 2):
        tasks = [
            subprocess.Popen(
                ["bash", "-c", script],
                env={**environment, "SLURM_ARRAY_TASK_ID": str(task)},
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for task in range(first, min(first + 2, count))
        ]
        if number == 1 and (pieces := os.environ.get("KILL_AFTER")):
            _kill(tasks[0], int(pieces))
        codes += [task.wait() for task in tasks]
    return int(any(codes))


def _kill(task: "subprocess.Popen[bytes]", pieces: int) -> None:
    work = Path(os.environ["SLURM_TEST_WORK"])
    while task.poll() is None and len(list(work.glob("*.json"))) < pieces:
        time.sleep(0.005)
    if task.poll() is None:
        os.killpg(task.pid, signal.SIGKILL)
