"""`aquila eval run`: a model is asked through lm-eval, and every answer kept as an item.

lm-eval makes the requests out of the tasks' definitions and runs on rank 0; what it aggregates is not used, for an item
tells more than a mean.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from data_tools.publish import exclusive, sha256_file
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.answers import usual_history, write_answers
from megatron_aquila.evaluation.plan import EvaluationError, Plan, prepare
from megatron_aquila.evaluation.results import Evaluation, Item, ModelFacts, TaskResult
from megatron_aquila.evaluation.settings import EvaluationSettings
from megatron_aquila.evaluation.summary import groups_of, task_result
from megatron_aquila.evaluation.tasks.catalog import Task
from megatron_aquila.evaluation.tasks.harness import shots_of
from megatron_aquila.evaluation.tasks.items import item_of
from megatron_aquila.evaluation.tasks.metrics import task_metrics
from megatron_aquila.manifest import weights_digest

_MAX_NEW_TOKENS = 512  # of an answer in a dialogue, as in CMB's own configuration for CMB-Clin
_PACKAGES = ("megatron-aquila", "lm-eval", "torch", "megatron-core", "transformers")


def evaluate(
    model: Path,
    names: Sequence[str],
    *,
    suite: str | None,
    data: Path,
    output: Path | None,
    settings: EvaluationSettings,
) -> tuple[Path, Evaluation] | None:
    """Ask `model` and publish what it said; every process of the world calls it.

    Args:
        model: a run, a checkpoint or a Hugging Face directory.
        names: see `chosen.choose`.
        data: the directory of the sets.
        output: None: a directory under `evaluation` in the run or the Hugging Face directory.

    Returns:
        The directory and what `results.json` in it holds; None on ranks other than 0.

    Raises:
        EvaluationError: the output holds an evaluation of another model; and as `prepare`, `open_model`,
            `write_answers`.
    """
    return carry_out(prepare(model, names, suite=suite, data=data, output=output, settings=settings))


def carry_out(plan: Plan) -> tuple[Path, Evaluation] | None:
    """What was prepared; see `evaluate`."""
    settings, directory = plan.settings, plan.directory
    with _ours(plan) if settings.backend == "aquila" else _theirs(plan) as (lm, facts):
        if lm is None:
            return None
        if os.environ.get("TQDM_DISABLE"):  # which lm-eval 0.4.13 overrides, unless it is told so by argument
            for name in ("loglikelihood", "generate_until"):
                setattr(lm, name, partial(getattr(lm, name), disable_tqdm=True))
        facts = facts if plan.chat or not plan.chosen.tasks else facts.model_copy(update={"chat_template": None})
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(directory, directory):
            _require_same_model(directory, facts)
            began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
            answered = _answer(lm, plan, facts)  # first: these are kept, whatever becomes of the rest
            items = _ask(lm, plan) if plan.chosen.tasks else {}
            tasks = {task.name: _summary(task, items[task.name], plan) for task in plan.chosen.tasks}
            evaluation = Evaluation(
                model=facts,
                suite=plan.suite,
                seed=settings.seed,
                limit=settings.limit,
                max_new_tokens=settings.max_new_tokens,
                tasks=tasks,
                groups=groups_of(tasks),
                dialogues=answered,
                versions=_versions(),
                began=began.isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - clock, 1),
            )
            results.write(directory, evaluation, items)
    return directory, evaluation


def _require_same_model(directory: Path, facts: ModelFacts) -> None:
    """What a directory holds is replaced by a later evaluation of the same model only."""
    if not (directory / results.FILE).is_file():
        return
    there = results.read(directory).model
    for what in ("digest", "backend", "precision"):
        old, new = getattr(there, what), getattr(facts, what)
        if old != new:
            of = f"other weights ({there.name})" if what == "digest" else f"{what} {old}, not {new}"
            raise EvaluationError(f"{directory} holds an evaluation of {of}: give another --output, or remove it")


@contextmanager
def _ours(plan: Plan) -> Iterator[tuple[Any, ModelFacts]]:
    """lm-eval's model, None on a rank that has served and is done, and what is known of it."""
    from megatron_aquila.evaluation.lm import AquilaLM

    settings = plan.settings
    with AquilaLM.open(
        plan.path,
        parallel=settings.parallel,
        precision=settings.precision,
        device=settings.device,
        pack_tokens=settings.pack_tokens,
        batch_size=settings.batch_size,
    ) as lm:
        opened = lm.model
        facts = ModelFacts(
            name=plan.model.resolve().name,
            path=str(opened.path),
            kind=opened.kind,
            digest=opened.digest,
            step=opened.step,
            backend="aquila",
            layout=f"{opened.layout.describe()} {opened.device.type}",
            precision=opened.precision,
            chat_template=None if opened.chat is None else opened.chat.name,
        )
        if lm.is_main:
            yield lm, facts
        else:
            lm.serve()
            yield None, facts


