"""Built from csrc/text."""

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

# csrc/text/features.cpp

FEATURES: tuple[str, ...]
"""Names of the statistics, in the order of the columns; ratios of 0 to 0 are 0.

Shares of `characters` (len of the text): special, digits, alphanumeric, broken, duplicate_*_characters, top_n_gram,
duplicate_n_grams. Shares of `ink` (characters that are no blanks): han, flagged, boilerplate, advertising, links. Of
Han characters: traditional. For each of `words`: hashes, ellipses, newlines, alphabetic_words, stop_word_share.
`text_words` are words that are not punctuation only; mean_word_length is theirs. `stop_words` counts different ones.
Shares of lines: bullet_lines and ellipsis_lines (str.splitlines), duplicate_lines (between runs of newlines),
terminal_lines and short_lines (between newlines, not blank). `duplicate_ink_lines`: characters of such lines that
stood before, over all characters but newlines. Counts: solicitations, phones, and of C4's editing sentences (of the
lines that stay), lines, dropped_*, citations; lorem_ipsum and curly_bracket are 0 or 1. n-grams are counted within
the first 2,000,000 characters that are no blanks, unique_words among the first 10,000 words.
"""

class LineRules(TypedDict):
    """C4's rules for lines; None switches a number's rule off."""

    need_terminal: bool
    remove_citations: bool
    drop_javascript: bool
    drop_policy: bool
    max_word_length: int | None
    min_words: int | None

class Features:
    """The statistics of texts of one language.

    unit: what a word is. `characters`: each that is no blank. `words`: letters, digits and "_", with an apostrophe
    between them; every Han character and every other mark. `blanks`: what stands between blanks, as str.split has it.
    punctuation, terminal, traditional: the characters of these kinds. phrases: by group (flagged, boilerplate,
    advertising, links, broken, solicitation; lorem_ipsum, javascript, policy for lines), case aside; Latin ones of
    the first three as whole words. short_line: characters. line_rules: None leaves the lines alone, and the
    statistics of C4 at 0.
    """

    def __init__(
        self,
        unit: Literal["words", "characters", "blanks"],
        *,
        punctuation: str,
        terminal: str,
        traditional: str,
        stop_words: list[str],
        phrases: dict[str, list[str]],
        short_line: int,
        line_rules: LineRules | None,
    ) -> None: ...
    def __call__(self, texts: list[str]) -> tuple[npt.NDArray[np.float64], list[str | None]]:
        """float64 [N, len(FEATURES)], and the edited texts, None where a text stays as it is. Any str will do.

        The statistics are those of the texts after the editing, but for C4's own: sentences, lorem_ipsum,
        curly_bracket, lines, citations and the dropped lines.

        Raises:
            TypeError: a text is no str; names its place.
        """

def letter_counts(texts: list[str]) -> npt.NDArray[np.int64]:
    """[N, 3]: Han characters, ASCII letters and other letters of each text."""

# csrc/text/ngrams.cpp

class Folding:
    """How text folds: see data_tools/corpus/folding.py, which makes it."""

    def __init__(self, entries: npt.NDArray[np.uint32], pool: npt.NDArray[np.uint32]) -> None: ...

def fold(
    folding: Folding, text: str, join_numbers: bool = False
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Folded characters [C], the index into `text` that each came from [C], and the indices into the former at which
    words begin [W].
    """

class Signer:
    """MinHash rows of documents; keeps buffers, so one thread at a time."""

    def __init__(
        self,
        folding: Folding,
        *,
        bands: int,
        rows: int,
        sketch_bins: int,
        seed: int,
        characters: int,
        words: int,
        join_numbers: bool,
    ) -> None: ...
    def sign(self, texts: list[str], units: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """u8 [N, row_bytes]: see csrc/text/ngram_signatures.h. `units`: [N], of folding.py."""

    @property
    def row_bytes(self) -> int: ...

class NgramIndex:
    """Questions to be found in documents: see csrc/text/ngram_index.h. Lengths: n-gram, short, start, ratio."""

    def __init__(
        self,
        folding: Folding,
        *,
        characters: tuple[int, int, int, float],
        words: tuple[int, int, int, float],
        common: int,
    ) -> None: ...
    def add_text(self, text: str, unit: int) -> int:
        """The pattern's number; -1 where the text is too short."""

    def add_texts(self, texts: Sequence[str], unit: int, least: int) -> int:
        """The number of the pattern of texts that stand close together; -1 where they are too short."""

    def finish(self) -> None: ...
    def scan(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Best pattern of each text or -1 [N], its ratio [N], and the span of characters [N, 2]."""

    def scan_all(
        self, texts: list[str]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """All patterns that each text holds: the text's place [M], the pattern [M], its ratio [M], which reaches its
        unit's share, and the span of characters [M, 2]; by text and pattern.
        """

def find_roots(parents: npt.NDArray[np.uint64], ordinals: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The least ordinal of the cluster of each of `ordinals`. Shortens the paths in `parents`, in place."""

def unite(parents: npt.NDArray[np.uint64], left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> None:
    """Joins the clusters of left[k] and right[k], in place."""
