"""The rules step: documents that heuristics call bad go, by the first rule of RULES that they fail.

C4's rules for lines edit the text first; the other rules judge the text that comes out. All statistics come from one
call of the kernel a language (csrc/text), with single characters as words in Chinese.

N: documents of the batch. F: statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_tools import _text
from data_tools.corpus import rule_words
from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.rule_characters import PUNCTUATION, TERMINAL, traditional
from data_tools.corpus.rule_thresholds import (
    C4,
    Advertising,
    Family,
    FineWeb,
    FlagData,
    Flagged,
    GopherQuality,
    GopherRepetition,
    Limit,
)
from data_tools.corpus.step_config import Resources, StepConfig
from data_tools.inputs import InputError

Unit = Literal["words", "characters", "blanks"]
Language = Literal["zh", "en", "other"]
_LANGUAGES: tuple[Language, ...] = ("zh", "en", "other")


@dataclass(frozen=True)
class Rule:
    """A document goes for `reason` where `statistic` is beyond the limit that stands in `family` under `key`."""

    reason: str
    family: str
    key: str
    statistic: str

    @property
    def least(self) -> bool:
        return self.key.startswith("min_")


def _rules(family: str, rules: Mapping[str, tuple[str, str]]) -> tuple[Rule, ...]:
    return tuple(Rule(reason, family, key, statistic) for reason, (key, statistic) in rules.items())


RULES = (
    *_rules("flagdata", {
        "too-few-characters": ("min_characters", "characters"),
        "too-many-characters": ("max_characters", "characters"),
        "broken-characters": ("max_broken", "broken"),
        "few-han-characters": ("min_han", "han"),
    }),
    *_rules("flagged", {"flagged-words": ("max_flagged", "flagged")}),
    *_rules("advertising", {
        "solicitation": ("max_solicitations", "solicitations"),
        "advertising": ("max_advertising", "advertising"),
        "telephone-numbers": ("max_phones", "phones"),
        "links": ("max_links", "links"),
        "boilerplate": ("max_boilerplate", "boilerplate"),
    }),
    *_rules("c4", {
        "lorem-ipsum": ("max_lorem_ipsum", "lorem_ipsum"),
        "curly-bracket": ("max_curly_brackets", "curly_bracket"),
        "too-few-sentences": ("min_sentences", "sentences"),
    }),
    *_rules("gopher_quality", {
        "too-few-words": ("min_words", "text_words"),
        "too-many-words": ("max_words", "text_words"),
        "short-words": ("min_mean_word_length", "mean_word_length"),
        "long-words": ("max_mean_word_length", "mean_word_length"),
        "hash-signs": ("max_hashes_per_word", "hashes_per_word"),
        "ellipses": ("max_ellipses_per_word", "ellipses_per_word"),
        "bullet-lines": ("max_bullet_lines", "bullet_lines"),
        "ellipsis-lines": ("max_ellipsis_lines", "ellipsis_lines"),
        "few-alphabetic-words": ("min_alphabetic_words", "alphabetic_words"),
        "few-stop-words": ("min_stop_words", "stop_words"),
    }),
    *_rules("gopher_repetition", {
        "duplicate-paragraphs": ("max_duplicate_paragraphs", "duplicate_paragraphs"),
        "duplicate-paragraph-characters": ("max_duplicate_paragraph_characters", "duplicate_paragraph_characters"),
        "duplicate-lines": ("max_duplicate_lines", "duplicate_lines"),
        "duplicate-line-characters": ("max_duplicate_line_characters", "duplicate_line_characters"),
        **{f"top-{n}-gram": (f"max_top_{n}_gram", f"top_{n}_gram") for n in (2, 3, 4)},
        **{f"duplicate-{n}-grams": (f"max_duplicate_{n}_grams", f"duplicate_{n}_grams") for n in range(5, 11)},
    }),
    *_rules("fineweb", {
        "few-terminal-lines": ("min_terminal_lines", "terminal_lines"),
        "short-lines": ("max_short_lines", "short_lines"),
        "duplicate-ink-lines": ("max_duplicate_ink_lines", "duplicate_ink_lines"),
        "newlines": ("max_newlines_per_word", "newlines_per_word"),
    }),
    *_rules("flagdata", {
        "short-mean-line": ("min_mean_line_length", "mean_line_length"),
        "long-mean-line": ("max_mean_line_length", "mean_line_length"),
        "long-line": ("max_line_length", "max_line_length"),
        "special-characters": ("max_special", "special"),
        "digits": ("max_digits", "digits"),
        "few-alphanumeric-characters": ("min_alphanumeric", "alphanumeric"),
        "traditional-characters": ("max_traditional", "traditional"),
        "few-unique-words": ("min_unique_words", "unique_words"),
        "low-entropy": ("min_unigram_entropy", "unigram_entropy"),
        "repeated-characters": ("max_repeated_10_characters", "repeated_10_characters"),
        "repeated-10-grams": ("max_repeated_10_grams", "repeated_10_grams"),
    }),
)  # fmt: skip
"""In the order in which they are asked: what a reader of the report understands best comes first."""

_SCALES = {
    "characters": Scale(10, 1e6, log=True),
    "text_words": Scale(1, 1e5, log=True),
    "mean_word_length": Scale(0, 15),
    "alphabetic_words": Scale(0, 1),
    "special": Scale(0, 0.5),
    "digits": Scale(0, 0.5),
    "han": Scale(0, 1),
    "duplicate_lines": Scale(0, 1),
    "duplicate_5_grams": Scale(0, 1),
    "duplicate_10_grams": Scale(0, 1),
    "top_2_gram": Scale(0, 0.4),
    "terminal_lines": Scale(0, 1),
    "short_lines": Scale(0, 1),
    "unique_words": Scale(0, 1),
    "unigram_entropy": Scale(0, 8),
    "advertising": Scale(0, 0.2),
    "boilerplate": Scale(0, 0.2),
    "flagged": Scale(0, 0.1),
}
_EDITS = {
    "dropped_long_word": "dropped lines: word too long",
    "dropped_no_terminal": "dropped lines: no end mark",
    "dropped_few_words": "dropped lines: too few words",
    "dropped_javascript": "dropped lines: javascript",
    "dropped_policy": "dropped lines: policy",
    "citations": "removed citations",
}


class RulesConfig(StepConfig):
    """Families of rules; `gopher_quality: false` switches one off, `gopher_quality: {min_words: {en: 50}}` changes one
    limit.
    """

    step: Literal["rules"] = "rules"
    gopher_quality: GopherQuality = GopherQuality()
    gopher_repetition: GopherRepetition = GopherRepetition()
    c4: C4 = C4()
    fineweb: FineWeb = FineWeb()
    flagdata: FlagData = FlagData()
    advertising: Advertising = Advertising()
    flagged: Flagged = Flagged()
    unit: dict[Language, Unit] = Field(
        default={"zh": "characters", "en": "words", "other": "words"},
        description="what a word is: `characters` that are no blanks; `words` of letters, digits and apostrophes, each "
        "Han character and punctuation mark being one too; `blanks`: whatever stands between blanks",
    )
    stop_words: dict[Language, tuple[str, ...]] = Field(
        default=rule_words.STOP_WORDS, description="words that running text has, upper and lower case apart"
    )
    flagged_words: dict[Language, tuple[str, ...]] = Field(
        default=rule_words.FLAGGED, description="for texts of that language, case aside; Latin ones as whole words"
    )
    flagged_files: dict[Language, tuple[Path, ...]] = Field(
        default={}, description="UTF-8 files of more flagged words, one a line"
    )
    boilerplate: tuple[str, ...] = Field(default=rule_words.BOILERPLATE, description="phrases of web pages' frames")
    advertising_phrases: tuple[str, ...] = Field(default=rule_words.ADVERTISING, description="phrases of selling")
    solicitation_words: tuple[str, ...] = Field(
        default=rule_words.SOLICITATION, description="what an account's name or number follows within 6 characters"
    )

    def files(self) -> tuple[Path, ...]:
        return tuple(path for paths in self.flagged_files.values() for path in paths)

    def build(self, resources: Resources) -> "Rules":
        return Rules(self)


class Rules:
    """Drops by RULES; edits lines by C4. A document without a language is taken for the one of most of its letters."""

    name: ClassVar[str] = "rules"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: RulesConfig) -> None:
        self._kernels = {language: _kernel(config, language) for language in _LANGUAGES}
        self._limits = {language: _limits(config, language) for language in _LANGUAGES}
        self.scales: Mapping[str, Scale] = {name: _scale(name, scale, config) for name, scale in _SCALES.items()}

    def __call__(self, batch: Batch) -> Outcome:
        outcome = Outcome(drops=[None] * len(batch), texts=[None] * len(batch))
        measures = {name: np.full(len(batch), np.nan) for name in _SCALES}
        languages = np.array(_languages(batch))
        for language in _LANGUAGES:
            places = np.flatnonzero(languages == language)
            if not len(places):
                continue
            table_NF = self._edit(language, [batch.texts[place] for place in places], places, outcome)
            for name, column in measures.items():
                column[places] = table_NF[:, _COLUMN[name]]
            for row, rule, value, limit in self._limits[language].first_failures(table_NF):
                detail = {"value": value, "limit": limit, "language": language}
                outcome.drops[places[row]] = Drop(rule.reason, detail)
        outcome.measures = measures
        return outcome

    def _edit(
        self, language: Language, texts: list[str], places: npt.NDArray[np.intp], outcome: Outcome
    ) -> npt.NDArray[np.float64]:
        """The statistics of the texts after C4's editing, which goes into the outcome."""
        table_NF, edited = self._kernels[language](texts)
        rows = [row for row, text in enumerate(edited) if text is not None]
        if rows:
            outcome.counts["edited documents"] += len(rows)
        for row in rows:
            outcome.texts[places[row]] = edited[row]
        for column, name in _EDITS.items():
            if total := int(table_NF[rows, _COLUMN[column]].sum()):
                outcome.counts[name] += total
        return table_NF


