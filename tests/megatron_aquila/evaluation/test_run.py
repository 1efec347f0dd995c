"""`aquila eval run` from the command to the items on disk, on one rank and on two, against lm-eval's own figures."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.results import Item
from tests import command
from tests.command import aquila_in_ranks
from tests.megatron_aquila.evaluation.tasks import published
from tests.megatron_aquila.release.runs_on_disk import SHAPE, make_run, random_tensors
from tests.world import world

if util.find_spec("lm_eval") is None:  # which takes a second to import
    pytest.skip("needs lm-eval", allow_module_level=True)

_HOW = ("device=cpu", "precision=fp32", "batch_size=4")
_QUESTIONS = [
    {
        "id": f"q{number}",
        "question": f"发热 fever {number}?" if number % 2 else f"cough {number}?",
        "options": {"A": "rest", "B": f"aspirin {number}", "C": "insulin"},
        "answer": ["ABC"[number % 3]],
    }
    for number in range(7)
]
_DIALOGUES = [
    {"messages": [{"role": role, "content": f"{role} {number}"} for role in ("user", "assistant") * (number + 1)]}
    for number in range(2)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run` with a checkpoint, its `export`, `data` with MMLU and CMB-Exam, and files of a user's own."""
    from megatron_aquila.evaluation.tasks.fetch import fetch
    from megatron_aquila.huggingface import export

    place = tmp_path_factory.mktemp("evaluated")
    shape = SHAPE.model_copy(update={"max_position_embeddings": 1024})
    make_run(place / "run", random_tensors(shape), shape=shape, chat_template="chatml")
    export(place / "run", place / "export")
    published.mmlu(place / "mmlu", lambda subject: 3 if subject == "anatomy" else 5)
    published.cmb_exam(place / "cmb_exam", 4, 2)
    for name in ("mmlu", "cmb_exam"):
        fetch(name, str(place / name), place / "data", any_rows=True)
    published.write_jsonl(place / "own.jsonl", _QUESTIONS)
    (place / "packed.jsonl.gz").write_bytes(gzip.compress((place / "own.jsonl").read_bytes()))
    published.write_jsonl(place / "said.jsonl", _DIALOGUES)
    rounds = [{"id": "x", "rounds": [{"user": "fever?", "reference": None}], "case": "a case"}]
    published.write_jsonl(place / "asked.jsonl", rounds)
    return place


def _run(place: Path, *arguments: object, ranks: int = 1, model: str = "run") -> tuple[results.Evaluation, Path, str]:
    """What the command leaves, where, and what it says on standard error."""
    given = ("eval", "run", place / model, *arguments, "--data", place / "data", *_HOW)
    said = aquila_in_ranks(ranks, *given)
    directory = Path(said.stdout.splitlines()[-1])
    return results.read(directory), directory, said.stderr


@pytest.fixture(scope="module")
def choices(place: Path) -> tuple[results.Evaluation, Path, str]:
    return _run(place, "aqm_mmlu", place / "own.jsonl", f"{place}/packed.jsonl.gz:cloze", "shots=3")


def _theirs(place: Path, *arguments: object) -> tuple[results.Evaluation, Path]:
    """As `_run`, by lm-eval's `hf` on the export."""
    given = ("eval", "run", place / "export", *arguments, "--data", place / "data", *_HOW, "backend=hf")
    [(code, stdout, stderr)] = world(1, alone, arguments=[str(argument) for argument in given])
    assert code == 0, stderr
    directory = Path(stdout.splitlines()[-1])
    return results.read(directory), directory


