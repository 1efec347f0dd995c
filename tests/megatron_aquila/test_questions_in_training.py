"""Questions while training: right scores on every layout, a training that they leave as it was, and an alarm."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

from data_tools.clinic import continuations
from data_tools.manifest import manifest_path
from data_tools.tokenizers import Tokenizer, load_tokenizer
from megatron_aquila import events, metrics
from megatron_aquila.checkpoint import open_checkpoint
from megatron_aquila.config_evaluation import EvaluationConfig, QuestionSet
from megatron_aquila.errors import AquilaError, ConfigError
from megatron_aquila.evaluation.questions import load_set, probability, standing, steps_of
from megatron_aquila.evaluation.results import Item, read_item_file
from megatron_aquila.huggingface import export
from tests.megatron_aquila.corpora import recipe
from tests.megatron_aquila.test_resume import losses, run_training, weights
from tests.world import world

Record = dict[str, Any]
# Dropout is on: were a random number drawn, or were it off after the questions, the losses would differ.
CLINIC_QUESTIONS, GENERAL_QUESTIONS = 8, 24
SHORT: Record = {"training__steps": 4, "evaluation__every": 0, "checkpoint__every": 2, "data__sequence_length": 64}


def asked(corpus: Path, **changes: Any) -> Record:
    sets = [
        {
            "name": "clinic",
            "path": str(corpus / "text" / "questions.jsonl"),
            "form": "cloze",
            "limit": CLINIC_QUESTIONS,
        },
        {"name": "general", "kind": "general", "path": str(corpus / "text" / "general_questions.jsonl")}
        | {"form": "cloze", "limit": GENERAL_QUESTIONS},
    ]
    return {"evaluation__questions": sets, "evaluation__questions_every": 2, **changes}


def items(output: Path, name: str, step: int) -> list[Item]:
    return read_item_file(output / "questions" / f"{name}-step-{step}.jsonl")


LAYOUTS: dict[str, tuple[int, Record]] = {
    "one": (1, {"parallel__sharding": "none"}),
    "TP2+SP": (2, {"parallel__tensor_parallel": 2, "parallel__sequence_parallel": True}),
    "PP2×VPP2": (2, {"parallel__pipeline_parallel": 2, "parallel__virtual_pipeline": 2}),
    "DP2 full": (2, {"parallel__sharding": "full"}),
    "DP2 overlap": (2, {"parallel__overlap_grad_reduce": True, "parallel__overlap_param_gather": True}),
}


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with questions, on one rank."""
    output = tmp_path_factory.mktemp("questions") / "alone"
    size, changes = LAYOUTS["one"]
    world(size, run_training, corpus=str(corpus), output=str(output), **SHORT, **changes, **asked(corpus))
    return output


