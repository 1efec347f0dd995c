"""MedDialog: blocks of lines out of raw files against a plain split of the whole text, and what is said in them."""

import gzip
import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data_tools import streams
from data_tools.dialogues.importers import Imported, importer
from data_tools.dialogues.importers.blocks import BlockReader
from data_tools.files import ReadOptions, Record
from data_tools.quarantine import Fault
from data_tools.records import RecordError

CHINESE = """id=1
https://www.haodf.com/doctorteam/flow_team_1.htm
Doctor faculty
上海某医院 心内科

Description
疾病：
高血压
病情描述：
血压高三年，
id不记得了
希望获得的帮助：
要不要吃药？
过敏史：
无

Dialogue
医生：
多大年纪？
病人:
医生：您好，我六十岁
还有：头晕
病人：
有图
医生:

医生:
按时吃药

Diagnosis and suggestions
病情摘要及初步印象：
高血压

"""
ENGLISH = """id=2
https://www.icliniq.com/qa/2
Description
Q. What does a cough mean?
Dialogue
Patient:
Hello doctor,
I have a cough.

Doctor : he said it is nothing.
Doctor:
Hello.
Rest.
"""


def read(path: Path, limit: int = 1 << 20, encodings: tuple[str, ...] = ("utf-8",)) -> tuple[list[Any], BlockReader]:
    reader = BlockReader(path, ReadOptions(encodings, limit))
    items = list(reader)
    assert reader.units == len(items)
    return items, reader


def contents(dialogue: Imported) -> list[str]:
    roles = [message["role"] for message in dialogue.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) != []
    return [message["content"] for message in dialogue.messages]


def refusal(name: str, value: Any) -> str:
    with pytest.raises(RecordError) as caught:
        importer(name).convert(value)
    return caught.value.reason


def test_a_raw_chinese_block(tmp_path: Path) -> None:
    path = tmp_path / "2020.txt"
    path.write_text(CHINESE * 2, encoding="utf-8")
    found = importer("meddialog-zh")
    items = list(found.reader(path, ReadOptions(found.encodings)))
    assert len(items) == 2
    for item in items:
        assert isinstance(item, Record)
        dialogue = found.convert(item.value)
        assert contents(dialogue) == [
            "血压高三年，\nid不记得了\n要不要吃药？",
            "多大年纪？",
            "医生：您好，我六十岁\n还有：头晕\n有图",
            "按时吃药",
        ]
        assert dialogue.lang == "zh"
        assert dialogue.meta == {"kind": "qa", "disease": "高血压", "department": "上海某医院 心内科"}


def test_a_raw_english_block() -> None:
    dialogue = importer("meddialog-en").convert(ENGLISH)
    assert contents(dialogue) == [
        "What does a cough mean?\nHello doctor,\nI have a cough.\n\nDoctor : he said it is nothing.",
        "Hello.\nRest.",
    ]
    assert dialogue.lang == "en"


def test_a_description_is_told_once() -> None:
    block = "id=1\nDescription\n病情描述：{}\nDialogue\n病人：\n{}\n医生：\n好"
    told = lambda a, b: contents(importer("meddialog-zh").convert(block.format(a, b)))[0]  # noqa: E731
    assert told("咳嗽 三天", "咳嗽三天") == "咳嗽三天"
    assert told("咳嗽", "咳嗽三天，没有发热") == "咳嗽三天，没有发热"
    assert told("咳嗽三天，没有发热", "咳嗽") == "咳嗽三天，没有发热"
    assert told("\n咳嗽\n既往病史：\n无", "怎么办") == "咳嗽\n怎么办"
    assert told("咳嗽", "怎么办") == "咳嗽\n怎么办"
    processed = {"description": "i cough", "utterances": ["patient: I cough", "doctor: rest"]}
    assert contents(importer("meddialog-en").convert(processed)) == ["i cough\nI cough", "rest"]
    processed["utterances"] = ["patient: i  cough", "doctor: rest"]
    assert contents(importer("meddialog-en").convert(processed)) == ["i  cough", "rest"]


