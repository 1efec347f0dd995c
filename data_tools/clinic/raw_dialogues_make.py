"""The making of the clinic's raw dialogues: good ones, exams, copies, leaks, and all that should go; shuffled."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from data_tools.clinic import raw_dialogues_plants as plants
from data_tools.clinic.asking import Ask, answer, asks_held_out, asks_in_training
from data_tools.clinic.choices import choice_question
from data_tools.clinic.dialogues import dialogues
from data_tools.clinic.documents import SOURCE
from data_tools.clinic.questions import questions
from data_tools.clinic.raw_dialogues_plants import Plant, Talk, shingles
from data_tools.clinic.world import LANGUAGES, VALUES, Language, World
from data_tools.dialogues.importers.cmb import CMB

# Of all dialogues. What is left is good, and as many in Chinese as in English.
_SHARES = {
    "exam": 0.10,
    "exam leak": 0.01,
    "question": 0.02,
    "duplicate": 0.03,
    "near-duplicate": 0.03,
    "too-similar": 0.01,
    "unsafe": 0.02,
    "bad-shape": 0.02,
    "refusal": 0.01,
    "wrong-language": 0.01,
    "unrelated": 0.02,
    "repeats": 0.015,
    "poor-answer": 0.06,
}
_PRIVATE_SHARE = 0.04  # of good dialogues of one exchange
_CAREFUL_SHARE = 0.15  # of the same: an answer as good as one can be
_EXPLAINED_SHARE = 0.3  # of exams
# Good dialogues have less in common than this: the step `deduplicate` takes what is over 0.65.
_MOST_IN_COMMON = 0.5

# (source, share) by language and by whether there are several exchanges
_SOURCES: dict[tuple[Language, bool], tuple[tuple[str, float], ...]] = {
    ("zh", False): (("toyhom", 0.4), ("chatmed", 0.3), ("huatuo", 0.3)),
    ("zh", True): (("meddialog", 0.8), ("sharegpt", 0.2)),
    ("en", False): (("chatdoctor", 0.85), ("sharegpt", 0.15)),
    ("en", True): (("sharegpt", 1.0),),
}


def raw_talks(world: World, *, count: int, seed: int = 0) -> list[Talk]:
    """`count` dialogues of all kinds in random order, each with its source; an original stands before its copies, whose
    `original` is its place in the list. Where there are not as many copies or leaks as asked for, some fewer.

    Raises:
        ValueError: the world is too small for so many good dialogues that differ.
    """
    rng = random.Random(f"synthetic clinic raw dialogues {world.seed} {seed}")
    sizes = {kind: round(count * share) for kind, share in _SHARES.items()}
    good = [_dressed(rng, talk) for talk in _good(world, count - sum(sizes.values()), seed)]
    exams = list(_exams(world, rng, sizes["exam"]))
    originals = [*good, *exams, *_exam_leaks(world, rng, sizes["exam leak"])]
    originals += [talk for talk, _ in zip(plants.leaks(world, rng), range(sizes["question"]))]
    originals += _bad(world, rng, sizes)
    originals = [replace(talk, source=_source(rng, talk)) for talk in originals]
    keys = [rng.random() for _ in originals]
    copies: list[Talk] = []
    makers: dict[str, Callable[[Talk], Talk | None]] = {
        "duplicate": lambda talk: plants.duplicate(rng, talk),
        "near-duplicate": lambda talk: plants.near_duplicate(rng, talk),
        "too-similar": lambda talk: plants.too_similar(rng, talk),
    }
    free = rng.sample(range(len(good)), len(good))
    free_exams = rng.sample(range(len(good), len(good) + len(exams)), len(exams))
    for kind, make in makers.items():
        made = 0
        waiting = free_exams if kind == "too-similar" else free
        while made < sizes[kind] and waiting:
            place = waiting.pop()
            if (copy := make(originals[place])) is None:
                continue
            copies.append(replace(copy, source=_source(rng, copy), original=place))
            keys.append(rng.uniform(keys[place], 1.0))
            made += 1
    talks = originals + copies
    order = sorted(range(len(talks)), key=keys.__getitem__)
    new_place = {old: new for new, old in enumerate(order)}
    return [
        replace(talks[old], original=None if (of := talks[old].original) is None else new_place[of]) for old in order
    ]


def held_out_questions(world: World) -> Iterator[dict[str, Any]]:
    """The questions of `exact_match_questions` as records of our questions: every value of the attribute is an
    option.
    """
    for lang in LANGUAGES:
        for ask, split in asks_held_out(world, lang):
            options = dict(zip("ABCDEF", (value.in_language(lang) for value in VALUES[ask.attribute]), strict=True))
            yield {
                "id": plants.held_out_id(ask),
                "question": ask.question,
                "options": options,
                "answer": [letter for letter, value in options.items() if value == ask.value],
                "explanation": "",
                "source": SOURCE,
                "split": split,
            }


def seed_dialogues(world: World, *, count: int = 1500, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield `count` dialogues, records of our own format, to train scorers of questions and answers on: a third good
    ones, a third poor ones, the rest exams, refusals, and turns that do not belong together. They are made as the raw
    ones are, from other random numbers, and hold no test question.
    """
    rng = random.Random(f"synthetic clinic seed dialogues {world.seed} {seed}")
    sizes = {"unsafe": 0, "bad-shape": 0, "wrong-language": 0, "repeats": 0}
    sizes |= {"refusal": count // 24, "unrelated": count // 6, "poor-answer": count // 3}
    exams = count // 8
    good = _good(world, count - exams - sum(sizes.values()), -1 - seed)
    talks = [_dressed(rng, talk) for talk in good]
    talks += [*_exams(world, rng, exams), *_bad(world, rng, sizes)]
    rng.shuffle(talks)
    for number, talk in enumerate(talks):
        messages = [
            {"role": role, "content": words}
            for turn in talk.turns
            for role, words in zip(("user", "assistant"), turn, strict=True)
        ]
        if talk.exam is not None:
            messages = list(CMB().convert(talk.exam).messages)
        yield {
            "id": f"seed-dialogue-{number:06d}",
            "messages": messages,
            "lang": talk.lang,
            "source": SOURCE,
            "scores": {},
            "meta": {},
        }


def _good(world: World, count: int, seed: int) -> Iterator[Talk]:
    """The dialogues of `dialogues`, half in each language, without those that say nearly the same as an earlier one."""
    opening = {(ask.lang, ask.question): ask for lang in LANGUAGES for ask in asks_in_training(world, lang)}
    needed: dict[Language, int] = {"zh": count // 2, "en": count - count // 2}
    seen: defaultdict[tuple[str, int], list[frozenset[tuple[str, ...]]]] = defaultdict(list)
    for record in dialogues(world, count=100 * count + 1000, seed=seed):
        lang: Language = record["lang"]
        if not any(needed.values()):
            return
        said = [message["content"] for message in record["messages"]]
        ask = next(filter(None, (_opened(opening, lang, question) for question in said[::2])))
        talk = Talk(lang, tuple(zip(said[::2], said[1::2], strict=True)), ask)
        own, others = shingles(talk.text, lang), seen[lang, ask.condition.index]
        if not needed[lang] or any(_have_much_in_common(own, other) for other in others):
            continue
        others.append(own)
        needed[lang] -= 1
        yield talk
    raise ValueError(f"{count} dialogues that differ cannot be made in a world of {len(world.conditions)} conditions.")


def _have_much_in_common(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    """Whether Jaccard's similarity is above _MOST_IN_COMMON, without looking where the sizes alone say no."""
    least = _MOST_IN_COMMON / (1 + _MOST_IN_COMMON) * (len(one) + len(other))
    return min(len(one), len(other)) > least and len(one & other) > least


def _opened(opening: dict[tuple[Language, str], Ask], lang: Language, question: str) -> Ask | None:
    """The question that a message puts: alone, after an address, or before options."""
    first = question.partition("\n")[0]
    for start in range(len(first)):
        if (ask := opening.get((lang, first[start:]))) is not None:
            return ask
    return None


def _dressed(rng: random.Random, talk: Talk) -> Talk:
    """At times with private data, or with a careful answer."""
    if len(talk.turns) > 1 or talk.ask is None or talk.turns[0][1] != talk.ask.answer:
        return talk
    chance = rng.random()
    if chance < _PRIVATE_SHARE:
        return plants.with_private_data(rng, talk)
    if chance < _PRIVATE_SHARE + _CAREFUL_SHARE:
        return replace(talk, turns=((talk.turns[0][0], plants.careful(rng, talk.ask.answer, talk.lang)),))
    return talk


def _exams(world: World, rng: random.Random, count: int) -> Iterator[Talk]:
    """Multiple-choice questions in Chinese that training may put."""
    waiting: list[Ask] = []
    for _ in range(count):
        if not waiting:
            waiting = rng.sample(found := asks_in_training(world, "zh"), len(found))
        ask = waiting.pop()
        choice = choice_question(ask, rng)
        explanation = answer(ask.condition, ask.attribute, "zh") if rng.random() < _EXPLAINED_SHARE else ""
        yield _exam(plants.exam_fields(ask.question, choice.options, choice.right, explanation), ask)


def _exam_leaks(world: World, rng: random.Random, count: int) -> Iterator[Talk]:
    """Questions of the evaluation among the exams: as they are, or with their options in another order."""
    asked = [question for question in questions(world) if question["id"].startswith("clinic-zh-")]
    for question in rng.sample(asked, min(count, len(asked))):
        options, (right,) = dict(question["options"]), question["answer"]
        way = rng.choice(("verbatim", "options"))
        if way == "options":
            options = dict(zip(options, rng.sample(list(options.values()), len(options))))
        letter = next(letter for letter, value in options.items() if value == question["options"][right])
        plant = {"kind": "question", "of": question["id"], "way": way}
        yield _exam(plants.exam_fields(question["question"] + "（）", options, letter), None, plant)


def _exam(fields: dict[str, Any], ask: Ask | None, *planted: Plant) -> Talk:
    return Talk("zh", (plants.exam_turn(fields),), ask, planted, exam=fields)


def _bad(world: World, rng: random.Random, sizes: dict[str, int]) -> Iterator[Talk]:
    """All that should go, but for copies and leaks."""

    def plain(number: int) -> Talk:
        ask = rng.choice(asks[LANGUAGES[number % 2]])
        return Talk(ask.lang, ((ask.question, ask.answer),), ask)

    asks = {lang: asks_in_training(world, lang) for lang in LANGUAGES}
    for number in range(sizes["unsafe"]):
        yield plants.unsafe(rng, plain(number), number // 2)
    for number in range(sizes["bad-shape"]):
        yield plants.bad_shape(rng, plain(number))
    for number in range(sizes["refusal"]):
        yield plants.refusal(rng, plain(number))
    for _ in range(sizes["wrong-language"]):
        yield plants.foreign(rng)
    for number in range(sizes["unrelated"]):
        yield plants.unrelated(rng, world, plain(number))
    for number in range(sizes["repeats"]):
        yield plants.repeats(rng, plain(number))
    for number in range(sizes["poor-answer"]):
        yield plants.poor_answer(rng, plain(number), number // 2)


def _source(rng: random.Random, talk: Talk) -> str:
    if talk.exam is not None:
        return "cmb"
    if talk.plants and talk.plants[0]["kind"] == "wrong-language":
        return "sharegpt"  # the other sets are each in one language
    names, weights = zip(*_SOURCES[talk.lang, len(talk.turns) > 1])
    (name,) = rng.choices(names, weights)
    return str(name)
