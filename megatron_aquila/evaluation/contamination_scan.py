"""Evaluation items looked for in training data, file by file; every item that a record holds is noted, not only one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.corpus.decontaminate import DecontaminateConfig, Pattern, QuestionIndex, QuestionItem, question_item
from data_tools.records import RecordError, dialogue_messages, pair_messages, record_id, record_text, stable_id
from megatron_aquila.evaluation.tasks.data import Record, load_split

SHORT = "short question"  # of fewer tokens than an n-gram, found whole: ordinary text may hold it by chance
PARTS = ("question", "case", "options", "answer", SHORT)  # in the order in which one of them is shown
MOST_EVIDENCE = 3  # training records shown for an item
MOST_CHARACTERS = 160  # of an excerpt
_BATCH_TEXTS, _BATCH_CHARACTERS = 256, 1 << 22
_MASKED_AROUND = 40  # private values that reach over the ends of a match are masked too


class Entry(NamedTuple):
    """One item of one evaluation file: the file's place, and the item's id."""

    file: int
    id: str


class Evidence(NamedTuple):
    """A training record that holds an item. `ratio`: share of the n-grams of the part."""

    training_id: str
    file: str
    part: str
    ratio: float
    excerpt: str


class Sought(NamedTuple):
    """A text that is looked for. `part`: what it is of its record. `long`: only as long as an n-gram is it evidence."""

    part: str
    item: QuestionItem
    long: bool


@dataclass
class Items:
    """What is looked for: the different texts, and which entries each of them stands for."""

    sought: list[Sought] = field(default_factory=list)
    owners: list[list[Entry]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    short: list[bool] = field(default_factory=list)  # of each text, once indexed: it has no n-gram

    def index(self, config: DecontaminateConfig) -> QuestionIndex:
        limits = {"characters": config.characters.ngram, "words": config.words.ngram}
        nothing = QuestionItem("", "", {"question": ""}, ())
        self.short = [not _has_ngram(one.item, limits) for one in self.sought]
        items = [nothing if one.long and short else one.item for one, short in zip(self.sought, self.short)]
        return QuestionIndex(config, items)

    def part(self, pattern: Pattern) -> str:
        """What evidence calls it."""
        if pattern.part != "question":
            return pattern.part
        return SHORT if self.short[pattern.item] else self.sought[pattern.item].part

    def too_short(self, index: QuestionIndex) -> set[Entry]:
        """Entries of which no text is long enough to be looked for."""
        unindexed = set(index.unindexed)
        found = {owner for n, owners in enumerate(self.owners) if n not in unindexed for owner in owners}
        return set(self.entries) - found


def read_items(files: Sequence[Path]) -> Items:
    """The records of evaluation files, in their order; equal texts once.

    Raises:
        EvaluationDataError: a file is missing, or a line of it is no record.
    """
    found = Items()
    numbers: dict[tuple[Any, ...], int] = {}
    for place, path in enumerate(files):
        for record in load_split(path):
            entry = Entry(place, record["id"])
            found.entries.append(entry)
            for one in _texts_of(record):
                key = (one.part, one.long, tuple(one.item.texts.items()), one.item.options)
                if (number := numbers.setdefault(key, len(found.sought))) == len(found.sought):
                    found.sought.append(one)
                    found.owners.append([])
                if entry not in found.owners[number][-1:]:
                    found.owners[number].append(entry)
    return found


def _texts_of(record: Record) -> Iterator[Sought]:
    """Of a dialogue each turn, and the reference answer to it. Turns are looked for only where they are as long as an
    n-gram: "谢谢医生，我知道了" is what everybody says.
    """
    if "options" in record:
        yield Sought("question", question_item({**record, "explanation": None}, record["id"]), False)
    elif "messages" in record:
        yield Sought("question", _plain(record["messages"][0]["content"]), False)
    else:
        texts = [("case", record.get("case"))]
        for one in record["rounds"]:
            texts += [("question", one["user"]), ("answer", one["reference"])]
        for part, text in texts:
            if text:
                yield Sought(part, _plain(text), True)


def _plain(text: str) -> QuestionItem:
    return QuestionItem("", "", {"question": text}, ())


def _has_ngram(item: QuestionItem, limits: dict[str, int]) -> bool:
    from data_tools import _text
    from data_tools.corpus.folding import UNIT_NAMES, folding, unit_of

    unit = UNIT_NAMES[unit_of(" ".join((item.texts["question"], *item.options)))]
    characters, _, words = _text.fold(folding(), item.texts["question"])
    return len(characters if unit == "characters" else words) >= limits[unit]


@dataclass
class FileScan:
    """What one training file holds.

    unreadable: records that training would refuse too, by reason. holding: records with any item.
    """

    records: int = 0
    holding: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    damage: str | None = None
    times: Counter[Entry] = field(default_factory=Counter)
    evidence: dict[Entry, list[Evidence]] = field(default_factory=dict)

    def add(self, entry: Entry, evidence: Evidence) -> None:
        self.times[entry] += 1
        self.evidence[entry] = best([*self.evidence.get(entry, ()), evidence])

    def merge(self, other: FileScan) -> None:
        for entry, evidence in other.evidence.items():
            self.evidence[entry] = best([*self.evidence.get(entry, ()), *evidence])
        self.times += other.times


def best(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The clearest records; of equal ones the first."""
    return sorted(evidence, key=lambda one: (-one.ratio, PARTS.index(one.part)))[:MOST_EVIDENCE]