_COLUMN = {name: place for place, name in enumerate(_text.FEATURES)}


class _Limits:
    """The limits of one language, as arrays over the R rules that are on."""

    def __init__(self, rules: Sequence[tuple[Rule, float]]) -> None:
        self.rules = [rule for rule, _ in rules]
        self.limits_R = np.array([limit for _, limit in rules], np.float64)
        self.columns_R = np.array([_COLUMN[rule.statistic] for rule in self.rules], np.intp)
        self.signs_R = np.array([-1.0 if rule.least else 1.0 for rule in self.rules])

    def first_failures(self, table_NF: npt.NDArray[np.float64]) -> list[tuple[int, Rule, float, float]]:
        """Row, rule, value and limit of each document that fails one."""
        if not self.rules:
            return []
        values_NR = table_NF[:, self.columns_R]
        failed_NR = values_NR * self.signs_R > self.limits_R * self.signs_R
        rows = np.flatnonzero(failed_NR.any(axis=1))
        firsts = failed_NR[rows].argmax(axis=1)
        return [
            (int(row), self.rules[first], float(values_NR[row, first]), float(self.limits_R[first]))
            for row, first in zip(rows, firsts)
        ]


def _limits(config: RulesConfig, language: Language) -> _Limits:
    found = []
    for rule in RULES:
        family: Family = getattr(config, rule.family)
        limit: Limit = getattr(family, rule.key)
        value: float | None = getattr(limit, language)
        if family.enabled and value is not None:
            found.append((rule, value))
    return _Limits(found)


