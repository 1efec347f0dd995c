"""What `aquila eval run` refuses: in a sentence, once, and before a rank is started or a model opened."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megatron_aquila import cli, launch
from tests.data_tools.one_thread import one_thread  # noqa: F401 (a fixture)
from tests.megatron_aquila.evaluation.tasks import published
from tests.megatron_aquila.release.runs_on_disk import make_run, random_tensors

_QUESTION = {"question": "fever?", "options": {"A": "rest", "B": "aspirin"}, "answer": ["A"]}
_TP2 = "parallel.tensor_parallel=2"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`, a run on text, and its `export`; `own.jsonl`."""
    from megatron_aquila.huggingface import export

    place = tmp_path_factory.mktemp("refused")
    make_run(place / "plain", random_tensors())
    export(place / "plain", place / "export")
    published.write_jsonl(place / "own.jsonl", [_QUESTION])
    published.write_jsonl(place / "said.jsonl", [{"id": "x", "rounds": [{"user": "fever?"}]}])
    (place / "results").mkdir()
    (place / "results" / "thesis.tex").write_text("")
    return place


class _StartedError(Exception):
    """Ranks were about to start."""


def _aquila(*arguments: str) -> int:
    """The exit status of the command; ranks are not started."""

    def run_processes(*_: Any) -> int:
        raise _StartedError

    with (
        mock.patch.object(sys, "argv", ["aquila", "eval", "run", *arguments]),
        mock.patch.object(launch, "run_processes", run_processes),
        mock.patch.dict(os.environ),
    ):
        for name in ("RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)


REFUSED: dict[str, tuple[str, str]] = {
    "no model": ("nowhere own.jsonl", "nowhere does not exist: give a run, a checkpoint, or a Hugging Face directory"),
    "no task": ("plain", "say what to ask: a task, a group, a file of questions, or --suite"),
    "unknown suite": ("plain --suite paper", "there is no suite 'paper': choose out of paper-cpt, paper-chat"),
    "unknown task": ("plain aqm_medqua", "did you mean aqm_medqa"),
    "missing set": ("plain aqm_medqa", "fetch the set with `aquila eval fetch medqa --from … --data data/evaluation`"),
    "unknown key": ("plain own.jsonl shot=3", "override: shot is unknown; did you mean shots?"),
    "unlike any key": ("plain own.jsonl zzz=3", "override: zzz is unknown; see `aquila eval settings`"),
    "wrong value": ("plain own.jsonl precision=int4", "precision is 'int4': Input should be 'fp32', 'bf16' or 'fp16'"),
    "virtual pipeline": (
        "plain own.jsonl parallel.virtual_pipeline=2 parallel.pipeline_parallel=2",
        "parallel.virtual_pipeline is for training",
    ),
    "no template": ("plain own.jsonl chat=true", "no chat template, which chat=true needs: say chat=false"),
    "no template for dialogues": ("plain said.jsonl", "which the dialogue set said needs: evaluate a fine-tuned model"),
    "no template in hf": ("export own.jsonl chat=true backend=hf", "no chat template, which chat=true needs"),
    "hf of a run": ("plain own.jsonl backend=hf", "no Hugging Face directory, which backend=hf needs: make one"),
    "vllm": ("export own.jsonl backend=vllm", "backend=vllm needs vllm, which is not installed: pip install vllm"),
    "hf divided": (f"export own.jsonl backend=hf {_TP2}", "the backend hf divides no model here"),
    "layout": ("plain own.jsonl parallel.tensor_parallel=3", "num_attention_heads 4 is not a multiple of parallel"),
    "other files": (f"plain own.jsonl {_TP2} --output results", "results holds other files (thesis.tex)"),
    "output is a file": ("plain own.jsonl --output own.jsonl", "own.jsonl is a file: give another --output"),
    "output in a file": ("plain own.jsonl --output own.jsonl/x", "x cannot be written: give a directory of your own"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("one_thread")
def test_what_cannot_be_is_said_before_anything_starts(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    arguments, sentence = REFUSED[case]
    before = sorted(place.rglob("*"))
    found = util.find_spec
    with (
        mock.patch.object(util, "find_spec", lambda name: None if name == "vllm" else found(name)),
        mock.patch.dict(sys.modules, {"megatron_aquila.evaluation.lm": None}),  # whose import opening begins with
    ):
        assert _aquila(*arguments.split(), "device=cpu") == cli.USER_ERROR
    said, error = capsys.readouterr()
    assert said == "" and sentence in error
    assert error.startswith("aquila: ") and error.count("aquila: ") == 1
    assert sorted(place.rglob("*")) == before


def test_without_lm_eval_a_sentence_says_how_to_get_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = metadata.version

    def missing(name: str) -> str:
        if name == "lm-eval":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert _aquila(str(place / "plain"), str(place / "own.jsonl")) == cli.USER_ERROR
    assert capsys.readouterr().err == "aquila: evaluation needs lm-eval: pip install 'megatron-aquila[eval]'\n"


def test_ranks_start_once_everything_is_found(place: Path) -> None:
    with pytest.raises(_StartedError):
        _aquila(str(place / "plain"), str(place / "own.jsonl"), "device=cpu", _TP2)


def test_a_file_whose_name_has_an_equals_sign_is_no_setting(place: Path) -> None:
    file = place / "shots=3.jsonl"
    published.write_jsonl(file, [_QUESTION])
    with pytest.raises(_StartedError):
        _aquila(str(place / "plain"), str(file), "device=cpu", _TP2)
    file.unlink()


@pytest.mark.parametrize("arguments", ["eval --help", "eval run --help", "eval tasks"])
def test_what_it_says_of_itself_fits_a_terminal(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["aquila", *arguments.split()])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    if arguments == "eval tasks":
        assert re.search(r"^  aqm_cmmlu_traditional_chinese_medicine_nospace +185  log-likelihood$", said, re.MULTILINE)
