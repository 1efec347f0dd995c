"""The command line as a user meets it: in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_aquila import doctor

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tiny" / "cpt_stage1.yaml"


def aquila(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment}
    return subprocess.run(
        [sys.executable, "-m", "megatron_aquila", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_help_names_every_verb() -> None:
    result = aquila("--help")
    assert result.returncode == 0
    verbs = re.findall(r"^  (\w+)  ", result.stdout.partition("Commands:")[2], re.MULTILINE)
    known = "chat config data demo doctor eval export judge plan reference report train"
    assert sorted(verbs) == known.split()


def test_help_is_light() -> None:
    """What takes seconds to import is not imported, so that --help takes a fraction of one."""
    code = (
        "import sys\nfrom megatron_aquila.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'megatron', 'numpy', 'transformers', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_reading_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys\nfrom megatron_aquila import config_loader, doctor, launch, layout, schedule, shapes\n"
        f"config_loader.load_config({str(RECIPE)!r})\n"
        "print(sorted({'torch', 'megatron', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[]\n"


def test_config_show_prints_a_recipe_that_reads_back(tmp_path: Path) -> None:
    shown = aquila("config", "show", str(RECIPE), "optimizer.lr=2e-7", "training.steps=77")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# 77 steps; sha256 ")
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    again = aquila("config", "show", str(tmp_path / "shown.yaml"))
    assert again.stdout == shown.stdout  # the hash included
    assert "lr: 2.0e-07\n" in again.stdout


def test_config_schema_is_json_schema() -> None:
    schema = json.loads(aquila("config", "schema").stdout)
    assert schema["required"] == [
        "name",
        "model",
        "data",
        "training",
        "optimizer",
        "checkpoint",
        "evaluation",
    ]
    assert schema["$defs"]["OptimizerConfig"]["properties"]["lr"]["exclusiveMinimum"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", str(RECIPE), "optimizer.learning_rate=1"],
            "aquila: override: optimizer.learning_rate is unknown; did you mean optimizer.lr?\n",
        ),
        (["config", "show", "none.yaml"], "aquila: none.yaml cannot be read: No such file or directory\n"),
        (
            [
                "train",
                str(RECIPE),
                "training.global_batch_size=20",
                "training.micro_batch_size=8",
                "parallel.data_parallel=2",
            ],
            f"aquila: {RECIPE}: training.global_batch_size 20 is not a multiple of training.micro_batch_size 8 "
            "x 2 data-parallel replicas\n",
        ),
        # found only once the number of processes is known, and said once, before any is started
        (
            ["train", str(RECIPE), "training.global_batch_size=20", "training.micro_batch_size=8"],
            "aquila: training.global_batch_size 20 is not a multiple of training.micro_batch_size 8 x 1 "
            "data-parallel replicas\n",
        ),
        (
            ["train", str(RECIPE), "parallel.sharding=full"],
            "aquila: parallel.sharding full divides the weights among data-parallel replicas, and here is one: set "
            "parallel.data_parallel=2 or more, or sharding=optimizer\n",
        ),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], said: str) -> None:
    result = aquila(*arguments)
    assert (result.returncode, result.stderr, result.stdout) == (2, said, "")


def test_under_a_launcher_the_rank_is_named(tmp_path: Path) -> None:
    """A world of two under torchrun's variables, with a layout for four: each rank says so and ends."""
    world = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    result = aquila("train", str(RECIPE), "parallel.pipeline_parallel=2", f"output={tmp_path}", **world)
    assert result.returncode == 2
    assert "[rank 1] aquila: 2 processes cannot be divided into replicas of " in result.stderr
    assert "Traceback" not in result.stderr


def test_data_verbs_are_mounted() -> None:
    result = aquila("data", "--help")
    assert result.returncode == 0
    assert "Usage: aquila data " in result.stdout
    assert aquila("data").stdout == result.stdout
    assert "index" in result.stdout
    missing = aquila("data", "index", "--help")
    assert "--tokenizer" in missing.stdout


def test_a_demo_never_removes_what_no_demo_made(tmp_path: Path) -> None:
    from megatron_aquila.cli import _prepare_demo
    from megatron_aquila.errors import AquilaError

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(AquilaError, match="no demo made it"):
        _prepare_demo(tmp_path, keep=False)
    assert (tmp_path / "thesis.txt").exists()

    ours = tmp_path / "demo"
    _prepare_demo(ours, keep=False)
    (ours / "weights").write_text("1")
    _prepare_demo(ours, keep=True)
    assert (ours / "weights").exists()
    _prepare_demo(ours, keep=False)
    assert [path.name for path in ours.iterdir()] == [".made-by-aquila-demo"]


def test_doctor_finds_this_machine_fit() -> None:
    result = aquila("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Ready." in result.stdout
    assert re.search(r"✓ +megatron-core +0\.16", result.stdout)
    assert re.search(r"✓ +gloo +works", result.stdout)


def test_doctor_tells_absent_broken_and_other_versions_apart() -> None:
    assert doctor.check_package("no-such-package", "os", "1.0") == doctor.Finding(
        "no-such-package", "broken", "not installed", "pip install no-such-package==1.0"
    )
    assert doctor.check_package("pydantic", "pydantic.no_such_module", "1.0").status == "broken"
    other = doctor.check_package("pydantic", "pydantic", "1.0")
    assert (other.status, other.note) == ("differs", "tested with 1.0")


def test_doctor_knows_the_pinned_versions() -> None:
    constraints = ROOT / "constraints.txt"
    pinned = dict(line.split("==") for line in constraints.read_text().split() if "==" in line)
    tested = {name: version for name, _, version in doctor.REQUIRED}
    tested |= {name: version for name, version, _ in doctor.OPTIONAL if version}
    assert {name: pinned.get(name) for name in tested} == tested
