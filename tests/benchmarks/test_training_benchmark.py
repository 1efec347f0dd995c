from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest
import torch

from benchmarks.training import __main__ as program
from benchmarks.training import trl_side
from benchmarks.training.report import Case
from benchmarks.training.samples import doctor_records, index, read_dialogues, read_pairs, train_tokenizer
from benchmarks.training.task import OURS, Clock, Result, Task, TaskError
from benchmarks.training.task import run as run_apart
from tests.world import world


def our_side(task: Task) -> Result:
    from benchmarks.training.our_side import main

    try:
        return main(task)
    finally:
        torch.set_num_threads(1)  # as ranks are kept


def test_a_run_trains_both_sides_on_the_same_and_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the synthetic clinic, to the same loss; in processes that are warm, to save time."""

    def run(task: Task) -> Result:
        return world(1, our_side, task=task)[0] if task.side == OURS else trl_side.main(task)

    monkeypatch.setattr(program, "run", run)
    plan = program.Plan("sft", 2048, batch=4, steps=1)
    program.measure((plan,), None, None, tmp_path, rounds=1, threads=torch.get_num_threads(), length=512, pack=512)
    results = orjson.loads((tmp_path / "results.json").read_bytes())
    assert [case["stage"] for case in results["cases"]] == ["sft"]
    for case in results["cases"]:
        assert set(case["rounds"]) == {OURS, *trl_side.SETTINGS[case["stage"]]}
        ours = case["rounds"][OURS][0]
        for (result,) in case["rounds"].values():
            assert result["seconds"] > 0 and result["cpu_seconds"] > 0
            assert result["peak"] > 100 << 20, "Python and torch alone take more"
            assert result["loss"] == pytest.approx(ours["loss"], rel=1e-2), "steps of other samples"
        rival = case["rounds"][case["rival"]][0]
        assert case["speed"] == pytest.approx(ours["samples"] / ours["seconds"] * rival["seconds"] / rival["samples"])
        assert case["memory"] == pytest.approx(ours["peak"] / rival["peak"])


def test_a_task_is_run_apart_and_its_failure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, asked = tmp_path / "python", tmp_path / "asked"
    result = Result(16, 4.5, 3.0, 7, 0.5, 3.0)
    python.write_text(
        f"""#!/bin/sh
echo "$OMP_NUM_THREADS" >{asked}
for word; do echo "$word"; done >>{asked}
echo a warning
echo '{json.dumps(asdict(result))}'
case "$*" in *TRL*) echo no memory >&2; exit 3;; esac
"""
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    places = {name: str(tmp_path / name) for name in ("prefix", "tokenizer", "model", "output")}
    task = Task("sft", OURS, **places, batch=4, length=512, pack=512, warm_up=1, steps=2, threads=3)
    assert run_apart(task) == result
    threads, *words = asked.read_text().splitlines()
    assert threads == "3" and words[-2] == "benchmarks.training.our_side"
    assert Task(**json.loads(words[-1])) == task
    with pytest.raises(TaskError, match="TRL, sft:\nno memory"):
        run_apart(replace(task, side="TRL"))
    assert asked.read_text().splitlines()[-2] == "benchmarks.training.trl_side"


def test_ratios_are_of_the_fastest_rival_and_goals_are_told_from_what_was_measured() -> None:
    def result(samples: int, seconds: float, peak: int, loss: float = 0.7) -> Result:
        return Result(samples, seconds, 2 * seconds, peak, loss, 0.0)

    case = Case(
        "dpo",
        100_008,
        {
            OURS: [result(12, 2.0, 400), result(12, 1.0, 500), result(12, 3.0, 300)],
            "TRL": [result(12, 12.0, 900)],
            "TRL, reference first": [result(12, 10.0, 1100, 0.72)],
        },
    )
    assert case.rival == "TRL, reference first"
    assert case.speed == pytest.approx(5.0)
    assert case.memory == pytest.approx(500 / 1100)
    assert [goal.met for goal in case.goals()] == [True, True]
    assert len(case.wrong()) == 1 and "TRL, reference first" in case.wrong()[0]
    small = Case("sft", 4096, {OURS: [result(14, 1.0, 1)], "TRL": [result(10, 1.0, 1)]})
    assert [goal.met for goal in small.goals()] == [False], "1.4 x where 1.5 x is the goal; none for memory"


def test_the_clock_leaves_the_warm_up_out() -> None:
    clock = Clock(wall=[1.0, 4.0, 5.5], cpu=[0.0, 2.0, 3.0], samples=[8, 17, 24], peak=7)
    assert clock.result(1, 0.5, 3.0) == Result(16, 4.5, 3.0, 7, 0.5, 3.0)
    assert clock.result(2, 0.5, 3.0).samples == 7


def test_pairs_share_their_prompt_and_reject_another_answer(tmp_path: Path) -> None:
    rows = [
        {"instruction": "", "input": f"What helps in case {number}?", "output": f"Rest for {number % 7} days."}
        for number in range(40)
    ]
    (tmp_path / "doctor.json").write_text(json.dumps([*rows, {"instruction": "", "input": " ", "output": "x"}]))
    dialogues, pairs = doctor_records(tmp_path / "doctor.json")
    assert sorted(record["messages"][0]["content"] for record in dialogues) == sorted(row["input"] for row in rows)
    answers = {row["input"]: row["output"] for row in rows}
    for pair in pairs:
        assert pair["chosen"][0]["content"] == answers[pair["prompt"][0]["content"]]
        assert pair["rejected"][0]["content"] in answers.values()
        assert pair["rejected"] != pair["chosen"]

    tokenizer = train_tokenizer(dialogues, tmp_path / "tokenizer", 320)
    read = read_pairs(index(pairs, "pairs", tokenizer, 512, tmp_path / "pairs"))
    assert len(read) == len(pairs)
    for (chosen, mask), (rejected, other) in read:
        prompt = mask.index(1)
        assert chosen[:prompt] == rejected[:prompt] and other[:prompt] == mask[:prompt]
        assert all(mask[prompt:]) and all(other[prompt:]), "TRL trains on all that follows the prompt"
    singles = read_dialogues(index(dialogues, "dialogues", tokenizer, 512, tmp_path / "dialogues"))
    assert len(singles) == 40 and all(len(tokens) == len(mask) for tokens, mask in singles)
