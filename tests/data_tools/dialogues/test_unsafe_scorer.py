"""From dialogues to a scorer of what is unsafe: labelled over HTTP by a rule, trained, used by the step."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from data_tools.corpus.batch import Batch
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.unsafe import Unsafe, UnsafeConfig
from data_tools.dialogues.unsafe_words import CATEGORIES
from data_tools.inputs import InputError
from data_tools.labelling import SAFETY_LABELS, LabelConfig, label
from data_tools.llm import LanguageModel, ModelConfig
from data_tools.prompts import load_prompt
from data_tools.records import Messages
from data_tools.scorers import Task, load_scorer
from data_tools.scorers.training import train_scorer
from data_tools.tokenizers import load_tokenizer
from tests.data_tools.corpus.text_batches import batch_of
from tests.data_tools.dialogues.dialogue_batches import batch_of_dialogues, dialogue
from tests.data_tools.llm_server import LanguageModelServer, asked_about
from tests.data_tools.small_tokenizer import make_tokenizer

# Words of their own for each label, so that a linear scorer of these dialogues can be right: the labeller goes by them
# and no list of the step holds them.
WORDS = {
    "safe": ("体温", "休息", "fever", "tablet"),
    "pornography": ("红灯笼", "lantern"),
    "violence": ("铁锤", "hammer"),
    "hate": ("篱笆", "fence"),
    "self-harm": ("深井", "ravine"),
    "weapons-and-drugs": ("蓝罐", "canister"),
}


def made(count: int, seed: int) -> list[tuple[str, Messages]]:
    """A label and a dialogue with words of the label in its question, its answer or both; half are Chinese."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        name = draw.choice([*SAFETY_LABELS, *["safe"] * 4])
        zh = number % 2 == 0
        words = [word for word in WORDS[name] if word.isascii() != zh]
        said = [
            draw.choice(words),
            draw.choice([*words, ""]),
            draw.choice(["三天", "两周"] if zh else ["days", "weeks"]),
        ]
        draw.shuffle(said)
        first, *rest = said
        question, answer = (
            (f"请问{first}{number}？", f"关于{'、'.join(rest)}，请看这里。")
            if zh
            else (f"What about the {first} {number}?", f"For {' and '.join(rest)} it is this.")
        )
        found.append((name, dialogue(question, answer)))
    return found


def label_by_words(body: dict[str, Any], repetition: int) -> str:
    """The labeller: the label whose word the dialogue holds."""
    code, text = asked_about(body)
    said = " ".join(message["content"] for message in json.loads(text))
    names = [name for name, words in WORDS.items() if any(word in said for word in words)]
    return json.dumps({"document": code, "label": names[0]})


def test_labels_of_safety_are_the_categories_of_the_step() -> None:
    assert set(SAFETY_LABELS) == {"safe", *CATEGORIES}
    for language in ("zh", "en"):
        prompt = load_prompt("safety", 1, language)
        assert all(f'"{name}"' in prompt.system for name in SAFETY_LABELS)


