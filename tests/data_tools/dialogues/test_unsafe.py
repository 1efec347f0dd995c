"""Unsafe dialogues go, whatever they are written like; what medicine talks of stays."""

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import opencc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpus.batch import Batch
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.phrase_finder import PhraseFinder
from data_tools.dialogues.unsafe import Unsafe, UnsafeConfig
from data_tools.dialogues.unsafe_patterns import PATTERNS
from data_tools.dialogues.unsafe_rules import Rule, RuleFinder
from data_tools.dialogues.unsafe_rules_en import RULES as RULES_EN
from data_tools.dialogues.unsafe_rules_zh import RULES as RULES_ZH
from data_tools.dialogues.unsafe_words import CATEGORIES, HARD, SOFT
from data_tools.inputs import InputError
from data_tools.scorers import Task
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import load_tokenizer
from tests.data_tools.corpus.real_texts import medquad, needs_shared, passages
from tests.data_tools.corpus.text_batches import batch_of
from tests.data_tools.dialogues.dialogue_batches import batch_of_dialogues, dialogue, real_dialogues
from tests.data_tools.dialogues.unsafe_suite import CARE, HELD_OUT, NO_REQUESTS, PLAIN, REQUESTS, SAFE, UNSAFE
from tests.data_tools.scorers.seed_samples import clinic_seeds, write_seeds
from tests.data_tools.small_tokenizer import make_tokenizer

RESOURCES = Resources(None, 0)  # type: ignore[arg-type]  # lists need no tokenizer


@pytest.fixture(scope="module")
def step() -> Unsafe:
    return UnsafeConfig().build(RESOURCES)


def reasons(step: Unsafe, texts: list[str]) -> list[str | None]:
    return [drop and drop.reason for drop in step(batch_of(texts)).drops]


def _full_width(text: str) -> str:
    return text.translate({code: code + 0xFEE0 for code in range(33, 127)})


_opencc = cache(opencc.OpenCC)


def _traditional(text: str) -> str:
    return str(_opencc("s2t").convert(text))


def _hong_kong(text: str) -> str:
    return str(_opencc("s2hk").convert(text))


def _leet(text: str) -> str:
    """Each second letter that has one by its digit."""
    digits = {"o": "0", "e": "3", "i": "1"}
    return "".join(digits.get(sign, sign) if place % 2 else sign for place, sign in enumerate(text))


def _parted(sign: str, text: str) -> str:
    """Something between the Chinese characters, or between the letters of each word and at its ends."""
    if text.isascii():
        return sign.join(text.replace(" ", ""))
    return sign.join(text)


CHANGES = {
    "as it is": str,
    "upper case": str.upper,
    "full width": _full_width,
    "traditional": _traditional,
    "Hong Kong": _hong_kong,
    "leet": _leet,
    "mathematical": lambda text: "".join(chr(ord(s) - 97 + 0x1D41A) if "a" <= s <= "z" else s for s in text),
}  # fmt: skip


def test_the_suites_are_large_enough() -> None:
    assert set(UNSAFE) == set(CATEGORIES)
    assert sum(map(len, UNSAFE.values())) >= 60
    assert len(SAFE) >= 75


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_unsafe_texts_go_however_they_are_written(step: Unsafe, change: Any) -> None:
    for category, texts in UNSAFE.items():
        found = reasons(step, [change(text) for text in texts])
        missed = [text for text, reason in zip(texts, found) if reason != f"unsafe-{category}"]
        assert missed == []


@pytest.mark.parametrize("sign", [" ", "*", ".", "_", "\u200b", "\u3000", "·", "-"])
def test_signs_between_the_characters_hide_nothing(step: Unsafe, sign: str) -> None:
    draw = random.Random(3)
    for category, terms in HARD.items():
        for term in draw.sample(terms, 12):
            (reason,) = reasons(step, [f"请问 {_parted(sign, term)} ，谢谢"])
            assert reason == f"unsafe-{category}", term


@pytest.mark.parametrize(
    "change", [str, str.upper, _full_width, _traditional], ids=["", "upper", "wide", "traditional"]
)
def test_medicine_stays(step: Unsafe, change: Any) -> None:
    texts = [*SAFE, *CARE, *NO_REQUESTS]
    found = reasons(step, [change(text) for text in texts])
    assert [(text, reason) for text, reason in zip(texts, found) if reason] == []


