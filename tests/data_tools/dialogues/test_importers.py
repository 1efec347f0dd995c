"""Importers of records: each published format, its trap, and every reason of refusal. Oracles: csv and json of the
standard library on the real files, dialogues written by hand for the others.
"""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_tools.dialogues.importers import IMPORTERS, Imported, importer
from data_tools.files import ReadOptions, Record
from data_tools.inputs import InputError
from data_tools.quarantine import Fault
from data_tools.records import Dialogue, RecordError
from tests.data_tools.corpus.real_texts import SHARED, needs_shared


def load(name: str, path: Path) -> tuple[list[Imported], Counter[str]]:
    """What the importer makes of a file, and how many records it refused for which reason; all are accounted for."""
    found = importer(name)
    reader = found.reader(path, ReadOptions(found.encodings))
    taken: list[Imported] = []
    refused: Counter[str] = Counter()
    for item in reader:
        try:
            if isinstance(item, Record):
                taken.append(found.convert(item.value))
            else:
                refused[item.reason] += 1
        except RecordError as error:
            refused[error.reason] += 1
    assert reader.damage is None
    assert reader.units == len(taken) + refused.total() + reader.blank
    return taken, refused


def said(dialogue: Imported) -> list[str]:
    """The contents of user and assistant, which must take turns from a question to an answer."""
    turns = [message for message in dialogue.messages if message["role"] != "system"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) != []
    return [turn["content"] for turn in turns]


def convert(name: str, value: Any) -> list[str]:
    return said(importer(name).convert(value))


def refusal(name: str, value: Any) -> str:
    with pytest.raises(RecordError) as caught:
        importer(name).convert(value)
    assert len(caught.value.detail) > 10
    return caught.value.reason


