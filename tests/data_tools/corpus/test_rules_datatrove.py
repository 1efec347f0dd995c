"""Decisions, reasons and edited texts against datatrove's own filters, on 5,000 real documents.

The rules are the same where both sides count the same words: datatrove takes our units through its own WordTokenizer.
What differs by intent, and is not compared: datatrove's words (spaCy, jieba) are others; in a chain its FineWeb filter
sees the text that C4 edited, as all of our rules do; an empty line is a sentence to it if lines of no words may stay;
a document without words makes it divide by zero, and is 0 to us; n-grams beyond 2,000,000 characters are not counted.
"""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("datatrove")

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from benchmarks.corpus.datatrove_words import Words
from data_tools.corpus.batch import Batch
from data_tools.corpus.rules import RulesConfig
from data_tools.corpus.step_config import Resources
from tests.data_tools.corpus.real_texts import chatdoctor, dialogues, medquad, needs_shared, passages


class KnownWords(Words):
    """Splits each text once for all filters; C4 asks line by line."""

    def __init__(self, unit: str) -> None:
        super().__init__(unit)
        self.known: dict[str, list[str]] = {}

    def word_tokenize(self, text: str) -> list[str]:
        if text not in self.known:
            self.known[text] = super().word_tokenize(text)
        return self.known[text]


FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb", "flagdata", "advertising", "flagged")
GOPHER_QUALITY = {
    "min_words": 50, "max_words": 100_000, "min_mean_word_length": 3, "max_mean_word_length": 10,
    "max_hashes_per_word": 0.1, "max_ellipses_per_word": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3,
    "min_alphabetic_words": 0.8, "min_stop_words": 2,
}  # fmt: skip
GOPHER_REPETITION = {
    "max_duplicate_paragraphs": 0.3, "max_duplicate_paragraph_characters": 0.2, "max_duplicate_lines": 0.3,
    "max_duplicate_line_characters": 0.2, "max_top_2_gram": 0.2, "max_top_3_gram": 0.18, "max_top_4_gram": 0.16,
    **{f"max_duplicate_{n}_grams": 0.2 - n / 100 for n in range(5, 11)},
}  # fmt: skip
FINEWEB = {
    "min_terminal_lines": 0.12, "max_short_lines": 0.67, "max_duplicate_ink_lines": 0.01, "max_newlines_per_word": 0.3
}  # fmt: skip
C4 = {
    "min_line_words": 3, "min_sentences": 5, "drop_lines_without_end_mark": True, "edit_lines": ["zh", "en"],
    "max_lorem_ipsum": 0, "max_curly_brackets": 0,
}  # fmt: skip
REASONS = {
    "too-few-words": "gopher_short_doc", "too-many-words": "gopher_long_doc",
    "short-words": "gopher_below_avg_threshold", "long-words": "gopher_above_avg_threshold",
    "hash-signs": "gopher_too_many_hashes", "ellipses": "gopher_too_many_ellipsis",
    "bullet-lines": "gopher_too_many_bullets", "ellipsis-lines": "gopher_too_many_end_ellipsis",
    "few-alphabetic-words": "gopher_below_alpha_threshold", "few-stop-words": "gopher_enough_stop_words",
    "duplicate-paragraphs": "dup_para_frac", "duplicate-paragraph-characters": "dup_para_char_frac",
    "duplicate-lines": "dup_line_frac", "duplicate-line-characters": "dup_line_char_frac",
    **{f"top-{n}-gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicate-{n}-grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "few-terminal-lines": "line_punct_ratio", "short-lines": "short_line_ratio",
    "duplicate-ink-lines": "char_dup_ratio", "newlines": "list_ratio",
    "lorem-ipsum": "lorem_ipsum", "curly-bracket": "curly_bracket", "too-few-sentences": "too_few_sentences",
}  # fmt: skip
STOP_WORDS = {
    "en": ["the", "be", "to", "of", "and", "that", "have", "with"],
    "zh": list("的年在月是和日了有人中为他也而由"),
}


Judged = tuple[list[str | None], list[str]]
"""The reason of each drop, and the texts after editing."""


def ours(texts: list[str], language: str, unit: str, family: str, limits: dict[str, Any]) -> Judged:
    """By one family alone."""
    config = RulesConfig.model_validate(
        {**dict.fromkeys(FAMILIES, False), family: limits, "unit": {language: unit}, "stop_words": STOP_WORDS}
    )
    step = config.build(Resources(tokenizer=None, seed=0))  # type: ignore[arg-type]
    batch = Batch([""] * len(texts), texts, [language] * len(texts), [""] * len(texts), [{} for _ in texts])
    outcome = step(batch)
    reasons = [REASONS[drop.reason] if drop else None for drop in outcome.drops]
    return reasons, [new if new is not None else old for new, old in zip(outcome.texts, texts)]


def theirs(texts: list[str], build: Callable[[], Any]) -> Judged:
    filter_, reasons, edited = build(), [], []
    for text in texts:
        document = Document(text=text, id="")
        answer = filter_.filter(document)
        reasons.append(answer[1] if isinstance(answer, tuple) else None)
        edited.append(document.text)
    return reasons, edited


def compare(texts: list[str], language: str, unit: str) -> dict[str, int]:
    """Asserts equality of every document's outcome; returns how many each filter drops."""
    words, stops = KnownWords(unit), STOP_WORDS[language]
    cases: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
        "gopher_quality": (GOPHER_QUALITY, lambda: GopherQualityFilter(stop_words=stops, language=words)),
        "gopher_repetition": (GOPHER_REPETITION, lambda: GopherRepetitionFilter(language=words)),
        "fineweb": (FINEWEB, lambda: FineWebQualityFilter(language=words)),
        "c4": (C4, lambda: C4QualityFilter(language=words)),
    }
    dropped = {}
    for family, (limits, build) in cases.items():
        reasons, edited = ours(texts, language, unit, family, limits)
        expected, expected_texts = theirs(texts, build)
        assert reasons == expected, family
        kept = [place for place, reason in enumerate(reasons) if reason is None]
        assert [edited[place] for place in kept] == [expected_texts[place] for place in kept], family
        dropped[family] = len(texts) - len(kept)
    return dropped


