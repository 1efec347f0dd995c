"""The same recipe through datatrove's Slurm executor: the same documents, also after a task was killed."""

import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from data_tools.cli import app
from data_tools.corpus.recipe import load_recipe
from data_tools.corpus.run import build_corpus

from ..small_tokenizer import make_tokenizer
from . import slurm_commands
from .raw_corpus import published_bytes, write_corpus, write_recipe

pytest.importorskip("datatrove", reason="the extra [cluster] is not installed")


def test_a_killed_task_is_run_again_and_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path, 400)
    steps = [{"step": "normalise"}, {"step": "language"}, {"step": "privacy"}]
    recipe = write_recipe(tmp_path, make_tokenizer(tmp_path / "tokenizer"), steps=steps, index=True)
    build_corpus(load_recipe(recipe, [f"output={tmp_path / 'here'}"]))

    slurm_commands.install(tmp_path / "bin")
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("SLURM_TEST_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("SLURM_TEST_WORK", str(tmp_path / "there" / "work"))
    options = tmp_path / "slurm.yaml"
    options.write_text(yaml.safe_dump({"time": "1:00:00", "partition": "cpu"}))
    arguments = ["corpus", str(recipe), f"output={tmp_path / 'there'}", "--executor", "slurm", "--tasks", "2"]
    arguments += ["--executor-options", str(options)]

    monkeypatch.setenv("KILL_AFTER", "2")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "submitted" in result.stdout
    codes = [(tmp_path / "jobs" / f"{number}.code").read_text() for number in (1, 3)]
    assert codes == ["1", "1"]  # the array, and what waits for it
    assert not (tmp_path / "there" / "manifest.json").exists()
    done = set((tmp_path / "there" / "work").glob("*.json"))
    assert len(done) >= 2

    monkeypatch.delenv("KILL_AFTER")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'there'} is ready" in result.stdout.replace("\n", "")
    there = {
        name: content for name, content in published_bytes(tmp_path / "there").items() if not name.startswith("logs")
    }
    here = published_bytes(tmp_path / "here")
    assert {name for name in here if not name.startswith("stage")} <= set(there)
    assert {
        name: content for name, content in there.items() if name in here and not name.endswith("manifest.json")
    } == {name: content for name, content in here.items() if not name.endswith("manifest.json")}
    result = CliRunner().invoke(app, arguments)
    assert "holds this corpus already" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--executor", "lsf"], "there is no executor 'lsf'"),
        (["--executor", "slurm"], "does not take these options"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(tmp_path: Path, more: list[str], sentence: str) -> None:
    write_corpus(tmp_path, 20)
    recipe = write_recipe(tmp_path, make_tokenizer(tmp_path / "tokenizer"), steps=[])
    result = CliRunner().invoke(app, ["corpus", str(recipe), *more])
    assert result.exit_code == 2
    assert sentence in result.stderr