@contextmanager
def _theirs(plan: Plan) -> Iterator[tuple[Any, ModelFacts]]:
    """lm-eval's own classes."""
    import torch
    from lm_eval.api.registry import get_model

    settings = plan.settings
    device = settings.device if settings.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[settings.precision]
    arguments: dict[str, Any] = {"pretrained": str(plan.path), "dtype": dtype, "batch_size": settings.batch_size}
    if settings.backend == "hf":
        arguments |= {"device": device, "trust_remote_code": False}
    lm: Any = get_model(settings.backend)(**arguments)
    files = list(plan.path.glob("*.safetensors"))  # others were refused (plan.py)
    yield (
        lm,
        ModelFacts(
            name=plan.path.name,
            path=str(plan.path),
            kind="huggingface",
            digest=weights_digest(map(sha256_file, files)),
            step=None,
            backend=settings.backend,
            layout=device,
            precision=settings.precision,
            chat_template="of the directory",
        ),
    )


def _ask(lm: Any, plan: Plan) -> dict[str, list[Item]]:
    """The items of every task, from lm-eval's samples, whose `doc` is the record that was asked."""
    import lm_eval
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    settings = plan.settings
    # lm-eval 0.4.13 asks git for the commit of the working directory, whose complaint would reach the user.
    evaluator.get_git_commit_hash = lambda: None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=plan.definitions,
        task_manager=TaskManager(include_defaults=False),
        limit=settings.limit,
        apply_chat_template=plan.chat,
        fewshot_as_multiturn=plan.chat,
        gen_kwargs={"max_gen_toks": settings.max_new_tokens} if settings.max_new_tokens else None,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    items = {}
    for task in plan.chosen.tasks:
        samples = sorted(found["samples"][task.name], key=lambda sample: sample["doc_id"])
        items[task.name] = [item_of(task, sample["doc"], sample) for sample in samples]
    return items


def _answer(lm: Any, plan: Plan, facts: ModelFacts) -> dict[str, int]:
    """Have the dialogue sets answered; how many answers each has now."""
    settings = plan.settings
    return {
        one.name: len(
            write_answers(
                plan.directory,
                one.name,
                lm,
                one.rows,
                model=f"{facts.digest} {facts.backend} {facts.precision}",
                history=usual_history(one.rows),
                max_new_tokens=settings.max_new_tokens or _MAX_NEW_TOKENS,
                limit=settings.limit,
            )
        )
        for one in plan.chosen.dialogues
    }


def _summary(task: Task, items: Sequence[Item], plan: Plan) -> TaskResult:
    cut = len(items) == plan.settings.limit
    return task_result(
        items,
        group=task.group,
        shots=shots_of(task, plan.shots),
        kind=task.kind,
        data=plan.digests[task.name],
        prompt=task.digest,
        metrics=task_metrics(task, items),
        warnings=(*task.warnings, *((f"only the first {len(items):,} questions were asked",) if cut else ())),
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