class Scan:
    """`data_tools.pool.Work`: each process reads and indexes the evaluation files once."""

    def __init__(self, files: Sequence[Path], config: DecontaminateConfig) -> None:
        self._files = tuple(files)
        self._config = config
        self._items: Items | None = None

    def start(self) -> None:
        from data_tools.corpus.privacy import PrivacyConfig, PrivacyStep

        self._items = read_items(self._files)
        self._index = self._items.index(self._config)
        self._privacy = PrivacyStep(PrivacyConfig.model_validate({}))

    def do(self, task: tuple[Path, str], report: Callable[[int], None]) -> FileScan:
        """task: a training file, and how it is named in evidence. Memory: a batch, and what was found."""
        from data_tools.files import FileReader, ReadOptions
        from data_tools.quarantine import Fault

        path, name = task
        found = FileScan()
        reader = FileReader(path, ReadOptions())
        ids: list[str] = []  # of each text of the batch; the two texts of a pair have one
        texts: list[str] = []
        characters = 0
        for row in reader:
            if isinstance(row, Fault):
                found.unreadable[row.reason] += 1
                continue
            try:
                parts = training_texts(row.value)
                identity = record_id(row.value) or stable_id(path.name, row.offset)
            except RecordError as error:
                found.unreadable[error.reason] += 1
                continue
            found.records += 1
            ids += [identity] * len(parts)
            texts += parts
            characters += sum(map(len, parts))
            if len(texts) >= _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
                self._look(ids, texts, name, found)
                ids, texts, characters = [], [], 0
                report(reader.consumed)
        self._look(ids, texts, name, found)
        report(reader.consumed)
        found.damage = reader.damage
        return found

    def _look(self, ids: list[str], texts: list[str], name: str, found: FileScan) -> None:
        if not texts:
            return
        assert self._items is not None
        held: dict[tuple[str, Entry], Evidence] = {}
        for match in self._index.all(texts):
            identity = ids[match.text]
            excerpt = self._excerpt(texts[match.text], match.span)
            evidence = Evidence(identity, name, self._items.part(match.pattern), round(match.ratio, 4), excerpt)
            for owner in self._items.owners[match.pattern.item]:
                key = identity, owner
                held[key] = best([held[key], evidence])[0] if key in held else evidence
        for (_, owner), evidence in held.items():
            found.add(owner, evidence)
        found.holding += len({identity for identity, _ in held})

    def _excerpt(self, text: str, span: tuple[int, int]) -> str:
        """The words that were found, without private values, at most MOST_CHARACTERS of them."""
        from data_tools.corpus.batch import Batch

        first, end = span
        end = min(end, first + 2 * MOST_CHARACTERS)
        low, high = max(0, first - _MASKED_AROUND), end + _MASKED_AROUND
        around = text[low:high]
        masked = self._privacy(Batch([""], [around], [""], [""], [{}])).texts
        if not masked or masked[0] is None:
            shown = text[first:end]
        else:
            shown = masked[0]
        shown = " ".join(shown.split())
        return shown if len(shown) <= MOST_CHARACTERS else f"{shown[: MOST_CHARACTERS - 1]}…"


def training_texts(value: object) -> list[str]:
    """The texts of a training record in which an item may stand: one of a document, a dialogue or a question; of a pair
    the conversation with either answer.

    Raises:
        RecordError: it is none of these.
    """
    if isinstance(value, dict) and "messages" in value:
        return [_said(dialogue_messages(value))]
    if isinstance(value, dict) and "chosen" in value:
        prompt, chosen, rejected = pair_messages(value)
        return [_said((*prompt, *chosen)), _said((*prompt, *rejected))]
    if isinstance(value, dict) and isinstance(value.get("options"), dict):
        options = [text for text in value["options"].values() if isinstance(text, str)]
        return ["\n".join((record_text(value, ("question",)), *options, str(value.get("explanation") or "")))]
    return [record_text(value)]


def _said(messages: Sequence[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)
