"""Do the answers about a document agree, and on what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_tools.labelling.config import LABELS, SCORES, LabelConfig
from data_tools.llm import Answer, Failure, Result
from data_tools.prompts import VerdictError, read_label, read_score
from data_tools.records import Document

_AUDIT_CHARACTERS = 400


@dataclass(frozen=True)
class Question:
    """A sampled document, exchange or dialogue, as a seed, and how the model is asked about it: `code` is what its
    verdict must repeat.
    """

    document: Document
    language: str
    messages: list[dict[str, str]]
    code: str


@dataclass
class Counts:
    """By language: kept by label, dropped by reason. `invalid`: verdicts that could not be used, by reason. `served`:
    the names under which the server answered.
    """

    kept: dict[str, Counter[str]]
    dropped: dict[str, Counter[str]]
    invalid: Counter[str] = field(default_factory=Counter)
    served: set[str] = field(default_factory=set)

    def agreement(self) -> float | None:
        """Of the documents whose verdicts were all valid, the share on which they agree."""
        agreed = sum(found.total() for found in self.kept.values())
        differed = sum(found["disagreement"] for found in self.dropped.values())
        return round(agreed / (agreed + differed), 6) if agreed + differed else None

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {
            "kept": {language: dict(sorted(found.items())) for language, found in sorted(self.kept.items())},
            "dropped": {language: dict(sorted(found.items())) for language, found in sorted(self.dropped.items())},
            "invalid_verdicts": dict(sorted(self.invalid.items())),
        }


def judge(
    question: Question, results: Sequence[Result], config: LabelConfig, counts: Counts
) -> tuple[str, dict[str, Any]]:
    """Why the document is dropped ("" where it is kept), and its record for the one file or the other; counted."""
    document = question.document
    verdicts: list[str | float | None] = []
    said: list[dict[str, str]] = []  # for the audit: what came instead of a verdict
    for result in results:
        if isinstance(result, Failure):
            said.append({"failure": result.reason, "detail": result.detail})
            continue
        counts.served.add(result.model)
        try:
            verdicts.append(_verdict(result, question.code, config.task))
        except VerdictError as error:
            counts.invalid[error.reason] += 1
            verdicts.append(None)
            said.append({"invalid": error.reason, "answer": result.text[:_AUDIT_CHARACTERS]})
    record: dict[str, Any] = {"id": document.id, "text": document.text}
    facts = {"lang": question.language, "source": document.source, "labels": verdicts}
    reason, value = _agreed(verdicts, len(results), config)
    if reason:
        counts.dropped[question.language][reason] += 1
        return reason, {**record, **facts, "reason": reason, "said": said}
    sorts = config.task in LABELS
    counts.kept[question.language][str(value) if sorts else "scored"] += 1
    return "", {**record, "label" if sorts else "score": value, **facts}


def _verdict(answer: Answer, code: str, task: str) -> str | float:
    if task in LABELS:
        return read_label(answer.text, code, LABELS[task])
    return read_score(answer.text, code, *SCORES[task])


def _agreed(verdicts: Sequence[str | float | None], asked: int, config: LabelConfig) -> tuple[str, str | float | None]:
    """Why there is no common verdict, or "" and the verdict: the label of all, or the mean of the scores."""
    if len(verdicts) < asked:
        return "no-answer", None
    if None in verdicts:
        return "invalid-verdict", None
    scores = [verdict for verdict in verdicts if isinstance(verdict, float)]
    if scores:
        differ = max(scores) - min(scores) >= config.max_difference
        return ("disagreement", None) if differ else ("", sum(scores) / len(scores))
    return ("disagreement", None) if len(set(verdicts)) > 1 else ("", verdicts[0])
