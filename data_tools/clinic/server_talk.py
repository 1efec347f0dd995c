"""Greetings, thanks and the like, and what is a fitting reply to them: words that people use, in either language."""

import re
from collections.abc import Mapping

from data_tools.clinic.world import Language

# By kind: what the patient says, and what a reply to it has in it.
_TALK: dict[Language, Mapping[str, tuple[re.Pattern[str], re.Pattern[str]]]] = {
    "en": {
        "greeting": (
            re.compile(r"\b(?:hello|hi|good (?:morning|afternoon|evening|day))\b"),
            re.compile(
                r"\b(?:hello|hi|good (?:morning|afternoon|evening|day)|help you|would you like|can i do|"
                r"(?:please|free to) ask)\b"
            ),
        ),
        "identity": (
            re.compile(r"\b(?:who|what) are you\b|\byour name\b"),
            re.compile(r"\b(?:i am|i'm|my name|assistant|this is)\b"),
        ),
        "thanks": (
            re.compile(r"\bthank"),
            re.compile(r"\b(?:welcome|glad|pleasure|happy to|take care|get well|not at all)\b"),
        ),
        "farewell": (
            re.compile(r"\b(?:good)?bye\b"),
            re.compile(r"\b(?:(?:good)?bye|take care|all the best|get well|see you|welcome)\b"),
        ),
    },
    "zh": {
        "greeting": (
            re.compile("[你您]好|(?:早上|上午|下午|晚上)好"),
            re.compile("[你您]好|(?:早上|上午|下午|晚上)好|能帮|帮[你您]|请问|想了解|请尽管问|请随时问"),
        ),
        "identity": (re.compile("[你您]是谁|[你您]叫什么"), re.compile("我是|我叫|助手")),
        "thanks": (re.compile("谢"), re.compile("不客气|不用谢|不谢|保重|康复|健康|应该的")),
        "farewell": (re.compile("再见|拜拜"), re.compile("再见|保重|健康|康复|慢走|不客气")),
    },
}


def fits(lang: Language, message: str, reply: str) -> bool | None:
    """Whether `reply` is one to a message that asks for no fact; None where the message is of no known kind."""
    kinds = [answers for says, answers in _TALK[lang].values() if says.search(message.lower())]
    return any(answers.search(reply.lower()) for answers in kinds) if kinds else None
