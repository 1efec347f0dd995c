"""Answers of dialogue sets: what the model saw in each round, and runs that are killed and go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.chat import get_template
from data_tools.tokenizer_training import train_from_texts
from megatron_aquila.evaluation.answers import AnswersError, answer, usual_history, write_answers

Messages = list[dict[str, str]]

DIALOGUES: list[dict[str, Any]] = [
    {
        "id": "fever",
        "lang": "zh",
        "rounds": [
            {"user": "发热三天怎么办？", "reference": "请多喝水。"},
            {"user": "需要吃药吗？", "reference": "先测体温。"},
            {"user": "谢谢", "reference": None},
        ],
        "case": None,
        "meta": {},
    },
    {"id": "cough", "lang": "en", "rounds": [{"user": "I cough.", "reference": "Rest."}], "case": None, "meta": {}},
    {
        "id": "case 7",
        "lang": "zh",
        "rounds": [{"user": "诊断是什么？", "reference": "肺炎"}, {"user": "依据？", "reference": "胸片"}],
        "case": "患者男，60岁，咳嗽。",
        "meta": {},
    },
]


class Echo:
    """A model that repeats the question and says how many messages it saw; killed when it has made `calls`."""

    max_length = 10_000

    def __init__(self, calls: int = 99) -> None:
        self.calls, self.asked = calls, list[Messages]()
        self.settings: list[dict[str, Any]] = []

    def apply_chat_template(self, chat_history: Messages, add_generation_prompt: bool = True) -> str:
        assert add_generation_prompt
        return json.dumps(chat_history)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        conversations = [json.loads(request.args[0]) for request in requests]
        self.asked += conversations
        self.settings += [request.args[1] for request in requests]
        return [f" {messages[-1]['content']} ({len(messages)}) " for messages in conversations]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        assert add_special_tokens is False
        return [ord(character) for character in string]


def contents(row: Any) -> list[str]:
    return [message["content"] for message in row["messages"]]


def test_the_model_sees_its_own_answers_or_the_references() -> None:
    lm = Echo()
    own = answer(lm, DIALOGUES, history="own", max_new_tokens=12, until=["。"])
    assert [(row["id"], row["round"]) for row in own] == [
        ("fever", 1),
        ("fever", 2),
        ("fever", 3),
        ("cough", 1),
        ("case 7", 1),
        ("case 7", 2),
    ]
    assert contents(own[2]) == ["发热三天怎么办？", "发热三天怎么办？ (1)", "需要吃药吗？", "需要吃药吗？ (3)", "谢谢"]
    assert [message["role"] for message in own[2]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert own[2]["answer"] == "谢谢 (5)" and own[2]["reference"] is None and own[2]["lang"] == "zh"
    case = "以下是一位病人的病例：\n患者男，60岁，咳嗽。\n诊断是什么？"
    assert contents(own[4]) == [case] and contents(own[5]) == [case, f"{case} (1)", "依据？"]
    # " 谢谢 (5) " has 8 characters, which are this model's tokens; " 依据？ (3) " has 9, the first question 14.
    assert [row["finished"] for row in own] == [False, False, True, False, False, True]
    assert all(settings == {"until": ["。"], "max_gen_toks": 12, "do_sample": False} for settings in lm.settings)
    # a round is one call, of the dialogues in their order
    assert [messages[-1]["content"] for messages in lm.asked] == [
        "发热三天怎么办？",
        "I cough.",
        case,
        "需要吃药吗？",
        "依据？",
        "谢谢",
    ]

    given = answer(Echo(), DIALOGUES, history="reference", max_new_tokens=12)
    assert contents(given[2]) == ["发热三天怎么办？", "请多喝水。", "需要吃药吗？", "先测体温。", "谢谢"]
    assert contents(given[5]) == [case, "肺炎", "依据？"]


def test_limit_and_rounds_ask_less() -> None:
    rows = answer(Echo(), DIALOGUES, history="own", max_new_tokens=9, limit=2, rounds=2)
    assert [(row["id"], row["round"]) for row in rows] == [("fever", 1), ("fever", 2), ("cough", 1)]
    assert answer(Echo(), DIALOGUES, history="own", max_new_tokens=9, limit=0) == []


def test_a_conversation_that_does_not_fit_is_marked() -> None:
    lm = Echo()
    contexts = [len(json.dumps(row["messages"])) for row in answer(lm, DIALOGUES, history="own", max_new_tokens=12)]
    lm.max_length = sorted(contexts)[3] + 12
    rows = answer(lm, DIALOGUES, history="own", max_new_tokens=12)
    assert [row["truncated"] for row in rows] == [length > sorted(contexts)[3] for length in contexts]
    assert sum(row["truncated"] for row in rows) == 2


def test_a_missing_reference_is_refused() -> None:
    rounds = [{"user": "a", "reference": None}, {"user": "b", "reference": "c"}]
    dialogue = {"id": "d1", "lang": "en", "rounds": rounds, "case": None}
    with pytest.raises(AnswersError, match="dialogue d1, round 1: there is no reference answer to go on from"):
        answer(Echo(), [dialogue], history="reference", max_new_tokens=4)


def test_history_is_the_models_own_where_there_is_a_case() -> None:
    assert usual_history(DIALOGUES) == "own"
    assert usual_history(DIALOGUES[:2]) == "reference"


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_killed_run_goes_on_after_its_last_round(calls: int, tmp_path: Path) -> None:
    how: dict[str, Any] = {"model": "m1", "history": "own", "max_new_tokens": 12}
    whole = answer(Echo(), DIALOGUES, history="own", max_new_tokens=12)
    first = Echo(calls)
    with pytest.raises(KeyboardInterrupt):
        write_answers(tmp_path, "set", first, DIALOGUES, **how)
    published = tmp_path / "answers" / "set.jsonl"
    assert not published.exists()
    if calls:
        with (tmp_path / "answers" / "set.partial").open("ab") as file:
            file.write(b'[{"id": "fever", "rou')  # killed within a write
    second = Echo()
    assert write_answers(tmp_path, "set", second, DIALOGUES, **how) == whole
    assert len(first.asked) + len(second.asked) == len(whole), "something was asked twice"
    assert [json.loads(line) for line in published.read_bytes().splitlines()] == whole
    assert not (tmp_path / "answers" / "set.partial").exists()
    assert write_answers(tmp_path, "set", Echo(0), DIALOGUES, **how) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "m2"}, "model is m1, not m2"),
        ({"history": "reference"}, "history is own, not reference"),
        ({"max_new_tokens": 13}, "max_new_tokens is 12, not 13"),
        ({"dialogues": DIALOGUES[:2]}, "dialogues is "),
    ],
)
def test_answers_of_another_model_are_not_continued(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"dialogues": DIALOGUES, "model": "m1", "history": "own", "max_new_tokens": 12}
    with pytest.raises(KeyboardInterrupt):
        write_answers(tmp_path, "set", Echo(1), **how)
    with pytest.raises(AnswersError, match=message):
        write_answers(tmp_path, "set", Echo(), **{**how, **change})


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnswersError, match="set has two dialogues cough: ids must differ"):
        write_answers(tmp_path, "set", Echo(), [*DIALOGUES, DIALOGUES[1]], model="m1", history="own", max_new_tokens=4)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A random chat model of transformers, and its tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("assistant") / "model"
    texts = [text for d in DIALOGUES for one in d["rounds"] for text in (one["user"], one["reference"] or "")] * 9
    train_from_texts(texts, directory, vocab_size=330, control_tokens=("<|im_start|>", "<|im_end|>"))
    (directory / "chat_template.jinja").write_text(get_template("chatml").jinja(), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=330,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        max_position_embeddings=1024,
        eos_token_id=None,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


NEW_TOKENS = 8
END_OF_TURN = 5
# Other control tokens, and bytes, of which a random model would make no character.
UNSAID = [token for token in range(262) if token != END_OF_TURN]


def by_hand(model: Any, tokenizer: Any, text: str, end: int | None) -> list[int]:
    """Greedy, one conversation, every token computed anew."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    said: list[int] = []
    with torch.no_grad():
        while len(said) < NEW_TOKENS:
            logits = model(torch.tensor([ids + said]), use_cache=False).logits[0, -1]
            logits[UNSAID] = -torch.inf
            token = int(logits.argmax())
            if token == end:
                break
            said.append(token)
    return said


