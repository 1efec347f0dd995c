"""The limits of the rules, by family and language, with their sources.

A limit is one number for each language; null switches its rule off there. In a recipe, `{en: 20}` changes one
language and a bare number (or null) changes all of them. "Words" are single characters in Chinese and in "other" text
without blanks between words, and words and single punctuation marks otherwise: `RulesConfig.unit`.

Sources: Gopher = arXiv 2112.11446, table A1 and A.1.1, as in datatrove 0.10.1. C4 = arXiv 1910.10683 and c4_utils.py
of tensorflow_datasets. FineWeb = arXiv 2406.17557, as in datatrove 0.10.1. FineWeb-2 = configs/cmn_Hani.yml and
fineweb-2-pipeline.py of huggingface/fineweb-2; its units are jieba words. MAP-NEO =
Matrix/chinese_data_clean_pipeline/ filter/filter.py; its units are characters, as here. FlagData = the operators of
FlagOpen/FlagData (data_operator), by the team of IndustryCorpus. Data-Juicer = its defaults and zh recipe. NeMo-
Curator = its heuristic filters' defaults. ChineseWebText = preprocess.py of CASIA-LM/ChineseWebText. "Measured" = on
MedQuAD, GenMedGPT-5k, real Chinese patient-doctor dialogues and classical Chinese medical books in passages of 2,000
characters.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Limit(BaseModel):
    """A threshold for each language; None: no rule."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # of Chinese texts
    zh: float | None = None
    # of English ones
    en: float | None = None
    # of all others
    other: float | None = None


class Family(BaseModel):
    """Rules of one source. A field's missing languages keep their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """Whether the rules of this family drop documents."""

    @model_validator(mode="before")
    @classmethod
    def _keep_other_languages(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return {"enabled": given} if isinstance(given, bool) else given
        merged = dict(given)
        for name, value in given.items():
            default = cls.model_fields[name].default if name in cls.model_fields else None
            if isinstance(default, Limit):
                if isinstance(value, dict):
                    merged[name] = default.model_dump() | value
                elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                    merged[name] = dict.fromkeys(Limit.model_fields, value)
        return merged


def _limit(zh: float | None, en: float | None, other: float | None) -> Any:
    return Field(default=Limit(zh=zh, en=en, other=other))


class GopherQuality(Family):
    """Gopher's quality rules."""

    min_words: Limit = _limit(50, 20, 20)
    """Least number of words that are not punctuation. Gopher 50, for web pages; MAP-NEO 50 characters. A question
    with its answer is shorter: measured, 50 would drop 12 % of MedQuAD and 40 % of GenMedGPT-5k.
    """
    max_words: Limit = _limit(164_000, 100_000, 100_000)
    """Most words. Gopher 100,000; in characters of Chinese 1.64 times as many (measured with jieba)."""
    min_mean_word_length: Limit = _limit(None, 3, None)
    """Characters of a word, on average. Gopher 3. A Chinese word here has one."""
    max_mean_word_length: Limit = _limit(None, 10, None)
    """Gopher 10."""
    max_hashes_per_word: Limit = _limit(0.1, 0.1, 0.1)
    """"#" for each word. Gopher 0.1."""
    max_ellipses_per_word: Limit = _limit(0.1, 0.1, 0.1)
    """"..." and "…" for each word. Gopher 0.1."""
    max_bullet_lines: Limit = _limit(0.9, 0.9, 0.9)
    """Share of lines that begin with a bullet. Gopher 0.9."""
    max_ellipsis_lines: Limit = _limit(0.3, 0.3, 0.3)
    """Share of lines that end with an ellipsis. Gopher 0.3."""
    min_alphabetic_words: Limit = _limit(0.6, 0.6, 0.5)
    """Share of words with a letter, punctuation marks being words. Gopher 0.8; FineWeb-2 0.735 for Chinese. In single
    characters and short medical texts that drops too many (measured: 1 % of MedQuAD are below 0.69, of GenMedGPT-5k
    below 0.64, of book passages below 0.70).
    """
    min_stop_words: Limit = _limit(2, 2, None)
    """Different ones of `stop_words` in the text. Gopher 2 of 8; FineWeb-2 2 of 22."""


