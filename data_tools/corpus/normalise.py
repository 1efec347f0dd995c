"""Text made uniform: broken Unicode repaired, NFKC where safe, white space, control characters, left-overs of HTML,
and, where asked for, traditional characters made simplified.

Folded: full-width letters, digits and signs; half-width katakana; ligatures; Kangxi radicals and compatibility
ideographs; presentation forms; mathematical alphabets; unit signs (㎎ to mg, ㎡ to m²); µ (U+00B5) to
μ (U+03BC), as NFKC does.
Kept, for NFKC would change how they read: full-width punctuation ，：；！？（）～, superscripts and subscripts (10⁹/L),
fractions, circled numbers, Roman numerals (Ⅱ型糖尿病), ℃ and the other letter-like signs, … and ™.

Most texts need nothing of it: one pass of numpy over the batch finds those that might, and only they are worked on.
Links are the privacy step's. Needs no step before it. C: code points of a group of texts (`code_points.py`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_tools.corpus.batch import Batch, Drop, Outcome, Scale
from data_tools.corpus.code_points import code_points
from data_tools.corpus.repairs import repair
from data_tools.corpus.step_config import Resources, StepConfig

MOST_PASSES = 16  # of repair until a text stays as it is; two suffice but for nested entities and tags


class NormaliseConfig(StepConfig):
    """How text is made uniform."""

    step: Literal["normalise"] = "normalise"
    most_broken: float = Field(0.01, ge=0, le=1)
    """Share of characters that no repair brings back (U+FFFD, private use, 锟斤拷): above it a document is dropped as
    "broken-text", below it they are removed. One in a hundred spoils a sentence in each paragraph."""
    unescape_html: bool = True
    """Decode entities that end in a semicolon (`&nbsp;` `&lt;`); `<br>` and `</p>` to new lines; remove tags of layout;
    `<sup>9</sup>` to ⁹."""
    traditional_to_simplified: bool = False
    """OpenCC t2s, for zh texts, and for those without a language yet that hold no kana."""

    def build(self, resources: Resources | None = None) -> "NormaliseStep":
        return NormaliseStep(self)


class NormaliseStep:
    """Replaces texts by their uniform form; the same text again changes nothing."""

    name: ClassVar[str] = "normalise"
    facts: ClassVar[Mapping[str, int]] = {}

    def __init__(self, config: NormaliseConfig) -> None:
        self.config = config
        self.scales: Mapping[str, Scale] = {
            "broken share": Scale(1e-4, 1, log=True, limits={"": (config.most_broken,)} if config.most_broken else {})
        }

    def __call__(self, batch: Batch) -> Outcome:
        config, count = self.config, len(batch)
        drops: list[Drop | None] = [None] * count
        texts: list[str | None] = [None] * count
        counts: Counter[str] = Counter()
        shares = np.zeros(count)
        traditional = set()
        if config.traditional_to_simplified:
            # Folding comes first: a compatibility ideograph can be a traditional character.
            traditional = set(_holding(batch.texts, _traditional_table()))
        for place in sorted({*suspects(batch.texts), *traditional}):
            text: str | None = batch.texts[place]
            assert text is not None
            text, broken = repaired(text, config.unescape_html)
            if text is not None and config.traditional_to_simplified and batch.langs[place] in ("", "zh"):
                text = simplified(text, counts)
            shares[place] = broken / max(len(batch.texts[place]), 1)
            if broken:
                counts["broken characters"] += broken
            if text is None:
                drops[place] = Drop("broken-text", {"value": "no stable form", "limit": MOST_PASSES})
            elif shares[place] > config.most_broken:
                share = round(float(shares[place]), 4)
                drops[place] = Drop("broken-text", {"value": share, "limit": config.most_broken})
            elif not text:
                drops[place] = Drop("empty-text", {"value": len(batch.texts[place])})
            elif text != batch.texts[place]:
                texts[place] = text
                counts["normalised texts"] += 1
        return Outcome(drops=drops, texts=texts, counts=counts, measures={"broken share": shares})


def normalise(text: str, unescape_html: bool = True) -> str:
    """The uniform form of a text; `normalise(normalise(x)) == normalise(x)`.

    Raises:
        ValueError: the text nests entities or tags deeper than `MOST_PASSES`.
    """
    if not suspects([text]):
        return text
    result, _ = repaired(text, unescape_html)
    if result is None:
        raise ValueError(f"the text still changes after {MOST_PASSES} passes: entities or tags nested that deep")
    return result


def suspects(texts: list[str]) -> list[int]:
    """The places of the texts that `repaired` might change, and of few others; what is not here is uniform."""
    return sorted(_holding(texts, _suspicious_table(), spacing=True))


def repaired(text: str, unescape_html: bool = True) -> tuple[str | None, int]:
    """The uniform form (None: none within MOST_PASSES) and how many characters were beyond repair and removed."""
    broken = 0
    for _ in range(MOST_PASSES):
        text, lost = repair(text, unescape_html)
        broken += lost
        text = _surface(text)
        # The surface of a surface is itself; what it freed (＆lt; is &lt; now) may be a structure.
        if repair(text, unescape_html) == (text, 0):
            return text, broken
    return None, broken


def simplified(text: str, counts: Counter[str] | None = None) -> str:
    """Traditional characters simplified; Japanese (any kana) is left alone."""
    if text.isascii() or _KANA.search(text):
        return text
    result = str(_opencc().convert(text))
    if counts is not None and result != text:
        counts["simplified texts"] += 1
    return result


def _surface(text: str) -> str:
    """Characters folded, composed and spaced."""
    if text.isascii():
        if _CONTROL.search(text):
            text = _folded_text(text)
    else:
        text = _folded_text(text)
        if "\u200c" in text or "\u200d" in text:
            text = _JOINER.sub("", text)
    return _spaced(unicodedata.normalize("NFC", text))


# --- characters -----------------------------------------------------------------------------------------------------

# Joiners shape emoji and the scripts from Arabic to Sinhala; elsewhere they are invisible noise.
_JOINER = re.compile("(?<![\u0600-\u0dff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]+")
_KANA = re.compile("[ぁ-ゖァ-ヺ]")
_INVISIBLE = (
    *range(0x00, 0x09), *range(0x0E, 0x20), 0x7F,  # C0 without white space
    0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
    *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0200),  # annotations; tags and ideographic variants
)  # fmt: skip
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BEYOND = re.compile("[\U00010000-\U0010ffff]")
_LINE_ENDS = (0x0B, 0x0C, 0x2028, 0x2029)
_BLANKS = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
_WIDE_PUNCTUATION = dict(zip("!(),:;?~", "！（），：；？～"))
# The first two planes but for ideographs, Hangul syllables, surrogates, Tangut and Khitan, of which none has another
# form or is a mark; beyond, only the ideographs at U+2F800 have, and all from U+E0000 is looked at.
_VARIED = (range(0x3400), range(0xA000, 0xAC00), range(0xE000, 0x17000), range(0x18D00, 0x20000))
_KEPT_TAGS = ("<super>", "<sub>", "<fraction>", "<circle>", "<noBreak>")


def _changed(form: Literal["NFC", "NFKC"]) -> list[str]:
    """The characters of _VARIED that the normal form changes, each alone. Whole blocks that it leaves as they are, and
    most are such, cost one comparison.
    """
    found = []
    for start in (start for codes in _VARIED for start in codes[::256]):
        block = "\n".join(map(chr, range(start, start + 256)))  # nothing composes with a newline
        if not unicodedata.is_normalized(form, block):
            found += [character for character in block[::2] if unicodedata.normalize(form, character) != character]
    return found


@cache
def _folding() -> dict[int, str]:
    """What `str.translate` makes of each character: NFKC where safe, and the white space and control characters."""
    table = {}
    for character in _changed("NFKC"):
        target = _folded(character)
        if target != character:
            table[ord(character)] = target
    for code in range(0x80, 0xA0):  # C1 controls are Windows-1252, as every browser reads them
        table[code] = bytes([code]).decode("cp1252", "ignore")
    table |= dict.fromkeys(_INVISIBLE, "") | dict.fromkeys(_LINE_ENDS, "\n") | dict.fromkeys(_BLANKS, " ")
    table[0x3000] = table[0xA0] = "\u3000"  # for `_spaced`: an indentation made of these is no indentation
    return {code: target.translate(table) for code, target in table.items()}


@cache
def _foldable() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The keys of `_folding` as two sets, of the basic plane and beyond it: `re` has a fast set for the former alone.
    `str.translate` is slower: inside it raises for every other character.
    """
    keys = sorted(map(chr, _folding()))
    basic = [key for key in keys if key <= "\uffff"]
    return tuple(re.compile("[" + "".join(map(re.escape, part)) + "]") for part in (basic, keys[len(basic) :]))  # type: ignore[return-value]


