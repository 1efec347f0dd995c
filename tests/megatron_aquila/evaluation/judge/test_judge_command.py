"""`aquila judge`: the shipped recipes, the dry run, the demo's stand-in as judge, and a run that is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_tools.clinic import World, make_world
from data_tools.clinic.asking import asks_in_training
from data_tools.clinic.manners import ADVICE, LEAD_INS
from data_tools.clinic.server import MODEL, ClinicServer
from data_tools.clinic.world import LANGUAGES, VALUES
from data_tools.config_files import ConfigFileError
from megatron_aquila.cli_judge import app
from megatron_aquila.evaluation.judge.config import PairConfig, RubricConfig, load
from megatron_aquila.evaluation.judge.run import run
from megatron_aquila.evaluation.judge.summary import JudgeError, find, read
from tests.data_tools.llm_server import LanguageModelServer
from tests.megatron_aquila.evaluation.judge.judging import oracle, row, write_rows

ROOT = Path(__file__).parents[4]
RECIPES = ROOT / "recipes"


@pytest.mark.parametrize("folder", ["tiny", "aquila_med"])
def test_the_shipped_recipes_are_read(folder: str) -> None:
    pair = load(PairConfig, RECIPES / folder / "judge_pair.yaml")
    rubric = load(RubricConfig, RECIPES / folder / "judge_rubric.yaml")
    assert pair.against is None
    assert pair.output != rubric.output
    assert pair.output.parent.name == "evaluation", "where the report and the model card look for it"
    if folder == "tiny":
        assert pair.model.model == rubric.model.model == MODEL
    else:
        assert pair.retries == 2
        assert pair.model.limits.cost is not None


def test_the_documentation_names_every_key() -> None:
    rows = [line for line in (ROOT / "docs" / "judge.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    named = {name for line in rows for name in line.split("|")[1].replace("`", " ").replace(",", " ").split()}
    assert named == set(PairConfig.model_fields)


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(ConfigFileError, match=r"override: .*retry.*retries"):
        load(PairConfig, RECIPES / "tiny" / "judge_pair.yaml", ["retry=3"])
    with pytest.raises(ConfigFileError, match="against"):
        load(RubricConfig, RECIPES / "tiny" / "judge_rubric.yaml", ["against=x.jsonl"])


def overrides(tmp_path: Path, url: str, answers: Path, **more: Any) -> list[str]:
    values = {"output": tmp_path / "judged", "answers": answers, "model.cache": tmp_path / "cache", **more}
    return [f"{key}={value}" for key, value in {**values, "model.base_url": url}.items()]


def clinic_rows(world: World) -> list[dict[str, Any]]:
    """Right answers, wrong ones and right ones without a kind word, against careful references."""
    rows = []
    for lang in LANGUAGES:
        for number, ask in enumerate(asks_in_training(world, lang)[:12]):
            gap = "" if lang == "zh" else " "
            careful = f"{LEAD_INS[lang][1]}{ask.answer}{gap}{ADVICE[lang][0]}"
            other = next(value for value in VALUES[ask.attribute] if value.in_language(lang) != ask.value)
            wrong = careful.replace(ask.value, other.in_language(lang))
            rows.append({
                "id": f"{lang}-{number}", "round": 1, "lang": lang,
                "messages": [{"role": "user", "content": ask.question}],
                "answer": (careful, wrong, ask.answer)[number % 3], "reference": careful, "finished": True,
            })  # fmt: skip
    return rows


def test_the_demos_stand_in_judges_by_the_clinics_facts(tmp_path: Path) -> None:
    world = make_world(seed=0)
    answers = write_rows(tmp_path / "answers.jsonl", clinic_rows(world))
    runner = CliRunner()
    with ClinicServer(world) as server:
        command = ["pair", str(RECIPES / "tiny" / "judge_pair.yaml"), *overrides(tmp_path, server.url, answers)]
        dry = runner.invoke(app, [*command, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert "24 items of 24 answers, 12 known pairs: 64 calls (8 more are recorded)" in dry.output
        assert server.answered == 0
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.exception
        answered = server.answered
        again = runner.invoke(app, command)
        assert server.answered == answered
        assert done.stdout.split("written")[0] == again.stdout.split("written")[0]
        rubric = ["rubric", str(RECIPES / "tiny" / "judge_rubric.yaml")]
        rubric += overrides(tmp_path / "r", server.url, answers)
        rated = runner.invoke(app, rubric)
        assert rated.exit_code == 0, rated.exception
    found = read(tmp_path / "judged")
    assert found.kind == "pair"
    # A third is the reference itself, a third wrong, a third without a kind word; the stand-in is biased at times.
    assert (found.strict.win, found.strict.n) == (0, 24)
    assert 13 <= found.strict.loss <= 16
    assert found.canaries is not None
    assert found.canaries.passed >= 10
    assert found.judge.served == (MODEL,)
    ratings = read(tmp_path / "r" / "judged")
    assert ratings.kind == "rubric"
    assert ratings.criteria["proficiency"].value == pytest.approx((5 + 2 + 5) / 3)
    assert ratings.canaries is not None
    assert ratings.canaries.passed >= 10


def test_agreement_with_another_judges_verdicts(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", [row(number) for number in range(12)])
    with LanguageModelServer(oracle) as server:
        command = ["pair", str(RECIPES / "tiny" / "judge_pair.yaml"), "canaries=2"]
        command += overrides(tmp_path, server.url, answers)
        assert CliRunner().invoke(app, command).exit_code == 0
        verdicts = tmp_path / "judged" / "verdicts.jsonl"
        other = tmp_path / "other.jsonl"
        other.write_bytes(verdicts.read_bytes())
        assert CliRunner().invoke(app, [*command, "--agreement", str(other)]).exit_code == 0
    agreement = read(tmp_path / "judged").agreement
    assert agreement is not None
    assert (agreement.n, agreement.missing, agreement.kappa) == (12, 0, 1)
    assert find(tmp_path) == []


def test_help_and_schema() -> None:
    runner = CliRunner()
    for name in ("pair", "rubric"):
        assert "--dry-run" in runner.invoke(app, [name, "--help"]).output
        schema = json.loads(runner.invoke(app, [name, "--schema"]).output)
        assert ("against" in schema["properties"]) == (name == "pair")
    assert isinstance(runner.invoke(app, ["pair"]).exception, JudgeError)


_KILLED = """
import sys
from pathlib import Path
from megatron_aquila.evaluation.judge.config import PairConfig, load
from megatron_aquila.evaluation.judge.run import run
run(load(PairConfig, Path(sys.argv[1]), sys.argv[2:]))
"""


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", [row(number) for number in range(12)])
    recipe = RECIPES / "tiny" / "judge_pair.yaml"
    with LanguageModelServer(oracle) as server:
        moves = overrides(tmp_path, server.url, answers, canaries=0, **{"model.concurrency": 2})
        server.gate, server.free = threading.Event(), 9
        child = subprocess.Popen([sys.executable, "-c", _KILLED, str(recipe), *moves], cwd=ROOT, env={**os.environ})
        try:
            deadline = time.monotonic() + 240
            while len(server.calls) < 11 and time.monotonic() < deadline:
                assert child.poll() is None
                time.sleep(0.01)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert len(server.answered) == 9
        assert not (tmp_path / "judged" / "judge.json").exists()
        server.gate.set()
        before = len(server.calls)
        summary = run(load(PairConfig, recipe, moves))
        # Nine answers were recorded; the two under way were lost with their asker.
        assert len(server.calls) - before == 24 - 9
    assert summary.counted.judged == 12
    assert [path.name for path in sorted((tmp_path / "judged").iterdir())] == ["judge.json", "lock", "verdicts.jsonl"]