@needs_shared
@pytest.mark.parametrize(("unit", "medquads", "chats"), [("words", 500, 2500), ("blanks", 100, 50)])
def test_english_documents_are_judged_as_datatrove_does(unit: str, medquads: int, chats: int) -> None:
    texts = [*medquad()[:medquads], *chatdoctor()[:chats]]
    dropped = compare(texts, "en", unit)
    assert all(0 < count < len(texts) for count in dropped.values())  # both outcomes of every filter were met


@needs_shared
def test_chinese_documents_are_judged_as_datatrove_does() -> None:
    dropped = compare([*dialogues()[:1950], *passages()[::106][:50]], "zh", "characters")
    assert dropped["gopher_repetition"] > 0 and dropped["fineweb"] > 0


HARD = [
    "one two three four five. " * 40,
    "A line of words that ends.\n" * 12 + "\n\nanother one...\n- bullet\n• bullet…\n" * 3,
    "Lorem ipsum dolor sit amet, they say. Yes! No? Well.\nMore { brackets } here.\nUse of cookies is fine by us.",
    "We need JavaScript to be enabled here.\nThis [1] has citations[23].\nSee also[edit] this one.\nIt ends [4]\n" * 3,
    "x" * 1001 + " long word.\nshort line.\r\nother\x0bbreaks\x85in\u2028it are here.\x1cYes they are, now.",
    "word\u3000blanks\xa0of all kinds\tare here and that is it.\n\n\n\n \n\t\nthe end of it",
    "\n\nthe text begins with newlines and to end\n\n",
    "ab c abc a bc ab c abc a bc " * 9,
]


@pytest.mark.parametrize("unit", ["words", "characters", "blanks"])
def test_hard_texts_are_judged_as_datatrove_does(unit: str) -> None:
    compare(HARD + [text * 5 for text in HARD], "en", unit)
