"""What an evaluation leaves on disk, wherever it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.results import Evaluation, Item, ModelFacts, ResultsError, find, read, read_items, write

_FACTS = ModelFacts(
    name="m",
    path="p",
    kind="checkpoint",
    digest="d",
    step=1,
    backend="aquila",
    layout="",
    precision="",
    chat_template=None,
)


def _evaluation(**changes: Any) -> Evaluation:
    rest: dict[str, Any] = {"tasks": {}, "groups": {}, "versions": {}, "began": "", "seconds": 0.0}
    return Evaluation(**{"model": _FACTS, "suite": None, "seed": 0, **rest, **changes})


def _item(name: str, **changes: Any) -> Item:
    return Item(**{"id": name, "cluster": name, "right": True, "answer": ("A",), "said": ("A",), **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    items = [_item("1", logps={"A": -0.5, "B": -1e-9}), _item("2", right=False, invalid=True, said=None, text="头\n")]
    write(tmp_path / "e", _evaluation(limit=2), {"t": items})
    assert read_items(tmp_path / "e", "t") == items
    assert read(tmp_path / "e") == read(tmp_path / "e" / "results.json") == _evaluation(limit=2)


def test_an_impossible_option_does_not_spoil_the_file(tmp_path: Path) -> None:
    write(tmp_path, _evaluation(), {"t": [_item("1", logps={"A": -0.5, "B": float("-inf")})]})
    assert read_items(tmp_path, "t") == [_item("1")]


@pytest.mark.parametrize("kill_at", ["items/first.jsonl", "items/second.jsonl", "results.json"])
def test_a_killed_write_leaves_no_summary_of_other_items(
    kill_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    there = run / results.FOLDER / "e"
    write(there, _evaluation(suite="old"), {"first": [_item("old")], "gone": [_item("old")]})
    assert find(run) == [there]
    publish = results.write_whole

    def killed(path: Path, content: bytes) -> None:
        if path == there / kill_at:
            path.with_name(f"{path.name}.123.tmp").write_bytes(content[:5])
            raise KeyboardInterrupt
        publish(path, content)

    new = {"first": [_item("new")], "second": [_item("new")]}
    with monkeypatch.context() as patched:
        patched.setattr(results, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            write(there, _evaluation(suite="new"), new)
    assert find(run) == []
    with pytest.raises(ResultsError, match=r"holds no results\.json: give a directory that `aquila eval run` wrote"):
        read(there)
    write(there, _evaluation(suite="new"), new)
    assert read(there).suite == "new"
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*.*")) == [
        "items/first.jsonl",
        "items/second.jsonl",
        "results.json",
    ]


def test_a_write_that_ends_before_it_begins_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, _evaluation(suite="old"), {"t": [_item("old")]})
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, _evaluation(suite="new"), {"t": [_item("new")]})
    assert read(tmp_path).suite == "old" and read_items(tmp_path, "t") == [_item("old")]


def test_what_is_no_evaluation_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("{")
    with pytest.raises(ResultsError, match=r"results\.json is not JSON"):
        read(tmp_path)
    file.write_text("[]")
    with pytest.raises(ResultsError, match="is not an evaluation of format 1"):
        read(tmp_path)
    file.write_text(json.dumps({**_evaluation().model_dump(mode="json"), "seed": "x"}))
    with pytest.raises(ResultsError, match=r"results\.json: seed: Input should be a valid integer"):
        read(tmp_path)
    with pytest.raises(ResultsError, match=r"t\.jsonl is missing: the evaluation has no items of t"):
        read_items(tmp_path, "t")
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "t.jsonl").write_text("{}\n")
    with pytest.raises(ResultsError, match=r"t.jsonl, line 1: Field required"):
        read_items(tmp_path, "t")
