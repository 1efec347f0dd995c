"""The run: sample, ask, keep what the answers agree on, publish."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from data_tools.files import ReadOptions
from data_tools.inputs import InputError, resolve_inputs
from data_tools.labelling.agreement import Counts, Question, judge
from data_tools.labelling.config import SCORES, LabelConfig, LabellingError
from data_tools.labelling.sample import Sample, draw_sample
from data_tools.llm import Estimate, LanguageModel, Request
from data_tools.manifest import manifest_path, write_manifest
from data_tools.prompts import Prompt, load_prompt
from data_tools.publish import exclusive, remove_leftovers, sha256_file
from data_tools.quarantine import Quarantine
from data_tools.record_writer import RecordWriter

_PROMPT_VERSION = 1


def label(
    inputs: Sequence[str],
    output: Path,
    config: LabelConfig,
    model: LanguageModel,
    *,
    read: ReadOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Sample the documents, or the exchanges of the dialogues, of `inputs`, ask `model` about each, and publish the
    seeds on which its answers agree.

    `output` (.jsonl, .jsonl.gz, .jsonl.zst) gets {"id", "text", "label" | "score", "lang", "source", "labels"},
    `labels` being the single verdicts; beside it OUTPUT.manifest.json, which is returned, OUTPUT.dropped.jsonl with
    the documents that fell out, why, and what the model said, and OUTPUT.quarantine.jsonl with records that could not
    be read. The order is that of the sample's hashes, languages mixed. A run that was stopped, by whatever, is begun
    again with the same arguments: what was answered comes out of the model's cache.

    Args:
        model: one that nothing else was asked of, so that its account is this run's.
        progress: called with documents done and documents sampled.

    Raises:
        InputError: no input, a damaged file, nothing to ask about, or `output` is there already.
        LabellingError: limits were met, or too many documents got no answer; nothing is published.
        BusyError: another run is writing `output`.
        LanguageModelError, StorageError: as in `LanguageModel.ask`.
    """
    if output.exists() and manifest_path(output).exists():
        raise InputError(f"{output} exists: remove it or choose another output")
    paths = resolve_inputs([str(path) for path in inputs])
    output.parent.mkdir(parents=True, exist_ok=True)
    quarantine = Quarantine(_beside(output, "quarantine"))
    lock = output.with_name(f"{output.name}.lock")
    with exclusive(lock, output):
        try:
            for path in (output, _beside(output, "dropped"), manifest_path(output)):
                remove_leftovers(path)
            quarantine.path.unlink(missing_ok=True)
            with quarantine:
                sample = draw_sample(paths, config, read or ReadOptions(), quarantine)
            sampled = Counter(subject.language for subject in sample.drawn)
            prompts = _prompts(config)
            counts = _ask(_questions(sample, prompts), output, config, model, progress)
            manifest = {
                "artefact": "seeds",
                "task": config.task,
                "scores": list(SCORES[config.task]) if config.task in SCORES else None,
                "config": config.model_dump(mode="json"),
                "model": _model_facts(model, counts),
                "prompts": {name: {"name": prompt.name, "sha256": prompt.digest} for name, prompt in prompts.items()},
                "inputs": [
                    {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in paths
                ],
                "counts": {
                    "documents": dict(sorted(sample.met.items())),
                    "quarantined": dict(sorted(quarantine.reasons.items())),
                    "sampled": dict(sorted(sampled.items())),
                    "short": {name: size - sampled[name] for name, size in sorted(config.samples.items())},
                    **counts.to_json(),
                },
                "agreement": counts.agreement(),
                "account": model.account.to_json(),
                "files": {path.name: sha256_file(path) for path in (output, _beside(output, "dropped"))},
            }
            write_manifest(manifest_path(output), manifest)
            return manifest
        finally:
            shutil.rmtree(lock, ignore_errors=True)


def plan(
    inputs: Sequence[str], config: LabelConfig, model: LanguageModel, *, read: ReadOptions | None = None
) -> Estimate:
    """The dry run of `label`: what it would ask and what that would cost, without a call and without a file.

    Raises:
        InputError: as in `label`.
    """
    sample = draw_sample(resolve_inputs([str(path) for path in inputs]), config, read or ReadOptions(), None)
    return model.estimate(_requests(_questions(sample, _prompts(config)), config))


def _beside(output: Path, what: str) -> Path:
    return output.with_name(f"{output.name}.{what}.jsonl")


def _prompts(config: LabelConfig) -> dict[str, Prompt]:
    name = config.task.replace("-", "_")
    return {language: load_prompt(name, _PROMPT_VERSION, language) for language in sorted(config.samples)}


def _questions(sample: Sample, prompts: Mapping[str, Prompt]) -> list[Question]:
    return [
        Question(subject.document, subject.language, *prompts[subject.language].messages(subject.shown))
        for subject in sample.drawn
    ]


def _requests(questions: Sequence[Question], config: LabelConfig) -> Iterator[Request]:
    for question in questions:
        for sample in range(config.repeats):
            yield Request(question.messages, sample, question.document.id)


def _ask(
    questions: Sequence[Question],
    output: Path,
    config: LabelConfig,
    model: LanguageModel,
    progress: Callable[[int, int], None] | None,
) -> Counts:
    """Ask about all questions and publish the seeds, and beside them the documents that fell out."""
    counts = Counts(
        {language: Counter() for language in config.samples}, {language: Counter() for language in config.samples}
    )
    with (
        RecordWriter(output) as kept,
        RecordWriter(_beside(output, "dropped")) as dropped,
        closing(model.ask(_requests(questions, config))) as results,
    ):
        for done, question in enumerate(questions, 1):
            reason, record = judge(question, [next(results) for _ in range(config.repeats)], config, counts)
            (dropped if reason else kept).write(record)
            if progress is not None:
                progress(done, len(questions))
        _check(model, counts, len(questions), config)
    return counts


def _check(model: LanguageModel, counts: Counts, asked: int, config: LabelConfig) -> None:
    """Refuse to publish what would be a part of the sample only."""
    unanswered = sum(found["no-answer"] for found in counts.dropped.values())
    failed = model.account.failed
    if failed["budget"]:
        raise LabellingError(
            f"the limits were met: {asked - unanswered:,} of {asked:,} documents are answered and recorded; "
            "raise the model's limits and run again, what is recorded is not asked again"
        )
    if unanswered > config.max_failed_fraction * asked:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in failed.most_common())
        raise LabellingError(
            f"{unanswered:,} of {asked:,} documents got no answer ({reasons}), more than max_failed_fraction "
            f"{config.max_failed_fraction:g}: see to the server and run again, what is recorded is not asked again"
        )


def _model_facts(model: LanguageModel, counts: Counts) -> dict[str, Any]:
    """What decides the answers; no address, no key, no pace."""
    names = {"model", "temperature", "top_p", "seed", "max_tokens", "extra"}
    return {**model.config.model_dump(mode="json", include=names), "served_as": sorted(counts.served)}
