"""The tasks that ship, read from the YAML definitions that lm-eval reads too, and those of a user's own questions.

A *task* has a name of ours; a *group* is a list of tasks, averaged; a *suite* is what a table of the paper asks, with
its shots. Nothing here needs lm-eval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.tasks import extraction, hooks
from megatron_aquila.evaluation.tasks.draws import Draw

DEFINITIONS = Path(__file__).parent / "definitions"
"""For `lm_eval --include_path`."""

Doc = Mapping[str, Any]
Kind = Literal["log-likelihood", "generation"]
Form = Literal["letters", "cloze"]

_FUNCTION = "!function"
_HOOKS = hooks.__name__ + "."
_KINDS: dict[str, Kind] = {"multiple_choice": "log-likelihood", "generate_until": "generation"}
_PROBE: dict[str, Any] = {
    "id": "probe",
    "question": " a question? ",
    "options": {"A": "one", "B": "two "},
    "answer": ["B"],
    "messages": [{"role": "user", "content": "a message"}],
    "meta": {
        "contexts": ["first", "second"],
        "exam_type": "type",
        "exam_class": "class",
        "question_type": "kind",
        "subject": "type/class",
    },
}


class UnknownTaskError(AquilaError):
    """A name is neither a task nor a group, a suite or a dialogue set."""


@dataclass(frozen=True)
class Task:
    """What is asked, of which records, and how.

    Attributes:
        set, split, examples, subject: which records of the data directory; `file`, `examples_file`: files instead.
        draw: which of the examples stand before a question.
        rows: how many questions the published set has; None: any number.
        prompt: the question as text; `choices`: what may follow it (log-likelihood), each after `delimiter`.
        config: the definition as lm-eval takes it; functions stand as their dotted names.
        digest: SHA-256 of the definition, of what its functions make of a fixed record, and of how answers are read.
        metrics: further metrics (`metrics.task_metrics`).
    """

    name: str
    group: str | None
    kind: Kind
    set: str
    split: str
    examples: str | None
    subject: str | None
    rows: int | None
    draw: Draw
    description: str
    delimiter: str
    fixed_shots: int | None
    prompt: Callable[[Doc], str]
    choices: Callable[[Doc], list[str]] | None
    config: Mapping[str, Any]
    digest: str
    metrics: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    file: Path | None = None
    examples_file: Path | None = None

    @property
    def takes_shots(self) -> bool:
        """Whether examples may stand before its questions."""
        return self.fixed_shots is None or "examples_shown" in self.config["dataset_kwargs"]

    @property
    def language(self) -> str:
        return str(self.config["metadata"].get("language", ""))


@dataclass(frozen=True)
class DialogueSet:
    """Questions that are answered in words and judged: `aquila judge`.

    Attributes:
        rows: dialogues of the published set; judge: how the paper judges them, rounds or pairs.
    """

    name: str
    set: str
    split: str
    rows: int
    judge: Literal["rubric", "pair"]
    about: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """Which groups and tasks a table of the paper holds, and how they are asked."""

    name: str
    members: tuple[str, ...]
    shots: int
    chat_template: bool
    about: str


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "paper-cpt",
            ("aqm_mmlu", "aqm_ceval", "aqm_medqa", "aqm_medmcqa", "aqm_pubmedqa"),
            3,
            False,
            "base models, Table 1 of Aquila-Med: log-likelihood of the options, three examples, no chat template",
        ),
        Suite(
            "paper-chat",
            ("aqm_mmlu", "aqm_ceval", "aqm_cmb_exam"),
            0,
            True,
            "fine-tuned models, Table 2: no examples, in the chat template; CMB-Exam is answered in words",
        ),
    )
}

DIALOGUE_SETS = {
    found.name: found
    for found in (
        DialogueSet(
            "aqm_cmb_clin", "cmb_clin", "test", 74, "rubric", "CMB-Clin: cases, each with up to four questions"
        ),
        DialogueSet(
            "aqm_cmtmedqa",
            "cmtmedqa",
            "test",
            1000,
            "rubric",
            "CMtMedQA: 4,552 rounds in 1,000 dialogues",
            ("the file's 144 safety questions are the set aqm_cmtmedqa_safety",),
        ),
        DialogueSet(
            "aqm_cmtmedqa_safety", "cmtmedqa", "safety", 144, "rubric", "CMtMedQA: questions that should be declined"
        ),
        DialogueSet(
            "aqm_huatuo_pair",
            "huatuo",
            "test",
            500,
            "pair",
            "Huatuo-26M: 500 of 6,000 questions, drawn over hashes of their content",
            ("the paper does not say which 500 it drew",),
        ),
    )
}


@cache
def tasks() -> dict[str, Task]:
    """Every task that ships, by name."""
    found = (_task(_definition(path)) for path in sorted(DEFINITIONS.glob("aqm_*.yaml")))
    return {task.name: task for task in found}


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Group → its tasks, in the order of the definition."""
    read = (_definition(path) for path in sorted(DEFINITIONS.glob("group_*.yaml")))
    return {definition["group"]: tuple(definition["task"]) for definition in read}