def test_processed_dialogues(tmp_path: Path) -> None:
    path = tmp_path / "train_data.json"
    path.write_text('[["病人：咳嗽", "病人:三天", "医生：病人：不是你"], ["病人： ", "医生：好"]]', encoding="utf-8")
    found = importer("meddialog-zh")
    items = list(found.reader(path, ReadOptions(found.encodings)))
    assert contents(found.convert(items[0].value)) == ["咳嗽\n三天", "病人：不是你"]
    assert refusal("meddialog-zh", items[1].value) == "no-question"
    assert refusal("meddialog-zh", ["病人：咳嗽", "护士：好"]) == "unknown-speaker"
    assert refusal("meddialog-zh", ["病人：咳嗽", "好"]) == "unknown-speaker"
    assert refusal("meddialog-zh", ["病人：咳嗽", 3]) == "bad-field"
    assert refusal("meddialog-zh", ["病人：咳嗽"]) == "no-answer"
    assert refusal("meddialog-en", {"description": "a", "utterances": "b"}) == "bad-field"
    assert refusal("meddialog-en", {"description": ["a"], "utterances": []}) == "bad-field"
    assert refusal("meddialog-en", 3) == "not-an-object"
    assert contents(importer("meddialog-en").convert({"description": "a", "utterances": ["Doctor: b"]})) == ["a", "b"]


def test_what_a_raw_block_is_refused_for() -> None:
    block = "id=1\nDialogue\n"
    assert refusal("meddialog-zh", "id=1\nDescription\n病情描述：\n咳嗽") == "no-dialogue"
    assert refusal("meddialog-zh", block + "咳嗽\n医生:\n好") == "unknown-speaker"
    assert refusal("meddialog-zh", block + "病人:\n咳嗽\n护士:\n好") == "unknown-speaker"
    assert refusal("meddialog-zh", block) == "no-question"
    assert refusal("meddialog-zh", block + "医生:\n好") == "no-question"
    assert refusal("meddialog-zh", block + "病人:\n咳嗽") == "no-answer"
    assert refusal("meddialog-zh", block + "病人:\n\ud800") == "lone-surrogate"
    leading = importer("meddialog-zh").convert(block + "医生:\n你好\n病人:\n咳嗽\n医生:\n休息\n病人:\n谢谢")
    assert contents(leading) == ["咳嗽", "休息"]
    assert leading.meta["left_out"] == {"leading": 1, "dangling": 1}


@pytest.mark.parametrize("chunk", [3, 64, 1 << 20])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_blocks_equal_a_split_of_the_whole_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, suffix: str
) -> None:
    monkeypatch.setattr(streams, "CHUNK", chunk)
    generator = random.Random(chunk)
    lines = [
        "",
        " ",
        "Description",
        "Dialogue",
        "病人:",
        "医生：",
        "http://a.cn",
        "id 是什么",
        "id=x",
        "好的\r",
        "ident",
    ]
    text = "\ufeff\n\n" + "".join(
        f"id={number}{generator.choice(['', chr(13), '  '])}\n"
        # Where no id stands, a blank line and a heading begin a block; the last line is none of these.
        + "".join(
            f"{line}\n"
            for line in generator.choices([line for line in lines if line != "Dialogue"], k=generator.randrange(9))
        )
        + "Dialogue\n病人:\n痛\n\n\n再说\n"
        + generator.choice(["", "\n", "\n\n"])
        for number in range(60)
    )
    data = text.encode()
    path = tmp_path / f"2020.txt{suffix}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix](data))
    items, reader = read(path)
    through = importer("meddialog-zh")
    assert list(through.reader(path, ReadOptions(through.encodings))) == items
    plain = re.sub(r"\r\n", "\n", text.removeprefix("\ufeff"))
    expected = [match[0].removesuffix("\n") for match in re.finditer(r"(?ms)^id=\d+ *$.*?(?=^id=\d+ *$|\Z)", plain)]
    assert [item.value for item in items] == expected
    assert reader.damage is None
    for item in items:
        assert data[item.offset :].startswith(b"id=")
        assert data[: item.offset].count(b"\n") == item.line - 1
        assert data[item.offset :].startswith(item.head[:20])


