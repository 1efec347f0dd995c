"""What is planted among the raw dialogues of the clinic: copies, leaked questions, and all that a set for fine-tuning
should not keep.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from data_tools.clinic import raw_dialogues_texts as texts
from data_tools.clinic.asking import FOLLOW_UPS, Ask, answer, asks_held_out
from data_tools.clinic.choices import choice_answer
from data_tools.clinic.manners import ADVICE, LEAD_INS, MANNERS
from data_tools.clinic.raw_private import private_line
from data_tools.clinic.raw_texts import FOREIGN
from data_tools.clinic.wording import capitalise
from data_tools.clinic.world import ATTRIBUTES, LANGUAGES, Language, World
from data_tools.dialogues.importers.cmb import CMB

Turn = tuple[str, str]
Plant = dict[str, Any]

MANNER_KINDS = (*MANNERS, "curt", "rambling")
# Words of an English text and characters of a Chinese one in a shingle: those of the step `deduplicate`.
_SHINGLE: dict[Language, int] = {"en": 5, "zh": 8}
_MOST_SIMILAR = 0.6  # of what is only too similar
_LEAST_SIMILARITY = 0.8  # of a near duplicate; the step takes what is over 0.65


@dataclass(frozen=True, slots=True)
class Talk:
    """A dialogue before it is written anywhere. `exam`: the fields of a multiple-choice question. `original`: the place
    of the dialogue that this one copies.
    """

    lang: Language
    turns: tuple[Turn, ...]
    ask: Ask | None = None
    plants: tuple[Plant, ...] = ()
    exam: dict[str, Any] | None = None
    source: str = ""
    original: int | None = None

    @property
    def text(self) -> str:
        """All that is said, as the steps see it."""
        return "\n".join(words for turn in self.turns for words in turn)


def shingles(text: str, lang: Language) -> frozenset[tuple[str, ...]]:
    """Every run of words, or of characters of Chinese, as long as the step `deduplicate` takes them; without
    punctuation and in lower case.
    """
    letters = "".join(c if c.isalnum() else " " for c in text.lower())
    units = letters.split() if lang == "en" else [c for c in letters if c != " "]
    size = _SHINGLE[lang]
    return frozenset(tuple(units[i : i + size]) for i in range(max(1, len(units) - size + 1)))


def similarity(one: Talk, other: Talk) -> float:
    """Jaccard's, of what is said."""
    a, b = shingles(one.text, one.lang), shingles(other.text, other.lang)
    return len(a & b) / len(a | b)


def careful(rng: random.Random, sentence: str, lang: Language) -> str:
    """The sentence with the fact, between a kind word and some advice, in phrases that training may use."""
    gap = "" if lang == "zh" else " "
    return f"{rng.choice(LEAD_INS[lang][:-1])}{sentence}{gap}{rng.choice(ADVICE[lang][:-1])}"


def duplicate(rng: random.Random, talk: Talk) -> Talk:
    """The same in another file: byte for byte, or in other white space or marks."""
    change = rng.randrange(3)
    turns = talk.turns
    if change == 1:
        turns = tuple((f" {question} ", f"{reply}\t") for question, reply in turns)
    elif change == 2 and talk.lang == "en":
        turns = tuple((question.replace(" ", "  "), reply.replace(". ", ".  ")) for question, reply in turns)
    elif change == 2:
        turns = tuple((question.replace("？", "?"), reply.replace("，", ", ")) for question, reply in turns)
    return replace(talk, turns=turns, plants=({"kind": "duplicate", "jaccard": 1.0}, *talk.plants))


def near_duplicate(rng: random.Random, talk: Talk) -> Talk | None:
    """The same with a word before or after the first question; None where that changes a short text too much."""
    before, after = rng.choice(texts.EDITS[talk.lang])
    (question, reply), *rest = talk.turns
    edited = replace(talk, turns=((f"{before}{question}{after}", reply), *rest))
    found = similarity(talk, edited)
    if found < _LEAST_SIMILARITY:
        return None
    return replace(edited, plants=({"kind": "near-duplicate", "jaccard": round(found, 4)}, *talk.plants))


