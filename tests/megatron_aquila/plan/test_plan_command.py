"""`aquila plan` as a user calls it, and as docs/plan.md shows it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from megatron_aquila.cli_plan import plan
from megatron_aquila.errors import ConfigError
from tests.world import world

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "plan.md"
COMMAND = re.compile(r"```sh\n(aquila plan .*?)\n```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
EXAMPLES = COMMAND.findall(PAGE.read_text(encoding="utf-8"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command, shown", EXAMPLES)
def test_the_page_shows_what_is_printed(command: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, *shlex.split(command.replace("\\\n", " "))[2:])
    assert result.exit_code in (0, 1), result.output
    if shown:
        printed = [line.rstrip() for line in result.output.splitlines()]
        assert printed == [line.rstrip() for line in shown.splitlines()], f"run {command!r} and copy its output"
        assert max(map(len, (line for line in printed if "parallel." not in line))) <= 80
    assert len(EXAMPLES) >= 3


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = "recipes/aquila_med/dpo.yaml"
    arguments = (recipe, "--gpus", "8", "--gpu", "A100-40G", "--samples", "12727", "--sample-tokens", "1000", "--json")
    result = run(monkeypatch, *arguments, "--top", "1")
    assert result.exit_code == 0
    made = json.loads(result.output)
    assert made["fits"] is True
    assert made["steps"] == 398
    assert made["checkpoint_bytes"] == 14 * made["parameters"]
    (stage,) = made["layout"]["stages"]
    parts = ("weights", "gradients", "optimizer", "activations", "communication", "context")
    assert stage["total"] == sum(stage[part] for part in parts) + max(stage["logits"], stage["backward"])
    assert stage["total"] <= made["layout"]["limit_bytes"]
    assert len(made["layouts"]) == 1


def test_a_recipe_that_does_not_fit_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, "recipes/aquila_med/sft.yaml", "--gpus", "8", "--gpu-memory", "24", "--top", "1")
    assert result.exit_code == 1
    assert "It does not fit" in result.output


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "say which GPU"),
        (["--gpu", "voodoo2"], "voodoo2 is not known"),
        (["--gpu", "h100", "--mfu", "45"], "share between 0 and 1"),
        (["--gpu-memory", "-1"], "no number of GiB"),
    ],
)
def test_errors_say_what_to_do(options: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, "recipes/aquila_med/sft.yaml", *options)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)


def test_without_torch() -> None:
    """A plan is made where torch is not even imported."""
    code = (
        "import sys\nsys.modules['torch'] = None\nsys.modules['megatron'] = None\n"
        "import typer\nfrom megatron_aquila.cli_plan import plan\ntyper.run(plan)"
    )
    command = [sys.executable, "-c", code, "recipes/aquila_med/cpt_stage1.yaml", "--gpus", "24", "--gpu", "a100-40g"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def planned_and_built() -> tuple[int, str]:
    app = typer.Typer()
    app.command()(plan)
    recipe = str(ROOT / "recipes" / "tiny" / "cpt_stage1.yaml")
    overrides = ["parallel.tensor_parallel=2", "parallel.pipeline_parallel=2", "parallel.data_parallel="]
    overrides += ["training.recompute=selective"]
    result = CliRunner().invoke(app, [recipe, *overrides, "--gpus", "4", "--gpu", "h100", "--build", "--top", "0"])
    return result.exit_code, " ".join(result.output.split())


def test_built_as_planned() -> None:
    """In a rank's process, which has imported Megatron already."""
    ((code, output),) = world(1, planned_and_built)
    assert code == 0, output
    assert output.count("weights, gradients, optimizer and what autograd keeps are as planned, to the byte") == 2