def _leave_world() -> None:
    """accelerate would make a process group of a rank's variables, and leave it."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]


def alone(arguments: list[str]) -> tuple[Any, str, str]:
    """The command in a process that is no rank."""
    with mock.patch.dict(os.environ):
        _leave_world()
        return command._run(arguments)


def _items(directory: Path, name: str) -> list[Item]:
    return results.read_items(directory, name)


def _asked(path: Path) -> list[dict[str, Any]]:
    """Answers without their words: transformers makes other rubbish of bytes that are no text (see test_lm.py)."""
    return [{**json.loads(line), "answer": "", "finished": None} for line in path.read_text("utf-8").splitlines()]


def _same(found: list[Item], wanted: list[Item]) -> None:
    """Alike but for the rounding of log-likelihoods."""
    assert [item.model_copy(update={"logps": None}) for item in found] == [
        item.model_copy(update={"logps": None}) for item in wanted
    ]
    for one, other in zip(found, wanted):
        assert one.logps == (None if other.logps is None else pytest.approx(other.logps, abs=1e-4))


def test_figures_are_those_of_the_items_and_the_files(
    place: Path, choices: tuple[results.Evaluation, Path, str]
) -> None:
    found, directory, _ = choices
    assert directory == place / "run" / "evaluation" / "aqm_mmlu+own+packed-cloze-3-shot-step-10"
    assert (found.model.kind, found.model.step, found.model.chat_template) == ("checkpoint", 10, None)
    assert found.limit is None and found.suite is None
    assert sorted(path.name for path in directory.iterdir()) == ["items", "lock", "results.json"]
    assert sorted(path.stem for path in (directory / "items").iterdir()) == sorted(found.tasks)
    mmlu = [task for name, task in found.tasks.items() if name.startswith("aqm_mmlu_")]
    assert [task.n for task in mmlu] == [3, 5, 5, 5, 5, 5]
    for name, task in found.tasks.items():
        items = _items(directory, name)
        assert (task.n, task.right) == (len(items), sum(item.said == item.answer for item in items))
        assert task.accuracy == task.right / task.n
        for item in items:
            assert item.logps and item.said == (max(item.logps, key=item.logps.__getitem__),)
    assert found.tasks["aqm_mmlu_anatomy"].shots == 3 and found.tasks["packed"].shots == 0
    for name, file in (
        ("own", "own.jsonl"),
        ("packed", "packed.jsonl.gz"),
        ("aqm_mmlu_anatomy", "data/mmlu/test.jsonl"),
    ):
        assert found.tasks[name].data == hashlib.sha256((place / file).read_bytes()).hexdigest()
    group = found.groups["aqm_mmlu"]
    assert group.macro.value == pytest.approx(sum(task.accuracy for task in mmlu) / 6)
    assert group.micro.value == pytest.approx(sum(task.right for task in mmlu) / 28)


@mock.patch.dict(os.environ)
def asked_by_lm_eval(place: Path) -> tuple[dict[str, float], dict[str, list[list[float]]]]:
    """Accuracies and log-likelihoods of simple_evaluate on the export: another model class, and another's sum."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from megatron_aquila.evaluation.tasks.catalog import questions_task
    from megatron_aquila.evaluation.tasks.harness import lm_eval_tasks

    _leave_world()
    own = [questions_task(place / "own.jsonl"), questions_task(place / "packed.jsonl.gz", "cloze", name="packed")]
    asked: Any = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(place / "export"), device="cpu", dtype="float32", batch_size=8),
        tasks=lm_eval_tasks(["aqm_mmlu", *own], place / "data", 3),
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = {name: sorted(found, key=lambda one: one["doc_id"]) for name, found in asked["samples"].items()}
    logps = {name: [[logp for logp, _ in one["filtered_resps"]] for one in found] for name, found in samples.items()}
    return {name: asked["results"][name]["acc,none"] for name in samples}, logps


def test_lm_eval_counts_the_same(place: Path, choices: tuple[results.Evaluation, Path, str]) -> None:
    found, directory, _ = choices
    [(accuracies, logps)] = world(1, asked_by_lm_eval, place=place)
    assert {name: task.accuracy for name, task in found.tasks.items()} == pytest.approx(accuracies)
    for name in found.tasks:
        for item, theirs in zip(_items(directory, name), logps[name], strict=True):
            assert item.logps is not None and [*item.logps.values()] == pytest.approx(theirs, abs=1e-4)
    assert 0 < sum(task.right for task in found.tasks.values()) < 42


