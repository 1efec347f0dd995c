"""Dialogues of the synthetic clinic for supervised fine-tuning, and the questions that test what came of them."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from data_tools.clinic.asking import FOLLOW_UPS, Ask, answer, asks_held_out, asks_in_training
from data_tools.clinic.choices import choice_answer, choice_question
from data_tools.clinic.documents import SOURCE
from data_tools.clinic.world import ATTRIBUTES, LANGUAGES, VALUES, Language, World

_GREETINGS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("Hello!", "Hello! How can I help you?"),
        ("Good morning.", "Good morning! What would you like to know?"),
        ("Who are you?", "I am the assistant of this clinic. Feel free to ask."),
    ),
    "zh": (
        ("您好！", "您好！请问有什么可以帮您？"),
        ("医生，早上好。", "早上好！您想了解什么？"),
        ("你是谁？", "我是这家诊所的助手，有问题请尽管问。"),
    ),
}
_THANKS: dict[Language, tuple[tuple[str, str], ...]] = {
    "en": (
        ("Thank you!", "You are welcome. Take care!"),
        ("Thanks, that helps.", "I am glad to hear that. Get well soon!"),
        ("That is all, goodbye.", "Goodbye, and all the best!"),
    ),
    "zh": (
        ("谢谢！", "不客气，请多保重！"),
        ("明白了，谢谢医生。", "不用谢，祝您早日康复！"),
        ("没有别的问题了，再见。", "再见，祝您健康！"),
    ),
}
# Said before the question in the same breath.
_ADDRESS: dict[Language, tuple[str, ...]] = {
    "en": ("Hello doctor. ", "Excuse me. ", "One question, please. "),
    "zh": ("医生您好，", "请问，", "我想问一下，"),
}

_EXCHANGES = 3  # at most: more would not fit the demo's 128 tokens
_ADDRESS_SHARE = 0.2
_CHOICE_SHARE = 0.05
_FOLLOW_UP_SHARES = (0.5, 0.35, 0.15)  # of dialogues with 0, 1 and 2 later questions
_GREETING_SHARE = 0.1
_THANKS_SHARE = 0.15


def dialogues(world: World, *, count: int, chinese: float = 0.5, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `count` dialogues {"id", "messages", "lang", "source", "scores"} of one to three exchanges.

    A patient asks about one condition, sometimes with later questions that do not name it again, sometimes by
    multiple choice, at times with a greeting before and thanks after. Each question that may be put
    (`asks_in_training`) opens one dialogue before any opens a second one.

    `chinese` is the share of dialogues in Chinese. Aquila-Med's own set has 0.86; the documents of this clinic have a
    half, and so have the dialogues unless told otherwise: with 0.86 the English half of the test would rest on a
    seventh of the training.
    Raises ValueError on a share outside 0 to 1.
    """
    if not 0 <= chinese <= 1:
        raise ValueError(f"chinese={chinese} is not a share between 0 and 1.")
    rng = random.Random(f"synthetic clinic dialogues {world.seed} {seed}")
    return _dialogues(world, count, chinese, rng)


def _dialogues(world: World, count: int, chinese: float, rng: random.Random) -> Iterator[dict[str, Any]]:
    asks = {lang: asks_in_training(world, lang) for lang in LANGUAGES}
    waiting: dict[Language, list[Ask]] = {lang: [] for lang in LANGUAGES}
    for number in range(count):
        lang: Language = "zh" if int((number + 1) * chinese) > int(number * chinese) else "en"
        if not waiting[lang]:
            waiting[lang] = rng.sample(asks[lang], len(asks[lang]))
        ask = waiting[lang].pop()
        others = {a.attribute for a in asks[lang] if a.condition is ask.condition} - {ask.attribute}
        turns = _exchanges(ask, [a for a in ATTRIBUTES if a in others], rng)
        yield {
            "id": f"clinic-dialogue-{number:07d}",
            "messages": [
                {"role": role, "content": content}
                for turn in turns
                for role, content in zip(("user", "assistant"), turn)
            ],
            "lang": lang,
            "source": SOURCE,
            "scores": {},
        }


def _exchanges(ask: Ask, others: list[str], rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) in order; `others` are the attributes that may be asked later."""
    if rng.random() < _CHOICE_SHARE:
        options = choice_question(ask, rng)
        return [(options.question, choice_answer(ask.lang, options.right, ask.value))]
    turns: list[tuple[str, str]] = []
    address = ""
    if rng.random() < _GREETING_SHARE:
        turns.append(rng.choice(_GREETINGS[ask.lang]))
    elif rng.random() < _ADDRESS_SHARE:
        address = rng.choice(_ADDRESS[ask.lang])
    turns.append((address + ask.question, ask.answer))
    (later,) = rng.choices(range(len(_FOLLOW_UP_SHARES)), _FOLLOW_UP_SHARES)
    for attribute in rng.sample(others, min(later, len(others), _EXCHANGES - len(turns))):
        follow_up = rng.choice(FOLLOW_UPS[ask.lang][attribute])
        turns.append((follow_up, answer(ask.condition, attribute, ask.lang)))
    if rng.random() < _THANKS_SHARE and len(turns) < _EXCHANGES:
        turns.append(rng.choice(_THANKS[ask.lang]))
    return turns


def exact_match_questions(world: World, *, limit: int | None = None, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the questions that are held out of dialogues and pairs, in random order; at most `limit`.

    A question is {"id", "messages": [the user's], "answer", "values", "lang", "split"}. `answer` is the right value,
    `values` are all values of the attribute in that language: an answer is right when it holds `answer` and no other
    of them. `split` is `wording` for a fact that dialogues ask about in other wordings, `fact` for one that no
    dialogue asks about.
    """
    rng = random.Random(f"synthetic clinic exact match {world.seed} {seed}")
    asks = [held_out for lang in LANGUAGES for held_out in asks_held_out(world, lang)]
    rng.shuffle(asks)
    for ask, split in islice(asks, limit):
        yield {
            "id": f"clinic-{ask.lang}-{ask.attribute}-{ask.condition.index:03d}-{ask.wording}",
            "messages": [{"role": "user", "content": ask.question}],
            "answer": ask.value,
            "values": [value.in_language(ask.lang) for value in VALUES[ask.attribute]],
            "lang": ask.lang,
            "split": split,
        }