def expand(names: Iterable[str]) -> list[Task]:
    """The tasks that names of tasks, groups and suites stand for, each once, in order.

    Raises:
        UnknownTaskError: a name is none of these.
    """
    found: dict[str, Task] = {}
    for name in names:
        if name in SUITES:
            found |= {task.name: task for task in expand(SUITES[name].members)}
        elif name in groups():
            found |= {member: tasks()[member] for member in groups()[name]}
        elif name in tasks():
            found[name] = tasks()[name]
        else:
            known = sorted({*SUITES, *groups(), *tasks()})
            judged = name in DIALOGUE_SETS
            hint = "is a dialogue set, which the judge scores" if judged else "is no task, group or suite"
            raise UnknownTaskError(f"{name!r} {hint}: choose out of {', '.join(known)}")
    return list(found.values())


def questions_task(
    path: Path, form: Form = "letters", *, examples: Path | None = None, name: str | None = None
) -> Task:
    """A user's own file of questions (records of `data_tools.records.Question`) as a task.

    Args:
        form: `letters`: options A, B, … are shown, and the letter is scored, as in MMLU or (Chinese) C-Eval; `cloze`:
            the question is the beginning of a sentence, and the options are scored as its ends.
        examples: a file of solved questions for shots.
    """
    definition: dict[str, Any] = {
        "task": name or path.name.removesuffix("".join(path.suffixes)) or path.name,
        "custom_dataset": _HOOKS + "dataset",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_target": _HOOKS + "right_indices",
        "dataset_kwargs": {"file": str(path.resolve())},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    prompt, choices = ("letters", "letter_choices") if form == "letters" else ("cloze", "cloze_choices")
    definition |= {"doc_to_text": _HOOKS + prompt, "doc_to_choice": _HOOKS + choices}
    if form == "cloze":
        definition |= {"target_delimiter": "", "num_fewshot": 0}
    elif examples is not None:
        definition["dataset_kwargs"]["examples_file"] = str(examples.resolve())
        definition |= {
            "fewshot_split": "examples",
            "fewshot_config": {"sampler": "first_n", "doc_to_target": _HOOKS + "first_right_letter"},
        }
    else:
        definition["num_fewshot"] = 0
    return _task(definition, file=path, examples_file=examples)


def _task(definition: Mapping[str, Any], file: Path | None = None, examples_file: Path | None = None) -> Task:
    records, meta = definition["dataset_kwargs"], definition["metadata"]
    choices = definition.get("doc_to_choice")
    task = Task(
        name=definition["task"],
        group=meta.get("group"),
        kind=_KINDS[definition["output_type"]],
        set=records.get("set", ""),
        split=records.get("split", ""),
        examples=records.get("examples"),
        subject=records.get("subject"),
        rows=records.get("rows"),
        draw="first" if definition.get("fewshot_config", {}).get("sampler") == "first_n" else "random",
        description=definition.get("description", ""),
        delimiter=definition.get("target_delimiter", " "),
        fixed_shots=definition.get("num_fewshot"),
        prompt=function(definition["doc_to_text"]),
        choices=function(choices) if choices else None,
        config=definition,
        digest="",
        metrics=tuple(meta.get("metrics", ())),
        warnings=(*_group_warnings().get(meta.get("group"), ()), *meta.get("warnings", ())),
        file=file,
        examples_file=examples_file,
    )
    return Task(**{**task.__dict__, "digest": _digest(task)})


def _digest(task: Task) -> str:
    """Of what decides a score: a definition's place on this machine and its warnings do not."""
    definition = {key: value for key, value in task.config.items() if key not in ("metadata", "dataset_kwargs", "task")}
    made = [task.prompt(_PROBE), task.choices(_PROBE) if task.choices else extraction.VERSION, task.subject]
    text = json.dumps([definition, made], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _group_warnings() -> dict[str | None, tuple[str, ...]]:
    read = (_definition(path) for path in sorted(DEFINITIONS.glob("group_*.yaml")))
    return {definition["group"]: tuple(definition["metadata"].get("warnings", ())) for definition in read}


def function(dotted: str) -> Callable[..., Any]:
    """The function that a definition names."""
    return cast(Callable[..., Any], getattr(hooks, dotted.removeprefix(_HOOKS)))


def _definition(path: Path) -> dict[str, Any]:
    """A YAML definition with what it includes; as lm-eval, keys of the including file win."""
    content: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    included = content.pop("include", None)
    return {**_definition(path.parent / included), **content} if included else content


class _Loader(yaml.SafeLoader):
    """Reads `!function` as the function's dotted name."""


_Loader.add_constructor(_FUNCTION, lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


def functions_resolved(value: Any) -> Any:
    """A definition with its functions in the places of their names."""
    if isinstance(value, dict):
        return {key: functions_resolved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [functions_resolved(inner) for inner in value]
    return function(value) if isinstance(value, str) and value.startswith(_HOOKS) else value
