"""Dialogues and preference pairs of the synthetic clinic: true, natural, and without the questions kept for tests."""

import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from data_tools.chat import ChatEncoder, get_template
from data_tools.clinic import (
    World,
    dialogues,
    documents,
    exact_match_questions,
    make_world,
    preference_pairs,
    questions,
)
from data_tools.clinic.asking import FOLLOW_UPS, QUESTIONS, QUESTIONS_PER_FACT
from data_tools.clinic.manners import ADVICE, LEAD_INS, MANNERS
from data_tools.clinic.wording import ASKED
from data_tools.clinic.world import LANGUAGES, VALUES, Language
from data_tools.tokenizer_training import train_from_texts
from data_tools.tokenizers import load_tokenizer

Record = dict[str, Any]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0)


@pytest.fixture(scope="module")
def talks(world: World) -> list[Record]:
    return list(dialogues(world, count=2500))


@pytest.fixture(scope="module")
def train(world: World) -> list[Record]:
    return list(preference_pairs(world, split="train", count=1200))


@pytest.fixture(scope="module")
def valid(world: World) -> list[Record]:
    return list(preference_pairs(world, split="valid", count=240))


@pytest.fixture(scope="module")
def held_out(world: World) -> list[Record]:
    return list(exact_match_questions(world))


def said(record: Record) -> str:
    """All that is said in a dialogue or a pair."""
    messages = record.get("messages") or [*record["prompt"], *record["chosen"], *record["rejected"]]
    return "\n".join(message["content"] for message in messages)


def test_no_question_is_part_of_another() -> None:
    for lang in LANGUAGES:
        asked = [q for table in (QUESTIONS, FOLLOW_UPS, ASKED) for some in table[lang].values() for q in some]
        assert len(set(asked)) == len(asked)
        assert not [(a, b) for a, b in itertools.permutations(asked, 2) if a in b]
        assert {len(some) for some in QUESTIONS[lang].values()} == {QUESTIONS_PER_FACT}


