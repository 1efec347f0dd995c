"""What ships: counts of the published sets, suites, digests, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from megatron_aquila import cli_tasks
from megatron_aquila.evaluation.tasks import catalog
from megatron_aquila.evaluation.tasks.data import EvaluationDataError
from megatron_aquila.evaluation.tasks.sources import SOURCES
from tests.megatron_aquila.evaluation.tasks import published


def test_counts_of_the_paper() -> None:
    tasks = catalog.tasks()
    counted = {group: sum(tasks[name].rows or 0 for name in names) for group, names in catalog.groups().items()}
    assert counted["aqm_mmlu"] == 1089
    assert counted["aqm_ceval"] == 113
    single = ("aqm_medqa", "aqm_medmcqa", "aqm_pubmedqa", "aqm_cmb_exam")
    assert [tasks[name].rows for name in single] == [1273, 4183, 500, 11200]
    for task in tasks.values():
        assert task.rows == SOURCES[task.set].rows[task.split].get(task.subject), task.name
        assert task.group is None or task.name in catalog.groups()[task.group]
    for dialogues in catalog.DIALOGUE_SETS.values():
        assert dialogues.rows == SOURCES[dialogues.set].rows[dialogues.split][None]


def test_suites_hold_comparable_tasks_alone() -> None:
    base, chat = (catalog.expand([name]) for name in ("paper-cpt", "paper-chat"))
    assert len(base) == 6 + 4 + 3 and all(task.kind == "log-likelihood" and task.takes_shots for task in base)
    assert len(chat) == 6 + 4 + 1 and [task.name for task in chat if task.kind == "generation"] == ["aqm_cmb_exam"]
    assert all(task.delimiter == " " for task in (*base, *chat))
    assert catalog.SUITES["paper-cpt"].shots == 3 and not catalog.SUITES["paper-cpt"].chat_template
    assert catalog.SUITES["paper-chat"].shots == 0 and catalog.SUITES["paper-chat"].chat_template
    assert catalog.expand(["aqm_mmlu_anatomy", "paper-cpt"])[0].name == "aqm_mmlu_anatomy"
    assert len(catalog.expand(["aqm_mmlu", "paper-cpt"])) == len(base)


def test_few_questions_are_warned_of() -> None:
    assert "113 questions" in catalog.tasks()["aqm_ceval_physician"].warnings[0]
    assert "validation split" in catalog.tasks()["aqm_medmcqa"].warnings[0]


def test_names_that_are_not_there() -> None:
    with pytest.raises(catalog.UnknownTaskError, match="'aqm_mmul' is no task, group or suite: choose out of"):
        catalog.expand(["aqm_mmul"])
    with pytest.raises(catalog.UnknownTaskError, match="'aqm_cmb_clin' is a dialogue set, which the judge scores"):
        catalog.expand(["aqm_cmb_clin"])


def test_digests_tell_prompts_apart_and_places_not(tmp_path: Path) -> None:
    tasks = catalog.tasks().values()
    assert len({task.digest for task in tasks}) == len(tasks)
    assert catalog.questions_task(tmp_path / "a.jsonl").digest == catalog.questions_task(tmp_path / "b.jsonl").digest
    cloze = catalog.questions_task(tmp_path / "a.jsonl", "cloze")
    assert cloze.digest != catalog.questions_task(tmp_path / "a.jsonl").digest


def test_command_line(tmp_path: Path) -> None:
    app, runner = typer.Typer(), CliRunner()
    for command in (cli_tasks.tasks, cli_tasks.fetch, cli_tasks.verify):
        app.command()(command)
    data = str(tmp_path / "data")
    published.pubmedqa(tmp_path / "files", 20, 8)
    refused = runner.invoke(app, ["fetch", "pubmedqa", "--from", str(tmp_path / "files"), "--data", data])
    assert isinstance(refused.exception, EvaluationDataError)
    assert "12 rows in train where the published file has 450" in str(refused.exception)
    arguments = ["fetch", "pubmedqa", "--from", str(tmp_path / "files"), "--data", data, "--any-rows"]
    fetched = runner.invoke(app, arguments)
    assert fetched.exit_code == 0 and "SHA-256" in fetched.output and "8 rows" in fetched.output
    listed = runner.invoke(app, ["tasks", "--data", data], env={"COLUMNS": "200"}).output
    heads = [line.split() for line in listed.splitlines() if line.startswith(("pubmedqa", "medqa"))]
    assert sorted(heads) == [["medqa", "missing"], ["pubmedqa"]]
    assert "  aqm_pubmedqa 500 log-likelihood" in [f"  {' '.join(line.split())}" for line in listed.splitlines()]
    assert runner.invoke(app, ["verify", "--data", data]).exit_code == 0
    (tmp_path / "data" / "pubmedqa" / "train.jsonl").unlink()
    broken = runner.invoke(app, ["verify", "pubmedqa", "--data", data])
    assert broken.exit_code == 1 and "train.jsonl is missing" in broken.output
    where = runner.invoke(app, ["tasks", "--definitions"]).output.strip()
    assert (Path(where) / "aqm_medqa.yaml").is_file()
