"""Texts that speak to the judge instead of the patient. What is found is counted and shown; the text is judged all the
same, since words that only look like it ("the first is better") stand in honest answers too.
"""

import re
import unicodedata
import zlib
from collections.abc import Mapping

_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]")
_BREAKS = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_WIDE = re.compile("[｛｝＂]")
_MIXED = re.compile(r"\b(?=\w*[a-zA-Z])(?=\w*[\u0370-\u03ff\u0400-\u04ff])[a-zA-Z\u0370-\u03ff\u0400-\u04ff]{3,}\b")
_GREEK_UNITS = re.compile(r"[αβγδεκλμω]", re.IGNORECASE)  # β-blocker, μg and the like are medicine

# Every gap is bounded: `\s*` or `.*` before what does not come takes the square of the length on a text of nothing but
# newlines or dashes, and models that have gone astray write such texts.
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    # {"comparison": …}, "overall": "first", {"rating": …}, also cut in pieces
    "verdict": re.compile(
        r"""["']?\b(?:comparison|rating|overall|better|verdict|winner|fluency|relevance|completeness|proficiency)\b"""
        r"""["']?\s{0,8}[:=]\s{0,8}["'{]?\s{0,8}(?:[0-9a-f]{8}|first|second|tie|[1-5]\b|["{])"""
        r"""|(?:结论|评分|打分)\s{0,8}[：:]\s{0,8}["{1-5第]""",
        re.IGNORECASE,
    ),
    "label": re.compile(
        r"assistant [12ab] is (?:better|worse|equal)|\b(?:the )?(?:first|second)(?: (?:answer|one))? (?:is|wins)\b"
        r"[^.\n]{0,20}\b(?:better|best|right|right one)|\b(?:choose|prefer|pick) the (?:first|second)\b"
        r"|(?:must|should) (?:prefer|choose) (?:it|this)|第[一二]个?(?:回答|答案)(?:更好|更优|较好|胜)"
        r"|(?:应|请|要|若不)选第[一二]个"
        r"|回答[一二12]更好",
        re.IGNORECASE,
    ),
    "fence": re.compile(
        r"^\s{0,8}-{3}.{0,200}(?:begins|ends|开始|结束)|^--- [0-9a-f]{6}"
        r"|\[(?:/?(?:end of )?(?:assistant|system|user|answer|question|solution|conversation)\b[^\]]{0,200})\]"
        r"|={3}\s{0,8}(?:system|user|assistant)\s{0,8}={3}",
        re.IGNORECASE | re.MULTILINE,
    ),
    "code": re.compile(
        r"\bcode is [0-9a-f]{6,}|代码是|(?<![0-9a-f])(?=[0-9a-f]*\d)[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE
    ),
    "instruction": re.compile(
        r"\bignore (?:all |everything )?(?:the |of the )?(?:above|previous|prior|preceding)|disregard (?:the|all)"
        r"|忽略(?:以上|上面|之前|前面)|无视(?:以上|上面)|\b(?:every|dear|as the) judge|\bjudge:|评委|裁判"
        r"|you are (?:now )?(?:a |an )?(?:test harness|grader|judge|evaluator)|system prompt|evaluation is over"
        r"|if you do not choose",
        re.IGNORECASE,
    ),
    "chat-tokens": re.compile(
        r"<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>|</?s>|</?think>|</?(?:system|script|user|assistant)>|<!--|\{(?:conversation|first|"
        r"second|answer|question|solution|code)\}"
        r'|"role"\s{0,8}:\s{0,8}"(?:assistant|system|user)"',
        re.IGNORECASE,
    ),
    "json": re.compile(
        r'```json|^\s{0,8}\{\s{0,8}\}\s{0,8}$|\{\s{0,8}"(?:comparison|rating|better)"|"\s{0,8}\}\s{0,8},\s{0,8}"\w{1,40}"',
        re.MULTILINE,
    ),
}


def suspicions(text: str) -> tuple[str, ...]:
    """What in `text` is meant for a judge, by name, sorted: `verdict`, `label`, `fence`, `code`, `instruction`,
    `chat-tokens`, `json`; `hidden-characters` (invisible ones, and ones that turn the direction), `odd-line-breaks`,
    `look-alikes` (wide letters as punctuation of JSON, words of mixed scripts), `repetition`.
    """
    found = set()
    if _HIDDEN.search(text):
        found.add("hidden-characters")
    if _BREAKS.search(text):
        found.add("odd-line-breaks")
    if _WIDE.search(text) or any(not _GREEK_UNITS.search(word) for word in _MIXED.findall(text)):
        found.add("look-alikes")
    plain = unicodedata.normalize("NFKC", _HIDDEN.sub("", text))
    found |= {name for name, pattern in _PATTERNS.items() if pattern.search(plain)}
    if _repeats(plain):
        found.add("repetition")
    return tuple(sorted(found))


def _repeats(text: str) -> bool:
    """One passage over and over: what floods a context. Prose shrinks to a third or so, never to a tenth."""
    content = text.encode("utf-8", "replace")
    return len(content) >= 400 and 10 * len(zlib.compress(content)) < len(content)
