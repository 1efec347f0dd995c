"""What names stand for, and what each that stands for nothing is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.evaluation.chosen import ChosenError, choose
from megatron_aquila.evaluation.tasks.catalog import groups, tasks
from megatron_aquila.evaluation.tasks.data import EvaluationDataError

_QUESTION = {"question": "fever?", "options": {"A": "rest", "B": "aspirin"}, "answer": ["A"]}
_TURNS = [{"role": "user", "content": "fever?"}, {"role": "assistant", "content": "rest"}]


def _file(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_groups_and_suites_stand_for_their_tasks_each_once(tmp_path: Path) -> None:
    chosen = choose(["aqm_mmlu", "aqm_mmlu_anatomy", "aqm_medqa"], None, tmp_path)
    assert [task.name for task in chosen.tasks] == [*groups()["aqm_mmlu"], "aqm_medqa"]
    assert chosen.suite is None and chosen.name == "aqm_mmlu+aqm_mmlu_anatomy+aqm_medqa"
    for names, suite in (([], "paper-cpt"), (["paper-cpt"], None), (["paper-cpt"], "paper-cpt")):
        found = choose(names, suite, tmp_path)
        assert (found.suite, found.name, len(found.tasks)) == ("paper-cpt", "paper-cpt", 13)


def test_files_of_questions_in_either_form_and_compressed(tmp_path: Path) -> None:
    plain = _file(tmp_path / "own.v2.jsonl", _QUESTION)
    packed = tmp_path / "other.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    chosen = choose([plain, f"{packed}:cloze", plain], None, tmp_path)
    assert [(task.name, task.delimiter, task.file) for task in chosen.tasks] == [
        ("own-v2", " ", Path(plain)),
        ("other", "", packed),
    ]
    assert chosen.name == "own-v2+other-cloze"


def test_files_of_dialogues_become_rounds(tmp_path: Path) -> None:
    said = _file(tmp_path / "said.jsonl", {"messages": _TURNS * 2}, {"id": "own", "lang": "en", "messages": _TURNS})
    asked = _file(tmp_path / "asked.jsonl", {"id": "x", "rounds": [{"user": "fever?"}]})
    first, second = choose([said, asked, said], None, tmp_path).dialogues
    pair = {"user": "fever?", "reference": "rest"}
    assert (first.name, second.name) == ("said", "asked")
    assert first.rows == [
        {"id": "said-1", "lang": "", "rounds": [pair, pair]},
        {"id": "own", "lang": "en", "rounds": [pair]},
    ]
    assert [(row["id"], row["lang"], row["rounds"]) for row in second.rows] == [("x", "", [{"user": "fever?"}])]


def test_a_name_for_a_directory_is_short_and_one_for_each() -> None:
    every = list(tasks())
    names = {choose(every[:count], None, Path()).name for count in range(3, 30)}
    assert len(names) == 27 and max(map(len, names)) == 80


REFUSED: dict[str, tuple[list[str], str | None, str]] = {
    "nothing": ([], None, "say what to ask: .* --suite"),
    "suite": ([], "paper", "there is no suite 'paper': choose out of paper-cpt, paper-chat"),
    "two suites": (["paper-chat"], "paper-cpt", "asked in different ways: evaluate them one after the other"),
    "near": (["aqm_medqua"], None, "dialogue set 'aqm_medqua': did you mean aqm_medqa?"),
    "far": (["zzz"], None, "'zzz': `aquila eval tasks` lists them"),
    "no file": (["gone/x.jsonl"], None, r"there is no file gone/x\.jsonl$"),
    "no file in a form": (["x.jsonl:cloze"], None, r"there is no file x\.jsonl$"),
    "form": (["own.jsonl:words"], None, "asked in the form letters or cloze, not words"),
    "directory": (["."], None, "is a directory: give a file"),
    "empty": (["empty.jsonl"], None, "empty.jsonl holds no record"),
    "broken": (["broken.jsonl"], None, "broken.jsonl, line 2: "),
    "no object": (["list.jsonl"], None, "line 1: a record must be a JSON object"),
    "suffix": (["notes.txt"], None, "no suffix that is known here"),
    "damaged": (["cut.jsonl.gz"], None, "cut.jsonl.gz, line 1: the file is damaged here"),
    "neither": (["neither.jsonl"], None, "line 1: .*'options' nor 'messages' nor 'rounds'"),
    "mixed": (["mixed.jsonl"], None, "record x has no options: give questions and dialogues in files of their own"),
    "system": (["system.jsonl"], None, "line 1: user and assistant must take turns, without a system message"),
    "bad answer": (["bad.jsonl"], None, "bad.jsonl, line 1: 'answer' must list letters"),
    "one name": (["own.jsonl", "b/own.jsonl"], None, "have one name, own: rename a file"),
    "one name of dialogues": (["said.jsonl", "b/said.jsonl"], None, "have one name, said: rename a file"),
    "both forms": (["own.jsonl", "own.jsonl:cloze"], None, "both forms, letters and cloze: ask for one at a time"),
    "ours": (["aqm_medqa.jsonl"], None, "aqm_medqa is the name of a task or set that ships: rename the file"),
    "set": (["aqm_cmb_clin"], None, "cmb_clin/test.jsonl is missing: fetch the set with `aquila eval fetch cmb_clin"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stands_for_nothing_is_told_so(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names, suite, sentence = REFUSED[case]
    for name in ("own.jsonl", "b/own.jsonl", "aqm_medqa.jsonl"):
        _file(Path(name), _QUESTION)
    _file(Path("said.jsonl"), {"messages": _TURNS})
    _file(Path("b/said.jsonl"), {"messages": _TURNS * 2})
    _file(Path("empty.jsonl"))
    _file(Path("list.jsonl"), [1])
    _file(Path("neither.jsonl"), {"id": "x"})
    _file(Path("mixed.jsonl"), _QUESTION, {"id": "x", "rounds": [{"user": "fever?"}]})
    _file(Path("system.jsonl"), {"messages": [{"role": "system", "content": "be brief"}, *_TURNS]})
    _file(Path("bad.jsonl"), {**_QUESTION, "answer": ["C"]})
    Path("broken.jsonl").write_text(json.dumps(_QUESTION) + "\n{\n")
    Path("notes.txt").write_text("fever\n")
    Path("cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(_QUESTION).encode() * 99)[:-20])
    with pytest.raises((ChosenError, EvaluationDataError), match=sentence) as raised:
        choose(names, suite, Path("data"))
    assert "\n" not in str(raised.value)