def _scale(statistic: str, scale: Scale, config: RulesConfig) -> Scale:
    limits: dict[str, tuple[float, ...]] = {}
    for language in _LANGUAGES:
        of = _limits(config, language)
        found = tuple(float(limit) for rule, limit in zip(of.rules, of.limits_R) if rule.statistic == statistic)
        if found:
            limits[language] = found
    return Scale(scale.low, scale.high, scale.log, scale.bins, limits)


def _kernel(config: RulesConfig, language: Language) -> _text.Features:
    c4 = config.c4
    flagged = list(config.flagged_words.get(language, ()))
    for path in config.flagged_files.get(language, ()):
        flagged += _lines(path, f"flagged_files.{language}")
    return _text.Features(
        config.unit.get(language, "words"),
        punctuation=PUNCTUATION,
        terminal=TERMINAL,
        traditional=traditional(),
        stop_words=list(config.stop_words.get(language, ())),
        phrases={
            "flagged": flagged,
            "boilerplate": list(config.boilerplate),
            "advertising": list(config.advertising_phrases),
            "links": list(rule_words.LINKS),
            "broken": list(rule_words.BROKEN),
            "solicitation": list(config.solicitation_words),
            "lorem_ipsum": list(rule_words.LOREM_IPSUM),
            "javascript": list(rule_words.JAVASCRIPT),
            "policy": list(rule_words.POLICY),
        },
        short_line=config.fineweb.short_line,
        line_rules={
            "need_terminal": c4.drop_lines_without_end_mark,
            "remove_citations": c4.remove_citations,
            "drop_javascript": c4.drop_javascript_lines,
            "drop_policy": c4.drop_policy_lines,
            "max_word_length": c4.max_line_word_length,
            "min_words": c4.min_line_words,
        }
        if c4.enabled and language in c4.edit_lines
        else None,
    )


def _lines(path: Path, key: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"step rules, {key}: {path} cannot be read as UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _languages(batch: Batch) -> list[str]:
    """The language of each text; where the language step has not run, by its letters: zh from 3 Han characters in 10,
    else en from 9 ASCII letters in 10 of the others.
    """
    unknown = [place for place, language in enumerate(batch.langs) if language not in _LANGUAGES]
    languages = list(batch.langs)
    if unknown:
        counts = _text.letter_counts([batch.texts[place] for place in unknown])
        for place, (han, ascii_letters, letters) in zip(unknown, counts.tolist()):
            if han >= 0.3 * (han + ascii_letters + letters) and han:
                languages[place] = "zh"
            else:
                languages[place] = "en" if ascii_letters >= 0.9 * (ascii_letters + letters) else "other"
    return languages