def _folded_text(text: str) -> str:
    basic, beyond = _foldable()
    text = basic.sub(_replacement, text)
    return beyond.sub(_replacement, text) if _BEYOND.search(text) else text


def _replacement(match: re.Match[str]) -> str:
    return _folding()[ord(match[0])]


def _folded(character: str) -> str:
    """NFKC of one character if that is safe, else itself."""
    parts = unicodedata.decomposition(character).split()
    code = ord(character)
    if not parts or not parts[0].startswith("<") or parts[0] in _KEPT_TAGS or " 0020" in " ".join(parts):
        return character  # canonical ones are NFC's; a mark on a space is a sign of its own
    if parts[0] == "<square>":
        # One level only, so that ㎡ stays square: m².
        latin = 0x3371 <= code <= 0x33DF and not 0x337B <= code <= 0x337F
        return "".join(chr(int(part, 16)) for part in parts[1:]).replace("ℓ", "l") if latin else character
    folded = unicodedata.normalize("NFKC", character)
    if parts[0] in ("<vertical>", "<small>"):
        return _WIDE_PUNCTUATION.get(folded, folded)
    if parts[0] == "<wide>" and folded in _WIDE_PUNCTUATION:
        return character
    if parts[0] == "<compat>" and not _safe_compatible(code):
        return character
    if parts[0] == "<font>" and 0x2100 <= code <= 0x214F:
        return character
    return folded