def test_requests_go_in_whatever_words(step: Unsafe) -> None:
    for category, texts in REQUESTS.items():
        found = reasons(step, list(texts))
        assert [text for text, reason in zip(texts, found) if reason != f"unsafe-{category}"] == []
        assert reasons(step, [text.upper() for text in texts]) == found
    lists = UnsafeConfig(patterns=False).build(RESOURCES)
    assert not any(reasons(lists, [text for texts in REQUESTS.values() for text in texts]))


def test_a_request_is_named_by_its_pattern_and_not_by_its_words(step: Unsafe) -> None:
    (drop,) = step(batch_of(["How do I poison my Wilson neighbour?"])).drops
    assert drop is not None
    assert drop.detail == {"value": ["asks how to kill (en)", "asks how to kill, freely (en)"], "limit": 0}


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("change", [str, str.upper, _full_width, _traditional])
def test_wishes_in_free_words_go(step: Unsafe, lang: str, change: Any) -> None:
    drops = step(batch_of_dialogues([dialogue(*map(change, said)) for said in HELD_OUT[lang]])).drops
    assert sum(drop is not None for drop in drops) >= 36  # 39 when this was written
    lists = UnsafeConfig(patterns=False).build(RESOURCES)
    assert sum(drop is not None for drop in lists(batch_of_dialogues([dialogue(*s) for s in HELD_OUT[lang]])).drops) < 3


def test_plain_requests_go(step: Unsafe) -> None:
    assert sum(reason is not None for reason in reasons(step, list(PLAIN))) >= 90  # 92 when this was written


def test_rules_hold_where_a_plain_reading_says_so() -> None:
    """The oracle splits the sentences and reads each with every rule."""
    rules = {
        "both": Rule("kill|毒", (r"kill|毒", r"dog|狗")),
        "not": Rule("dog|狗", ("dog|狗",), "vet|病"),
        "one": Rule("ab|狗狗", ("b|狗",)),
    }
    draw = random.Random(11)
    words = [
        "kill",
        "skill",
        "dogs",
        "Dog",
        "vet",
        "ab",
        "cab",
        "毒",
        "狗",
        "病",
        "ＤＯＧ",
        ". ",
        ".",
        "！",
        "\n",
        " ",
        " ",
    ]
    texts = ["".join(draw.choices(words, k=draw.randint(0, 14))) for _ in range(3000)] + ["", "狗", "ab"]

    def plain(rule: Rule, text: str) -> bool:
        text = text.replace("ＤＯＧ", "dog").lower()
        begins = re.compile("|".join(f"(?<![a-z]){t}" if t.isascii() else t for t in rule.triggers.split("|")))
        return any(
            begins.search(sentence)
            and all(re.search(pattern, sentence) for pattern in rule.all_of)
            and not (rule.but and re.search(rule.but, sentence))
            for sentence in re.split(r"[！\n]|\.(?= |$)", text, flags=re.MULTILINE)
        )

    expected = {}
    for place, text in enumerate(texts):
        if names := [name for name, rule in rules.items() if plain(rule, text)]:
            expected[place] = names
    assert RuleFinder(rules)(texts) == expected
    assert all(sum(name in names for names in expected.values()) > 50 for name in rules)


def test_every_trigger_begins_with_what_is_looked_up() -> None:
    names: set[str] = set()
    for category in CATEGORIES:
        for rules in (PATTERNS[category], RULES_ZH[category], RULES_EN[category]):
            assert not names & rules.keys()
            names |= rules.keys()
            for name, rule in rules.items():
                for trigger in rule.triggers.split("|"):
                    assert trigger == trigger.lower() and (trigger[0].isalpha()), (name, trigger)
                    assert trigger.isascii() == name.endswith("(en)") or not name.endswith("(en)"), (name, trigger)


@needs_shared
def test_nothing_real_goes(step: Unsafe) -> None:
    for lang in ("zh", "en"):
        assert not any(step(batch_of_dialogues(real_dialogues(lang))).drops)
    assert not any(reasons(step, [*medquad()[::3], *passages()[::9]]))


