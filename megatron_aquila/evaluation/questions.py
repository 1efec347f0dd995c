"""Questions put to a model while it trains, scored as `aquila eval` scores them, and compared with the start.

    <run>/questions/NAME-step-N.jsonl      `results.Item`s of the set NAME after optimizer step N; 0: before the first
    <run>/questions/NAME.sha256            what identifies its questions, prompts and right answers

The comparison is paired: the same questions, then and now, by an exact test that swaps whole clusters (McNemar's, where
each question is a cluster of its own) and a bootstrap interval. It is made at 1 %, for each set and time by itself: who
looks a hundred times will be told once of a change that is none.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.publish import write_whole
from data_tools.tokenizers import Tokenizer
from megatron_aquila.config_evaluation import QuestionSet
from megatron_aquila.errors import ConfigError
from megatron_aquila.evaluation.pairs import encode_pair
from megatron_aquila.evaluation.results import Item, read_item_file, write_item_file
from megatron_aquila.evaluation.statistics import Verdict, paired_bootstrap, sign_flip_exact, verdict
from megatron_aquila.evaluation.tasks.catalog import questions_task
from megatron_aquila.evaluation.tasks.data import EvaluationDataError, load_split
from megatron_aquila.evaluation.tasks.items import choice_item
from megatron_aquila.evaluation.tasks.requests import ShotsError, choice_requests

if TYPE_CHECKING:
    import torch

    from megatron_aquila.config import RunConfig
    from megatron_aquila.engine.parallel import Layout
    from megatron_aquila.shapes import ModelShape

FOLDER = "questions"
ALPHA = 0.01
_DRAW = 0  # seed of `limit`: every run is asked the same
_PART = 256  # questions that are scored at once: for so long a signal waits


@dataclass(frozen=True)
class Asked:
    """A question record, and what the model sees of it: ids (int32) of context and continuation, a pair an option."""

    record: Mapping[str, Any]
    pairs: tuple[tuple[array[int], array[int]], ...]


@dataclass(frozen=True)
class Standing:
    """A set's score, and what may be said of it beside the score at the start."""

    name: str
    kind: str
    n: int
    accuracy: float
    probability: float
    start: float | None = None
    p: float | None = None
    verdict: Verdict | None = None

    @property
    def is_alarm(self) -> bool:
        """General ability was lost."""
        return self.kind == "general" and self.verdict == "worse"

    def metrics(self) -> dict[str, float]:
        return {
            f"questions/{self.name}/accuracy": self.accuracy,
            f"questions/{self.name}/probability": self.probability,
        }

    def __str__(self) -> str:
        if self.start is None:
            return f"{self.name}: {_percent(self.accuracy)} of {self.n} questions at the start"
        assert self.p is not None
        p = f"p {self.p:.3f}" if self.p >= 0.001 else "p below 0.001"
        return f"{self.name}: {_percent(self.accuracy)} (start {_percent(self.start)}): {self.verdict} ({p})"


def load_set(settings: QuestionSet, tokenizer: Tokenizer, longest: int) -> list[Asked]:
    """The questions of a set, encoded.

    Args:
        longest: tokens of a question with its examples and an option at most.

    Raises:
        ConfigError: a file is missing or a line of it no question, two questions have one id, one has no token in an
            option or too many in all, or there are fewer examples than shots. Names the file and the question.
    """
    rows = _read(settings.path)
    if settings.limit is not None and settings.limit < len(rows):
        drawn = random.Random(_DRAW).sample(range(len(rows)), settings.limit)
        rows = [rows[place] for place in sorted(drawn)]
    examples = _read(settings.examples) if settings.examples is not None else []
    task = questions_task(settings.path, settings.form, examples=settings.examples, name=settings.name)
    try:
        requests = choice_requests(task, rows, examples, settings.shots)
    except ShotsError as error:
        raise ConfigError(f"evaluation.questions: {error}") from error
    asked = []
    for row, request in zip(rows, requests, strict=True):
        pairs = tuple(encode_pair(tokenizer, request.context, option) for option in request.continuations)
        for letter, (context, continuation) in zip(request.letters, pairs):
            if not context or not continuation:
                raise ConfigError(f"{settings.path}: option {letter} of question {request.id} has no token to score")
            if len(context) + len(continuation) > longest:
                raise ConfigError(
                    f"{settings.path}: question {request.id} has {len(context) + len(continuation)} tokens with its "
                    f"examples, and a sequence holds {longest}: take it out, or set fewer shots"
                )
        asked.append(Asked(row, tuple((array("i", context), array("i", option)) for context, option in pairs)))
    return asked


def probability(item: Item) -> float:
    """What the right options have of the probability of all options; 0 where a log-likelihood is not a number."""
    if item.logps is None:
        return 0.0
    highest = max(item.logps.values())
    weights = {letter: math.exp(logp - highest) for letter, logp in item.logps.items()}
    return sum(weights[letter] for letter in item.answer) / sum(weights.values())