class GopherRepetition(Family):
    """Gopher's repetition rules: shares of the characters of the text unless said otherwise."""

    max_duplicate_paragraphs: Limit = _limit(None, 0.3, 0.3)
    """Share of paragraphs that stood before. Gopher 0.3; FineWeb-2 off."""
    max_duplicate_paragraph_characters: Limit = _limit(None, 0.2, 0.2)
    """Gopher 0.2; FineWeb-2 off."""
    max_duplicate_lines: Limit = _limit(0.287, 0.3, 0.3)
    """Share of lines that stood before. Gopher 0.3; FineWeb-2 0.287."""
    max_duplicate_line_characters: Limit = _limit(None, 0.2, 0.2)
    """Gopher 0.2; FineWeb-2 off, as FineWeb's own rule of repeated lines is stricter."""
    max_top_2_gram: Limit = _limit(0.256, 0.2, 0.2)
    """The most frequent 2-gram of words. Gopher and MAP-NEO 0.20; FineWeb-2 0.256, which lets a short dialogue name its
    disease."""
    max_top_3_gram: Limit = _limit(0.201, 0.18, 0.18)
    """Gopher and MAP-NEO 0.18; FineWeb-2 0.201."""
    max_top_4_gram: Limit = _limit(0.171, 0.16, 0.16)
    """Gopher and MAP-NEO 0.16; FineWeb-2 0.171."""
    max_duplicate_5_grams: Limit = _limit(0.6, 0.15, 0.15)
    """5-grams of words that stood before. Gopher 0.15; in characters MAP-NEO 0.60 (FineWeb-2, jieba words, 0.198)."""
    max_duplicate_6_grams: Limit = _limit(0.6, 0.14, 0.14)
    """Gopher 0.14; MAP-NEO 0.60 (FineWeb-2 0.182)."""
    max_duplicate_7_grams: Limit = _limit(0.6, 0.13, 0.13)
    """Gopher 0.13; MAP-NEO 0.60 (FineWeb-2 0.167)."""
    max_duplicate_8_grams: Limit = _limit(0.6, 0.12, 0.12)
    """Gopher 0.12; MAP-NEO 0.60 (FineWeb-2 0.154)."""
    max_duplicate_9_grams: Limit = _limit(0.6, 0.11, 0.11)
    """Gopher 0.11; MAP-NEO 0.60 (FineWeb-2 0.14)."""
    max_duplicate_10_grams: Limit = _limit(0.6, 0.1, 0.1)
    """Gopher 0.10; MAP-NEO 0.60 (FineWeb-2 0.127)."""


class C4(Family):
    """C4: lines are edited before any rule judges the document, which is dropped on the last three limits.

    Lines are edited in the languages of `edit_lines`: stripped, and dropped by the rules that are on. A rule that
    needs words takes what stands between blanks.
    """

    edit_lines: tuple[str, ...] = ("en",)
    """Languages whose lines are edited. C4 is made for English; FineWeb-2 leaves it out for Chinese."""
    remove_citations: bool = True
    """"[1]", "[edit]" and "[citation needed]" are cut out. C4."""
    drop_javascript_lines: bool = True
    """Lines with "javascript". C4."""
    drop_policy_lines: bool = True
    """Lines with "use cookies", "privacy policy", "terms of use" and the like. C4."""
    drop_lines_without_end_mark: bool = False
    """Lines that do not end in . ? ! " ' C4 drops them; FineWeb runs C4 without this rule, which costs most text."""
    max_line_word_length: int | None = Field(default=1000, ge=0)
    """Lines with a longer word go, in characters. C4 1,000."""
    min_line_words: int | None = Field(default=None, ge=0)
    """Lines with fewer words go, empty ones too. C4 3, which empties lists of symptoms and joins all paragraphs."""
    min_sentences: Limit = _limit(None, 1, None)
    """Least sentences of the lines that stayed. C4 5, for web pages; measured, half of GenMedGPT-5k has fewer."""
    max_lorem_ipsum: Limit = _limit(None, 0, None)
    """Most occurrences of "lorem ipsum", 0 or 1. C4 0."""
    max_curly_brackets: Limit = _limit(None, 0, None)
    """Most occurrences of "{", 0 or 1. C4 0."""


