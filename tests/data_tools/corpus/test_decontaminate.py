"""Planted questions are found in real text whatever their punctuation, width, case and white space; little else is."""

import random
import re
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from data_tools.clinic import general_documents, make_world, questions
from data_tools.corpus.batch import Batch, Drop
from data_tools.corpus.decontaminate import Decontaminate, DecontaminateConfig
from data_tools.corpus.step_config import Resources
from data_tools.inputs import InputError
from tests.data_tools.corpus.question_oracle import Oracle, tokens, unit_of
from tests.data_tools.corpus.real_texts import SHARED, chatdoctor, dialogues, medquad, needs_shared, passages

_WIDE = str.maketrans({**{chr(code): chr(code + 0xFEE0) for code in range(33, 127)}, " ": "\u3000"})
_NARROW = str.maketrans({chr(code + 0xFEE0): chr(code) for code in range(33, 127)} | {"。": ".", "、": ","})
_OTHER_MARKS = str.maketrans(",.?!:;，。？！：；、", ";!:?.,；！：？。，·")
_MARKS_OF_TEXT = re.compile(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)")  # not those of numbers (22q13.3)


def _spaced(text: str) -> str:
    """Room between Chinese characters, more of it between words."""
    return re.sub(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])", "\u2009", text).replace(" ", " \n\t")


def _unmarked(text: str) -> str:
    """Without punctuation, but for that within words (5-year, patient's)."""
    return re.sub(r"(?<!\w)[^\w\s]|[^\w\s](?!\w)|(?<=[\u4e00-\u9fff])[^\w\s]", "", text)


_CHANGES: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "other marks": lambda text: _MARKS_OF_TEXT.sub(lambda mark: mark[0].translate(_OTHER_MARKS), text) + "！？",
    "no marks": _unmarked,
    "full width": lambda text: text.translate(_WIDE),
    "half width": lambda text: text.translate(_NARROW),
    "upper case": str.upper,
    "other case": str.swapcase,
    "white space": _spaced,
}


def _build(path: Path, items: list[dict[str, Any]], **config: Any) -> Decontaminate:
    path.write_bytes(b"".join(orjson.dumps(item) + b"\n" for item in items))
    return DecontaminateConfig(questions=(str(path),), **config).build(Resources(None, 0))  # type: ignore[arg-type]


def _judged(step: Decontaminate, texts: list[str]) -> list[Drop | None]:
    return step(Batch([""] * len(texts), texts, [""] * len(texts), [], [])).drops


@cache
def _clinic_items() -> list[dict[str, Any]]:
    return list(questions(make_world()))


@cache
def _haystack() -> list[str]:
    """Chinese dialogues and books, English answers; without the sample data, the clinic's general documents."""
    if not SHARED.is_dir():
        return [record["text"] for record in islice(general_documents(), 4000)]
    return [*dialogues()[:3000], *passages()[::5], *medquad()[:2000]]


@lru_cache(1)
def _clean_haystack(step: Decontaminate) -> list[str]:
    texts = _haystack()
    return [text for text, drop in zip(texts, _judged(step, texts)) if drop is None]


def _planted(texts: list[str], needles: list[str]) -> list[str]:
    rng = random.Random(0)
    found = []
    for needle in needles:
        text = rng.choice(texts)
        cut = rng.randrange(len(text) + 1)
        found.append(f"{text[:cut]}\n{needle}\n{text[cut:]}")
    return found


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Decontaminate:
    return _build(tmp_path_factory.mktemp("clinic") / "questions.jsonl", _clinic_items())


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_every_planted_question_is_found_with_its_item(step: Decontaminate, change: Callable[[str], str]) -> None:
    items = _clinic_items()
    drops = _judged(step, _planted(_clean_haystack(step), [change(item["question"]) for item in items]))
    assert [drop and drop.detail["item"] for drop in drops] == [item["id"] for item in items]
    assert all(drop and drop.reason == "contaminated" and drop.detail["ratio"] == 1 for drop in drops)


@needs_shared
@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_every_planted_real_question_is_found(tmp_path: Path, change: Callable[[str], str]) -> None:
    asked = [text.partition("\n")[0] for text in (*dialogues()[-600:], *chatdoctor()[:300], *medquad()[-600:])]
    items = [{"id": str(number), "question": text} for number, text in enumerate(dict.fromkeys(asked)) if text.strip()]
    step = _build(tmp_path / "questions.jsonl", items)
    unindexed = set(step.unindexed)
    assert len(unindexed) < 0.05 * len(items)  # "头痛怎么办": too short to tell from ordinary text
    sought = [item for item in items if item["id"] not in unindexed]
    texts = _clean_haystack(step)
    assert len(texts) > 3000
    drops = _judged(step, _planted(texts, [change(item["question"]) for item in sought]))
    assert [item["question"] for item, drop in zip(sought, drops) if drop is None] == []