def too_similar(rng: random.Random, talk: Talk) -> Talk | None:
    """The same exam question with its options in another order: no duplicate by its shingles, and nothing new to learn.
    None where too much stays as it was.
    """
    assert talk.exam is not None
    options, right = talk.exam["option"], talk.exam["answer"]
    values = rng.sample(list(options.values()), len(options))
    moved = dict(zip(options, values))
    letter = next(letter for letter, value in moved.items() if value == options[right])
    exam = {**talk.exam, "option": moved, "answer": letter}
    before, after = (Talk("zh", (_imported(fields),)) for fields in (talk.exam, exam))
    if similarity(before, after) > _MOST_SIMILAR:
        return None
    return replace(talk, turns=(exam_turn(exam),), exam=exam, plants=({"kind": "too-similar"},))


def _imported(exam: dict[str, Any]) -> Turn:
    question, reply = CMB().convert(exam).messages
    return question["content"], reply["content"]


def unsafe(rng: random.Random, talk: Talk, number: int) -> Talk:
    """With an exchange that nobody should learn from: alone, or after a harmless one."""
    kind = sorted(texts.UNSAFE)[number % len(texts.UNSAFE)]
    turn = rng.choice(texts.UNSAFE[kind][talk.lang])
    turns = (turn,) if rng.random() < 0.5 else (*talk.turns[:2], turn)
    return replace(talk, turns=turns, plants=({"kind": "unsafe", "what": kind},))


def bad_shape(rng: random.Random, talk: Talk) -> Talk:
    """An answer that repeats the question, says nothing, or was given before."""
    what = rng.choice(("answer is the question", "next to nothing", "repeated answer"))
    (question, reply), *_ = talk.turns
    if what == "answer is the question":
        turns: tuple[Turn, ...] = ((question, question),)
    elif what == "next to nothing":
        turns = ((question, {"en": "Ok", "zh": "嗯"}[talk.lang]),)
    else:
        turns = ((question, reply), (texts.AGAIN[talk.lang][0][0], reply))
    return replace(talk, turns=turns, plants=({"kind": "bad-shape", "what": what},))


def refusal(rng: random.Random, talk: Talk) -> Talk:
    """An answer of an assistant that speaks of itself."""
    name = "" if talk.ask is None else talk.ask.condition.name.in_language(talk.lang)
    reply = rng.choice(texts.REFUSALS[talk.lang]).format(name=name)
    return replace(talk, turns=((talk.turns[0][0], reply),), plants=({"kind": "refusal"},))


def foreign(rng: random.Random) -> Talk:
    """In a language that nobody asked for."""
    lines = [line.format(n=rng.randint(2, 400)) for line in FOREIGN[rng.choice(sorted(FOREIGN))]]
    first, second, third, fourth = rng.sample(lines, 4)
    return Talk("en", ((f"{first} {second}", f"{third} {fourth}"),), plants=({"kind": "wrong-language"},))


def unrelated(rng: random.Random, world: World, talk: Talk) -> Talk:
    """Two exchanges; what is answered to the second one belongs to something else."""
    assert talk.ask is not None
    first = (talk.ask.question, talk.ask.answer)
    attribute = rng.choice([a for a in ATTRIBUTES if a != talk.ask.attribute])
    if rng.random() < 0.5:
        reply = rng.choice(texts.CHATTER[talk.lang])
    else:
        other = rng.choice([c for c in world.conditions if c is not talk.ask.condition])
        reply = answer(other, rng.choice([a for a in ATTRIBUTES if a != attribute]), talk.lang)
    follow_up = rng.choice(FOLLOW_UPS[talk.lang][attribute])
    return replace(talk, turns=(first, (follow_up, reply)), plants=({"kind": "unrelated"},))