class FineWeb(Family):
    """FineWeb's rules for lines between newlines that are not blank."""

    min_terminal_lines: Limit = _limit(None, 0.12, 0.12)
    """Share of lines that end in a terminal mark of any script. FineWeb 0.12; FineWeb-2 0.106, off here: measured,
    half of the book passages (lines wrapped at 40 characters) and 5 % of the dialogues have none.
    """
    max_short_lines: Limit = _limit(None, 0.67, 0.67)
    """Share of lines of at most `short_line` characters. FineWeb 0.67; FineWeb-2 off."""
    short_line: int = Field(default=30, ge=0)
    """Characters. FineWeb 30."""
    max_duplicate_ink_lines: Limit = _limit(0.2, 0.1, 0.1)
    """Share of characters in lines that stood before. FineWeb 0.01 for long web pages: in 2,000 characters one heading
    of 20 that comes twice. FineWeb-2 0.1 in every language. zh: 0.2, Gopher's limit for characters in repeated lines:
    in classical books the headings of volumes and 又方 ("another recipe") come again (measured: 9 % of passages are
    above 0.1, by these; 4 % above 0.2, and of those above 0.3 most repeat whole articles).
    """
    max_newlines_per_word: Limit = _limit(0.178, 0.3, 0.3)
    """FineWeb 0.3; FineWeb-2 0.178 for jieba words, so that it is milder in characters."""


class FlagData(Family):
    """Ratios of characters: FlagData's operators, the public kin of IndustryCorpus, and what others measure like
    them.
    """

    min_characters: Limit = _limit(10, 10, 10)
    """FlagData 10."""
    max_characters: Limit = _limit(1e8, 1e8, 1e8)
    """FlagData 1e8."""
    min_mean_line_length: Limit = _limit(5, 10, 10)
    """Characters. FlagData 10. Verses and tables of books have less (measured, 5 % of passages are below 10.6)."""
    max_mean_line_length: Limit = _limit(10_000, 10_000, 10_000)
    """FlagData 10,000."""
    max_line_length: Limit = _limit(100_000, 100_000, 100_000)
    """FlagData 10,000, which drops an article on one line (measured: up to 14,000 in MedQuAD)."""
    max_special: Limit = _limit(0.3, 0.25, 0.25)
    """Characters that are neither letters, digits nor blanks. FlagData, Data-Juicer and NeMo-Curator 0.25; punctuated
    classics come up to it (measured: 5 % of passages are above 0.234)."""
    max_digits: Limit = _limit(0.3, 0.15, 0.3)
    """MAP-NEO 0.3; NeMo-Curator 0.15."""
    min_alphanumeric: Limit = _limit(0.25, 0.25, 0.25)
    """Data-Juicer 0.25. FlagData's own 0 … 0.8 would drop most text: letters are 0.8 of English, 0.9 of Chinese."""
    min_han: Limit = _limit(0.3, None, None)
    """Share of Han characters among what is not blank. ChineseWebText 0.30."""
    max_traditional: Limit = _limit(None, None, None)
    """Share of traditional forms among Han characters. ChineseWebText drops any; here `normalise` can turn them."""
    max_broken: Limit = _limit(0.01, 0.01, 0.01)
    """Replacement, control and private-use characters, surrogates, and text decoded wrongly before. Own limit."""
    min_unique_words: Limit = _limit(0.1, 0.1, None)
    """Different words for each word, among the first 10,000. MAP-NEO 0.1."""
    min_unigram_entropy: Limit = _limit(3, 2, None)
    """Of words, in nats. MAP-NEO 3; a text of 20 words has at most 3.0."""
    max_repeated_10_characters: Limit = _limit(0.5, 0.5, 0.5)
    """Share of the most frequent 10-grams of characters, blanks aside. Data-Juicer and FlagData 0.5."""
    max_repeated_10_grams: Limit = _limit(0.5, 0.5, 0.5)
    """Different 10-grams of words that stand more than once, for each 10-gram. FlagData 0.5."""


class Advertising(Family):
    """Frames of web pages and advertising: shares of the characters that are not blank, or counts."""

    max_boilerplate: Limit = _limit(0.1, 0.1, 0.1)
    """Share in phrases of `boilerplate`. Own limit (measured: at most 0.035; NeMo-Curator 0.4 of the paragraphs)."""
    max_advertising: Limit = _limit(0.05, 0.05, 0.05)
    """Share in phrases of `advertising`. Own limit (measured: at most 0.044, by a doctor's "根治")."""
    max_links: Limit = _limit(0.2, 0.2, 0.2)
    """Share in links. NeMo-Curator 0.2."""
    max_solicitations: Limit = _limit(0, 0, 0)
    """Accounts given for WeChat, QQ, WhatsApp and the like. Own limit (measured: none in any document)."""
    max_phones: Limit = _limit(3, None, None)
    """Telephone numbers of China and North America. Own limit; English patient information lists help lines."""


class Flagged(Family):
    """Words that no training text should be full of."""

    max_flagged: Limit = _limit(0.017, 0.045, 0.045)
    """Share of characters in flagged words. FlagData 0.045, Data-Juicer's zh recipe 0.017, of words or tokens."""