def test_dialogues_are_well_formed(talks: list[Record]) -> None:
    assert len({talk["id"] for talk in talks}) == len(talks)
    exchanges: Counter[int] = Counter()
    for talk in talks:
        assert list(talk) == ["id", "messages", "lang", "source", "scores"]
        assert "synthetic" in talk["source"]
        roles = [message["role"] for message in talk["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        exchanges[len(roles) // 2] += 1
        for message in talk["messages"]:
            content = message["content"]
            assert content == content.strip() != ""
            assert not re.search(r"[{}]|  |\n\n", content)
            if talk["lang"] == "zh":
                assert re.search(r"[一-鿿]", content)
                assert not re.search(r"[一-鿿][,;:?!()]", content), content
            else:
                assert not re.search(r"[一-鿿]|[a-z][.?!] [a-z]|^[a-z]", content), content
    assert set(exchanges) == {1, 2, 3}
    assert min(exchanges.values()) > 400
    assert Counter(talk["lang"] for talk in talks) == {"zh": 1250, "en": 1250}


def test_the_share_of_chinese_is_obeyed_and_refused(world: World) -> None:
    some = list(dialogues(world, count=100, chinese=0.86))
    assert sum(talk["lang"] == "zh" for talk in some) == 86
    with pytest.raises(ValueError, match=r"chinese=1.5 is not a share"):
        dialogues(world, count=1, chinese=1.5)


def test_the_assistant_tells_the_truth_about_the_condition_that_was_named(world: World, talks: list[Record]) -> None:
    """Read back from the text alone: the values in an answer belong to the one condition named in the dialogue."""
    facts = 0
    for talk in talks:
        lang: Language = talk["lang"]
        text = said(talk)
        (condition,) = [c for c in world.conditions if c.name.in_language(lang) in text]
        for question, answer in itertools.pairwise(message["content"] for message in talk["messages"]):
            if question in {message["content"] for message in talk["messages"] if message["role"] == "assistant"}:
                continue
            lower = answer.lower()
            named = {(a, v) for a, values in VALUES.items() for v in values if v.in_language(lang).lower() in lower}
            assert len(named) <= 1
            for attribute, value in named:
                assert condition.facts[attribute] == value
                asked = [*QUESTIONS[lang][attribute], *FOLLOW_UPS[lang][attribute]]
                name = condition.name.in_language(lang)
                assert any(wording.format(name=name) in question for wording in asked), "an answer to another question"
                facts += 1
    assert facts > len(talks)


def test_held_out_questions_stand_nowhere_in_training(
    world: World, talks: list[Record], train: list[Record], held_out: list[Record]
) -> None:
    corpus = [*documents(world, stage=1, count=2000), *documents(world, stage=2, count=2400)]
    read = "\n".join(document["text"] for document in corpus)
    heard = "\n".join(map(said, [*talks, *train]))
    for question in held_out:
        (message,) = question["messages"]
        assert message["content"] not in read
        assert message["content"] not in heard
        _, lang, attribute, index, number = question["id"].split("-")
        name = world.conditions[int(index)].name.in_language(question["lang"])
        wordings = QUESTIONS[question["lang"]][attribute]
        assert wordings[int(number)].format(name=name) == message["content"]
        # The fact is asked in training in all wordings but the two held out, or (split `fact`) in none.
        asked = sum(wording.format(name=name) in heard for wording in wordings)
        assert asked == (QUESTIONS_PER_FACT - 2 if question["split"] == "wording" else 0)
    assert Counter(q["split"] for q in held_out) == {"wording": 2 * 2 * 108, "fact": 2 * 2 * 36}
    # Each wording is met with half of the conditions at least, so that none is new to an assistant.
    for lang in LANGUAGES:
        names = [condition.name.in_language(lang) for condition in world.conditions]
        for wording in itertools.chain(*QUESTIONS[lang].values()):
            assert sum(wording.format(name=name) in heard for name in names) >= len(names) // 2


def test_facts_that_nobody_asks_about_stand_in_no_dialogue_or_training_pair(
    world: World, talks: list[Record], train: list[Record], held_out: list[Record]
) -> None:
    told: dict[tuple[str, str], set[str]] = defaultdict(set)  # (language, condition) → values told with it
    for record in [*talks, *train]:
        text = re.sub(r"\n[A-D]\. .*", "", said(record)).lower()  # an option is offered, not told
        for condition in world.conditions:
            for lang in LANGUAGES:
                if condition.name.in_language(lang).lower() in text:
                    values = (v.in_language(lang) for pool in VALUES.values() for v in pool)
                    told[lang, condition.name.en] |= {v for v in values if v.lower() in text}
    for question in held_out:
        condition = world.conditions[int(question["id"].split("-")[3])]
        stands = question["answer"] in told[question["lang"], condition.name.en]
        # Not even as a wrong answer: those are values of the attribute that is asked about.
        assert stands == (question["split"] == "wording")


def test_dialogues_never_use_the_wording_of_a_cloze_question(
    world: World, talks: list[Record], train: list[Record], valid: list[Record]
) -> None:
    text = "\n".join(map(said, [*talks, *train, *valid]))
    assert not [question["id"] for question in questions(world) if question["question"] in text]


def test_exact_match_questions_carry_their_rule(world: World, held_out: list[Record]) -> None:
    for question in held_out:
        assert list(question) == ["id", "messages", "answer", "values", "lang", "split"]
        _, lang, attribute, index, _ = question["id"].split("-")
        assert lang == question["lang"]
        assert question["answer"] == world.conditions[int(index)].facts[attribute].in_language(question["lang"])
        assert question["values"] == [value.in_language(question["lang"]) for value in VALUES[attribute]]
    assert len({question["id"] for question in held_out}) == len(held_out)
    # Every value is the answer to a question of every split: none is new to an assistant.
    answers = {split: {q["answer"] for q in held_out if q["split"] == split} for split in ("wording", "fact")}
    assert answers["wording"] == answers["fact"] == {v for q in held_out for v in q["values"]}
    assert len(list(exact_match_questions(world, limit=7))) == 7


def test_pairs_are_well_formed_and_train_shares_no_prompt_with_valid(train: list[Record], valid: list[Record]) -> None:
    for pair in [*train, *valid]:
        assert list(pair) == ["id", "prompt", "chosen", "rejected", "kind", "lang", "source", "meta"]
        assert [message["role"] for message in pair["prompt"]] == ["user"]
        for side in ("chosen", "rejected"):
            ((role, content),) = [(message["role"], message["content"]) for message in pair[side]]
            assert role == "assistant"
            assert content == content.strip() != ""
            assert not re.search(r"[{}]|  |\n", content)
            assert not re.search(r"[a-z][.?!] [a-z]|^[a-z]", content), content
        assert pair["chosen"] != pair["rejected"]
        assert pair["meta"]["synthetic"] is True
    assert len({pair["id"] for pair in [*train, *valid]}) == len(train) + len(valid)
    for pairs in (train, valid):
        assert 0.27 < mean(pair["kind"] == "objective" for pair in pairs) < 0.31
        assert mean(pair["lang"] == "zh" for pair in pairs) == 0.5
    # By the question without its options: the same question with other options would be no new prompt.
    asked = [{pair["prompt"][0]["content"].partition("\n")[0] for pair in pairs} for pairs in (train, valid)]
    assert not asked[0] & asked[1]
    assert {pair["meta"]["held_out"] for pair in train} == {""}
    assert set(Counter(pair["meta"]["held_out"] for pair in valid)) == {"wording", "fact"}


def test_held_out_pairs_use_phrases_that_training_does_not(train: list[Record], valid: list[Record]) -> None:
    for lang in LANGUAGES:
        phrases = [LEAD_INS[lang], ADVICE[lang], *(part for manner in MANNERS.values() for part in manner[lang])]
        assert all(len(some) >= 3 for some in phrases)
        kept = [some[-1].partition("{")[0].strip().lower() or some[-1].partition("}")[2].strip() for some in phrases]
        seen = [
            [phrase for phrase in kept if phrase in "\n".join(map(said, pairs)).lower()] for pairs in (train, valid)
        ]
        assert seen[0] == []
        assert len(seen[1]) > len(kept) // 2


def test_the_chosen_answer_is_right_and_the_rejected_one_is_worse(
    world: World, train: list[Record], valid: list[Record]
) -> None:
    manners: Counter[str] = Counter()
    for pair in [*train, *valid]:
        lang: Language = pair["lang"]
        prompt, chosen, rejected = (pair[side][0]["content"] for side in ("prompt", "chosen", "rejected"))
        (condition,) = [c for c in world.conditions if c.name.in_language(lang) in prompt]
        name = condition.name.in_language(lang)
        (attribute,) = [a for a, some in QUESTIONS[lang].items() if any(q.format(name=name) in prompt for q in some)]
        right = condition.facts[attribute]
        manners[pair["meta"]["manner"]] += 1
        assert right.in_language(lang).lower() in chosen.lower()
        if pair["kind"] == "objective":
            options = dict(re.findall(r"\n([A-D])\. (.*)", prompt))
            assert list(options) == list("ABCD")
            assert set(options.values()) <= {value.in_language(lang) for value in VALUES[attribute]}
            letters = [next(x for x, value in options.items() if value in text) for text in (chosen, rejected)]
            for letter, text in zip(letters, (chosen, rejected)):
                assert re.findall(r"[A-D](?=[)）])", text) == [letter]
            assert options[letters[0]] == right.in_language(lang) != options[letters[1]]
        elif pair["meta"]["manner"] == "wrong language":
            other: Language = "en" if lang == "zh" else "zh"
            assert right.in_language(other).lower() in rejected.lower()
            assert bool(re.search(r"[一-鿿]", rejected)) == (other == "zh")
        else:
            told = right.in_language(lang).lower() in rejected.lower()
            assert told == (pair["meta"]["manner"] in ("rude", "promise"))
            assert bool(re.search(r"[一-鿿]", rejected)) == (lang == "zh")
    assert set(manners) == {*MANNERS, "wrong language", "wrong option"}
    assert min(manners.values()) > 150


def test_neither_length_nor_letter_tells_the_chosen_answer(train: list[Record], valid: list[Record]) -> None:
    for pairs in (train, valid):
        for lang in LANGUAGES:
            objective = [pair for pair in pairs if pair["lang"] == lang and pair["kind"] == "objective"]
            lengths = {
                side: mean(len(pair[side][0]["content"]) for pair in objective) for side in ("chosen", "rejected")
            }
            assert abs(lengths["chosen"] / lengths["rejected"] - 1) < 0.03
    chosen = [pair["chosen"][0]["content"] for pair in train if pair["kind"] == "objective"]
    letters = Counter(re.findall(r"[A-D](?=[)）])", content)[0] for content in chosen)
    assert max(letters.values()) / letters.total() < 0.32


def test_another_split_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="split='test' does not exist"):
        preference_pairs(world, split="test")  # type: ignore[arg-type]


def test_dialogues_and_pairs_fit_the_demo_and_length_tells_nothing(
    talks: list[Record], train: list[Record], valid: list[Record], world: World, tmp_path: Path
) -> None:
    """With a tokenizer as the demo's: 128 tokens a sequence."""
    corpus = [*documents(world, stage=1, count=1000), *documents(world, stage=2, count=1000)]
    train_from_texts(
        (document["text"] for document in corpus),
        tmp_path / "tokenizer",
        vocab_size=2048,
        control_tokens=("<|im_start|>", "<|im_end|>"),
    )
    encoder = ChatEncoder(get_template("chatml"), load_tokenizer(tmp_path / "tokenizer"))
    assert max(len(turns.tokens) for turns in encoder.encode_batch([talk["messages"] for talk in talks])) <= 128
    for pairs in (train, valid):
        chosen, rejected = (
            [len(turns.tokens) for turns in encoder.encode_batch([[*p["prompt"], *p[side]] for p in pairs])]
            for side in ("chosen", "rejected")
        )
        assert max(map(sum, zip(chosen, rejected))) <= 256
        longer = mean((a > b) + (a == b) / 2 for a, b in zip(chosen, rejected))
        assert 0.4 < longer < 0.6
        assert abs(mean(chosen) - mean(rejected)) < 3