def test_the_shortest_questions_are_among_those_found(step: Decontaminate) -> None:
    lengths = {
        unit: min(len(tokens(item["question"], unit)) for item in _clinic_items() if unit_of(item["question"]) == unit)
        for unit in ("characters", "words")
    }
    assert lengths["characters"] <= 7 and lengths["words"] <= 5
    assert step.unindexed == []


@pytest.mark.parametrize("layout", ["A. {}", "（{}）", "- {}"])
def test_options_are_found_in_any_order_without_their_question(step: Decontaminate, layout: str) -> None:
    by_id = {item["id"]: item for item in _clinic_items()}
    sets, needles = [], []
    for item in _clinic_items():
        options = list(item["options"].values())
        unit = unit_of(item["question"] + "".join(options))
        if sum(len(tokens(option, unit)) for option in options) >= (16 if unit == "characters" else 8):
            sets.append(set(options))
            needles.append("\n".join(layout.format(option) for option in random.Random(len(sets)).sample(options, 4)))
    assert len(needles) > 100
    drops = _judged(step, _planted(_clean_haystack(step), needles))
    found = [drop and set(by_id[drop.detail["item"]]["options"].values()) for drop in drops]
    assert found == sets
    assert all(drop and drop.detail["part"] == "options" for drop in drops)


def test_options_far_apart_are_ordinary_text(step: Decontaminate) -> None:
    item = next(item for item in _clinic_items() if unit_of(item["question"]) == "words")
    near = " ; ".join(item["options"].values())
    far = (" something of no meaning" * 100).join(item["options"].values())
    assert [drop is not None for drop in _judged(step, [near, far])] == [True, False]


def test_real_text_is_seldom_taken_for_a_question(step: Decontaminate) -> None:
    texts = _haystack()
    false = sum(drop is not None for drop in _judged(step, texts))
    print(f"{false} of {len(texts)} real documents are taken for a clinic question")
    assert false <= len(texts) / 1000


def test_the_same_item_span_and_ratio_as_a_plain_matcher(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = rng.sample(_haystack(), 150)
    asked = [item["question"] for item in _clinic_items()[:60]]
    for text in texts[:60]:  # cuts that overlap, so that some n-grams are common
        start = rng.randrange(max(1, len(text) - 90))
        asked += [text[start : start + 90], text[start + 10 : start + 70], text[start + 5 : start + 17]]
    asked = [text for text in dict.fromkeys(asked) if text.strip()]
    items = [{"id": str(number), "question": text} for number, text in enumerate(asked)]
    step = _build(tmp_path / "questions.jsonl", items, common=2)
    limits = {"characters": step.config.characters, "words": step.config.words}
    oracle = Oracle({item["id"]: item["question"] for item in items}, limits, common=2)
    changes = list(_CHANGES.values())
    documents = [*texts, *_planted(texts, [rng.choice(changes)(text[: rng.randint(8, 90)]) for text in asked])]
    found = [
        drop and (drop.detail["item"], drop.detail["span"], drop.detail["ratio"]) for drop in _judged(step, documents)
    ]
    wanted = [match and (match[0], match[1], round(match[2], 4)) for match in map(oracle.find, documents)]
    assert found == wanted
    assert 50 < sum(match is not None for match in wanted) < len(documents)


def test_an_outcome_does_not_depend_on_the_batch(step: Decontaminate) -> None:
    texts = _planted(_haystack()[:50], [item["question"] for item in _clinic_items()[:100]])
    together = _judged(step, texts)
    assert [_judged(step, [text])[0] for text in reversed(texts)] == together[::-1]


def test_flagging_keeps_the_document_with_a_note(tmp_path: Path) -> None:
    item = _clinic_items()[0]
    step = _build(tmp_path / "questions.jsonl", [item], action="flag")
    outcome = step(Batch(["a", "b"], [f"Before. {item['question']}", "Nothing."], ["", ""], [], []))
    assert outcome.drops == [None, None]
    assert outcome.notes[1] is None
    note = outcome.notes[0]
    assert note and note["contamination"]["item"] == item["id"]
    assert note["contamination"]["source"] == item["source"]
    assert sum(outcome.counts.values()) == 1
    assert outcome.measures["contamination ratio"][0] == 1
    assert np.isnan(outcome.measures["contamination ratio"][1])


@pytest.mark.parametrize("item", [{"question": " "}, {"question": "a b c d e", "options": ["x"]}, ["no question"]])
def test_a_record_that_is_no_question_is_refused_with_its_line(tmp_path: Path, item: object) -> None:
    with pytest.raises(InputError, match=r"questions\.jsonl, line 2"):
        _build(tmp_path / "questions.jsonl", [_clinic_items()[0], item])  # type: ignore[list-item]
