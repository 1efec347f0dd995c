"""A uniform sample of documents for each language, the same whatever the order of the documents."""

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.labelling.config import LabelConfig
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import Document, RecordError

_GUESSED_CHARACTERS = 2000
_LANGUAGE_PARTS = re.compile("[-_]")  # zh-CN, en_GB
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")
_ENGLISH = re.compile(r"\b(?:the|of|and|to|in|is|a|for|with|that|it|are|was|i|you)\b", re.IGNORECASE)


@dataclass
class Reservoir:
    """The documents with the `size` smallest ranks; of equal ranks (equal texts) the first."""

    size: int
    _heap: list[tuple[int, int, Document]] = field(default_factory=list)  # by −rank, so that the largest is on top
    _ranks: set[int] = field(default_factory=set)
    _offered: int = 0

    def offer(self, document: Document, rank: int) -> None:
        """Take the document, or not."""
        self._offered += 1
        if rank in self._ranks:
            return
        entry = (-rank, -self._offered, document)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[0] > self._heap[0][0]:
            self._ranks.remove(-heapq.heapreplace(self._heap, entry)[0])
        else:
            return
        self._ranks.add(rank)

    def drawn(self) -> list[tuple[int, Document]]:
        """The rank and the document of each, in no order."""
        return [(-below, document) for below, _, document in self._heap]


@dataclass(frozen=True)
class Sample:
    """`drawn`: language and document of each, by rank, languages mixed. `met`: readable documents by language, those of
    languages that were not asked for included.
    """

    drawn: list[tuple[str, Document]]
    met: Counter[str]


def draw_sample(paths: Sequence[Path], config: LabelConfig, read: ReadOptions, quarantine: Quarantine | None) -> Sample:
    """Read all of `paths`, and keep the documents (cut to what is shown to the model) with the smallest hashes of
    seed and text. Memory holds the sample only.

    Raises:
        InputError: a damaged file, or no document at all in a language that is asked for.
    """
    reservoirs = {language: Reservoir(size) for language, size in sorted(config.samples.items())}
    met: Counter[str] = Counter()
    for path in paths:
        reader = FileReader(path, read)
        for item in reader:
            try:
                if isinstance(item, Fault):
                    raise RecordError(item.reason, item.detail)
                document = Document.from_json(
                    item.value,
                    source_file=path.name,
                    offset=item.offset,
                    text_keys=config.text_keys,
                    id_key=config.id_key,
                )
            except RecordError as error:
                if quarantine is not None:
                    quarantine.add(str(path), Fault(item.line, item.offset, error.reason, error.detail, item.head))
                continue
            language = _LANGUAGE_PARTS.split(document.lang.lower())[0] or guess_language(document.text)
            met[language] += 1
            if language in reservoirs:
                shown = replace(document, text=document.text[: config.max_characters], meta={})
                reservoirs[language].offer(shown, _rank(config.seed, document.text))
        if reader.damage:
            raise InputError(f"{path}: {reader.damage}; repair it or leave it out")
    if missing := [language for language in reservoirs if not met[language]]:
        raise InputError(
            f"no document is in {' or '.join(missing)}: see what the records hold under "
            f"{', '.join(config.text_keys)}, or take the language out of samples"
        )
    drawn = sorted(
        (rank, language, document) for language, found in reservoirs.items() for rank, document in found.drawn()
    )
    return Sample([(language, document) for _, language, document in drawn], met)


def _rank(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest(), "big")


def guess_language(text: str) -> str:
    """zh, en or other, by the script and the commonest English words of a text's beginning. Rough: a document's own
    `lang` goes before it.
    """
    head = text[:_GUESSED_CHARACTERS]
    letters = len(_LETTER.findall(head))
    han = len(_HAN.findall(head))
    if not letters or len(_KANA_HANGUL.findall(head)) * 10 > letters:
        return "other"
    if han * 5 >= letters:  # a Han character says what three or four letters do
        return "zh"
    return "en" if len(_ENGLISH.findall(head)) * 20 >= len(head.split()) else "other"