@needs_shared
def test_terms_planted_in_real_dialogues_are_found_and_nothing_else(step: Unsafe) -> None:
    draw = random.Random(5)
    dialogues, expected = [], []
    for place, messages in enumerate(draw.sample(real_dialogues("zh"), 300) + draw.sample(real_dialogues("en"), 300)):
        question, answer = (message["content"] for message in messages)
        category = None
        if place % 3 == 0:
            category = draw.choice(CATEGORIES)
            cut = draw.randrange(len(answer) + 1)
            answer = f"{answer[:cut]} {draw.choice(HARD[category])} {answer[cut:]}"
        dialogues.append(dialogue(question, answer))
        expected.append(category and f"unsafe-{category}")
    outcome = step(batch_of_dialogues(dialogues))
    assert [drop and drop.reason for drop in outcome.drops] == expected
    assert sum(outcome.counts.values()) == 200


def test_soft_terms_count_where_medicine_is_rare(step: Unsafe) -> None:
    bare = "这个贱人，人渣，畜生"
    consultation = f"患者说：{bare}。医生：您有焦虑、抑郁，需要治疗"
    found = step(batch_of([bare, "人渣，贱人", consultation, "porn porn porn"]))
    assert [drop and drop.reason for drop in found.drops] == ["unsafe-hate", None, None, "unsafe-pornography"]
    assert found.drops[0] is not None
    assert found.drops[0].detail == {"value": ["贱人", "人渣", "畜生"], "soft terms": 3, "limit": 2, "medical words": 0}
    assert found.measures["unsafe terms"].tolist() == [3, 2, 3, 3]
    never = UnsafeConfig(most_soft=None).build(RESOURCES)
    assert not any(never(batch_of([bare])).drops)


def test_overlapping_terms_count_once_and_allowed_phrases_not_at_all() -> None:
    config = UnsafeConfig(terms={"hate": ("red tape",)}, allowed=("red tape measure",))
    step = config.build(RESOURCES)
    found = step(batch_of(["child porn", "red tape measure", "red tape", "red tape measure, red tape"]))
    assert found.measures["unsafe terms"].tolist() == [1, 0, 1, 1]
    assert [drop and drop.detail["value"] for drop in found.drops] == [["child porn"], None, ["red tape"], ["red tape"]]


def test_no_phrase_reaches_over_a_message_a_sentence_or_a_text(step: Unsafe) -> None:
    assert (
        reasons(step, ["有没有自杀。教程在这里", "儿童\n色情", "无痛", "自杀", "child", "porn", "how to make. A bomb"])
        == [None] * 7
    )