def test_a_chat_model_through_lm_eval_answers_as_by_hand(assistant: tuple[Any, Any]) -> None:
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = assistant
    cough = "<|im_start|>user\nI cough.<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == END_OF_TURN
    fourth = by_hand(model, tokenizer, cough, None)[3]
    with torch.no_grad():  # what it would say there is from now on the end of its turn
        model.lm_head.weight[[END_OF_TURN, fourth]] = model.lm_head.weight[[fourth, END_OF_TURN]]
    model.generation_config.eos_token_id = [END_OF_TURN]
    model.generation_config.suppress_tokens = UNSAID
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    rows = answer(lm, DIALOGUES, history="own", max_new_tokens=NEW_TOKENS)

    earlier: dict[str, Messages] = {dialogue["id"]: [] for dialogue in DIALOGUES}
    told = set()
    for row in rows:
        talk = earlier[row["id"]]
        talk.append(row["messages"][-1])
        rendered = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in talk)
        ids = by_hand(model, tokenizer, rendered + "<|im_start|>assistant\n", END_OF_TURN)
        said = tokenizer.decode(ids, skip_special_tokens=True)
        assert row["answer"] == said.strip()
        talk.append({"role": "assistant", "content": said.strip()})
        # Its length is read off the text, which says it where the tokens are those that the tokenizer itself takes.
        if tokenizer(said, add_special_tokens=False)["input_ids"] == ids:
            assert row["finished"] == (len(ids) < NEW_TOKENS)
            told.add(row["finished"])
    assert told == {True, False}