def test_blocks_without_an_id_begin_after_the_blank_line(tmp_path: Path) -> None:
    one = (
        "http://a.cn/{}\n\nDescription\n病情描述：\n痛\n\nDialogue\n病人:\n很痛\nhttp://b.cn\n\n第二段\n医生:\n吃药\n\n"
    )
    path = tmp_path / "a.txt"
    path.write_text("".join(one.format(n) for n in range(3)) + one.removeprefix("http://a.cn/{}\n\n"), encoding="utf-8")
    items, _ = read(path)
    assert len(items) == 4
    for item in items:
        assert contents(importer("meddialog-zh").convert(item.value)) == ["很痛\nhttp://b.cn\n\n第二段", "吃药"]


def test_bad_bytes_cost_their_block_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    block = CHINESE.encode()
    bad = block.replace("六十".encode(), b"\xe5\x85")
    path.write_bytes(block + bad + block)
    items, _ = read(path)
    assert [type(item) for item in items] == [Record, Fault, Record]
    fault = items[1]
    assert (fault.reason, fault.line, fault.offset) == ("bad-encoding", block.count(b"\n") + 1, len(block))
    line = block.count(b"\n") + bad[: bad.index(b"\xe5\x85\xe5")].count(b"\n") + 1
    assert f"line {line}:" in fault.detail
    assert fault.head == bad[:200]
    gbk = tmp_path / "b.txt"
    gbk.write_bytes(CHINESE.encode("gb18030"))
    items, _ = read(gbk, encodings=("utf-8", "gb18030"))
    assert contents(importer("meddialog-zh").convert(items[0].value))[1] == "多大年纪？"


def test_a_block_is_held_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    size = len(ENGLISH.encode())
    long_line = ENGLISH.replace("Rest.", "x" * 900)
    long_block = ENGLISH + "Rest.\n" * 100
    path.write_text(ENGLISH + long_line + long_block + ENGLISH, encoding="utf-8")
    items, _ = read(path, limit=size)
    assert [getattr(item, "reason", None) for item in items] == [None, "line-too-long", "line-too-long", None]
    for item, text in zip(items, (ENGLISH, long_line, long_block, ENGLISH), strict=True):
        assert text.encode().startswith(item.head)
        assert 150 < len(item.head) <= 200
    assert [item.value for item in (items[0], items[3])] == [ENGLISH.removesuffix("\n")] * 2


def test_an_endless_block_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK", 1 << 16)
    path = tmp_path / "a.txt"
    path.write_text(
        ENGLISH + "words of a block " * 20 + "\n" + ("words of a block " * 20 + "\n") * 20_000, encoding="utf-8"
    )
    tracemalloc.start()
    try:
        items, _ = read(path, limit=1 << 16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [item.reason for item in items] == ["line-too-long"]
    assert peak < 2 << 20 < path.stat().st_size / 3


def test_a_file_that_ends_early_loses_its_last_block_only(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    generator = random.Random(1)
    blocks = [ENGLISH + "".join(generator.choices("abcdefgh ", k=5000)) + "\n" for _ in range(200)]
    data = gzip.compress("".join(blocks).encode())
    path.write_bytes(data[: len(data) // 2])
    items, reader = read(path)
    assert reader.damage
    assert "truncated" in reader.damage
    assert items[-1].reason == "cut-off"
    assert 50 < len(items) < 150
    assert [item.value + "\n" for item in items[:-1]] == blocks[: len(items) - 1]
