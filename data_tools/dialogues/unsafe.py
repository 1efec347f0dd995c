"""The unsafe step: violence, hate, pornography, instructions for self-harm, trade in weapons and drugs.

The paper removes "unsafe items (violence, bias, pornography)" and says no more. Here lists of terms do
(`unsafe_words.py`), patterns of requests (`unsafe_patterns.py`) and rules of what stands together in a sentence
(`unsafe_rules.py`), made to spare what medicine talks of. They find the common wordings: of 48 plain requests written
after the rules they found 25 (and have been amended since), of 50 chosen to be far from them none. Where the sources
are open to everybody, train a scorer and give it beside them (`aquila data label`, task `safety`). Needs no step before
it.
"""

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.dialogues import unsafe_words
from data_tools.dialogues.phrase_finder import Found, PhraseFinder
from data_tools.dialogues.unsafe_patterns import PATTERNS
from data_tools.dialogues.unsafe_rules import Rule, RuleFinder
from data_tools.dialogues.unsafe_rules_en import RULES as RULES_EN
from data_tools.dialogues.unsafe_rules_zh import RULES as RULES_ZH
from data_tools.dialogues.unsafe_words import CATEGORIES, Category
from data_tools.inputs import InputError
from data_tools.scorers import Scorer, load_scorer
from data_tools.scorers.directory import MANIFEST
from data_tools.scorers.protocol import SCORE_DECIMALS

SAFE = "safe"
"""The label of a scorer for what is not unsafe."""

_MOST_NAMED = 5  # terms that a decision names


class UnsafeConfig(StepConfig):
    """Which terms, how many, and which scorer."""

    step: Literal["unsafe"] = "unsafe"
    categories: tuple[Category, ...] = CATEGORIES
    """Looked for. A dialogue is dropped as "unsafe-pornography" and so on, the category of most terms; () leaves the
    scorer alone."""
    terms: dict[Category, tuple[str, ...]] = Field(default_factory=dict)
    """More terms, of which one is enough."""
    term_files: dict[Category, tuple[Path, ...]] = Field(default_factory=dict)
    """UTF-8 files of such terms, one a line."""
    patterns: bool = True
    """Look for requests too (`unsafe_patterns.py`, `unsafe_rules.py`): "how can I poison my neighbour"."""
    allowed: tuple[str, ...] = unsafe_words.ALLOWED
    """Phrases in which a term does not count."""
    most_soft: int | None = Field(2, ge=0)
    """Soft terms of all categories that a dialogue may hold; with more it goes, unless words of a consultation
    (`unsafe_words.MEDICINE`) are as many. Ours: of the 13,096 dialogues of the samples none goes. null: never."""
    scorer: Path | None = None
    """The directory of a trained scorer: a classification that knows `labels`, or a regression. `aquila data label`
    with task `safety` makes seeds for one."""
    labels: tuple[str, ...] = ()
    """Labels of the scorer that are unsafe: their probabilities are added up. (): all but "safe"."""
    threshold: float = 0.5
    """From this probability (or number) upwards a dialogue is dropped as "unsafe-score". Ours: choose it by the
    scorer's report."""
    action: Literal["drop", "flag"] = "drop"
    """`flag` keeps the dialogue and notes the finding under `unsafe`."""

    @model_validator(mode="after")
    def _something_to_do(self) -> "UnsafeConfig":
        if not self.categories and self.scorer is None:
            raise ValueError("step unsafe has neither categories nor a scorer: give one of them, or take the step out")
        return self

    def build(self, resources: Resources) -> "Unsafe":
        """Read the terms, load the scorer.

        Raises:
            InputError: a file of terms that cannot be read, a term that is too short; as `load_scorer`; a scorer that
                does not know the label, a threshold beyond its range.
        """
        scorer = None
        if self.scorer is not None:
            scorer = load_scorer(self.scorer, resources.tokenizer)
            task = scorer.task
            unknown = [label for label in self.labels or (SAFE,) if label not in task.labels]
            if task.name == "classification" and unknown:
                raise InputError(
                    f"step unsafe: scorer {self.scorer} knows {', '.join(task.labels)}: it must know {unknown[0]!r}, "
                    "or give its unsafe labels under labels"
                )
            low, high = (0.0, 1.0) if task.name == "classification" else (task.low, task.high)
            if not low <= self.threshold <= high:
                raise InputError(
                    f"step unsafe: threshold is {self.threshold:g}: {self.scorer} scores from {low:g} to {high:g}"
                )
        return Unsafe(self, scorer)

    def files(self) -> tuple[Path, ...]:
        """The files of terms, and the manifest of the scorer, which holds the digests of its files."""
        lists = tuple(path for paths in self.term_files.values() for path in paths)
        return lists if self.scorer is None else (*lists, self.scorer / MANIFEST)


