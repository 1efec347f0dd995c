"""No file of the repository makes an unsafe call; and each kind of unsafe call is found where it is planted."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.repository import ROOT, tracked
from tests.security.unsafe_calls import unsafe_calls

# Path and call → why it may stand.
EXCEPTIONS = {
    ("tests/security/planted.py", "*"): "the violations that the checker must find",
    ("tests/megatron_aquila/datasets/test_index_cache.py", "allow_pickle=True"): "shows that its bomb goes off",
    ("tests/security/test_models.py", "torch.load"): "shows that its bomb goes off",
    ("tests/security/test_models.py", "weights_only=False"): "shows that its bomb goes off",
    ("tests/docs/test_guide.py", "builtins.exec"): "runs the Python blocks of our own pages",
    ("tests/megatron_aquila/release/test_release.py", "builtins.exec"): "runs the Python block of a card we wrote",
}
PLANTED = ROOT / "tests/security/planted.py"


def test_no_file_makes_an_unsafe_call() -> None:
    found = {
        (str(path.relative_to(ROOT)), finding)
        for path in tracked(".py")
        for finding in unsafe_calls(path.read_text(encoding="utf-8"), own_files=ROOT / "tests" in path.parents)
    }
    named = {(path, finding.call) for path, finding in found} | {(path, "*") for path, _ in found}
    left = [
        f"{path}:{finding.line}: {finding.call} {finding.reason}"
        for path, finding in sorted(found)
        if (path, "*") not in EXCEPTIONS and (path, finding.call) not in EXCEPTIONS
    ]
    assert left == []
    assert set(EXCEPTIONS) <= named, "an exception that nothing needs any more"


def planted() -> list[tuple[int, str]]:
    """Line and text of what `planted.py` marks."""
    lines = PLANTED.read_text(encoding="utf-8").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.endswith("# unsafe")]


def test_each_planted_violation_is_found_and_nothing_else() -> None:
    found = {finding.line for finding in unsafe_calls(PLANTED.read_text(encoding="utf-8"))}
    assert len(planted()) >= 40
    assert found == {number for number, _ in planted()}


def test_planted_code_is_python() -> None:
    ast.parse(PLANTED.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle\n", "TID251"),
        ("from pickle import loads\n", "TID251"),
        ("import dill\n", "TID251"),
        ("import cloudpickle\n", "TID251"),
        ("import joblib\n", "TID251"),
        ("import marshal\n", "TID251"),
        ("import shelve\n", "TID251"),
        ("import torch\n\ntorch.load('a')\n", "TID251"),
        ("from torch import load\n", "TID251"),
        ("import torch\n\ntorch.hub.load('a', 'b')\n", "TID251"),
        ("import pandas\n\npandas.read_pickle('a')\n", "TID251"),
        ("import yaml\n\nyaml.load(text)\n", "S506"),
        ("import yaml\n\nyaml.unsafe_load(text)\n", "TID251"),
        ("import os\n\nos.system(text)\n", "S605"),
        ("import subprocess\n\nsubprocess.run(text, shell=True)\n", "S602"),
        ("eval(text)\n", "S307"),
        ("exec(text)\n", "S102"),
        ("import tempfile\n\ntempfile.mktemp()\n", "S306"),
        ("serve('0.0.0.0')\n", "S104"),
        ("import os\n\nos.chmod('a', 0o777)\n", "S103"),
        ("import requests\n\nrequests.get('a', verify=False, timeout=1)\n", "S501"),
        ("import tarfile\n\ntarfile.open('a').extractall()\n", "S202"),
        ("import jinja2\n\njinja2.Environment()\n", "S701"),
    ],
)
def test_ruff_is_set_to_find_it(code: str, rule: str, ruff: dict[str, set[str]]) -> None:
    assert rule in ruff[code]


@pytest.fixture(scope="module")
def ruff(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, set[str]]:
    """Code → the rules that it breaks, as `ruff check` of this repository sees it: one process for all."""
    import json

    mark = next(mark for mark in test_ruff_is_set_to_find_it.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("code")
    codes = {f"case_{number}.py": case[0] for number, case in enumerate(mark.args[1])}
    for name, code in codes.items():
        (folder / name).write_text(code, encoding="utf-8")
    command = shutil.which("ruff", path=str(Path(sys.executable).parent))
    assert command is not None
    config = str(ROOT / "pyproject.toml")
    done = subprocess.run(
        [command, "check", "--no-cache", "--config", config, "--output-format", "json", str(folder)],
        capture_output=True,
        check=False,
    )
    rules: dict[str, set[str]] = {code: set() for code in codes.values()}
    for problem in json.loads(done.stdout):
        rules[codes[Path(problem["filename"]).name]].add(problem["code"])
    return rules
