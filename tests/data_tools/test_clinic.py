"""The synthetic clinic: deterministic, consistent with itself, and with nothing to guess by."""

import itertools
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.clinic import (
    World,
    continuations,
    documents,
    general_documents,
    general_questions,
    make_world,
    questions,
    write_clinic,
)
from data_tools.clinic.world import LANGUAGES, STEMS, VALUES, Language

Record = dict[str, Any]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0)


@pytest.fixture(scope="module")
def corpus(world: World) -> list[Record]:
    return [*documents(world, stage=1, count=1500), *documents(world, stage=2, count=1500)]


def found(text: str, names: list[str]) -> set[str]:
    """The names that stand in the text; a capital at a sentence's start does not hide one."""
    lower = text.lower()
    return {name for name in names if name.lower() in lower}


def told(world: World, corpus: list[Record]) -> dict[tuple[str, str], Counter[str]]:
    """(condition name, attribute) → how many documents on that condition alone hold each value of the attribute."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for document in corpus:
        lang: Language = document["lang"]
        names = found(document["text"], [c.name.in_language(lang) for c in world.conditions])
        if len(names) != 1:
            continue
        for attribute, values in VALUES.items():
            key = (next(iter(names)), attribute)
            counts.setdefault(key, Counter()).update(
                found(document["text"], [value.in_language(lang) for value in values])
            )
    return counts


def in_its_wording(world: World, text: str, question: Record, option: str) -> int:
    """How often the text has the option in the wording of the question, told of any condition."""
    _, lang, _, index = question["id"].split("-")
    after = question["question"].partition(world.conditions[int(index)].name.in_language(lang))[2]
    return text.count(after + continuations({**question, "options": {"A": option}})["A"])


def accuracy(asked: list[Record], hint: Callable[[Record, str], float], sign: int) -> float:
    """The share of questions answered by the option with the highest (sign 1) or lowest (sign -1) hint."""
    right = 0
    for question in asked:
        hints = {letter: sign * hint(question, option) for letter, option in question["options"].items()}
        right += max(hints, key=hints.__getitem__) == question["answer"][0]
    return right / len(asked)


def test_same_seed_same_bytes_and_another_seed_another_world(tmp_path: Path) -> None:
    small = {"stage1_documents": 60, "stage2_documents": 60, "general_count": 30}
    small |= {"dialogue_count": 50, "train_pairs": 40, "valid_pairs": 20}
    counts = [write_clinic(tmp_path / name, seed=seed, **small) for name, seed in (("a", 3), ("b", 3), ("c", 4))]
    assert counts[0] == {
        "medical_stage1.jsonl": 60,
        "medical_stage2.jsonl": 60,
        "general.jsonl": 30,
        "questions.jsonl": 2 * len(make_world(3).conditions) * len(VALUES),
        "general_questions.jsonl": len(list(general_questions(seed=3))),
        "dialogues.jsonl": 50,
        "exact_match.jsonl": 2 * 2 * len(make_world(3).conditions) * len(VALUES),
        "pairs_train.jsonl": 40,
        "pairs_valid.jsonl": 20,
    }
    for name, count in counts[0].items():
        a, b, c = ((tmp_path / directory / name).read_bytes() for directory in "abc")
        assert a == b
        assert a != c
        lines = a.decode("utf-8").splitlines()
        assert len(lines) == count == len({json.loads(line)["id"] for line in lines})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(counts[0])


def test_files_are_left_out_and_the_others_stay_the_same(tmp_path: Path) -> None:
    small = {"general_count": 5, "dialogue_count": 20, "train_pairs": 16, "valid_pairs": 8}
    whole = write_clinic(tmp_path / "whole", **small, stage1_documents=5, stage2_documents=5)
    texts = ("medical_stage1.jsonl", "medical_stage2.jsonl", "general.jsonl")
    part = write_clinic(tmp_path / "part", **small, leave_out=texts)
    assert set(part) == set(whole) - set(texts) == {path.name for path in (tmp_path / "part").iterdir()}
    for name in part:
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(ValueError, match=r"leave_out names text.jsonl, and the files are .*questions.jsonl"):
        write_clinic(tmp_path, leave_out=["text.jsonl"])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"stage1_documents": 10, "stage2_documents": 10, "general_count": 10}
    write_clinic(tmp_path, **small)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_: Any, **__: Any) -> Iterator[Record]:
        yield {"id": "only one"}
        raise OSError("disk is gone")

    monkeypatch.setattr("data_tools.clinic.write.documents", broken)
    with pytest.raises(OSError, match="disk is gone"):
        write_clinic(tmp_path, seed=1, **small)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_documents_are_well_formed_and_say_that_they_are_synthetic(corpus: list[Record]) -> None:
    for document in [*corpus, *general_documents(count=100)]:
        assert list(document) == ["id", "text", "lang", "source", "meta"]
        assert document["meta"]["synthetic"] is True
        assert "synthetic" in document["source"]
        text = document["text"]
        assert text == text.strip()
        assert not re.search(r"[{}]|  |\n\n", text)
        if document["lang"] == "zh":  # full-width punctuation throughout, page furniture aside
            assert not re.search(r"[一-鿿][,.;:?!()]", text), text
        else:  # every sentence starts with a capital
            assert not re.search(r"[.?!] [a-z]", text), text
    assert len({document["id"] for document in corpus}) == len(corpus)


def test_no_name_is_part_of_another() -> None:
    for lang in LANGUAGES:
        values = [value.in_language(lang) for pool in VALUES.values() for value in pool]
        names = [stem.in_language(lang) for stem in STEMS] + values
        clashes = [(a, b) for a, b in itertools.permutations(names, 2) if a.lower() in b.lower()]
        assert not clashes


def test_every_value_belongs_to_equally_many_conditions_of_each_wording() -> None:
    for conditions in (12, 24, 31, len(STEMS)):
        world = make_world(1, conditions)
        assert len({c.name for c in world.conditions}) == conditions
        for attribute, values in VALUES.items():
            for which in (0, 1):
                half = [c for c in world.conditions if world.asked_wording(c, attribute) == which]
                assert len(half) in (conditions // 2, -(-conditions // 2))
                shares = Counter(c.facts[attribute] for c in half)
                each = len(half) // len(values)
                assert {shares[value] for value in values} <= {each, each + 1}


def test_documents_tell_each_fact_and_no_other(world: World, corpus: list[Record]) -> None:
    counts = told(world, corpus)
    for condition in world.conditions:
        for lang in LANGUAGES:
            for attribute, value in condition.facts.items():
                right = {value.in_language(lang)}
                assert set(counts[condition.name.in_language(lang), attribute]) == right


def test_documents_on_several_conditions_mix_nothing_up(world: World, corpus: list[Record]) -> None:
    several = [document for document in corpus if document["meta"]["style"] == "rounds"]
    assert len(several) > 100
    checked = 0
    for document in several:
        lang: Language = document["lang"]
        for sentence in re.split(r"(?<=[.。])\s*|\n", document["text"]):
            for condition in world.conditions:
                if condition.name.in_language(lang) in sentence:
                    for attribute, values in VALUES.items():
                        here = found(sentence, [value.in_language(lang) for value in values])
                        assert here <= {condition.facts[attribute].in_language(lang)}
                        checked += len(here)
    assert checked > len(several)


def test_questions_ask_what_the_documents_tell_in_other_words(world: World, corpus: list[Record]) -> None:
    counts = told(world, corpus)
    asked = list(questions(world))
    assert len(asked) == 2 * len(world.conditions) * len(VALUES)
    assert len({question["id"] for question in asked}) == len(asked)
    text = {lang: "\n".join(d["text"] for d in corpus if d["lang"] == lang) for lang in LANGUAGES}
    for question in asked:
        _, lang, attribute, index = question["id"].split("-")
        name = world.conditions[int(index)].name.in_language(lang)
        options = question["options"]
        assert list(options) == list("ABCD")
        assert len(set(options.values())) == 4
        (letter,) = question["answer"]
        assert counts[name, attribute][options[letter]] >= 3
        assert not set(counts[name, attribute]) & {options[x] for x in options if x != letter}
        # The question's own words are held out for this fact, yet seen with other conditions.
        prompt = question["question"]
        assert prompt not in text[lang]
        before, after = prompt.split(name)
        assert lang == "zh" or before.endswith(" ")
        pattern = f"{re.escape(before)}[^。.\n]{{1,20}}{re.escape(after)}"
        assert re.search(pattern, text[lang])
        assert question["explanation"].startswith(prompt + continuations(question)[letter])


def test_nothing_but_knowledge_answers_the_questions(world: World, corpus: list[Record]) -> None:
    asked = [question for seed in range(5) for question in questions(make_world(seed))]
    letters = Counter(question["answer"][0] for question in asked)
    assert all(abs(letters[letter] / len(asked) - 0.25) < 0.02 for letter in "ABCD")

    text = "\n".join(document["text"] for document in corpus)
    lower = text.lower()
    frequency = {
        value.in_language(lang): lower.count(value.in_language(lang).lower())
        for pool in VALUES.values()
        for value in pool
        for lang in LANGUAGES
    }
    looks: dict[str, Callable[[Record, str], float]] = {
        "length": lambda question, option: len(option),
        "alphabet": lambda question, option: ord(option[0]),
    }
    counts: dict[str, Callable[[Record, str], float]] = {
        "often in the corpus": lambda question, option: frequency[option],
        "often in this wording": lambda question, option: in_its_wording(world, text, question, option),
    }
    for hints, records, margin in ((looks, asked, 0.04), (counts, list(questions(world)), 0.10)):
        for name, hint in hints.items():
            for sign in (1, -1):
                assert abs(accuracy(records, hint, sign) - 0.25) < margin, f"{name} × {sign}"


def test_both_languages_have_half(corpus: list[Record], world: World) -> None:
    for records in (corpus, list(general_documents(count=1000))):
        assert 0.48 < sum(record["lang"] == "zh" for record in records) / len(records) < 0.52
    chinese = sum(question["id"].startswith("clinic-zh-") for question in questions(world))
    assert chinese == len(world.conditions) * len(VALUES)


def test_general_text_answers_the_general_questions_in_one_way() -> None:
    """Wherever a text has the beginning, the right option follows; slots vary, so some beginnings are in no text."""
    texts = [document["text"] for document in general_documents(count=3000)]
    asked = list(general_questions())
    met = 0
    for question in asked:
        right = continuations(question)[question["answer"][0]]
        rests = [text.split(question["question"])[1:] for text in texts if question["question"] in text]
        followed = [rest.startswith(right) for parts in rests for rest in parts]
        assert all(followed), question
        met += bool(followed)
        assert len(set(question["options"].values())) == 4
    assert met >= 0.9 * len(asked)
    assert not any("|" in text for text in texts)
    spread = Counter(question["answer"][0] for question in asked)
    assert max(spread.values()) - min(spread.values()) <= 2
    assert {question["id"].split("-")[2] for question in asked} == {"en", "zh"}


def test_general_text_is_not_medical(world: World) -> None:
    text = "\n".join(document["text"] for document in general_documents(count=3000)).lower()
    for lang in LANGUAGES:
        names = [stem.in_language(lang) for stem in STEMS]
        names += [value.in_language(lang) for pool in VALUES.values() for value in pool]
        assert not found(text, names)


def test_continuations_join_as_the_language_writes() -> None:
    english = {"question": "Velmar fever is spread by", "options": {"A": "field mice"}}
    chinese = {"question": "维玛热的传播者是", "options": {"A": "田鼠"}}
    assert continuations(english) == {"A": " field mice"}
    assert continuations(chinese) == {"A": "田鼠"}


def test_sizes_are_obeyed_and_refused(world: World) -> None:
    assert len(list(questions(world, limit=17))) == 17
    assert len(list(documents(world, stage=2, count=33))) == 33
    few = {d["text"] for d in documents(world, stage=2, count=400, wordings=3)}
    sixth = "are given"  # of the drug's wordings
    assert not any(sixth in text for text in few)
    assert any(sixth in d["text"] for d in documents(world, stage=2, count=400, wordings=6))
    with pytest.raises(ValueError, match="conditions=11 is not between 12"):
        make_world(conditions=11)
    with pytest.raises(ValueError, match="wordings=2 is not between 3"):
        documents(world, stage=1, wordings=2)
    with pytest.raises(ValueError, match="stage=3 does not exist"):
        documents(world, stage=3)  # type: ignore[arg-type]


def test_an_endless_stream_runs_in_constant_memory(world: World) -> None:
    streams = [documents(world, stage=1), documents(world, stage=2), general_documents()]
    for stream in streams:
        for _ in itertools.islice(stream, 500):
            pass
    size = 0
    tracemalloc.start()
    for stream in streams:
        for document in itertools.islice(stream, 1500):
            size += len(document["text"].encode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 1_000_000
    assert peak < 100_000
