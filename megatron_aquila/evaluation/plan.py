"""What an evaluation will ask, and of what: every refusal that needs no weights is made here, before ranks start."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from data_tools.publish import LOCK, sha256_file
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.answers import FOLDER as ANSWERS
from megatron_aquila.evaluation.chosen import Chosen, choose
from megatron_aquila.evaluation.settings import EvaluationSettings
from megatron_aquila.evaluation.tasks.catalog import SUITES
from megatron_aquila.evaluation.tasks.data import split_path
from megatron_aquila.evaluation.tasks.harness import go_offline, lm_eval_tasks

_OURS = {results.FILE, results.ITEMS, ANSWERS, LOCK}


class EvaluationError(AquilaError):
    """An evaluation cannot be made as it was asked for."""


@dataclass(frozen=True)
class Plan:
    """model: as the user named it; path: the checkpoint that it led to, or the directory. definitions: of the tasks
    in `chosen`, for lm-eval. digests: SHA-256 of each task's questions. directory: where the evaluation goes.
    """

    model: Path
    path: Path
    suite: str | None
    chosen: Chosen
    data: Path
    settings: EvaluationSettings
    shots: int | None
    chat: bool
    definitions: list[dict[str, Any]]
    digests: dict[str, str]
    directory: Path


def prepare(
    model: Path,
    names: Sequence[str],
    *,
    suite: str | None,
    data: Path,
    output: Path | None,
    settings: EvaluationSettings,
) -> Plan:
    """Find everything that `evaluate` is asked for, and write nothing. The arguments are those of `evaluate`.

    Raises:
        EvaluationError: lm-eval or another package is missing, the model does not fit the backend, it has no chat
            template where one is needed, or the output would mix with something else; and as `choose`,
            `lm_eval_tasks`, `find_source`, `as_run`, `require_layout`.
    """
    _require("lm-eval", "evaluation needs lm-eval: pip install 'megatron-aquila[eval]'")
    go_offline()
    chosen = choose(names, suite, data)
    asked_as = SUITES[chosen.suite] if chosen.suite else None
    shots = asked_as.shots if settings.shots is None and asked_as else settings.shots
    chat = settings.chat if settings.chat is not None else bool(asked_as and asked_as.chat_template)
    definitions = lm_eval_tasks(chosen.tasks, data, shots)
    path, step, talks = _ours(model, settings) if settings.backend == "aquila" else _theirs(model, settings)
    if (chat or chosen.dialogues) and not talks:
        why = "chat=true" if chat else f"the dialogue set {chosen.dialogues[0].name}"
        raise EvaluationError(
            f"{model} learned plain text and has no chat template, which {why} needs: "
            + ("say chat=false" if chat and not chosen.dialogues else "evaluate a fine-tuned model")
        )
    owner = path if step is None else path.parents[1]
    directory = output or owner / results.FOLDER / _name(chosen, settings, shots, chat, step)
    _require_place(directory)
    return Plan(
        model=model,
        path=path,
        suite=chosen.suite,
        chosen=chosen,
        data=data,
        settings=settings,
        shots=shots,
        chat=chat,
        definitions=definitions,
        digests={task.name: sha256_file(task.file or split_path(data, task.set, task.split)) for task in chosen.tasks},
        directory=directory,
    )


def _require(package: str, sentence: str) -> None:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise EvaluationError(sentence) from None


def _ours(model: Path, settings: EvaluationSettings) -> tuple[Path, int | None, bool]:
    """Path, step, and whether there is a chat template."""
    from megatron_aquila.evaluation.source import as_run, find_source
    from megatron_aquila.layout import require_layout

    source = find_source(model.resolve())
    parallel = settings.parallel
    as_named = parallel.model_parallel * (parallel.data_parallel or 1)
    require_layout(as_run(source, settings), int(os.environ.get("WORLD_SIZE", as_named)))
    return source.path, source.step, source.chat is not None


def _theirs(model: Path, settings: EvaluationSettings) -> tuple[Path, int | None, bool]:
    from megatron_aquila.huggingface import pickled_refusal

    backend = settings.backend
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EvaluationError(f"backend={backend} is one process: start it without torchrun or srun")
    if not model.exists():
        raise EvaluationError(f"{model} does not exist: backend={backend} needs a Hugging Face directory")
    if not (model / "config.json").is_file():
        raise EvaluationError(
            f"{model} is no Hugging Face directory, which backend={backend} needs: make one of a run with "
            "`aquila export`, or leave the backend out"
        )
    if refusal := pickled_refusal(model):
        raise EvaluationError(refusal)
    needed = {"hf": "transformers", "vllm": "vllm"}[backend]
    if util.find_spec(needed) is None:
        raise EvaluationError(f"backend={backend} needs {needed}, which is not installed: pip install {needed}")
    return model.resolve(), None, _has_template(model)


def _has_template(directory: Path) -> bool:
    if (directory / "chat_template.jinja").is_file():
        return True
    config = directory / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def _name(chosen: Chosen, settings: EvaluationSettings, shots: int | None, chat: bool, step: int | None) -> str:
    """What was asked, how, and at which step. A trial of a few questions does not take the place of the whole."""
    parts = [chosen.name, *([f"{shots}-shot"] if shots else []), *(["chat"] if chat else [])]
    if settings.limit is not None:
        parts.append(f"first-{settings.limit}")
    if step is not None:
        parts.append(f"step-{step}")
    if settings.backend != "aquila":
        parts.append(settings.backend)
    return "-".join(parts)


def _require_place(directory: Path) -> None:
    """Raise where an evaluation cannot be written, or would lie among other files."""
    if directory.exists():
        if not directory.is_dir():
            raise EvaluationError(f"{directory} is a file: give another --output")
        others = sorted(path.name for path in directory.iterdir() if path.name not in _OURS)
        if others and not (directory / results.FILE).is_file():
            raise EvaluationError(f"{directory} holds other files ({others[0]}): give an empty or a new --output")
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise EvaluationError(f"{directory} cannot be written: give a directory of your own with --output")
