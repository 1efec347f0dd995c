"""What the shape step looks for within answers: phrases of programs, refusals, selling, links, cut-off ends.

All lists are our own. Every search begins with a plain look for a few signs, for nearly all answers hold none of them.
"""

import re
from collections.abc import Sequence

from data_tools.corpus.rule_words import ADVERTISING, SOLICITATION

_LINK = re.compile(r"(?:https?://|www\.)[\w\-./?%&=#~:+,;@!]*", re.ASCII | re.IGNORECASE)
_INK = re.compile(r"[^\w]+")

_MODEL_ZH = (
    r"(?:一[个名位款种台]|您?的|你的)?(?:[^\s，。,.；;！!？?]{0,8})?"
    r"(?:AI|A\.I\.|人工智能|大?语言模型|聊天机器人|虚拟助[手理]|智能助[手理]|ChatGPT|GPT)"
)
_PROGRAM_SIGNS = ("AI", "A.I.", "人工智能", "语言模型", "机器人", "虚拟助", "智能助", "GPT", "anguage model", "hatbot",
                  "irtual assistant", "rtificial intelligence")  # fmt: skip
_PROGRAM = re.compile(
    rf"(?:作为|身为|我只?是|我仅仅?是|由于我是|因为我是){_MODEL_ZH}"
    r"|\b(?:as|i am|i'm|i’m|being) (?:just |only |merely )?an? (?:\w+[ -]){0,3}"
    r"(?:ai\b|a\.i\.|artificial intelligence\b|language model\b|chatbot\b|virtual assistant\b)"
    r"|\bmy (?:knowledge cut-?off|training data)\b",
    re.IGNORECASE,
)
# Whoever works with such things speaks like a program: "作为人工智能专家", "as an AI researcher".
_PERSON = re.compile(
    r"^[^\s，。,.；;]{0,6}(?:专家|研究|工程师|公司|医生|领域|技术|产品|治疗)"
    r"|^[ -](?:researcher|expert|engineer|scientist|company|tool|technique|treatment|based|specialist)"
    , re.IGNORECASE,
)  # fmt: skip

_REFUSAL_SIGNS = ("抱歉", "对不起", "不好意思", "无法", "不能", "orry", "pologi", "cannot", "can't", "can’t", "unable",
                  "not able")  # fmt: skip
_DOING_ZH = (
    r"(?:提供|回答|给出|给您|给你|为您|为你|帮助|帮您|协助|满足|进行|做出|作出|确定|判断|诊断|讨论|完成|处理|执行)"
)
_REFUSAL = re.compile(
    rf"(?:非常|十分|很|真的?)?(?:抱歉|对不起|不好意思|遗憾)[，,。！!、 ]{{0,2}}(?:但是?|不过|作为[^，。]{{1,12}}[，,])?"
    rf"(?:我们?|本人)?(?:目前|暂时|现在|并|也|实在)?(?:无法|不能够?|没有能力|没办法){_DOING_ZH}"
    rf"|我(?:无法|不能){_DOING_ZH}(?:您|你)?(?:的|这个|该|此类|任何)?(?:医疗|医学|诊断|具体|专业)?(?:建议|问题|请求|答案|信息)"
    r"|(?:i['’]?a?m (?:very |so |really )?sorry|sorry|i apologi[sz]e|my apologies|unfortunately)[,.]?(?: but)?,? ?"
    r"(?:as [^,.]{1,40}, )?i (?:cannot|can['’]?t|can not|am (?:unable|not able) to|['’]?m (?:unable|not able) to)"
    r" (?:\w+ ){0,2}?(?:assist|help|provide|answer|fulfil+|comply|give|offer|respond|diagnose|do that|discuss)"
    r"|i (?:cannot|can['’]?t|am unable to|am not able to) (?:\w+ ){0,1}?"
    r"(?:assist|fulfil+|comply|provide (?:you with )?(?:a |any |specific )?(?:medical|diagnos))",
    re.IGNORECASE,
)
_GREETING = re.compile(r"[\s，,。.！!:：]*(?:您好|你好|hello|hi)?[\s，,。.！!:：]*", re.IGNORECASE)

_ORDINARY = {
    "根治", "原价", "现价", "祖传秘方", "包治百病", "永不复发", "药到病除", "代购", "qq", "满减", "best price",
    "lowest price", "free trial", "work from home", "act now", "call now", "without prescription",
    "no prescription needed", "miracle cure", "lose weight fast", "telegram", "skype", "加v", "risk free",
}  # fmt: skip
"""Selling phrases that doctors write without selling a thing; the others tell how to pay or to get in touch."""

_CLOSING = "\"'”’」』）)]】》〉*_`~ \t\n"
_FEW_LETTERS = 20
_END_MARKS = frozenset("。！？!?.…；;~～）)")


def folded(text: str) -> str:
    """Letters and digits alone, without case."""
    return _INK.sub("", text).replace("_", "").casefold()


def without_links(text: str) -> str:
    """The letters and digits that are left beside links."""
    return folded(_LINK.sub(" ", text))


def assistant_phrase(text: str) -> tuple[int, int] | None:
    """Where the words stand by which a program names itself."""
    if not any(sign in text for sign in _PROGRAM_SIGNS) and "training data" not in text and "cutoff" not in text:
        return None
    for match in _PROGRAM.finditer(text):
        if not _PERSON.match(text, match.end()) and not _PERSON.match(text[match.end() : match.end() + 24]):
            return match.span()
    return None


def refusal(text: str) -> tuple[int, int] | None:
    """Where the words stand by which an answer refuses, at its beginning."""
    head = text[:160]
    if not any(sign in head for sign in _REFUSAL_SIGNS):
        return None
    greeting = _GREETING.match(head)
    match = _REFUSAL.match(head, greeting.end() if greeting else 0)
    return match.span() if match else None


class Advertising:
    """Finds the phrases of selling that the corpus rules know (`rule_words.py`)."""

    def __init__(self) -> None:
        from data_tools.dialogues.phrase_finder import PhraseFinder

        self._phrases = sorted({*ADVERTISING, *SOLICITATION} - {"% off"})
        self._finder = PhraseFinder(self._phrases)

    def __call__(self, texts: Sequence[str]) -> dict[int, list[str]]:
        """By the place of a text its different phrases, sorted; no text of which all are such as doctors write."""
        found: dict[int, set[str]] = {}
        for hit in self._finder(texts):
            found.setdefault(hit.place, set()).add(self._phrases[hit.phrase])
        return {place: sorted(phrases) for place, phrases in found.items() if not phrases <= _ORDINARY}


def is_cut_off(text: str) -> bool:
    """No end mark stands at the end, quotation marks and brackets after it aside."""
    bare = text.rstrip(_CLOSING)
    return not (set(text[len(bare) :]) | set(bare[-1:])) & _END_MARKS


def script(text: str) -> str | None:
    """zh or en where nearly all letters (a Chinese one weighs three) are of one; else, and where there are few, None:
    "ibuprofen 50 mg" is of no language.
    """
    from data_tools import _text

    han, latin, other = _text.letter_counts([text])[0].tolist()
    total = 3 * han + latin + other
    if total < _FEW_LETTERS:
        return None
    if 3 * han >= 0.8 * total:
        return "zh"
    return "en" if latin >= 0.95 * total else None
