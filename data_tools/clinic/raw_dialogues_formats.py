"""Dialogues written as published sets write them: their fields, file types and encodings, and records that are broken
as theirs are. Sources of the layouts: the sets' own files and readers (Toyhom, Huatuo-26M, MedDialog, ChatMed, CMB,
ChatDoctor, ShareGPT).
"""

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Turns = Sequence[tuple[str, str]]  # (the patient's words, the answer)

# The constant first field of every record of ChatDoctor's files.
_INSTRUCTION = "If you are a doctor, please answer the medical questions based on the patient's description."


@dataclass(frozen=True)
class Layout:
    """A file: its name, what stands before, between and after its records, and records that nothing can be made of.

    `encode` makes the bytes of a record out of what `raw_dialogues` tells of a dialogue.
    """

    file: str
    encode: Callable[[Any], bytes]
    damaged: tuple[bytes, ...]
    before: bytes = b""
    between: bytes = b"\n"
    after: bytes = b"\n"


@dataclass(frozen=True, slots=True)
class RawTalk:
    """What a record is made of. `number` counts the records of its file; `department`, `title` and `other` (another
    wording of the question) are for the sets that have such fields; `exam`: a multiple-choice question's fields.
    """

    number: int
    turns: Turns
    department: str = ""
    title: str = ""
    other: str = ""
    exam: dict[str, Any] | None = None


def _row(fields: Sequence[str], encoding: str) -> bytes:
    """A row of CSV as RFC 4180 has it, without its line end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(fields)
    return out.getvalue().removesuffix("\n").encode(encoding)


def _toyhom(talk: RawTalk) -> bytes:
    (question, answer), *_ = talk.turns
    return _row([talk.department, talk.title, question, answer], "gb18030")


def _chatmed(talk: RawTalk) -> bytes:
    (query, response), *_ = talk.turns
    return orjson.dumps({"query": query, "response": response})


def _huatuo(talk: RawTalk) -> bytes:
    (question, answer), *_ = talk.turns
    questions = [question, talk.other] if talk.other else [question]
    return orjson.dumps({"questions": questions, "answers": [answer]})


def _chatdoctor(talk: RawTalk) -> bytes:
    (question, answer), *_ = talk.turns
    return orjson.dumps({"instruction": _INSTRUCTION, "input": question, "output": answer})


def _sharegpt(talk: RawTalk) -> bytes:
    said = [{"from": speaker, "value": words} for turn in talk.turns for speaker, words in zip(("human", "gpt"), turn)]
    return orjson.dumps({"id": f"clinic-chat-{talk.number:06d}", "conversations": said})


def _meddialog(talk: RawTalk) -> bytes:
    """A block of a year's file: the patient's description, then who said what, each on a line of its own."""
    (description, _), *_ = talk.turns
    lines = [
        f"id={talk.number}",
        f"https://clinic.example/flow_team_{talk.number}.htm",
        "Doctor faculty",
        f"诊所 {talk.department}",
        "Description",
        "病情描述：",
        description,
        "Dialogue",
    ]
    for number, (question, answer) in enumerate(talk.turns):
        lines += (["病人：", question] if number else []) + ["医生：", answer]
    return "\n".join(lines).encode() + b"\n"


def _cmb(talk: RawTalk) -> bytes:
    return orjson.dumps(talk.exam)


_OPEN, _NEXT, _CLOSE = b"[\n", b",\n", b"\n]\n"

LAYOUTS: dict[str, Layout] = {
    "toyhom": Layout(
        "toyhom.csv",
        _toyhom,
        (
            _row(["内科", "少了一列", "这一行只有三列"], "gb18030"),
            b"\xc4\xda\xbf\xc6,\xff\xff,\xff\xff,\xff\xff",
            _row(["内科", "没有回答", "这一行的回答是空的", " "], "gb18030"),
        ),
        before=_row(["department", "title", "ask", "answer"], "gb18030") + b"\n",
    ),
    "chatmed": Layout(
        "chatmed.json",
        _chatmed,
        (
            '{"query": "这条记录写到一半'.encode(),
            '{"query": "没有回答"}'.encode(),
            b'{"query": "caf\xe9", "response": "au lait"}',
        ),
    ),
    "huatuo": Layout(
        "huatuo.jsonl",
        _huatuo,
        (
            orjson.dumps({"questions": ["答案只是网址"], "answers": ["https://clinic.example/answers/1"]}),
            orjson.dumps({"questions": [], "answers": ["没有问题的回答"]}),
            orjson.dumps({"questions": ["没有回答的问题"]}),
        ),
    ),
    "chatdoctor": Layout(
        "chatdoctor.json",
        _chatdoctor,
        (
            orjson.dumps({"instruction": _INSTRUCTION, "input": "This record has no answer."}),
            orjson.dumps({"instruction": _INSTRUCTION, "input": "This answer is a number.", "output": 42}),
            b'{"instruction": "", "input": "This one is no JSON", "output": }',
        ),
        _OPEN,
        _NEXT,
        _CLOSE,
    ),
    "sharegpt": Layout(
        "sharegpt.json",
        _sharegpt,
        (
            orjson.dumps({"id": "broken-1", "conversations": "This is no list."}),
            orjson.dumps({"id": "broken-2", "conversations": []}),
            orjson.dumps({"id": "broken-3", "conversations": [{"from": "human", "value": "Nobody answers this."}]}),
        ),
        _OPEN,
        _NEXT,
        _CLOSE,
    ),
    "meddialog": Layout(
        "meddialog.txt",
        _meddialog,
        (
            "id=900001\nhttps://clinic.example/broken_1.htm\nDescription\n病情描述：\n没有对话\n".encode(),
            b"id=900002\nhttps://clinic.example/broken_2.htm\nDescription\n\xff\xfe\nDialogue\n\xe5\x8c\n",
        ),
    ),
    "cmb": Layout(
        "cmb_train.json",
        _cmb,
        (
            orjson.dumps({"question": "没有选项的题", "answer": "A", "question_type": "单项选择题"}),
            orjson.dumps(
                {
                    "question": "答案不在选项里",
                    "answer": "E",
                    "option": {"A": "甲", "B": "乙"},
                    "question_type": "单项选择题",
                }
            ),
        ),
        _OPEN,
        _NEXT,
        _CLOSE,
    ),
}


def laid_out(layout: Layout, talks: Sequence[RawTalk]) -> tuple[bytes, list[int]]:
    """A file's bytes, and the byte at which each dialogue's record begins; after every tenth of them stands a broken
    one, as long as there are any.
    """
    records: list[bytes] = []
    numbers = []  # of the dialogues' records among all
    damaged = iter(layout.damaged)
    for number, talk in enumerate(talks):
        numbers.append(len(records))
        records.append(layout.encode(talk))
        if number % 10 == 9:
            records += itertools.islice(damaged, 1)
    begins = itertools.accumulate((len(record) + len(layout.between) for record in records), initial=len(layout.before))
    offsets = list(begins)
    return layout.before + layout.between.join(records) + layout.after, [offsets[number] for number in numbers]