def standing(settings: QuestionSet, now: Sequence[Item], start: Sequence[Item] | None) -> Standing:
    """The score of `now`, compared with that of the same questions at the start where there is one."""
    right = [item.right for item in now]
    accuracy = sum(right) / len(right)
    score = Standing(settings.name, settings.kind, len(now), accuracy, sum(map(probability, now)) / len(now))
    if start is None:
        return score
    before, clusters = [item.right for item in start], [item.cluster for item in now]
    difference = paired_bootstrap(before, right, clusters, confidence=1 - ALPHA)
    p = sign_flip_exact(before, right, clusters)
    return replace(score, start=sum(before) / len(before), p=p, verdict=verdict(difference.interval, p, ALPHA))


class TrainingQuestions:
    """The question sets of a run. Every rank makes one and calls its methods at once; rank 0 keeps the items."""

    def __init__(self, run: RunConfig, tokenizer: Tokenizer, shape: ModelShape, layout: Layout) -> None:
        """Raises ConfigError as `load_set`."""
        self._layout = layout
        self._folder = run.output / FOLDER
        self._pack_tokens = run.training.micro_batch_size * run.data.sequence_length
        longest = min(run.data.sequence_length, shape.max_position_embeddings)
        self._sets = [(settings, load_set(settings, tokenizer, longest)) for settings in run.evaluation.questions]
        self._start: dict[str, list[Item]] = {}

    def go_on(self, step: int) -> None:
        """Take up what was answered until `step`, and drop what came after; at step 0 all of it.

        Raises:
            ConfigError: other questions were put at the start.
        """
        found = self._kept(step) if self._layout.is_main else None
        start = self._layout.broadcast(found)
        for settings, asked in self._sets:
            if settings.name in start and start[settings.name][0] != digest(asked):
                raise ConfigError(
                    f"{settings.path} with its form and shots gives other questions than those that the set "
                    f"{settings.name} had at the start of this run: restore them, or give the set another name"
                )
        self._start = {name: items for name, (_, items) in start.items()}

    @property
    def without_start(self) -> bool:
        """Whether some set was never asked."""
        return any(settings.name not in self._start for settings, _ in self._sets)

    def ask(
        self,
        chunks: Sequence[torch.nn.Module],
        device: torch.device,
        step: int,
        part: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> list[Standing]:
        """Put all sets to the model, whose weights must have been gathered; sets without a start have it now.

        Args:
            part: entered around some hundred questions at a time; what it raises ends all, and nothing is kept.
        """
        from megatron_aquila.engine.scoring import TokenRequest, TokenScore, score

        questions = [question for _, asked in self._sets for question in asked]
        found: list[TokenScore] = []
        for first in range(0, len(questions), _PART):
            requests = [TokenRequest(*pair) for question in questions[first : first + _PART] for pair in question.pairs]
            with part():
                found += score(chunks, requests, layout=self._layout, device=device, pack_tokens=self._pack_tokens)
        scores = iter(found)
        standings = []
        for settings, asked in self._sets:
            items = [choice_item(found.record, [next(scores).logp for _ in found.pairs]) for found in asked]
            standings.append(standing(settings, items, self._start.get(settings.name)))
            if self._layout.is_main:
                self._folder.mkdir(parents=True, exist_ok=True)
                if settings.name not in self._start:
                    write_whole(self._folder / f"{settings.name}.sha256", digest(asked).encode())
                write_item_file(self._folder / f"{settings.name}-step-{step}.jsonl", items)
            self._start.setdefault(settings.name, items)
        return standings

    def _kept(self, step: int) -> dict[str, tuple[str, list[Item]]]:
        """Digest and first items of each set; removes those of steps that this run has not come to."""
        found = {}
        for settings, _ in self._sets:
            steps = steps_of(self._folder, settings.name)
            for number, path in steps.items():
                if number > step or step == 0:
                    path.unlink()
            kept = [path for number, path in steps.items() if step > 0 and number <= step]
            if kept:
                sealed = (self._folder / f"{settings.name}.sha256").read_text(encoding="utf-8")
                found[settings.name] = sealed, read_item_file(kept[0])
        return found


def digest(asked: Sequence[Asked]) -> str:
    """SHA-256 of ids, right answers and all tokens that the model sees."""
    found = hashlib.sha256()
    for question in asked:
        shown = [(context.tolist(), option.tolist()) for context, option in question.pairs]
        found.update(json.dumps([question.record["id"], question.record["answer"], shown]).encode())
    return found.hexdigest()


def steps_of(folder: Path, name: str) -> dict[int, Path]:
    """The steps at which the set `name` was put, in order, and the files of items."""
    pattern = re.compile(rf"{re.escape(name)}-step-(\d+)\.jsonl")
    found = ((pattern.fullmatch(path.name), path) for path in folder.glob(f"{name}-step-*.jsonl"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _read(path: Path) -> list[dict[str, Any]]:
    """Question records. Raises ConfigError."""
    try:
        rows = load_split(path)
    except EvaluationDataError as error:
        raise ConfigError(f"evaluation.questions: {error}") from error
    for row in rows:
        if "options" not in row:
            raise ConfigError(f"evaluation.questions: {path}: {row['id']} has no options to choose from")
    return rows


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
