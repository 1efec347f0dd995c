"""What was measured of the weights that go out: evaluations, judgements and contamination reports that are of them.

A run's `evaluation` folder may hold results of other steps, and judgements of other answers. Nothing of another model
may stand in a model's card: each is matched, and what does not fit is left out and named, or refused where the user
asked for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_tools.publish import sha256_file
from megatron_aquila.checkpoint import Checkpoint
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation import contamination, results
from megatron_aquila.evaluation.judge import summary as judge
from megatron_aquila.manifest import weights_digest
from megatron_aquila.release.history import run_of

_OTHERS = (judge.FILE, contamination.FILE)


class ReleaseError(AquilaError):
    """A release cannot be made as asked, or what was written is not sound."""


@dataclass(frozen=True)
class Evidence:
    """By the names of their directories. `left_out` says in a sentence each what was there and is of something else."""

    evaluations: dict[str, results.Evaluation]
    judgements: dict[str, judge.Summary]
    contamination: dict[str, contamination.Contamination]
    left_out: tuple[str, ...]


def gather(checkpoint: Checkpoint, given: Sequence[Path] = ()) -> Evidence:
    """The evidence in the run of `checkpoint`, and in the directories `given`.

    Raises:
        ReleaseError: a directory given is of another step, or holds nothing that a card can show.
    """
    folder = run_of(checkpoint) / results.FOLDER
    own = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    asked = {path.resolve() for path in given}
    directories = [*([folder] if own else []), *(path for path in own if path.resolve() not in asked), *given]
    found = Evidence({}, {}, {}, ())
    left_out: list[str] = []
    answers: set[str] = set()
    for directory in directories:
        if (directory / results.FILE).is_file():
            evaluation = results.read(directory)
            reason = _of_another(evaluation, checkpoint, asked=directory in given)
            if reason is None:
                found.evaluations[_name(directory, found.evaluations)] = evaluation
                answers |= {sha256_file(path) for path in directory.glob("answers/*.jsonl")}
            elif directory in given:
                raise ReleaseError(f"{directory} {reason}: leave it out, or export the step that it is of (--step)")
            else:
                left_out.append(f"{directory.name} {reason}")
        elif directory in given and not any((directory / name).is_file() for name in _OTHERS):
            raise ReleaseError(
                f"{directory} holds none of {results.FILE}, {', '.join(_OTHERS)}: give a directory that `aquila eval` "
                "or `aquila judge` wrote"
            )
    for directory in directories:  # once the answers are known
        if (directory / judge.FILE).is_file():
            judgement = judge.read(directory)
            if directory in given or judgement.answers.sha256 in answers:
                found.judgements[_name(directory, found.judgements)] = judgement
            else:
                left_out.append(f"{directory.name} judges answers that no evaluation of this checkpoint holds")
        if (directory / contamination.FILE).is_file():
            report = contamination.read_report(directory / contamination.FILE)
            found.contamination[_name(directory, found.contamination)] = report
    return replace(found, left_out=tuple(left_out))


def _name(directory: Path, taken: Container[str]) -> str:
    """The directory's name, with a number where another has it."""
    name = directory.resolve().name
    numbers = itertools.count(2)
    while name in taken:
        name = f"{directory.resolve().name}-{next(numbers)}"
    return name


def _of_another(evaluation: results.Evaluation, checkpoint: Checkpoint, *, asked: bool) -> str | None:
    """What speaks against an evaluation's being of the checkpoint."""
    model = evaluation.model
    if model.kind != "checkpoint":
        # of an export, which `require_same_weights` compares when there is one
        return None if asked else "is an evaluation of an export"
    if model.step != checkpoint.step:
        return f"is an evaluation of step {model.step}, and step {checkpoint.step} is exported"
    if model.digest != weights_digest(facts["sha256"] for name, facts in _weights(checkpoint)):
        return f"is an evaluation of other weights of step {model.step}, of before the run was trained anew"
    return None


def require_same_weights(evidence: Evidence, directory: Path) -> None:
    """Compare evaluations that were made of an export with the export in `directory`, bytes for bytes.

    Raises:
        ReleaseError: one is of other weights.
    """
    exported = {name: one.model.digest for name, one in evidence.evaluations.items() if one.model.kind != "checkpoint"}
    if not exported:
        return
    digest = weights_digest(map(sha256_file, directory.glob("*.safetensors")))
    for name, found in exported.items():
        if found != digest:
            raise ReleaseError(
                f"{name} is an evaluation of other weights than these, of another step or dtype: leave it out, or "
                "evaluate this export"
            )


def _weights(checkpoint: Checkpoint) -> list[tuple[str, dict[str, str]]]:
    return [item for item in checkpoint.manifest["files"].items() if item[0].endswith(".safetensors")]