def test_dialogues_are_labelled_and_a_scorer_of_them_decides(tmp_path: Path) -> None:
    dialogues = made(360, seed=1)
    (tmp_path / "raw.jsonl").write_bytes(
        b"".join(
            orjson.dumps({"id": f"d{number}", "messages": messages}) + b"\n"
            for number, (_, messages) in enumerate(dialogues)
        )
    )
    seeds, scorer = tmp_path / "seeds.jsonl", tmp_path / "scorer"
    with LanguageModelServer(rule=label_by_words) as server:
        model = LanguageModel(ModelConfig(model="m", base_url=server.url, cache=tmp_path / "cache", concurrency=4))
        config = LabelConfig(task="safety", samples={"zh": 180, "en": 180}, repeats=1)
        manifest = label([str(tmp_path / "raw.jsonl")], seeds, config, model)
    records = {record["id"]: record for record in map(orjson.loads, seeds.read_bytes().splitlines())}
    assert manifest["task"] == "safety" and manifest["prompts"]["zh"]["name"] == "safety.v1.zh"
    for number, (name, messages) in enumerate(dialogues):
        record = records[f"d{number}"]
        assert record["label"] == name
        assert record["text"] == "\n".join(message["content"] for message in messages)
        assert record["lang"] == ("zh" if number % 2 == 0 else "en")

    tokenizer = load_tokenizer(make_tokenizer(tmp_path / "tokenizer"))
    train_scorer(
        [seeds],
        scorer,
        kind="linear",
        task="classification",
        tokenizer=tokenizer,
        settings={"l2": (1e-4,), "max_iterations": 40},
        validation=0.15,
        test=0.15,
    )
    fresh = made(120, seed=2)
    batch = batch_of_dialogues([messages for _, messages in fresh])
    step = UnsafeConfig(scorer=scorer, categories=()).build(Resources(tokenizer, 0))
    outcome = step(batch)
    truth = np.array([name != "safe" for name, _ in fresh])
    found = np.array([drop is not None for drop in outcome.drops])
    assert np.mean(found == truth) > 0.9
    probabilities = load_scorer(scorer, tokenizer).score(batch)
    safe = probabilities[:, load_scorer(scorer, tokenizer).task.labels.index("safe")]
    np.testing.assert_allclose(outcome.measures["unsafe score"], 1 - safe, atol=1e-6)
    with pytest.raises(InputError, match=r"knows .*: it must know 'bias', or give its unsafe labels"):
        UnsafeConfig(scorer=scorer, labels=("bias",)).build(Resources(tokenizer, 0))


def test_long_dialogues_are_cut_and_those_without_words_are_kept_apart(tmp_path: Path) -> None:
    records = [
        {"id": "long", "messages": dialogue("问题" * 30, "回答" * 30, "再问")},
        {"id": "empty", "messages": dialogue(" ", "\n")},
    ]
    (tmp_path / "raw.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    asked = []

    def rule(body: dict[str, Any], repetition: int) -> str:
        code, text = asked_about(body)
        asked.append(json.loads(text))
        return json.dumps({"document": code, "label": "safe"})

    with LanguageModelServer(rule=rule) as server:
        model = LanguageModel(ModelConfig(model="m", base_url=server.url, mode="off"))
        config = LabelConfig(task="safety", samples={"zh": 9}, repeats=1, max_characters=71)
        manifest = label([str(tmp_path / "raw.jsonl")], tmp_path / "seeds.jsonl", config, model)
    assert asked == [[{"role": "user", "content": "问题" * 30}, {"role": "assistant", "content": "回答" * 5 + " […]"}]]
    (seed,) = map(orjson.loads, (tmp_path / "seeds.jsonl").read_bytes().splitlines())
    assert seed["text"] == "问题" * 30 + "\n" + "回答" * 5
    assert manifest["counts"]["quarantined"] == {"no-words": 1}


class _Table:
    """A classifier whose probabilities are given."""

    kind = "linear"
    task = Task("classification", ("hate", "safe", "violence"))

    def score(self, batch: Batch) -> np.ndarray:
        rows = {"a": (0.3, 0.5, 0.2), "b": (0.1, 0.6, 0.3), "c": (0.7, 0.2, 0.1)}
        return np.array([rows[text] for text in batch.texts])


@pytest.mark.parametrize(
    ("labels", "scores", "dropped"),
    [((), [0.5, 0.4, 0.8], [True, False, True]), (("hate",), [0.3, 0.1, 0.7], [False, False, True])],
)
def test_the_probabilities_of_unsafe_labels_add_up(
    labels: tuple[str, ...], scores: list[float], dropped: list[bool]
) -> None:
    outcome = Unsafe(UnsafeConfig(labels=labels), _Table())(batch_of(["a", "b", "c"]))
    assert outcome.measures["unsafe score"].tolist() == pytest.approx(scores)
    assert [drop is not None for drop in outcome.drops] == dropped