class Unsafe:
    """counts: dialogues with a finding by category. Measures: "unsafe terms" (hard and soft ones in the dialogue) and
    "unsafe score", where there is a scorer.
    """

    name: ClassVar[str] = "unsafe"

    def __init__(self, config: UnsafeConfig, scorer: Scorer | None) -> None:
        self.config = config
        self.scorer = scorer
        self._hard: dict[str, Category] = {}
        self._soft: dict[str, Category] = {}
        for category in config.categories:
            own = (*unsafe_words.HARD[category], *config.terms.get(category, ()))
            self._hard |= dict.fromkeys([*own, *_read(config, category)], category)
            if config.most_soft is not None:
                self._soft |= dict.fromkeys(unsafe_words.SOFT[category], category)
        groups = (self._hard, self._soft, config.allowed)
        self._phrases = list(dict.fromkeys(phrase for group in groups for phrase in group))
        self._allowed = frozenset(config.allowed) - self._hard.keys() - self._soft.keys()
        try:
            self._finder = PhraseFinder(self._phrases)
        except ValueError as error:
            raise InputError(f"step unsafe: {error}; take it out") from error
        asked_for = config.categories if config.patterns else ()
        rules = {name: (category, rule) for category in asked_for for name, rule in _rules(category).items()}
        self._rules = RuleFinder({name: rule for name, (_, rule) in rules.items()})
        self._rule_categories = {name: category for name, (category, _) in rules.items()}
        self.facts: Mapping[str, int] = {"unsafe terms": len(self._hard), "soft terms": len(self._soft)}
        self.scales: Mapping[str, Scale] = {"unsafe terms": Scale(0, 20, bins=20)}
        if scorer is not None:
            low, high = (scorer.task.low, scorer.task.high) if scorer.task.name == "regression" else (0.0, 1.0)
            self.scales = {**self.scales, "unsafe score": Scale(low, high, limits={"": (config.threshold,)})}

    def __call__(self, batch: Batch) -> Outcome:
        findings: list[tuple[str, dict[str, Any]] | None] = [None] * len(batch)
        terms = np.zeros(len(batch))
        measures = {"unsafe terms": terms}
        for place, found in _by_place(self._finder(batch.texts)).items():
            hits = self._counted(found)
            terms[place] = len(hits)
            findings[place] = self._judged(hits, batch.texts[place])
        for place, names in self._rules(batch.texts).items():
            category = _commonest(self._rule_categories[name] for name in names)
            named = [name for name in names if self._rule_categories[name] == category]
            findings[place] = findings[place] or (f"unsafe-{category}", {"value": named, "limit": 0})
        if self.scorer is not None:
            scores = self._scores(batch, self.scorer)
            measures["unsafe score"] = scores
            for place in np.flatnonzero(scores >= self.config.threshold).tolist():
                detail = {"value": float(scores[place]), "limit": self.config.threshold}
                findings[place] = findings[place] or ("unsafe-score", detail)
        outcome = Outcome(measures=measures, counts=Counter(finding[0] for finding in findings if finding))
        if self.config.action == "drop":
            outcome.drops = [finding and Drop(*finding) for finding in findings]
        else:
            outcome.notes = [finding and {"unsafe": {"reason": finding[0], **finding[1]}} for finding in findings]
        return outcome

    def _counted(self, found: list[Found]) -> list[str]:
        """The terms that stand in a dialogue, from left to right: none that is part of an allowed phrase, and of
        overlapping ones (child porn, porn) the longest.
        """
        spans = [(hit.start, hit.end, self._phrases[hit.phrase]) for hit in found]
        allowed = sorted((start, end) for start, end, phrase in spans if phrase in self._allowed)
        ends = list(accumulate((end for _, end in allowed), max))
        taken: list[tuple[int, int, str]] = []
        for span in sorted(spans, key=lambda span: (span[0] - span[1], span)):
            start, end, phrase = span
            if phrase in self._allowed:
                continue
            before = bisect_right(allowed, (start, sys.maxsize)) - 1
            if before >= 0 and ends[before] >= end:
                continue
            at = bisect_right(taken, span)
            if (at == 0 or taken[at - 1][1] <= start) and (at == len(taken) or end <= taken[at][0]):
                taken.insert(at, span)
        return [phrase for _, _, phrase in taken]

    def _judged(self, phrases: list[str], text: str) -> tuple[str, dict[str, Any]] | None:
        """Reason and evidence, where the terms of a dialogue are too many."""
        hard = [phrase for phrase in phrases if phrase in self._hard]
        if hard:
            category = _commonest(self._hard[phrase] for phrase in hard)
            named = dict.fromkeys(phrase for phrase in hard if self._hard[phrase] == category)
            return f"unsafe-{category}", {"value": list(named)[:_MOST_NAMED], "limit": 0}
        soft = [phrase for phrase in phrases if phrase in self._soft]
        most = self.config.most_soft
        if most is None or len(soft) <= most:
            return None
        lower = text.lower()
        medicine = sum(word in lower for word in unsafe_words.MEDICINE)
        if medicine >= len(soft):
            return None
        detail = {"value": list(dict.fromkeys(soft))[:_MOST_NAMED], "soft terms": len(soft), "limit": most}
        return f"unsafe-{_commonest(self._soft[phrase] for phrase in soft)}", {**detail, "medical words": medicine}

    def _scores(self, batch: Batch, scorer: Scorer) -> npt.NDArray[np.float64]:
        scores_NC = scorer.score(batch)
        if scorer.task.name == "classification":
            unsafe = self.config.labels or [label for label in scorer.task.labels if label != SAFE]
            scores_NC = scores_NC[:, [label in unsafe for label in scorer.task.labels]]
        scores: npt.NDArray[np.float64] = np.round(scores_NC.sum(axis=1), SCORE_DECIMALS)
        return scores


def _rules(category: Category) -> dict[str, Rule]:
    return {**PATTERNS[category], **RULES_ZH[category], **RULES_EN[category]}


def _by_place(found: list[Found]) -> dict[int, list[Found]]:
    grouped: dict[int, list[Found]] = {}
    for hit in found:
        grouped.setdefault(hit.place, []).append(hit)
    return grouped


def _commonest(categories: Iterable[Category]) -> Category:
    """Of those as frequent the first in the order of CATEGORIES."""
    counts = Counter(categories)
    return max(CATEGORIES, key=lambda category: (counts[category], -CATEGORIES.index(category)))


def _read(config: UnsafeConfig, category: Category) -> list[str]:
    terms: list[str] = []
    for path in config.term_files.get(category, ()):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"step unsafe, term_files.{category}: {path} cannot be read as UTF-8 text: {error}"
            ) from error
        terms += [line.strip() for line in lines if line.strip()]
    return terms
