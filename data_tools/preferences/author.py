"""A new answer to a patient, by a stronger model in the role of a careful doctor, and whether it can be used."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from data_tools.corpus.batch import Batch, normal_language
from data_tools.corpus.language import LanguageConfig, LanguageStep
from data_tools.llm import Answer
from data_tools.prompts import Instruction
from data_tools.records import Messages

Language = Literal["zh", "en"]

_THOUGHTS_BEGIN, _THOUGHTS_END = "<think>", "</think>"  # of models that think aloud in their answer
_SPACES = re.compile(r"\s+")
_APOSTROPHES = str.maketrans("’ʼ＇", "'''")
# Of three words not even a detector of languages can be sure: only a confident opinion drops what was paid for.
_LANGUAGE = LanguageStep(LanguageConfig.model_validate({"least_confidence": 0.9}))

REFUSALS: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "as an ai",
        "as a language model",
        "i'm an ai",
        "i am an ai",
        "i'm just an ai",
        "i am not a doctor",
        "i'm not a doctor",
        "i'm sorry, but i can't",
        "i'm sorry, but i cannot",
        "i'm sorry, i can't",
        "sorry, i can't help",
        "i can't assist",
        "i cannot assist",
        "i can't provide medical",
        "i cannot provide medical",
        "i'm unable to provide",
        "i am unable to provide",
    ),
    "zh": (
        "作为一个ai",
        "作为ai",
        "作为一名ai",
        "作为人工智能",
        "作为一个人工智能",
        "作为一个语言模型",
        "我是一个ai",
        "我是ai",
        "我不是医生",
        "我并不是医生",
        "我无法提供医疗",
        "我不能提供医疗",
        "无法提供医疗建议",
        "不能提供医疗建议",
        "抱歉，我不能",
        "抱歉，我无法",
        "对不起，我不能",
        "对不起，我无法",
        "无法回答您的问题",
    ),
}
"""Words of a model that refuses, or that falls out of the doctor's role; case and white space do not matter. Ours: the
paper gives none."""


def prompt_language(lang: str, prompt: Messages) -> Language | None:
    """The language that a candidate is asked about in: by its `lang`, or where that is empty by its user's words. None:
    there are no prompts in its language.
    """
    name = normal_language(lang)
    if not name:
        name = language_of("\n".join(message["content"] for message in prompt if message["role"] == "user"))
    return "zh" if name == "zh" else "en" if name == "en" else None


def author_messages(instruction: Instruction, prompt: Messages) -> list[dict[str, str]]:
    """The conversation as the author gets it: our instruction alone is the system message. What a dialogue brought
    along as one is a stranger's text too, and goes to the first user message; neighbours of one role become one
    message, since chat templates want the roles in turn.
    """
    messages = [{"role": "system", "content": instruction.system}]
    for message in prompt:
        role = "user" if message["role"] == "system" else message["role"]
        if messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n{message['content']}"
        else:
            messages.append({"role": role, "content": message["content"]})
    return messages


def answer_text(answer: Answer) -> str:
    """What the author says to the patient: without thoughts, and white space around it. "" where thinking never
    ended.
    """
    said = answer.text.rpartition(_THOUGHTS_END)[2].strip()
    return "" if said.startswith(_THOUGHTS_BEGIN) else said


def unusable(
    answer: Answer, original: str, language: Language, refusals: Mapping[Language, tuple[str, ...]]
) -> tuple[str, dict[str, Any]] | None:
    """Why an author's answer makes no pair, with the evidence; None: it does.

    Reasons: `author-cut-off` (by max_tokens), `author-filtered` (by the server), `author-empty`, `author-refuses`,
    `author-language`, `author-repeats` (it is the original, apart from white space and case).
    """
    if answer.finish_reason == "length":
        return "author-cut-off", {"finish_reason": "length", "tokens": answer.completion_tokens}
    if answer.finish_reason == "content_filter":
        return "author-filtered", {"finish_reason": "content_filter"}
    text = answer_text(answer)
    if not text:
        return "author-empty", {}
    if phrase := _refusal(text, refusals):
        return "author-refuses", {"phrase": phrase}
    if (found := language_of(text)) != language:
        return "author-language", {"value": found, "limit": language}
    if "".join(_plain(text).split()) == "".join(_plain(original).split()):
        return "author-repeats", {}
    return None


def language_of(text: str) -> str:
    """zh, en or other, as the corpus tools see it."""
    (lang,) = _LANGUAGE(Batch([""], [text], [""], [""], [{}])).langs
    return lang or "other"


def _refusal(text: str, refusals: Mapping[Language, tuple[str, ...]]) -> str:
    """The first phrase of a refusal in `text`, whatever its language; English ones as whole words: "has an air leak"
    is no "as an AI".
    """
    words = _plain(text)
    for phrase in refusals.get("en", ()):
        wanted = _plain_phrase(phrase)
        if wanted in words and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", words):
            return phrase
    together = words.replace(" ", "")
    for phrase in refusals.get("zh", ()):
        if _plain_phrase(phrase).replace(" ", "") in together:
            return phrase
    return ""


@cache
def _plain_phrase(phrase: str) -> str:
    return _plain(phrase)


def _plain(text: str) -> str:
    """In one case, one shape of apostrophe and one kind of white space."""
    return _SPACES.sub(" ", text).strip().translate(_APOSTROPHES).casefold()