def test_two_ranks_find_what_one_finds(place: Path, choices: tuple[results.Evaluation, Path, str]) -> None:
    wanted, directory, _ = choices
    output = place / "two ranks"
    found, there, _ = _run(
        place,
        *("aqm_mmlu", place / "own.jsonl", f"{place}/packed.jsonl.gz:cloze", "shots=3", "--output", output),
        "parallel.tensor_parallel=2",
        ranks=2,
    )
    assert there == output and found.model.layout.startswith("TP2")
    assert found.tasks == wanted.tasks and found.groups == wanted.groups
    assert found.model.digest == wanted.model.digest
    for name in wanted.tasks:
        _same(_items(there, name), _items(directory, name))


def test_words_in_the_chat_template_and_dialogues(place: Path) -> None:
    """Chat with examples, generation, `limit`, and both kinds of dialogue files; ours on the run, hf on the export."""
    what = ("aqm_cmb_exam", "aqm_mmlu_anatomy", place / "said.jsonl", place / "asked.jsonl")
    how = ("chat=true", "shots=2", "limit=2", "max_new_tokens=5")
    ours, directory, _ = _run(place, *what, *how)
    assert directory.name == "aqm_cmb_exam+aqm_mmlu_anatomy+said+asked-2-shot-chat-first-2-step-10"
    assert (ours.limit, ours.max_new_tokens, ours.model.chat_template) == (2, 5, "chatml")
    assert [task.n for task in ours.tasks.values()] == [2, 2]
    assert all("only the first 2 questions were asked" in task.warnings for task in ours.tasks.values())
    theirs, there = _theirs(place, *what, *how)
    assert there == place / "export" / "evaluation" / f"{directory.name.removesuffix('-step-10')}-hf"
    assert list(theirs.tasks) == list(ours.tasks)
    _same(_items(directory, "aqm_mmlu_anatomy"), _items(there, "aqm_mmlu_anatomy"))
    written = _items(directory, "aqm_cmb_exam")
    assert [item.id for item in written] == [item.id for item in _items(there, "aqm_cmb_exam")]
    assert all(item.text and item.logps is None for item in written)
    assert ours.dialogues == theirs.dialogues == {"said": 3, "asked": 1}
    for name in ours.dialogues:
        rows, others = (_asked(where / "answers" / f"{name}.jsonl") for where in (directory, there))
        assert rows == others
    assert rows[0]["messages"][0]["content"].endswith("a case\nfever?") and rows[0]["lang"] == ""


def test_an_evaluation_is_replaced_by_one_of_the_same_model_only(place: Path) -> None:
    output = place / "again"
    given = ("eval", "run", place / "run", "--data", place / "data", "--output", output, *_HOW)
    aquila_in_ranks(1, *given, "aqm_mmlu_anatomy", "aqm_mmlu_college_biology")
    aquila_in_ranks(1, *given, place / "own.jsonl")
    assert [path.stem for path in (output / "items").iterdir()] == ["own"]
    before = (output / "results.json").read_bytes()
    make_run(place / "other", random_tensors(seed=1))
    with pytest.raises(AssertionError, match=r"again holds an evaluation of other weights \(run\): give another"):
        aquila_in_ranks(1, *("eval", "run", place / "other", place / "own.jsonl", "--output", output, *_HOW))
    with pytest.raises(AssertionError, match="again holds an evaluation of precision fp32, not bf16"):
        aquila_in_ranks(1, *given, place / "own.jsonl", "precision=bf16")
    assert (output / "results.json").read_bytes() == before