def _safe_compatible(code: int) -> bool:
    """Ligatures, digraphs, radicals, μ and variant letters are; letter-like signs, numerals and … are not."""
    return (
        code in (0xB5, 0x132, 0x133, 0x13F, 0x140, 0x149, 0x17F)
        or 0x1C4 <= code <= 0x1F3
        or 0x3D0 <= code <= 0x3F9
        or 0x2E80 <= code <= 0x2FD5
        or 0xFB00 <= code <= 0xFB17
    )


# --- white space ----------------------------------------------------------------------------------------------------

_WIDE_INDENTATION = re.compile("^[ \t]*\u3000[ \t\u3000]*", re.MULTILINE)
_RUN = re.compile("[ \t]{2,}")
_SPACES = re.compile("  +")
_BLANK_LINES = re.compile("\n{3,}")


def _spaced(text: str) -> str:
    """Lines end in one newline and nothing before it; at most one blank line; one blank (or tab) between words.

    An indentation of spaces or tabs is kept, for it is code or a list; one of ideographic or no-break spaces is not.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\u3000" in text:
        text = _WIDE_INDENTATION.sub("", text).replace("\u3000", " ")
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "\t" in text:
        text = _RUN.sub(_one_blank, text)
    elif "  " in text:
        text = _SPACES.sub(_one_blank, text)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()


def _one_blank(match: re.Match[str]) -> str:
    run = match[0]
    if match.start() == 0 or match.string[match.start() - 1] == "\n":
        return run  # an indentation
    return "\t" if "\t" in run else " "


# --- which texts need it --------------------------------------------------------------------------------------------


@cache
def _suspicious_table() -> npt.NDArray[np.uint8]:
    """1: a character that may be changed wherever it stands."""
    table = np.zeros(0x110000, np.uint8)
    table[list(map(ord, _changed("NFC")))] = 1
    for codes in _VARIED:
        categories = "".join(map(unicodedata.category, map(chr, codes)))
        table[codes.start : codes.stop] |= np.frombuffer(categories.encode(), np.uint8)[::2] == ord("M")
    table[0x2F800:0x2FA20] = 1
    table[0xE0000:] = 1
    table[0x1100:0x1200] = 1  # jamo compose
    table[0xE000:0xF900] = 1
    table[0xFDD0:0xFDF0] = 1
    marked = [*_folding(), *_INVISIBLE, 0x0D, 0x1B, 0xFFFD, 0xFFFE, 0xFFFF, 0x200C, 0x200D, *map(ord, "&锛紝銆锟斤")]
    table[marked] = 1
    table[0xC2:0xF1] = 1  # may begin mojibake
    table[0xD7] = 0  # ×, which begins that of Hebrew only
    return table


@cache
def _traditional_table() -> npt.NDArray[np.uint8]:
    """1: an ideograph that OpenCC changes, alone."""
    table = np.zeros(0x110000, np.uint8)
    han = [chr(code) for code in (*range(0x3400, 0xA000), *range(0xF900, 0xFB00), *range(0x20000, 0x32000))]
    for character, other in zip(han, _opencc().convert("\n".join(han)).split("\n")):
        table[ord(character)] = character != other
    return table


def _holding(texts: list[str], table: npt.NDArray[np.uint8], spacing: bool = False) -> set[int]:
    found: set[int] = set()
    for group in code_points(texts):
        codes_C = group.codes_C
        marks_C = table[codes_C] != 0
        if spacing:
            # Pairs: a blank before a blank or a line's end; triples of newlines; "<" before a letter or "/".
            newline_C = codes_C == 10
            blank_C = (codes_C == 32) | (codes_C == 9)
            marks_C[:-1] |= blank_C[:-1] & (blank_C[1:] | newline_C[1:])
            marks_C[:-2] |= newline_C[:-2] & newline_C[1:-1] & newline_C[2:]
            letter_C = ((codes_C | 32) - 97 < 26) | (codes_C == 47)
            marks_C[:-1] |= (codes_C[:-1] == 60) & letter_C[1:]
            first_T, last_T = group.starts_T, np.append(group.starts_T[1:], len(codes_C)) - 2
            marks_C[first_T] |= newline_C[first_T]
            marks_C[last_T] |= newline_C[last_T]  # also an empty text, whose last is its neighbour's newline
        found.update(group.holding(marks_C))
    return found


@cache
def _opencc() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
