"""The definitions in lm-eval itself: same strings as ours, same strings as its stock tasks, no network."""

from __future__ import annotations

import logging
import math
import random
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.evaluation.tasks import catalog
from megatron_aquila.evaluation.tasks.harness import chosen_tasks, go_offline, lm_eval_tasks, records
from megatron_aquila.evaluation.tasks.items import item_of
from megatron_aquila.evaluation.tasks.metrics import task_metrics
from megatron_aquila.evaluation.tasks.requests import ShotsError, choice_requests
from tests.megatron_aquila.evaluation.tasks.published import choice, write_jsonl

pytest.importorskip("lm_eval", reason="lm-eval is an extra: pip install 'megatron-aquila[eval]'")
go_offline()

SCORED = [name for name, task in catalog.tasks().items() if task.kind == "log-likelihood"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Whatever reaches out fails the test, even where it catches the refusal."""
    reached: list[object] = []

    def refuse(*args: object, **options: object) -> None:
        reached.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield reached
    assert not reached


def test_the_block_is_seen(no_network: list[object]) -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("203.0.113.1", 80))
    assert no_network
    no_network.clear()


def load(specs: Any, **options: Any) -> dict[str, Any]:
    """Task objects of lm-eval with their requests built, examples drawn as by simple_evaluate."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found: dict[str, Any] = TaskManager(include_defaults=False, **options).load(specs)["tasks"]
    for task in found.values():
        task.set_fewshot_seed(1234)
    return found


@pytest.mark.parametrize("shots", [0, 3])
def test_our_strings_are_those_of_lm_eval(data: Path, shots: int, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load(lm_eval_tasks(SCORED, data, shots))
    assert set(loaded) == set(SCORED)
    for task in chosen_tasks(SCORED):
        loaded[task.name].build_all_requests()
        questions, examples = records(task, data, shots)
        ours = [
            (request.context, continuation, request.id)
            for request in choice_requests(task, questions, examples, shots if task.takes_shots else 0)
            for continuation in request.continuations
        ]
        assert ours == [(*instance.args, instance.doc["id"]) for instance in loaded[task.name].instances]


def stock(name: str) -> tuple[dict[str, Any], Any]:
    """A task's own definition in lm-eval, and its template engine."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml
    from lm_eval.utils import apply_template

    return load_yaml(Path(lm_eval.tasks.__file__).parent / name, resolve_func=False), apply_template


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *((name, f"mmlu/default/{name.removeprefix('aqm_')}.yaml") for name in catalog.groups()["aqm_mmlu"]),
        *((name, f"cmmlu/{name.removeprefix('aqm_')}.yaml") for name in catalog.groups()["aqm_cmmlu"]),
        ("aqm_ceval_basic", "ceval/ceval-valid_basic_medicine.yaml"),
        ("aqm_ceval_clinical", "ceval/ceval-valid_clinical_medicine.yaml"),
        ("aqm_ceval_physician", "ceval/ceval-valid_physician.yaml"),
        ("aqm_ceval_veterinary", "ceval/ceval-valid_veterinary_medicine.yaml"),
    ],
)
def test_prompts_of_subjects_are_the_stock_ones(ours: str, theirs: str) -> None:
    definition, render = stock(theirs)
    row = choice("row", 7)
    letters = {letter: row[letter] for letter in "ABCD"}
    published = {**letters, "question": row["question"], "Question": row["question"], "choices": [*letters.values()]}
    task = catalog.tasks()[ours]
    asked = {"question": row["question"], "options": letters}
    assert task.description == render(definition["description"], published)
    assert task.prompt(asked) == render(definition["doc_to_text"], published)
    assert task.choices is not None and task.choices(asked) == definition["doc_to_choice"]
    assert task.delimiter == definition.get("target_delimiter", " ")
    assert task.draw == "first" and definition["fewshot_config"] == {"sampler": "first_n"}


def test_other_prompts_are_the_stock_ones() -> None:
    from lm_eval.tasks.medmcqa.utils_medmcqa import doc_to_text as medmcqa
    from lm_eval.tasks.medqa.preprocess_medqa import doc_to_text as medqa
    from lm_eval.tasks.pubmedqa.preprocess_pubmedqa import doc_to_text as pubmedqa

    row = choice("row", 8)
    asked = {"question": row["question"], "options": {letter: row[letter] for letter in "ABCD"}}
    ending = {f"ending{n}": row[letter] for n, letter in enumerate("ABCD")}
    op = {f"op{letter.lower()}": row[letter] for letter in "ABCD"}
    contexts = [" one.", "two. "]
    tasks = catalog.tasks()
    assert tasks["aqm_medqa"].prompt(asked) == medqa({"sent1": row["question"], **ending})
    assert tasks["aqm_medmcqa"].prompt(asked) == medmcqa({"question": row["question"], **op})
    abstract = {**asked, "meta": {"contexts": contexts}}
    assert tasks["aqm_pubmedqa"].prompt(abstract) == pubmedqa({"CONTEXTS": contexts, "QUESTION": row["question"]})


def test_plain_lm_eval_finds_the_definitions(data: Path) -> None:
    """As `lm_eval --include_path … --metadata '{"data": …}'`: YAML, its includes and its functions."""
    options = {"include_path": str(catalog.DEFINITIONS), "metadata": {"data": str(data)}}
    loaded = load([*catalog.groups(), "aqm_cmb_exam", "aqm_medqa"], **options)
    assert set(loaded) == {name for group in catalog.groups().values() for name in group} | {
        "aqm_cmb_exam",
        "aqm_medqa",
    }
    task = loaded["aqm_ceval_physician_nospace"]
    assert task.config.target_delimiter == "" and len(task.eval_docs) == 4


def test_cmb_examples_come_from_the_same_examination(data: Path) -> None:
    (task,) = load(lm_eval_tasks(["aqm_cmb_exam"], data, 2)).values()
    task.build_all_requests()
    asked = "以下是中国医师考试中{exam_class}考试的一道{question_type}，不需要做任何分析和解释，直接输出答案选项。\n"
    for instance in task.instances:
        prompt, meta = instance.args[0], instance.doc["meta"]
        assert prompt.count("问：") == 3 and prompt.count("答：答案是") == 2
        assert prompt.count(f"医师考试中{meta['exam_class']}考试") == 3
        options = "\n".join(f"{letter}. {text}" for letter, text in instance.doc["options"].items())
        own = f"{asked.format(**meta)}{instance.doc['question']}\n{options}"
        assert prompt.endswith(f"问：{own}\n答：")
    (task,) = load(lm_eval_tasks(["aqm_cmb_exam"], data, 0)).values()
    task.build_all_requests()
    prompt = task.instances[0].args[0]
    assert prompt.startswith("以下是中国医师考试中规培结业考试的一道多项选择题") and "问：" not in prompt
    assert "\nA. 钙\n" in prompt  # an option of one character, which others lose


class Guesser:
    """Mixed into lm-eval's LM: log-likelihoods and answers made of the request alone."""

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        return [(-random.Random(str(request.args)).random(), False) for request in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return [
            random.Random(request.args[0]).choice(
                ["答案是A、C、D。", "B", "故选C", "B 超", "Some tea", "tea or rest", "D. 丙1"]
            )
            for request in requests
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        raise NotImplementedError


def test_items_score_as_lm_eval_does(data: Path) -> None:
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate
    from sklearn.metrics import accuracy_score, f1_score

    class Model(Guesser, LM):
        pass

    names = ["aqm_pubmedqa", "aqm_medmcqa", "aqm_cmb_exam", "aqm_clinic_words", "aqm_mmlu_anatomy"]
    loaded = load(lm_eval_tasks(names, data, 0))
    found = evaluate(lm=Model(), task_dict={"tasks": loaded, "groups": {}}, bootstrap_iters=0)
    for task in chosen_tasks(names):
        questions, _ = records(task, data)
        samples = found["samples"][task.name]
        items = [item_of(task, questions[sample["doc_id"]], sample) for sample in samples]
        assert [item.id for item in items] == [question["id"] for question in questions]
        assert [float(item.right) for item in items] == [sample["acc"] for sample in samples]
        accuracy = sum(item.right for item in items) / len(items)
        assert math.isclose(accuracy, found["results"][task.name]["acc,none"])
        if task.name == "aqm_pubmedqa":
            truth, said = [item.answer[0] for item in items], [item.said[0] for item in items if item.said]
            assert math.isclose(accuracy, accuracy_score(truth, said))
            assert math.isclose(task_metrics(task, items)["macro_f1"], f1_score(truth, said, average="macro"))
        if task.name == "aqm_cmb_exam":
            assert [float(item.invalid) for item in items] == [sample["invalid"] for sample in samples]
            assert 0 < sum(item.invalid for item in items) < len(items)


def test_a_users_own_questions(tmp_path: Path) -> None:
    rows = []
    for n in range(4):
        row = choice("own", n)
        options = {letter: row[letter] for letter in "ABCD"}
        answer = ["B", "C"] if n == 1 else [row["answer"]]
        rows.append({"question": row["question"], "options": options, "answer": answer})
    write_jsonl(tmp_path / "own.jsonl", rows)
    write_jsonl(tmp_path / "solved.jsonl", [rows[1], rows[0]])
    letters = catalog.questions_task(tmp_path / "own.jsonl", examples=tmp_path / "solved.jsonl")
    cloze = catalog.questions_task(tmp_path / "own.jsonl", "cloze", name="own_cloze")
    assert letters.name == "own" and letters.digest != cloze.digest
    loaded = load(lm_eval_tasks([letters, cloze], None, 2))
    for task in (letters, cloze):
        loaded[task.name].build_all_requests()
        questions, examples = records(task, None, 2)
        ours = choice_requests(task, questions, examples, 2 if task.takes_shots else 0)
        flat = [(request.context, continuation) for request in ours for continuation in request.continuations]
        assert flat == [instance.args for instance in loaded[task.name].instances]
    first = choice_requests(letters, questions, examples, 0)[1]
    assert first.right == {1, 2} and first.continuations == (" A", " B", " C", " D")
    with pytest.raises(ShotsError, match=r"3 examples are asked for and .*solved\.jsonl gives 2"):
        lm_eval_tasks([letters], None, 3)


def test_missing_data_are_named_before_a_model_is_opened(tmp_path: Path) -> None:
    with pytest.raises(
        catalog.AquilaError, match=r"medqa/test.jsonl is missing: fetch the set with `aquila eval fetch"
    ):
        lm_eval_tasks(["aqm_medqa"], tmp_path)