def offline(arguments: list[str]) -> tuple[Any, str, str, dict[str, str | None]]:
    """The command where no address outside of this machine can be reached."""
    reach = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"the network was reached for: {address}")
        reach(self, address)

    def resolve(host: Any, *others: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None, socket.gethostname()):
            raise AssertionError(f"a name was looked up: {host}")
        return found(host, *others, **more)

    found = socket.getaddrinfo
    with (
        mock.patch.object(socket.socket, "connect", connect),
        mock.patch.object(socket, "getaddrinfo", resolve),
        mock.patch.dict(os.environ),
    ):
        _leave_world()
        os.environ.pop("TQDM_DISABLE", None)
        code, stdout, stderr = command._run(arguments)
        variables = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "TQDM_DISABLE")
        return code, stdout, stderr, {name: os.environ.get(name) for name in variables}


@pytest.mark.parametrize("backend", ["aquila", "hf"])
def test_no_network_and_no_progress_bar_in_a_log(backend: str, place: Path) -> None:
    given = [*("eval", "run", str(place / "export"), str(place / "own.jsonl"), f"backend={backend}", *_HOW)]
    given += ["--output", str(place / f"offline {backend}")]
    [(code, stdout, stderr, variables)] = world(1, offline, arguments=given)
    assert code == 0, stderr
    assert set(variables.values()) == {"1"}
    assert "requests" not in stderr and "Tokenizing" not in stderr and "git" not in stderr, stderr
    assert stdout.splitlines()[-1] == str(place / f"offline {backend}")


def vanishing(arguments: list[str], data: str) -> tuple[Any, str, str]:
    """The command; rank 0 loses the questions between the check and lm-eval's look at them."""
    from megatron_aquila.evaluation import run

    ask = run._ask

    def without(*given: Any) -> Mapping[str, Any]:
        Path(data).unlink()
        return ask(*given)

    assert os.environ["WORLD_SIZE"] == "2"
    with mock.patch.object(run, "_ask", without):
        return command._run(arguments)


def test_all_ranks_end_when_the_questions_vanish(place: Path) -> None:
    data = place / "vanishing.jsonl"
    published.write_jsonl(data, _QUESTIONS)
    output = place / "never"
    given = ["eval", "run", str(place / "run"), str(data), "--output", str(output), "parallel.tensor_parallel=2", *_HOW]
    (first, _, said), (second, _, echoed) = world(2, vanishing, arguments=given, data=str(data))
    assert (first, second) == (2, 2)
    assert said == f"aquila: there is no file of questions {data}\n"
    assert echoed.startswith("[rank 1] aquila: the evaluation was given up, because rank 0 failed: ")
    assert not (output / "results.json").exists()


def failing_midway(run: str) -> tuple[str, str]:
    """What a rank ends with, when rank 0 alone fails while answers are being written."""
    from megatron_aquila.config import ParallelConfig
    from megatron_aquila.engine.generation import Decoding
    from megatron_aquila.errors import AquilaError
    from megatron_aquila.evaluation.lm import AquilaLM

    def stop(index: int, ids: list[int]) -> bool:
        raise ValueError("a bug")

    parallel = ParallelConfig(tensor_parallel=2)
    try:
        with AquilaLM.open(Path(run), parallel=parallel, precision="fp32", device="cpu") as lm:
            if not lm.is_main:
                lm.serve()
            lm.server.generate([[1, 5, 7]], [Decoding(max_new_tokens=5, stop_ids=frozenset())], stop)
    except (RuntimeError, AquilaError) as error:
        return type(error).__name__, str(error)
    return "no error", ""


def test_nobody_waits_for_a_rank_0_that_failed_in_the_midst_of_an_answer(place: Path) -> None:
    first, second = world(2, failing_midway, run=str(place / "run"))
    assert first == ("RuntimeError", "whether answer 0 ends could not be told: a bug")
    assert second[0] == "ServingError" and "another rank ended in the midst of an answer" in second[1]
