"""What a record gives to be labelled: a document, a dialogue, or the exchanges of one."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from data_tools.corpus.batch import dialogue_text
from data_tools.dialogues.deita_prompts import Exchange, complexity_text, exchanges, quality_text
from data_tools.labelling.config import DIALOGUE_TASKS, LabelConfig
from data_tools.records import Dialogue, Document, RecordError

_CUT = " […]"
_GUESSED_CHARACTERS = 2000
_LANGUAGE_PARTS = re.compile("[-_]")  # zh-CN, en_GB
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")
_ENGLISH = re.compile(r"\b(?:the|of|and|to|in|is|a|for|with|that|it|are|was|i|you)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to be labelled. `document` is the seed that becomes of it: its text is what a scorer will see; `shown`
    is what the model is asked about.
    """

    language: str
    document: Document
    shown: str


def subjects(value: Any, config: LabelConfig, *, source_file: str, offset: int) -> list[tuple[Subject, str]]:
    """The subjects of a parsed record, each with its whole text: equal ones are one subject.

    An exchange is named after its dialogue and its number from 1 (`d7#2`). Exchanges without a question, or for
    `response-quality` without an answer, are none. For `safety` a dialogue is one subject, with the text that the
    steps see.

    Raises:
        RecordError: as `Document.from_json` or `Dialogue.from_json`; `no-exchange`, where a dialogue has none;
            `no-words`.
    """
    if config.task not in DIALOGUE_TASKS:
        document = Document.from_json(
            value, source_file=source_file, offset=offset, text_keys=config.text_keys, id_key=config.id_key
        )
        seed = replace(document, text=document.text[: config.max_characters], meta={})
        return [(Subject(_language(document.lang, document.text), seed, seed.text), document.text)]
    dialogue = Dialogue.from_json(value, source_file=source_file, offset=offset)
    if config.task == "safety":
        return [_whole(dialogue, config.max_characters)]
    found = []
    for number, exchange in enumerate(exchanges(dialogue.messages), 1):
        needed = (exchange.question, exchange.answer) if config.task == "response-quality" else (exchange.question,)
        if all(text.strip() for text in needed):
            text, shown = _texts(exchange, config)
            seed = Document(f"{dialogue.id}#{number}", text, dialogue.lang, dialogue.source)
            whole = "\0".join(needed)
            language = _language(dialogue.lang, "\n".join(needed))
            found.append((Subject(language, seed, shown), whole))
    if not found:
        raise RecordError("no-exchange", "no message of the user has words, or none has an answer with words")
    return found


def _whole(dialogue: Dialogue, most: int) -> tuple[Subject, str]:
    """A dialogue as far as `most` characters, shown as JSON, so that no message can pretend to be another."""
    whole = dialogue_text(dialogue.messages)
    if not whole.strip():
        raise RecordError("no-words", "no message of the dialogue has words")
    shown, room = [], most
    for message in dialogue.messages:
        content = message["content"][:room]
        shown.append({"role": message["role"], "content": content + _CUT * (len(content) < len(message["content"]))})
        room -= len(content) + 1
        if room <= 0:
            break
    seed = Document(dialogue.id, whole[:most], dialogue.lang, dialogue.source)
    return Subject(_language(dialogue.lang, whole), seed, json.dumps(shown, ensure_ascii=False)), whole


def _texts(exchange: Exchange, config: LabelConfig) -> tuple[str, str]:
    """The seed's text, and what is shown to the model: question and answer as JSON, so that neither can pretend to be
    the other.
    """
    question, answer = exchange.question[: config.max_characters], exchange.answer[: config.max_characters]
    if config.task == "complexity":
        return complexity_text(question), question
    shown = {
        name: short + _CUT * (len(short) < len(whole))
        for name, short, whole in (("question", question, exchange.question), ("answer", answer, exchange.answer))
    }
    return quality_text(question, answer), json.dumps(shown, ensure_ascii=False)


def _language(given: str, text: str) -> str:
    return _LANGUAGE_PARTS.split(given.lower())[0] or guess_language(text)


def guess_language(text: str) -> str:
    """zh, en or other, by the script and the commonest English words of a text's beginning. Rough: a document's own
    `lang` goes before it.
    """
    head = text[:_GUESSED_CHARACTERS]
    letters = len(_LETTER.findall(head))
    han = len(_HAN.findall(head))
    if not letters or len(_KANA_HANGUL.findall(head)) * 10 > letters:
        return "other"
    if han * 5 >= letters:  # a Han character says what three or four letters do
        return "zh"
    return "en" if len(_ENGLISH.findall(head)) * 20 >= len(head.split()) else "other"