@pytest.mark.parametrize("name", LAYOUTS)
def test_questions_leave_training_as_it_was_and_score_alike(
    name: str, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    """Losses and weights bit by bit."""
    size, changes = LAYOUTS[name]
    without, questioned = tmp_path / "without", alone
    world(size, run_training, corpus=str(corpus), output=str(without), **SHORT, **changes)
    if name != "one":
        questioned = tmp_path / "questioned"
        world(size, run_training, corpus=str(corpus), output=str(questioned), **SHORT, **changes, **asked(corpus))
    assert_same_training(questioned, without)
    assert not (without / "questions").exists()
    for which in ("clinic", "general"):
        for one, other in zip(items(questioned, which, 0), items(alone, which, 0), strict=True):
            assert one.logps == pytest.approx(other.logps, abs=1e-4)


def test_a_resumed_run_goes_on_as_it_would_have_and_asks_the_start_once(
    corpus: Path, alone: Path, tmp_path: Path
) -> None:
    """As if it had been killed between step 2 and step 4."""
    output = tmp_path / "killed"
    shutil.copytree(alone, output)
    shutil.rmtree(output / "checkpoints" / "step-00000004")
    start = (output / "questions" / "general-step-0.jsonl").stat().st_mtime_ns
    world(1, run_training, corpus=str(corpus), output=str(output), **SHORT, **LAYOUTS["one"][1], **asked(corpus))
    assert_same_training(output, alone)
    for path in (alone / "questions").iterdir():
        assert (output / "questions" / path.name).read_bytes() == path.read_bytes()
    assert list(steps_of(output / "questions", "general")) == [0, 2, 4]
    assert (output / "questions" / "general-step-0.jsonl").stat().st_mtime_ns == start
    happened = [event["step"] for event in events.read(output / events.FILE) if event["event"] == "questions"]
    assert happened == [0, 2, 4, 4]
    reports = [
        record["step"] for record in metrics.read(output / metrics.FILE) if "questions/clinic/accuracy" in record
    ]
    assert reports == [0, 2, 4]


def assert_same_training(one: Path, other: Path) -> None:
    assert losses(one) == losses(other) and len(losses(other)) == 4
    expected = weights(other)
    for key, value in weights(one).items():
        assert torch.equal(value, expected[key]), key


def stopped_in_questions(corpus: str, output: str, step: int, **changes: Any) -> str:
    """Train; the last rank gets a signal when the second part of the questions of `step` is scored."""
    from unittest import mock

    from megatron_aquila.engine import scoring
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world
    from megatron_aquila.evaluation import questions
    from megatron_aquila.resilience.signals import Stopped, StopSignals
    from megatron_aquila.trainer import Trainer

    run = recipe(Path(corpus), Path(output), **changes)
    with parallel_world(run, choose_device("cpu")) as layout:
        signals = StopSignals()
        trainer = Trainer(run, torch.device("cpu"), layout, signals)
        parts, score = 0, scoring.score

        def scored(*arguments: Any, **options: Any) -> Any:
            nonlocal parts
            parts += trainer.step == step
            if parts == 2 and layout.rank == layout.world_size - 1:
                signals.received = "SIGUSR1"
            return score(*arguments, **options)

        in_parts = mock.patch.multiple(questions, _PART=8), mock.patch.multiple(scoring, score=scored)
        with in_parts[0], in_parts[1], pytest.raises(Stopped) as stopped:
            trainer.run()
        trainer.close()
        assert parts == 2, "of four"
        return str(stopped.value)


@pytest.mark.parametrize(("step", "saved"), [(0, []), (2, [2])])
def test_a_signal_breaks_them_off_and_they_are_put_again(
    step: int, saved: list[int], corpus: Path, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    settings = {"corpus": str(corpus), "output": str(output), **SHORT, **LAYOUTS["one"][1], **asked(corpus)}
    [said] = world(1, stopped_in_questions, step=step, **settings)
    assert f"stopped by SIGUSR1 after step {step} of 4" in said
    assert sorted(int(path.name[5:]) for path in (output / "checkpoints").glob("step-*")) == saved
    assert list(steps_of(output / "questions", "general")) == [0] * bool(step)
    world(1, run_training, **settings)
    assert list(steps_of(output / "questions", "general")) == [0, 2, 4]
    assert losses(output) == losses(alone)
    for path in (alone / "questions").glob("*step-[24].jsonl"):
        assert (output / "questions" / path.name).read_bytes() == path.read_bytes()


def test_scores_are_those_of_transformers_on_the_export(corpus: Path, alone: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(export(alone, tmp_path / "export"), dtype=torch.float32).eval()
    tokenizer = load_tokenizer(corpus / "tokenizer")
    for name, file in (("clinic", "questions"), ("general", "general_questions")):
        records = {
            record["id"]: record
            for record in map(json.loads, (corpus / "text" / f"{file}.jsonl").read_text("utf-8").splitlines())
        }
        found = items(alone, name, 4)
        expected = {"clinic": CLINIC_QUESTIONS, "general": GENERAL_QUESTIONS}[name]
        assert len({item.id for item in found}) == len(found) == expected
        right, shares = [], []
        for item in found:
            record = records[item.id]
            logps = oracle(model, tokenizer, record["question"], list(continuations(record).values()))
            assert list((item.logps or {}).values()) == pytest.approx(logps, abs=1e-4)
            place = list(record["options"]).index(record["answer"][0])
            right.append(max(logps) == logps[place])
            shares.append(torch.tensor(logps).softmax(0)[place].item())
        assert [item.right for item in found] == right
        clusters = [(records[item.id].get("meta") or {}).get("cluster", item.id) for item in found]
        assert [item.cluster for item in found] == clusters
        reports = [record for record in metrics.read(alone / metrics.FILE) if f"questions/{name}/accuracy" in record]
        logged = {record["step"]: record for record in reports}
        assert list(logged) == [0, 2, 4]
        assert logged[4][f"questions/{name}/accuracy"] == pytest.approx(sum(right) / len(right))
        assert logged[4][f"questions/{name}/probability"] == pytest.approx(sum(shares) / len(shares), abs=1e-5)


def oracle(model: Any, tokenizer: Tokenizer, context: str, options: Sequence[str]) -> list[float]:
    """Log-likelihoods, one forward an option; the option's tokens are what the whole has more than the context."""
    start = len(tokenizer.encode_batch([context])[0])
    logps = []
    for option in options:
        ids = torch.tensor(tokenizer.encode_batch([context + option])[0].tolist())
        with torch.no_grad():
            every = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)
        logps.append(every[start - 1 :].sum().item())
    return logps


def test_a_run_that_forgets_is_stopped_and_can_go_on(corpus: Path, alone: Path, tmp_path: Path) -> None:
    """The questions are such that the model at the start answers all of them right."""
    said = {item.id: item.said for item in items(alone, "general", 0)}
    path = tmp_path / "known.jsonl"
    lines = (corpus / "text" / "general_questions.jsonl").read_text("utf-8").splitlines()
    known = [{**record, "answer": said[record["id"]]} for record in map(json.loads, lines) if record["id"] in said]
    known = [{**record, "meta": {}} for record in known]
    path.write_text("".join(json.dumps(record) + "\n" for record in known), encoding="utf-8")
    output = tmp_path / "run"
    sets = [{"name": kind, "kind": kind, "path": str(path), "form": "cloze"} for kind in ("general", "medical")]
    changes = {**SHORT, **LAYOUTS["one"][1], "evaluation__questions": sets, "evaluation__questions_every": 3}
    changes |= {"training__steps": 6, "checkpoint__every": 100, "optimizer__lr": 0.1}
    (stop,) = world(1, stopped, corpus=str(corpus), output=str(output), **changes, evaluation__halt_when_worse=True)
    assert re.search(r"stopped at step 3, which is saved: general: .*worse \(p (0\.|below)", stop)
    assert "medical: " not in stop, "only general ability is guarded"
    assert open_checkpoint(output).step == 3
    warnings = [event for event in events.read(output / events.FILE) if event["event"] == "warning"]
    assert [event["step"] for event in warnings] == [3] and "(start 100.0 %): worse" in warnings[0]["message"]
    right = [item.right for item in items(output, "general", 3)]
    assert warnings[0]["message"].startswith(f"general: {100 * sum(right) / len(right):.1f} %")
    assert binomtest(right.count(False), right.count(False)).pvalue < 0.01

    world(1, run_training, corpus=str(corpus), output=str(output), **changes)
    assert open_checkpoint(output).step == 6
    assert list(steps_of(output / "questions", "general")) == [0, 3, 6]

    asked_otherwise = [{**known[0], "question": "Something else"}, *known[1:]]
    path.write_text("".join(json.dumps(record) + "\n" for record in asked_otherwise), encoding="utf-8")
    (stop,) = world(1, stopped, corpus=str(corpus), output=str(output), **changes)
    assert "gives other questions than those that the set general had at the start" in stop


def stopped(corpus: str, output: str, **changes: Any) -> str:
    """Why training stopped. (An error that leaves a rank ends its process, and the next one takes seconds.)"""
    with pytest.raises(AquilaError) as stop:
        run_training(corpus, output, **changes)
    return str(stop.value)


def test_manifests_of_the_data_are_kept_with_the_run(corpus: Path, alone: Path) -> None:
    kept = {path.name: path.read_bytes() for path in (alone / "data").iterdir()}
    assert kept == {
        f"train-{number}.manifest.json": manifest_path(corpus / name).read_bytes()
        for number, name in enumerate(("medical", "general"))
    }


def scored(rights: str, clusters: Sequence[str] | None = None) -> list[Item]:
    """Items right where there is an x."""
    return [
        Item(id=str(i), cluster=clusters[i] if clusters else str(i), right=mark == "x", answer=("A",), said=("A",))
        for i, mark in enumerate(rights)
    ]


GENERAL = QuestionSet(name="general", path=Path("q.jsonl"), kind="general")


@pytest.mark.parametrize(
    ("start", "now", "expected"),
    [
        ("x" * 30, "x" * 20 + "." * 10, "worse"),
        ("x" * 20 + "." * 10, "x" * 30, "better"),
        ("x" * 30, "x" * 24 + "." * 6, "not distinguishable"),
        ("x" * 15 + "." * 15, "." * 6 + "x" * 15 + "." * 9, "not distinguishable"),
        ("x" * 30, "x" * 30, "not distinguishable"),
    ],
)
def test_what_is_said_beside_the_start(start: str, now: str, expected: str) -> None:
    """p is the binomial's over the questions that changed; 6 of 6 are not enough at 1 %."""
    found = standing(GENERAL, scored(now), scored(start))
    lost = sum(a == "x" and b == "." for a, b in zip(start, now))
    won = sum(a == "." and b == "x" for a, b in zip(start, now))
    assert found.p == pytest.approx(binomtest(lost, lost + won).pvalue if lost + won else 1.0)
    assert found.verdict == expected
    assert found.is_alarm == (expected == "worse")
    medical = standing(GENERAL.model_copy(update={"kind": "medical"}), scored(now), scored(start))
    assert not medical.is_alarm and medical.verdict == expected


def test_questions_of_one_text_are_one_piece_of_evidence() -> None:
    """Ten lost questions of one text say less than ten of ten texts."""
    start, now = "x" * 30, "x" * 20 + "." * 10
    clusters = [*map(str, range(20)), *["one text"] * 10]
    assert standing(GENERAL, scored(now, clusters), scored(start, clusters)).verdict == "not distinguishable"


def test_the_line_on_the_terminal() -> None:
    assert str(standing(GENERAL, scored("x" * 16 + "." * 9), None)) == "general: 64.0 % of 25 questions at the start"
    found = standing(GENERAL, scored("x" * 17 + "." * 8), scored("x" * 25))
    assert str(found) == "general: 68.0 % (start 100.0 %): worse (p 0.008)"


def test_the_share_of_the_right_option_by_hand() -> None:
    """e⁻¹⁰⁰⁰ and twice that: a third and two thirds, where a naive softmax divides zero by zero."""
    item = Item(id="1", cluster="1", right=True, answer=("B",), said=("B",), logps={"A": -1000.0, "B": -999.30685})
    assert probability(item) == pytest.approx(2 / 3, abs=1e-5)
    invalid = Item(id="1", cluster="1", right=False, invalid=True, answer=("B",), said=None)
    assert probability(invalid) == 0


def test_when_questions_are_put() -> None:
    def steps(**keys: Any) -> list[int]:
        config = EvaluationConfig(questions=(GENERAL,), **keys)
        return [step for step in range(1, 11) if config.asks_at(step, 10)]

    assert steps(every=4, batches=1) == [4, 8, 10]
    assert steps(every=4, batches=1, questions_every=5) == [5, 10]
    assert steps(every=4, batches=1, questions_every=0) == steps(every=0) == [10]
    assert not EvaluationConfig(every=1).asks_at(1, 1)


QUESTION: Record = {"id": "1", "question": "One and one is", "options": {"A": "two", "B": "three"}, "answer": ["A"]}


@pytest.mark.parametrize(
    ("lines", "settings", "sentence"),
    [
        (None, {}, r"questions: .*q\.jsonl"),
        ([QUESTION, QUESTION], {}, "line 2: .*'1'"),
        ([{**QUESTION, "options": {"A": "two"}}], {}, "line 1: "),
        (
            [{"id": "1", "messages": [{"role": "user", "content": "?"}], "answer": "a", "values": ["a"]}],
            {},
            "no options",
        ),
        ([{**QUESTION, "question": "word " * 80}], {}, r"question 1 has \d+ tokens .* holds 64"),
        ([QUESTION], {"shots": 2, "examples": True}, "2 examples are asked for and .* gives 1"),
    ],
)
def test_sets_that_cannot_be_asked_are_refused(
    lines: list[Record] | None, settings: Record, sentence: str, corpus: Path, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    if lines is not None:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if settings.get("examples"):
        settings = {**settings, "examples": path}
    with pytest.raises(ConfigError, match=sentence):
        load_set(QuestionSet(name="q", path=path, **settings), load_tokenizer(corpus / "tokenizer"), 64)


def test_examples_stand_before_a_question_of_letters(corpus: Path, tmp_path: Path) -> None:
    path, examples = tmp_path / "q.jsonl", tmp_path / "e.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n", encoding="utf-8")
    shown = {**QUESTION, "id": "2", "question": "Two and two is", "options": {"A": "four", "B": "five"}}
    examples.write_text(json.dumps(shown) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(corpus / "tokenizer")
    settings = QuestionSet(name="q", path=path, shots=1, examples=examples)
    (found,) = load_set(settings, tokenizer, 200)
    assert [tokenizer.decode([*context, *option]).strip() for context, option in found.pairs] == [
        "Two and two is\nA. four\nB. five\nAnswer: A\n\nOne and one is\nA. two\nB. three\nAnswer: " + letter
        for letter in "AB"
    ]


def test_a_draw_is_the_same_for_every_run(corpus: Path) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer")
    path = corpus / "text" / "questions.jsonl"
    draws = [load_set(QuestionSet(name="q", path=path, form="cloze", limit=20), tokenizer, 64) for _ in range(2)]
    one, two = ([question.record["id"] for question in draw] for draw in draws)
    every = [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]
    assert one == two == [name for name in every if name in set(one)] and len(one) == 20 < len(every)
    assert one != every[:20]
