"""MedDialog (UCSD-AI4H/Medical-Dialogue-System, licence unknown): Chinese and English, raw (.txt) and processed.

Raw, a dialogue is a block of lines: `id=7`, an address, then headings, each with lines under it: Doctor faculty,
Description, Dialogue, Diagnosis and suggestions (a summary written afterwards: not read, nor does the reader of Hugging
Face). Under Dialogue a line that holds `病人:` or `Patient:` and nothing else says who speaks in the lines that follow.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer, RecordReader
from data_tools.dialogues.importers.blocks import BlockReader
from data_tools.dialogues.importers.fields import in_order, joined, kind, string, text, user
from data_tools.files import FORMATS, ReadOptions
from data_tools.records import Message, RecordError

_HEADINGS = ("Doctor faculty", "Description", "Dialogue", "Diagnosis and suggestions")
_SPEAKERS = {"病人": "user", "患者": "user", "patient": "user", "医生": "assistant", "doctor": "assistant"}
_SPEAKER = re.compile(rf"({'|'.join(_SPEAKERS)})[ \t]*[:：]", re.IGNORECASE)
_OTHER_SPEAKER = re.compile(r"(护士|助理|医助|客服|系统|nurse|assistant|system)[ \t]*[:：]", re.IGNORECASE)
_FIELDS = (
    "疾病", "病情描述", "希望获得的帮助", "希望提供的帮助", "身高体重", "怀孕情况", "患病多久", "患病时长", "过敏史",
    "既往病史", "用药情况", "治疗情况", "检查及化验", "所就诊医院科室", "病史",
)  # fmt: skip
_FIELD = re.compile(rf"({'|'.join(_FIELDS)})[ \t]*[:：]")
_TOLD = ("病情描述", "希望获得的帮助", "希望提供的帮助")
_TITLE_MARK = re.compile(r"Q\.\s+")


class _MedDialog(Importer):
    lang: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".txt", ".json", ".jsonl", ".parquet")

    def reader(self, path: Path, options: ReadOptions) -> RecordReader:
        """Blocks of a .txt file, records of others."""
        names = [suffix for suffix in path.suffixes[-2:] if suffix not in (".gz", ".zst")]
        return super().reader(path, options) if names and names[-1] in FORMATS else BlockReader(path, options)

    def convert(self, value: Any) -> Imported:
        """A raw block (a string), a processed dialogue (a list of utterances, or an object with `description` and
        `utterances`).

        The description is the patient's first words, before those of the dialogue; where one holds the other, the
        longer one is taken. Lines of one speaker in a row are one message. An utterance without words stands for a
        picture.

        Raises:
            RecordError: `bad-field`, `lone-surrogate`, `no-dialogue` (a block without that heading),
                `unknown-speaker`, `no-question`, `no-answer`, `not-an-object`.
        """
        meta: dict[str, Any] = {"kind": "qa"}
        if isinstance(value, str):
            parts = _parts(string(value, "the block"))
            if "Dialogue" not in parts:
                raise RecordError("no-dialogue", "the block has no line 'Dialogue'")
            description, fields = _described(parts.get("Description", []))
            meta |= fields
            if faculty := joined(map(str.strip, parts.get("Doctor faculty", []))):
                meta["department"] = faculty
            said = _spoken(parts["Dialogue"])
        elif isinstance(value, list):
            description, said = "", _utterances(value)
        elif isinstance(value, dict):
            description, said = text(value, "description"), _utterances(value.get("utterances"))
        else:
            raise RecordError("not-an-object", f"a dialogue must be an object or a list, this is {kind(value)}")
        messages, left_out = in_order(_with_description(description, said), skip_blank=True)
        return Imported(messages, self.lang, meta={**meta, **left_out})


class MedDialogChinese(_MedDialog):
    """Raw: 2010.txt … 2020.txt. Processed: train_data.json …: lists of strings that begin with 病人： or 医生：."""

    name: ClassVar[str] = "meddialog-zh"
    title: ClassVar[str] = "MedDialog, Chinese: 2020.txt …, or train_data.json, validate_data.json, test_data.json"
    lang: ClassVar[str] = "zh"


class MedDialogEnglish(_MedDialog):
    """Raw: text files of healthcaremagic.com and icliniq.com. Processed: `description` and `utterances`, which begin
    with patient: or doctor:.
    """

    name: ClassVar[str] = "meddialog-en"
    title: ClassVar[str] = "MedDialog, English: healthcaremagic_dialogue_1.txt …, or english-train.json …"
    lang: ClassVar[str] = "en"


def _parts(block: str) -> dict[str, list[str]]:
    """The lines under each heading; what stands before the first one is left out."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in block.split("\n"):
        if (heading := line.strip()) in _HEADINGS and heading not in parts:
            parts[heading] = lines = []
        else:
            lines.append(line)
    return parts


def _described(lines: list[str]) -> tuple[str, dict[str, str]]:
    """What the patient tells, and labels. A Chinese description has fields (病情描述：), of which the complaint and
    what is asked for are told; any other is told whole, without the Q. that icliniq.com puts before it.
    """
    fields: dict[str, list[str]] = {}
    before = current = list[str]()
    for line in map(str.strip, lines):
        if mark := _FIELD.match(line):
            current = fields.setdefault(mark[1], [])
            line = line[mark.end() :].strip()
        current.append(line)
    told = joined([*before, *(line for key in _TOLD for line in fields.get(key, []))])
    if not fields and (mark := _TITLE_MARK.match(told)):
        told = told[mark.end() :]
    disease = joined(fields.get("疾病", []))
    return told, {"disease": disease} if disease else {}


def _spoken(lines: list[str]) -> list[Message]:
    """The messages of a raw dialogue. Only a line that is a mark and nothing else changes the speaker: 医生：您好 is
    how patients write to a doctor.
    """
    messages: list[Message] = []
    spoken: list[str] = []

    def end() -> None:
        if messages:
            messages[-1]["content"] = "\n".join(spoken).strip()
        spoken.clear()

    for line in lines:
        bare = line.strip()
        if mark := _SPEAKER.fullmatch(bare):
            end()
            messages.append({"role": _SPEAKERS[mark[1].lower()], "content": ""})
        elif _OTHER_SPEAKER.fullmatch(bare) or (bare and not messages):
            raise RecordError("unknown-speaker", "words under 'Dialogue' are neither the patient's nor the doctor's")
        else:
            spoken.append(bare)
    end()
    return messages


def _utterances(found: object) -> list[Message]:
    if not isinstance(found, list):
        raise RecordError("bad-field", f"'utterances' must be an array of strings, it is {kind(found)}")
    messages: list[Message] = []
    for number, utterance in enumerate(found):
        place = f"utterances[{number}]"
        said = string(utterance, place)
        mark = _SPEAKER.match(said)
        if mark is None:
            known = "病人： 医生： patient: doctor:"
            raise RecordError("unknown-speaker", f"{place} must begin with one of {known}")
        messages.append({"role": _SPEAKERS[mark[1].lower()], "content": said[mark.end() :].strip()})
    return messages


def _with_description(description: str, said: list[Message]) -> list[Message]:
    """The description before the dialogue; of two that hold one another, the longer one."""
    if not description:
        return said
    if not said or said[0]["role"] != "user":
        return [user(description), *said]
    first, *rest = said
    short, long = sorted((description, first["content"]), key=lambda told: len("".join(told.split())))
    if "".join(short.split()) in "".join(long.split()):
        return [user(long), *rest]
    return [user(description), first, *rest]