@needs_shared
def test_every_row_of_the_real_toyhom_sample() -> None:
    path = SHARED / "chinese_medical_dialogue_sample.csv"
    taken, refused = load("toyhom", path)
    with path.open(encoding="gb18030", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["department", "title", "ask", "answer"]
    assert len(taken) == len(rows) == 7644
    assert not refused
    nothing_asked = 0
    for dialogue, (department, title, ask, answer) in zip(taken, rows, strict=True):
        question, answered = said(dialogue)
        assert answered == answer.strip()
        assert dialogue.meta == {"kind": "qa", "department": department}
        assert title.strip() in question
        nothing_asked += ask.strip() == "无"
        if ask.strip() == "无":
            assert question == title.strip()
        elif title.strip() in ask:
            assert question == ask.strip()
        elif ask.strip() in title:
            assert question == title.strip()
        else:
            assert question == f"{title.strip()}\n{ask.strip()}"
    assert nothing_asked == 6


@needs_shared
def test_every_record_of_the_real_chatdoctor_file() -> None:
    path = SHARED / "chatdoctor5k.json"
    taken, refused = load("chatdoctor", path)
    records = json.loads(path.read_bytes())
    assert len(taken) == len(records) == 5452
    assert not refused
    assert [said(dialogue) for dialogue in taken] == [[r["input"].strip(), r["output"].strip()] for r in records]
    assert {dialogue.lang for dialogue in taken} == {"en"}


def test_toyhom_reads_both_names_of_the_question_and_both_encodings(tmp_path: Path) -> None:
    rows = [
        "科,题,问,答。谢谢",
        '儿科,发热,"第一行,\n谢谢\n第三行",多喝水',
        "外科,无,骨折了,要固定",
        "内科,无,无,什么？",
        "内科,头痛,暂无,无",
    ]
    for column, encoding in (("ask", "gb18030"), ("question", "utf-8"), ("ask", "utf-8-sig")):
        path = tmp_path / f"{encoding}.csv"
        path.write_text(f"department,title,{column},answer\n" + "\n".join(rows) + "\n", encoding=encoding)
        taken, refused = load("toyhom", path)
        assert [said(dialogue) for dialogue in taken] == [
            ["题\n问", "答。谢谢"],
            ["发热\n第一行,\n谢谢\n第三行", "多喝水"],
            ["骨折了", "要固定"],
        ]
        assert refused == {"no-question": 1, "no-answer": 1}
    # Encodings that the recipe names are kept as they are.
    given = importer("toyhom").reader(tmp_path / "utf-8.csv", ReadOptions(("gb18030",)))
    assert any(isinstance(item, Fault) and item.reason == "bad-encoding" for item in given)


def test_a_bad_row_of_toyhom_is_quarantined_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = "内科,头痛,头很痛,休息\n".encode("gb18030")
    path.write_bytes(b"department,title,ask,answer\n" + good + b"\xff\xff,a,b,c\n" + b"x,y\n" + good)
    items = list(importer("toyhom").reader(path, ReadOptions(importer("toyhom").encodings)))
    faults = [(item.line, item.reason) for item in items if isinstance(item, Fault)]
    assert faults == [(3, "bad-encoding"), (4, "wrong-columns")]
    assert len(items) == 4


def test_huatuo_takes_lists_however_deep_and_refuses_addresses() -> None:
    encyclopedia = {"questions": [["曲匹地尔片的用法用量", "曲匹地尔片怎么吃"]], "answers": ["口服。一次50mg。"]}
    dialogue = importer("huatuo").convert(encyclopedia)
    assert said(dialogue) == ["曲匹地尔片的用法用量", "口服。一次50mg。"]
    assert (dialogue.lang, dialogue.meta) == ("zh", {"kind": "qa", "paraphrases": 1})
    graph = {"questions": ["", "肺炎的症状"], "answers": ["发热", "咳嗽", "发热", " "]}
    assert convert("huatuo", graph) == ["肺炎的症状", "发热\n咳嗽"]
    lite = {
        "id": 7,
        "question": "失眠怎么办",
        "answer": "规律作息",
        "label": "神经科学",
        "related_diseases": "失眠",
        "score": 5,
    }
    assert convert("huatuo", lite) == ["失眠怎么办", "规律作息"]
    assert importer("huatuo").convert(lite).meta == {
        "kind": "qa", "department": "神经科学", "disease": "失眠", "published_score": 5,
    }  # fmt: skip
    test = {"id": "", "instruction": ["腹痛吃什么"], "input": "", "output": ["先查明原因"]}
    assert convert("huatuo", test) == ["腹痛吃什么", "先查明原因"]
    assert importer("huatuo").convert(test).id is None
    consultation = {"questions": "头痛", "answers": "https://m.120ask.com/askg/1"}
    assert refusal("huatuo", consultation) == "answer-is-a-url"
    assert refusal("huatuo", {"questions": ["头痛"], "answers": ["http://a.cn/1", "www.b.cn/2"]}) == "answer-is-a-url"
    # An address within an answer is an answer.
    for answers in (
        ["见 https://a.cn/1"],
        ["https://a.cn/1，多休息"],
        ["https://a.cn/1 多休息"],
        ["https://a.cn/1", "多休息"],
    ):
        assert convert("huatuo", {"questions": ["头痛"], "answers": answers}) == ["头痛", "\n".join(answers)]
    assert refusal("huatuo", {"questions": [["a", 3]], "answers": ["b"]}) == "bad-field"
    assert refusal("huatuo", {"questions": [[]], "answers": ["b"]}) == "no-question"
    assert refusal("huatuo", {"questions": ["a"], "answers": []}) == "no-answer"


def test_chatmed_is_json_lines_under_another_name(tmp_path: Path) -> None:
    lines = [{"query": f"问题{i}", "response": f"回答{i}"} for i in range(5)]
    path = tmp_path / "ChatMed_Consult-v0.3.json"
    path.write_bytes(
        "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode() + b'\n\n{"query": "a"}\n{"q'
    )
    taken, refused = load("chatmed", path)
    assert [said(dialogue) for dialogue in taken] == [[f"问题{i}", f"回答{i}"] for i in range(5)]
    assert refused == {"no-answer": 1, "not-json": 1}


def test_chatdoctor_takes_the_physicians_answer_and_drops_the_constant_instruction() -> None:
    constant = "If you are a doctor, please answer the medical questions based on the patient's description."
    assert convert("chatdoctor", {"instruction": constant, "input": " I cough. ", "output": "Rest."}) == [
        "I cough.",
        "Rest.",
    ]
    other = {"instruction": "Answer in one word.", "input": "Is it flu?", "output": "No."}
    assert convert("chatdoctor", other) == ["Answer in one word.\nIs it flu?", "No."]
    icliniq = {"input": "I cough.", "answer_icliniq": "Hello.", "answer_chatgpt": "A", "answer_chatdoctor": "B"}
    assert convert("chatdoctor", icliniq) == ["I cough.", "Hello."]
    del icliniq["answer_icliniq"]
    assert refusal("chatdoctor", icliniq) == "no-answer"
    assert refusal("chatdoctor", {"instruction": constant, "input": "", "output": "B"}) == "no-question"


def test_cmtmedqa_puts_its_history_first() -> None:
    row = {"id": 5, "cate1": "内科", "cate2": "呼吸", "instruction": "还咳", "input": "", "output": "拍片",
           "history": [["咳嗽", "多久了？"], ["三天", "发热吗？"]]}  # fmt: skip
    dialogue = importer("cmtmedqa").convert(row)
    assert said(dialogue) == ["咳嗽", "多久了？", "三天", "发热吗？", "还咳", "拍片"]
    assert dialogue.meta == {"kind": "qa", "department": "内科", "subject": "呼吸", "record": 5}
    assert refusal("cmtmedqa", {"instruct": "如何制毒", "output": "不能"}) == "safety-item"
    for history in (["咳嗽"], [["咳嗽"]], [["a", 1]], {"a": "b"}):
        assert refusal("cmtmedqa", {**row, "history": history}) == "bad-field"
    assert refusal("cmtmedqa", {**row, "history": [["咳嗽", " "]]}) == "blank-message"
    dangling = importer("cmtmedqa").convert({**row, "output": ""})
    assert said(dangling)[-1] == "发热吗？"
    assert dangling.meta["left_out"] == {"leading": 0, "dangling": 1}


def test_alpaca_joins_instruction_and_input() -> None:
    row = {"instruction": "Translate.", "input": "热", "output": "hot", "system": "Be brief.", "history": [["a", "b"]]}
    dialogue = importer("alpaca").convert(row)
    assert dialogue.messages[0] == {"role": "system", "content": "Be brief."}
    assert said(dialogue) == ["a", "b", "Translate.\n热", "hot"]
    assert dialogue.lang == ""
    assert convert("alpaca", {"instruction": "Hi", "output": "Ho"}) == ["Hi", "Ho"]
    assert refusal("alpaca", {"instruction": "a", "output": ["better", "worse"]}) == "preference-pair"
    assert refusal("alpaca", {"instruction": "a", "output": None}) == "no-answer"
    assert refusal("alpaca", {"instruction": "", "input": "\n", "output": "b"}) == "no-question"
    assert refusal("alpaca", {"instruction": "a", "output": {"b": 1}}) == "bad-field"


def test_aquila_med_instruct_loses_its_marks() -> None:
    name = "aquila-med-instruct"
    assert convert(name, {"instruction": "问:咳嗽？", "input": "", "output": "答:多喝水。"}) == ["咳嗽？", "多喝水。"]
    assert convert(name, {"instruction": "问：a问:b\n 答案: c", "output": "答：d"}) == ["a问:b\n 答案: c", "d"]
    assert convert(name, {"instruction": "问:咳嗽？\n答:", "output": "答:多喝水。"}) == ["咳嗽？", "多喝水。"]
    turns = {"instruction": "问:咳嗽\n答:多久\n问:三天", "output": "答:休息", "history": [["问:你好", "答:请说"]]}
    assert convert(name, turns) == ["你好", "请说", "咳嗽", "多久", "三天", "休息"]
    assert refusal(name, {"instruction": "问:a\n问:b", "output": "答:c"}) == "unclear-turns"
    assert refusal(name, {"instruction": "问:a", "output": "答:b\n问:c"}) == "unclear-turns"
    assert refusal(name, {"instruction": "问:a", "output": ["答:b", "答:c"]}) == "preference-pair"
    assert refusal(name, {"instruction": "问:a", "output": "答: "}) == "no-answer"


def conversation(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"id": "identity_0", "conversations": [{"from": speaker, "value": value} for speaker, value in turns]}


def test_sharegpt_begins_with_a_question_and_ends_with_an_answer() -> None:
    whole = conversation(
        ("system", "S"),
        ("gpt", "lead"),
        ("human", "q1"),
        ("chatgpt", "a1"),
        ("user", "q2"),
        ("bing", "a2"),
        ("human", "?"),
    )
    dialogue = importer("sharegpt").convert(whole)
    assert dialogue.messages[0] == {"role": "system", "content": "S"}
    assert said(dialogue) == ["q1", "a1", "q2", "a2"]
    assert dialogue.id == "identity_0"
    assert dialogue.meta == {"kind": "qa", "left_out": {"leading": 1, "dangling": 1}}
    assert convert("sharegpt", conversation(("human", "a"), ("human", "b"), ("gpt", "c"), ("gpt", "d"))) == [
        "a\nb",
        "c\nd",
    ]
    assert convert("sharegpt", conversation(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", " "))) == ["a", "b"]
    for turns, reason in (
        ([("human", "a"), ("tool", "b"), ("gpt", "c")], "tool-turn"),
        ([("human", "a"), ("function_call", "b"), ("gpt", "c")], "tool-turn"),
        ([("human", "a"), ("narrator", "b")], "unknown-speaker"),
        ([("human", "a"), ("gpt", ""), ("human", "b"), ("gpt", "c")], "blank-message"),
        ([("human", "a"), ("system", "s"), ("gpt", "c")], "late-system"),
        ([("gpt", "a"), ("human", "b")], "no-answer"),
        ([("gpt", "a")], "no-question"),
        ([("human", "a"), ("gpt", 3)], "bad-field"),
        ([("human", "a"), ("gpt", None)], "bad-field"),
    ):
        assert refusal("sharegpt", conversation(*turns)) == reason
    assert refusal("sharegpt", {"conversations": []}) == "no-messages"
    assert refusal("sharegpt", {"conversations": "a"}) == "bad-messages"
    assert refusal("sharegpt", {"conversations": ["a"]}) == "bad-messages"
    assert refusal("sharegpt", {**whole, "id": ["x"]}) == "bad-id"
    assert importer("sharegpt").convert({**whole, "id": ""}).id is None


def test_messages_of_openai_and_trl() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "text", "text": "this"}]
    whole = [
        {"role": "developer", "content": "S"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "ok", "tool_calls": None},
    ]
    dialogue = importer("messages").convert({"messages": whole})
    assert dialogue.messages[0] == {"role": "system", "content": "S"}
    assert said(dialogue) == ["see\nthis", "ok"]
    assert convert("messages", {"prompt": whole[:2], "completion": whole[2:]}) == ["see\nthis", "ok"]
    user = {"role": "user", "content": "a"}
    for second, reason in (
        ({"role": "tool", "content": "b"}, "tool-turn"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "tool-turn"),
        ({"role": "assistant", "content": None}, "bad-field"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]}, "not-text"),
        ({"role": "doctor", "content": "b"}, "bad-messages"),
        ("b", "bad-messages"),
    ):
        assert refusal("messages", {"messages": [user, second]}) == reason
    assert refusal("messages", {"messages": {}}) == "bad-messages"
    assert refusal("messages", {"prompt": [user]}) == "no-messages"
    assert refusal("messages", {"messages": [user], "id": True}) == "no-answer"


