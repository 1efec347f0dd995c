"""What `judge.json` holds. It is made of the verdicts alone: the same verdicts give the same file, byte for byte,
whenever they are counted; it holds no times, and no account of what was paid.

Shares and rates are between 0 and 1. Intervals are of 95 %. None stands where there is nothing to divide by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_tools.publish import write_whole
from megatron_aquila.errors import AquilaError
from megatron_aquila.evaluation.results import Interval

FILE = "judge.json"
VERDICTS = "verdicts.jsonl"
FORMAT = 1

CRITERIA = ("fluency", "relevance", "completeness", "proficiency")
"""Aquila-Med's four (technical report, table 4)."""


class JudgeError(AquilaError):
    """A judgement cannot be made as asked, or cannot be read."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JudgeFacts(_Record):
    """Who judged, and how it was asked."""

    model: str = Field(description="as it was asked for")
    served: tuple[str, ...] = Field(description="the names that the server gave itself")
    temperature: float | None
    top_p: float | None
    seed: int | None
    max_tokens: int
    retries: int = Field(description="askings after an invalid verdict")
    prompts: dict[str, str] = Field(description="prompt file → SHA-256")


class Source(_Record):
    """A file of answers."""

    name: str = Field(description="what the table calls the model that wrote them")
    file: str = Field(description="the file's name")
    rows: int
    sha256: str


class Counted(_Record):
    """What became of the rows. items + the sum of skipped = rows of the answers that were drawn."""

    rows: int = Field(description="answers in the file")
    drawn: int = Field(description="of them, after `limit`")
    skipped: dict[str, int] = Field(description="not asked about, by reason")
    items: int = Field(description="asked about")
    judged: int = Field(description="with a valid verdict in every order")
    invalid: int = Field(description="of which no valid verdict could be had; they count as no verdict")
    failed: dict[str, int] = Field(description="items whose question got no answer from the judge, by reason")
    invalid_answers: dict[str, int] = Field(
        description="answers of the judge that were no verdict, by reason, those that a repetition mended included"
    )
    coverage: float | None = Field(description="judged over items")
    suspicious: dict[str, int] = Field(
        description="items with a text that speaks to the judge, by what it does; judged all the same"
    )
    suspicious_items: int
    unfinished: int = Field(description="items whose answer was cut off at its longest")


class Outcomes(_Record):
    """Wins, ties and losses of the answers under one rule."""

    win: int
    tie: int
    loss: int
    n: int
    shares: dict[Literal["win", "tie", "loss"], float] | None
    intervals: dict[Literal["win", "tie", "loss"], Interval] | None = Field(description="Goodman's, all three at once")
    net_win: float | None = Field(description="share of wins less share of losses")
    net_win_error: float | None = Field(description="its standard error; clustered where dialogues have several rounds")
    net_win_interval: Interval | None
    sign_test: float | None = Field(
        description="exact p of wins against losses, ties left out; dialogues swapped whole"
    )
    verdict: Literal["better", "worse", "not distinguishable"] | None = Field(description="of net win and sign test")
    half_ties: float | None = Field(description="wins and half of the ties, over n")


class LengthQuarter(_Record):
    least: int = Field(description="characters of answer less against")
    most: int
    n: int
    win: int
    tie: int
    loss: int


class Length(_Record):
    """Whether length tells which answer wins."""

    answer_characters: float | None = Field(description="mean")
    against_characters: float | None
    difference: float | None = Field(description="mean of answer less against, characters")
    correlation: float | None = Field(
        description="Spearman's, of the length difference and the outcome (win 1, tie 0, loss -1)"
    )
    longer_wins: float | None = Field(description="of decisive items whose lengths differ, the longer answer's share")
    longer_wins_interval: Interval | None
    longer_wins_n: int
    quarters: tuple[LengthQuarter, ...] = Field(description="items by length difference, the shortest answers first")


class Position(_Record):
    """What the order of the answers does to the verdicts. Over items with a valid verdict in both orders."""

    consistency: float | None = Field(description="share of items on which both orders agree, ties included")
    consistency_interval: Interval | None
    first_preference: float | None = Field(
        description="share of decisive verdicts that are for the first answer; 0.5 where the place tells nothing"
    )
    first_preference_interval: Interval | None = Field(description="Wilson over verdicts")
    flips_to_first: int = Field(description="items on which both orders preferred whatever stood first")
    flips_to_second: int
    flips_sign_test: float | None = Field(description="exact p of the one against the other")


class Canaries(_Record):
    """Known pairs: an answer of the reference against none or rubbish."""

    n: int
    passed: int = Field(description="the known better answer won, in both orders, or by a point on average")
    invalid: int
    kinds: dict[str, tuple[int, int]] = Field(description="kind of the worse answer → (passed, n)")


class Agreement(_Record):
    """With another judge, or people, over the items that both have judged."""

    file: str
    n: int
    missing: int = Field(description="of the items judged here, those without a verdict in the file")
    same: float | None = Field(description="share of equal verdicts")
    kappa: float | None = Field(description="Cohen's; None also where one verdict is all there is")
    criteria: dict[str, float | None] = Field(
        default_factory=dict, description="rubric: kappa with quadratic weights, by criterion"
    )
    matrix: dict[str, dict[str, int]] = Field(default_factory=dict, description="pair: ours → theirs → items")


class PairSummary(_Record):
    """Answers against other answers."""

    format: int = FORMAT
    kind: Literal["pair"] = "pair"
    judge: JudgeFacts
    answers: Source
    against: Source | None = Field(description="None: the references in the same file")
    counted: Counted
    strict: Outcomes = Field(description="the paper's rule: a win or a loss only where both orders agree, else a tie")
    lax: Outcomes = Field(description="HuatuoGPT-II's: the two orders are added up, a win and a tie are a win")
    matrix: dict[str, dict[str, int]] = Field(
        description="verdict with the answer first → verdict with it second → items; answer, tie, against, invalid"
    )
    position: Position
    length: Length
    languages: dict[str, Outcomes] = Field(description="strict, by language")
    canaries: Canaries | None
    agreement: Agreement | None = None
    warnings: tuple[str, ...] = ()


class Mean(_Record):
    value: float | None
    interval: Interval | None = Field(description="bootstrap by dialogue; None for one dialogue")
    n: int = Field(description="what the mean is over")


class Round(_Record):
    """A round of the dialogues that go so far."""

    round: int
    n: int = Field(description="answers judged; late rounds have few")
    mean: Mean = Field(description="of the four criteria's mean")
    criteria: dict[str, Mean]


class RubricSummary(_Record):
    """Answers by four criteria, each from 1 to 5."""

    format: int = FORMAT
    kind: Literal["rubric"] = "rubric"
    judge: JudgeFacts
    answers: Source
    counted: Counted
    over_turns: Mean = Field(description="the paper's average: over all answers, of the four criteria's mean")
    over_dialogues: Mean = Field(description="over dialogues, each the mean of its answers")
    criteria: dict[str, Mean] = Field(description="over all answers")
    scores: dict[str, dict[int, int]] = Field(description="criterion → score → answers")
    rounds: tuple[Round, ...]
    languages: dict[str, Mean] = Field(description="over all answers of a language")
    length_correlation: float | None = Field(description="Spearman's, of an answer's characters and its mean score")
    canaries: Canaries | None
    agreement: Agreement | None = None
    warnings: tuple[str, ...] = ()


Summary = PairSummary | RubricSummary


def write(directory: Path, summary: Summary) -> None:
    """Publish `judge.json`."""
    write_whole(directory / FILE, (summary.model_dump_json(indent=1) + "\n").encode())


def read(directory: Path) -> Summary:
    """The summary of a judgement's directory, or of the file itself.

    Raises:
        JudgeError: there is none of this version.
    """
    path = directory / FILE if directory.is_dir() else directory
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JudgeError(f"{directory} holds no {FILE}: give a directory that `aquila judge` wrote") from None
    except ValueError as error:
        raise JudgeError(f"{path} is not JSON: {error}") from error
    kinds: dict[object, type[Summary]] = {"pair": PairSummary, "rubric": RubricSummary}
    kind = kinds.get(content.get("kind")) if isinstance(content, dict) else None
    if kind is None or content.get("format") != FORMAT:
        raise JudgeError(f"{path} is not a judgement of format {FORMAT}, which this version reads")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise JudgeError(f"{path}: {where}: {error.errors()[0]['msg']}") from error


def find(directory: Path) -> list[Path]:
    """The judgements of a run or an export, by name."""
    return sorted(path.parent for path in (directory / "evaluation").glob(f"*/{FILE}"))