def repeats(rng: random.Random, talk: Talk) -> Talk:
    """Whose later answers say what the first one said."""
    assert talk.ask is not None
    sentence = talk.ask.answer
    later = [
        (question, capitalise(reply.format(answer=sentence)))
        for question, reply in rng.sample(texts.AGAIN[talk.lang], rng.randint(1, 2))
    ]
    return replace(talk, turns=((talk.ask.question, sentence), *later), plants=({"kind": "repeats"},))


def poor_answer(rng: random.Random, talk: Talk, number: int) -> Talk:
    """A question with an answer in one of MANNER_KINDS."""
    assert talk.ask is not None
    manner, lang = MANNER_KINDS[number % len(MANNER_KINDS)], talk.lang
    gap = "" if lang == "zh" else " "
    name, sentence = talk.ask.condition.name.in_language(lang), talk.ask.answer
    if manner == "curt":
        reply = rng.choice(texts.CURT[lang])
    elif manner == "rambling":
        reply = gap.join(rng.sample(texts.CHATTER[lang], 2))
    else:
        beginnings, ends = MANNERS[manner][lang]
        reply = capitalise(rng.choice(beginnings[:-1]).format(answer=sentence, name=name) + rng.choice(ends[:-1]))
    return replace(talk, turns=((talk.ask.question, reply),), plants=({"kind": "poor-answer", "manner": manner},))


def with_private_data(rng: random.Random, talk: Talk) -> Talk:
    """With a registration slip before the first question."""
    line, values = private_line(rng, talk.lang)
    (question, reply), *rest = talk.turns
    gap = "" if talk.lang == "zh" else " "
    plants = tuple({"kind": kind, "values": n} for kind, n in values.items())
    return replace(talk, turns=((f"{line}{gap}{question}", reply), *rest), plants=plants)


def leaks(world: World, rng: random.Random) -> Iterator[Talk]:
    """Without end: dialogues that put a question of `exact_match_questions`, long enough to be told from others."""
    waiting: list[Ask] = []
    while True:
        if not waiting:
            waiting = [ask for lang in LANGUAGES for ask, _ in asks_held_out(world, lang) if _is_long(ask)]
            rng.shuffle(waiting)
        ask = waiting.pop()
        way = rng.choice(("verbatim", "address", "space"))
        question = ask.question
        if way == "address":
            question = {"en": "Dear doctor, ", "zh": "尊敬的医生，"}[ask.lang] + question
        elif way == "space":
            question = question.replace(" ", "  ") if ask.lang == "en" else " ".join(question)
        plant: Plant = {"kind": "question", "of": held_out_id(ask), "way": way}
        yield Talk(ask.lang, ((question, ask.answer),), ask, (plant,))


def _is_long(ask: Ask) -> bool:
    """Whether `decontaminate` looks for it on its own: at least five words, or six characters of Chinese."""
    return len(ask.question.split()) >= 5 if ask.lang == "en" else sum(map(str.isalnum, ask.question)) >= 6


def held_out_id(ask: Ask) -> str:
    """The id of `exact_match_questions`."""
    return f"clinic-{ask.lang}-{ask.attribute}-{ask.condition.index:03d}-{ask.wording}"


def exam_fields(question: str, options: dict[str, str], right: str, explanation: str = "") -> dict[str, Any]:
    """A question as CMB-Exam has it."""
    return {
        "exam_type": "医师考试",
        "exam_class": "诊所",
        "exam_subject": "诊所医师",
        "question": question,
        "answer": right,
        "question_type": "单项选择题",
        "option": options,
        **({"explanation": explanation} if explanation else {}),
    }


def exam_turn(exam: dict[str, Any]) -> Turn:
    """What an exam's question and answer say, apart from any importer's words around them."""
    lines = [exam["question"], *(f"{letter}. {option}" for letter, option in exam["option"].items())]
    return "\n".join(lines), choice_answer("zh", exam["answer"], exam["option"][exam["answer"]])
