"""Duplicates among real dialogues, in their joined text, against exact Jaccard similarity counted in plain Python."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from data_tools.corpus.batch import dialogue_text
from data_tools.corpus.deduplicate import DeduplicateConfig
from data_tools.records import Messages
from tests.data_tools.corpus.real_texts import needs_shared
from tests.data_tools.corpus.test_deduplicate import jaccard, verdicts
from tests.data_tools.dialogues.dialogue_batches import dialogue, real_dialogues

# Of 13,096 real dialogues the corpus default (0.65) takes 16 for near duplicates that ask another question and get the
# same stock answer; at 0.8 none. A dose or a value tells two questions apart.
CONFIG = DeduplicateConfig(threshold=0.8, join_numbers=False)
MARGIN = 0.03  # of the estimate
WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(33, 127)} | {" ": "\u3000"})


def units(text: str, lang: str) -> list[str]:
    """Letters and digits: characters of Chinese, words of English."""
    return list(re.sub(r"[\W_]", "", text.lower())) if lang == "zh" else re.findall(r"[^\W_]+", text.lower())


def similarity(left: Messages, right: Messages, lang: str) -> float:
    n = 8 if lang == "zh" else 5
    return jaccard(units(dialogue_text(left), lang), units(dialogue_text(right), lang), n)


def dropped(place: Path, dialogues: list[Messages], lang: str) -> dict[int, bool]:
    """Which go, and whether as exact duplicates."""
    found, _ = verdicts(place, CONFIG, [dialogue_text(messages) for messages in dialogues], lang)
    return {int(row["position"]): bool(row["exact"]) for row in found[found["drop"]]}


def sample(lang: str, count: int) -> list[Messages]:
    """Dialogues of which no two are alike, nor share a question or an answer."""
    found, seen = [], set()
    for messages in random.Random(3).sample(real_dialogues(lang), len(real_dialogues(lang))):
        parts = [re.sub(r"[\W_]", "", message["content"].lower())[:40] for message in messages]
        if not seen.intersection(parts) and min(map(len, parts)) >= 10:
            seen.update(parts)
            found.append(messages)
    assert len(found) >= count
    return found[:count]


@needs_shared
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_dialogue_in_another_formatting_goes(tmp_path: Path, lang: str) -> None:
    dialogues = sample(lang, 400)
    copies = []
    for place, messages in enumerate(dialogues):
        question, answer = (message["content"] for message in messages)
        copies.append(
            (
                dialogue(f"问：{question}".removeprefix("问："), answer.translate(WIDE)),
                dialogue(question.upper() + " \n", f"\n{answer.strip()}！"),
                dialogue(re.sub(r"([,，。.])", r" \1\n", question), answer),
                ({"role": "system", "content": ""}, *messages),
            )[place % 4]
        )
    assert dropped(tmp_path / "all", [*dialogues, *copies], lang) == {400 + place: True for place in range(400)}


@needs_shared
@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("kept", ["question", "answer"])
def test_the_same_question_with_another_answer_stays(tmp_path: Path, lang: str, kept: str) -> None:
    """And the same answer to another question, unless the answer is nearly all there is."""
    dialogues = sample(lang, 600)
    others = dialogues[1:] + dialogues[:1]
    mixed = [(own[0], other[1]) if kept == "question" else (other[0], own[1]) for own, other in zip(dialogues, others)]
    gone = dropped(tmp_path / "all", [*dialogues, *mixed], lang)
    nearest = np.array(
        [
            max(similarity(own, new, lang), similarity(other, new, lang))
            for own, other, new in zip(dialogues, others, mixed)
        ]
    )
    went = np.array([600 + place in gone for place in range(600)])
    assert not any(place < 600 for place in gone)
    assert not went[nearest < CONFIG.threshold - MARGIN].any()
    assert went[nearest > CONFIG.threshold + MARGIN].all()
    assert went.mean() < 0.02  # few questions, and few answers, are nearly all of their dialogue


@needs_shared
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_dialogue_that_goes_on_stays(tmp_path: Path, lang: str) -> None:
    dialogues = sample(lang, 300)
    longer = [(*one, *other) for one, other in zip(dialogues[:150], dialogues[150:])]
    kept = [
        place
        for place, (one, new) in enumerate(zip(dialogues, longer))
        if max(similarity(one, new, lang), similarity(dialogues[150 + place], new, lang)) < CONFIG.threshold - MARGIN
    ]
    gone = dropped(tmp_path / "all", [*dialogues, *longer], lang)
    assert len(kept) > 130
    assert not any(300 + place in gone for place in kept)


def test_a_dose_tells_two_dialogues_apart_in_the_exact_search(tmp_path: Path) -> None:
    doses = [
        dialogue("布洛芬缓释胶囊一次能吃多少毫克？", f"成人一次{dose}毫克，一日两次，饭后服用。") for dose in (300, 600)
    ]
    found, _ = verdicts(
        tmp_path / "a", CONFIG.model_copy(update={"near": False}), [dialogue_text(one) for one in doses], "zh"
    )
    assert not found["drop"].any()


@needs_shared
def test_real_dialogues_lose_their_repetitions_only(tmp_path: Path) -> None:
    """Both texts of every near duplicate were read: the same question, the answer with a word more or less."""
    gone = dropped(tmp_path / "zh", list(real_dialogues("zh")), "zh")
    assert (sum(gone.values()), len(gone)) == (398, 400)
    assert dropped(tmp_path / "en", list(real_dialogues("en")), "en") == {}
