"""Which options a written answer chooses: phrases that state an answer first, then lines of letters alone.

Medical text is full of capital letters that are no answer (A 型血, B 超, 维生素C, HBsAg, CT). CMB's own rule takes
every letter A–G of a text that states no answer, so that these count; ours never does. `official_cmb` is that rule,
for comparison with published numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

VERSION = 1
"""Of the rule: part of a task's digest, so that results of different rules are told apart."""

MULTIPLE = "多项选择题"

Letters = tuple[str, ...]

# Everything below is matched after NFKC: full-width letters, colons and commas are ASCII, 。 and 、 stay.
_OPEN = r"[^\S\n]*(?:\\boxed\{|[*_`\"'“‘「『【\[(<《])*(?:选项|[Oo]ption )?[^\S\n]*"
_CLOSE = r"[*_`\"'”’」』】\])>》}]*"
_LETTER = rf"{_OPEN}[A-Z]{_CLOSE}"
_GROUP = rf"{_LETTER}(?:[^\S\n]*[、,，;/&+和及与]?{_LETTER})*"
_STATES = "|".join(
    (
        r"答案(?:选项)?(?:可能|应该|应当|应)?(?:[是为选]|:)+",
        r"[【\[]答案[】\]]:?",
        r"(?:正确|最佳)选项(?:应该|应当|应)?(?:[是为]|:)+",
        r"(?<!不)正确的(?:选项|答案)?(?:[是为]|:)+",
        r"(?<!不)应(?:该|当)?(?:[是为选]|选择):?",
        r"而(?:应)?是",
        r"(?:故|因此|所以|综上|最终|我|本题|此题|正确),?选择?:?",
        r"(?m:^) ?选择?:?",
        r"(?i:\b(?:answers?|correct option|correct choice) (?:is|are|would be|should be):?)",
        r"(?i:\banswers?\s*:)",
    )
)
_STATED = re.compile(rf"(?:{_STATES})(?P<letters>{_GROUP})(?P<rest>[^\n]*)")
_GOES_ON = re.compile(r"\s*(?:项|因为|由于|选项|[是为均都]?正确(?!率)|because\b|since\b|as\b|which\b|based\b)")
_TAKEN_BACK = re.compile(r"\s*(?:选?项)?(?:是|为)?(?:错误|错的|不对|不正确|不是|吗|还是|或)|\s+or\b")
_ALONE = re.compile(rf"{_GROUP}[\s.;,!:]*")
_OPTION_LINE = re.compile(r"[\s*_(\[【-]*([A-Z])[\s*_)\]】]*[.、:,]?\s*(.+)")
_CAPITAL = re.compile(r"[A-Z](?!ption)")


def chosen_letters(text: str, options: Mapping[str, str], *, several: bool) -> Letters | None:
    """The options that an answer chooses, in the options' order; None where it states none, or not just one option.

    Args:
        options: letter → text. A capital that is no option is no answer; a letter may be followed by its own text.
        several: whether more than one may be chosen (多项选择题).

    Of several statements the last counts, for a model that corrects itself; of lines of letters alone too. A line that
    repeats an option with its text counts where no other option is repeated; in a question with several answers, where
    the answer is made of such lines. What is offered ("A 或 B") or taken back ("答案是A吗") is no choice.
    """
    # Runs of spaces become one: matching takes time by the cube of their length.
    plain = re.sub(r"[^\S\n]+", " ", unicodedata.normalize("NFKC", text))
    for read in (_stated, _alone, _all_repeated if several else _one_repeated):
        found = read(plain, options)
        if found is not None:
            return found if len(found) == 1 or (several and found) else None
    return None


def _stated(text: str, options: Mapping[str, str]) -> Letters | None:
    """The last statement's letters; () if it is taken back or offers a choice; None if nothing is stated."""
    last: Letters | None = None
    place = 0
    while match := _STATED.search(text, place):
        place = match.end("letters")  # what follows the letters may hold the next statement
        letters, rest = _in_order(match["letters"], options), match["rest"]
        if letters is None:
            continue
        if _TAKEN_BACK.match(rest):
            last = ()
        elif _ends_word(rest) or _GOES_ON.match(rest) or _names(rest, options[letters[-1]]):
            last = letters
    return last


def _alone(text: str, options: Mapping[str, str]) -> Letters | None:
    """The last line or sentence that is letters and nothing else."""
    found = None
    for line in re.split(r"[\n。]", text):
        if _ALONE.fullmatch(line) and (letters := _in_order(line, options)) is not None:
            found = letters
    return found


def _one_repeated(text: str, options: Mapping[str, str]) -> Letters | None:
    """The letters of lines `letter. text of that option`, whatever the other lines say."""
    return _repeated(text, options)[0]


def _all_repeated(text: str, options: Mapping[str, str]) -> Letters | None:
    """The same, of an answer that holds no other line."""
    letters, others = _repeated(text, options)
    return None if others else letters


def _repeated(text: str, options: Mapping[str, str]) -> tuple[Letters | None, int]:
    chosen, others = set(), 0
    for line in filter(str.strip, text.splitlines()):
        match = _OPTION_LINE.fullmatch(line)
        if match and match[1] in options and _bare(options[match[1]]) == _bare(match[2]):
            chosen.add(match[1])
        else:
            others += 1
    return tuple(letter for letter in options if letter in chosen) or None, others


def _in_order(written: str, options: Mapping[str, str]) -> Letters | None:
    """The letters in `written`, once each, in the options' order; None if one of them is no option."""
    given = set(_CAPITAL.findall(written))
    return tuple(letter for letter in options if letter in given) if given <= options.keys() else None


def _ends_word(rest: str) -> bool:
    """Whether the letters before `rest` are not the beginning of something else: A 型血, Answer: A patient."""
    following = rest.lstrip()
    return not following or not following[0].isalnum()


def _names(rest: str, option: str) -> bool:
    bare = _bare(option)
    return bool(bare) and _bare(rest).startswith(bare)


def _bare(text: str) -> str:
    """Words alone, for comparison."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def official_cmb(text: str, question_type: str) -> str:
    """The letters that CMB's `match_choice` and `extract_ans` read (src/utils.py, Apache-2.0), in the text's order:
    those between 答案 or 正确选项 (是, ：, 为, 应该是, 应该为) and the next full stop; without such words, all of the
    text. A question that is not a 多项选择题 keeps the first.
    """
    stated = re.search(r"(?:答案|正确选项)(?:是|：|为|应该是|应该为)(.*?)(?:。|\.|$)", text, re.DOTALL)
    found = "".join(letter for letter in (stated[1] if stated else text) if letter in "ABCDEFG")
    return found if question_type == MULTIPLE else found[:1]