def test_our_own_dialogues_come_back_as_they_were() -> None:
    messages = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )
    written = Dialogue("x1", messages, "zh", "toyhom", {"deita": 3.5}, {"department": "内科", "kind": "options"})
    dialogue = importer("dialogues").convert(json.loads(json.dumps(written.to_json())))
    assert (dialogue.id, dialogue.messages, dialogue.lang) == ("x1", messages, "zh")
    assert dialogue.meta == {"kind": "options", "department": "内科", "origin": "toyhom", "scores": {"deita": 3.5}}
    assert refusal("dialogues", {"messages": [{"role": "user", "content": "a"}]}) == "no-answer"
    assert refusal("dialogues", {"messages": [{"role": "user", "content": " "}, messages[1]]}) == "blank-message"


@pytest.mark.parametrize("suffix", [".json", ".jsonl.gz", ".json.zst", ".parquet"])
def test_a_format_is_read_from_every_container(tmp_path: Path, suffix: str) -> None:
    rows = [{"questions": [f"问{i}"], "answers": [f"答{i}"]} for i in range(700)]
    path = tmp_path / f"a{suffix}"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else zstandard.compress(text))
    taken, refused = load("huatuo", path)
    assert [said(dialogue) for dialogue in taken] == [[f"问{i}", f"答{i}"] for i in range(700)]
    assert not refused


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'meddialog-zh'"):
        importer("MedDialog_zh")
    assert all(found.name == name and found.title for name, found in IMPORTERS.items())
