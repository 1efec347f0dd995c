"""Whatever a record holds, an importer makes a dialogue of it or says why it cannot."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.dialogues.importers import IMPORTERS, importer
from data_tools.records import ROLES, Dialogue, RecordError
from tests.data_tools.dialogues.test_importers import said
from tests.data_tools.dialogues.test_importers_cmb import QUESTION

CHINESE_BLOCK = "id=1\nDescription\n病情描述：\n咳嗽\nDialogue\n病人:\n咳\n医生:\n休息"
KEYS = st.sampled_from(
    ["question", "questions", "ask", "title", "answer", "answers", "department", "query", "response", "instruction",
     "instruct", "input", "output", "history", "system", "id", "conversations", "from", "value", "messages", "role",
     "content", "prompt", "completion", "tool_calls", "type", "text", "option", "A", "B", "question_type",
     "explanation", "exam_type", "QA_pairs", "solution", "description", "utterances", "answer_icliniq", "label",
     "scores", "meta"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["", " ", "A", "AB", "human", "gpt", "user", "assistant", "system", "text", "问:a", "答:b", "病人：c", "doctor: d",
     "单项选择题", "Dialogue\n病人:\na\n医生:\nb", "http://a.cn", "\ud800"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


SAMPLES: dict[str, list[Any]] = {
    "toyhom": [{"department": "内科", "title": "题", "ask": "问", "answer": "答"}],
    "huatuo": [
        {"questions": [["a"]], "answers": ["b"]},
        {"question": "a", "answer": "b", "label": "c", "related_diseases": "d", "score": 5},
        {"id": "", "instruction": ["a"], "input": "", "output": ["b"]},
    ],
    "meddialog-zh": [["病人：a", "医生：b"], CHINESE_BLOCK],
    "meddialog-en": [{"description": "a", "utterances": ["patient: b", "doctor: c"]}],
    "chatmed": [{"query": "a", "response": "b"}],
    "cmb": [QUESTION, {"id": 1, "description": "d", "QA_pairs": [{"question": "a", "solution": "b"}]}],
    "chatdoctor": [{"instruction": "i", "input": "a", "output": "b"}, {"input": "a", "answer_icliniq": "b"}],
    "cmtmedqa": [{"id": 1, "cate1": "c", "instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]}],
    "aquila-med-instruct": [{"instruction": "问:a", "input": "", "output": "答:b", "history": [["问:c", "答:d"]]}],
    "sharegpt": [{"id": "1", "system": "s", "conversations": [{"from": "human", "value": "a"},
                                                              {"from": "gpt", "value": "b"}]}],
    "alpaca": [{"system": "s", "instruction": "a", "input": "i", "output": "b", "history": [["c", "d"]]}],
    "messages": [{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
                               {"role": "assistant", "content": "b", "tool_calls": []}]}],
    "dialogues": [Dialogue("1", ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})).to_json()],
}  # fmt: skip
OTHERS = [None, True, 0, 1.5, "", " ", "\ud800", "x", [], ["x"], [None], [["x"]], {}, {"x": "y"}, [{}], [["x", None]]]


def changed(value: Any) -> Iterator[Any]:
    """`value` with each of its parts, at any depth, replaced by each of OTHERS, or taken out."""
    yield from OTHERS
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        rest = value.copy()
        del rest[key]
        yield rest
        for part in changed(value[key]):
            rest = value.copy()
            rest[key] = part
            yield rest


def check(name: str, value: Any) -> bool:
    """Whether the importer takes a value; what it takes must be a dialogue, and what it refuses have a reason."""
    try:
        dialogue = importer(name).convert(value)
    except RecordError as error:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.reason)
        return False
    json.dumps([dialogue.messages, dialogue.meta])
    assert all(message["role"] in ROLES and message["content"].strip() for message in dialogue.messages)
    assert all(message["content"].encode() for message in dialogue.messages)
    if name != "dialogues":
        said(dialogue)
    return True


def test_every_part_of_a_record_may_be_anything() -> None:
    assert SAMPLES.keys() == IMPORTERS.keys()
    for name, samples in SAMPLES.items():
        for sample in samples:
            assert check(name, sample)
            assert {check(name, value) for value in changed(sample)} >= {False}


@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_becomes_a_dialogue_or_a_refusal(value: Any) -> None:
    for name in IMPORTERS:
        check(name, value)
