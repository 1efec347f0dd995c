"""Chinese Medical Dialogue Data (Toyhom/Chinese-medical-dialogue-data, MIT): 792,099 questions in six CSV files."""

from pathlib import Path
from typing import Any, ClassVar

from data_tools.dialogues.importers.base import Imported, Importer, RecordReader
from data_tools.dialogues.importers.fields import as_record, exchange, joined, labels, text
from data_tools.files import FileReader, ReadOptions
from data_tools.streams import ByteSource, DamagedStreamError

_NOTHING = {"无", "无。", "暂无", "暂无。", "-", "/", "null", "NULL", "None", "nan"}
_SNIFFED_BYTES = 1 << 20


class Toyhom(Importer):
    """Columns department, title, ask, answer. (The README calls the third `question`; the files say `ask`. Both are
    read.)

    The user's words are the title and, on a line of its own, what was asked, unless one holds the other: then the
    longer one. The title is needed: often it alone holds the question (哪家医院能治胃反流), and `ask` only symptoms
    (烧心，打隔，…) or 无.
    """

    name: ClassVar[str] = "toyhom"
    title: ClassVar[str] = "Chinese Medical Dialogue Data (Toyhom): Data_数据/*/*.csv, GB18030"
    encodings: ClassVar[tuple[str, ...]] = ("gb18030", "utf-8")

    def reader(self, path: Path, options: ReadOptions) -> RecordReader:
        """The rows of a file. Unless the recipe names its own encodings, the file tells which of ours comes first: a
        copy in UTF-8 can pass for GB18030 on some line, and a short line of GB18030 (谢谢) for UTF-8.
        """
        if options.encodings == self.encodings and _is_utf8(path):
            options = ReadOptions(self.encodings[::-1], options.max_line_bytes)
        return FileReader(path, options)

    def convert(self, value: Any) -> Imported:
        """Raises RecordError: `not-an-object`, `bad-field`, `lone-surrogate`, `no-question`, `no-answer`."""
        record = as_record(value)
        title, ask, answer = (
            "" if (found := text(record, key)) in _NOTHING else found
            for key in ("title", "ask" if "ask" in record else "question", "answer")
        )
        question = ask if title in ask else title if ask in title else joined((title, ask))
        return Imported(exchange(question, answer), "zh", meta={"kind": "qa", **labels(record, _LABELS)})


_LABELS = {"department": "department"}


def _is_utf8(path: Path) -> bool:
    """Whether most of the first lines with more than ASCII in them are UTF-8. Of 7,664 such lines of the published
    sample, which is GB18030, none is.
    """
    head = bytearray()
    try:
        for chunk in ByteSource(path):
            head += chunk
            if len(head) >= _SNIFFED_BYTES:
                break
    except DamagedStreamError:
        pass  # the reader tells
    lines = [line for line in bytes(head).split(b"\n") if not line.isascii()]
    return 2 * sum(map(_decodes, lines)) > len(lines)


def _decodes(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