def test_categories_own_terms_files_and_flags(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("bad word\n\n坏词语\n", encoding="utf-8")
    config = UnsafeConfig(
        categories=("hate",), term_files={"hate": (tmp_path / "terms.txt",)}, terms={"hate": ("worse",)}, action="flag"
    )
    assert config.files() == (tmp_path / "terms.txt",)
    step = config.build(RESOURCES)
    outcome = step(batch_of(["a bad-word here", "这是坏 词语", "no worse", "如何制作冰毒", "fine"]))
    assert not outcome.drops
    assert [note and note["unsafe"]["value"] for note in outcome.notes] == [
        ["bad word"], ["坏词语"], ["worse"], None, None
    ]  # fmt: skip
    assert outcome.counts == {"unsafe-hate": 3}
    assert step.facts == {"unsafe terms": len(HARD["hate"]) + 3, "soft terms": len(SOFT["hate"])}
    with pytest.raises(InputError, match=r"term_files.hate: .*gone.txt cannot be read"):
        UnsafeConfig(term_files={"hate": (tmp_path / "gone.txt",)}).build(RESOURCES)
    with pytest.raises(InputError, match="'x' is too short"):
        UnsafeConfig(terms={"hate": ("x",)}).build(RESOURCES)
    with pytest.raises(ValueError, match="neither categories nor a scorer"):
        UnsafeConfig(categories=())


class _Scorer:
    """Scores by the length of a text; a scorer's own tests are elsewhere."""

    kind = "linear"

    def __init__(self, task: Task) -> None:
        self.task = task

    def score(self, batch: Batch) -> np.ndarray:
        scores = np.array([[min(len(text), 10) / 10] for text in batch.texts])
        return np.concatenate([1 - scores, scores], 1) if self.task.name == "classification" else scores * 6


@pytest.mark.parametrize(
    ("task", "threshold", "value"),
    [(Task("classification", ("safe", "unsafe")), 0.8, 0.9), (Task("regression", (), 0, 6), 4.8, 5.4)],
)
def test_a_scorer_decides_beside_the_lists(task: Task, threshold: float, value: float) -> None:
    step = Unsafe(UnsafeConfig(threshold=threshold), _Scorer(task))
    outcome = step(batch_of(["short", "nine long", "heil hitler"]))
    assert [drop and drop.reason for drop in outcome.drops] == [None, "unsafe-score", "unsafe-hate"]
    assert outcome.drops[1] is not None
    assert outcome.drops[1].detail == {"value": value, "limit": threshold}
    assert set(outcome.measures) == set(step.scales) == {"unsafe terms", "unsafe score"}


def test_a_trained_scorer(tmp_path: Path) -> None:
    """General documents stand for what is not wanted: the seeds are the product's, and so is the training."""
    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    seeds = write_seeds(tmp_path / "seeds.jsonl", clinic_seeds(150))
    scorer = tmp_path / "scorer"
    train_scorer([seeds], scorer, kind="linear", task="classification", tokenizer=tokenizer)
    config = UnsafeConfig(scorer=scorer, labels=("other",), categories=())
    assert config.files() == (scorer / "manifest.json",)
    step = config.build(Resources(tokenizer, 0))
    fresh = clinic_seeds(100, seed=7)
    drops = step(batch_of([record["text"] for record in fresh])).drops
    right = [(drop is not None) == (record["label"] == "other") for drop, record in zip(drops, fresh)]
    assert np.mean(right) > 0.9
    with pytest.raises(InputError, match=r"knows .*: it must know 'safe'"):
        UnsafeConfig(scorer=scorer).build(Resources(tokenizer, 0))
    with pytest.raises(InputError, match=r"threshold is 3: .* scores from 0 to 1"):
        UnsafeConfig(scorer=scorer, labels=("other",), threshold=3).build(Resources(tokenizer, 0))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=30) | st.sampled_from([*HARD["hate"], *SOFT["hate"], "\ud800", ""])))
def test_an_outcome_does_not_depend_on_the_batch(parts: list[str]) -> None:
    step = _FUZZED
    texts = ["".join(parts[start : start + 4]) for start in range(len(parts))]
    together = step(batch_of(texts))
    alone = [step(batch_of([text])) for text in texts]
    assert together.drops == [outcome.drops[0] for outcome in alone]
    assert together.measures["unsafe terms"].tolist() == [float(one.measures["unsafe terms"][0]) for one in alone]


_FUZZED = UnsafeConfig().build(RESOURCES)


def test_a_dialogue_of_a_thousand_turns_and_very_long_texts(step: Unsafe) -> None:
    long = dialogue(*["人渣，贱人。heil hitler! " * 3, "多谢"] * 1000)
    outcome = step(batch_of_dialogues([long, dialogue("a" * 1_500_000, "如何制作冰毒")]))
    assert [drop and drop.reason for drop in outcome.drops] == ["unsafe-hate", "unsafe-weapons-and-drugs"]


def test_found_places_are_those_of_a_plain_search() -> None:
    """Lower-case words between blanks need no folding: the oracle is a plain search with boundaries."""
    draw = random.Random(7)
    phrases = ["ab", "abba", "ba ab", "cab", "bc cb a"]
    texts = [" ".join("".join(draw.choices("abc", k=draw.randint(1, 4))) for _ in range(12)) for _ in range(800)]
    expected = set()
    for place, text in enumerate(texts):
        for number, phrase in enumerate(phrases):
            start = f" {text} ".find(f" {phrase} ")
            while start >= 0:
                expected.add((place, number, start, start + len(phrase)))
                start = f" {text} ".find(f" {phrase} ", start + 1)
    spelt = {" ".join(phrase.replace(" ", "")) for phrase in phrases}  # "a b" is "ab", letters parted
    found = [hit for hit in PhraseFinder(phrases)(texts) if texts[hit.place][hit.start : hit.end] not in spelt]
    assert len(found) == len(set(found))
    assert {tuple(hit) for hit in found} == expected
    assert len(expected) > 400
