"""A uniform sample of documents or exchanges for each language, the same whatever the order of the documents."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.labelling.config import DIALOGUE_TASKS, LabelConfig
from data_tools.labelling.subjects import Subject, subjects
from data_tools.quarantine import Fault, Quarantine
from data_tools.records import RecordError


@dataclass
class Reservoir:
    """The subjects with the `size` smallest ranks; of equal ranks (equal texts) the first."""

    size: int
    _heap: list[tuple[int, int, Subject]] = field(default_factory=list)  # by −rank, so that the largest is on top
    _ranks: set[int] = field(default_factory=set)
    _offered: int = 0

    def offer(self, subject: Subject, rank: int) -> None:
        """Take the subject, or not."""
        self._offered += 1
        if rank in self._ranks:
            return
        entry = (-rank, -self._offered, subject)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[0] > self._heap[0][0]:
            self._ranks.remove(-heapq.heapreplace(self._heap, entry)[0])
        else:
            return
        self._ranks.add(rank)

    def drawn(self) -> list[tuple[int, Subject]]:
        """The rank and the subject of each, in no order."""
        return [(-below, subject) for below, _, subject in self._heap]


@dataclass(frozen=True)
class Sample:
    """`drawn`: by rank, languages mixed. `met`: readable documents (of dialogues, exchanges) by language, those of
    languages that were not asked for included.
    """

    drawn: list[Subject]
    met: Counter[str]


def draw_sample(paths: Sequence[Path], config: LabelConfig, read: ReadOptions, quarantine: Quarantine | None) -> Sample:
    """Read all of `paths`, and keep the subjects with the smallest hashes of seed and text. Memory holds the sample
    only.

    Raises:
        InputError: a damaged file, or nothing at all in a language that is asked for.
    """
    reservoirs = {language: Reservoir(size) for language, size in sorted(config.samples.items())}
    met: Counter[str] = Counter()
    for path in paths:
        reader = FileReader(path, read)
        for item in reader:
            try:
                if isinstance(item, Fault):
                    raise RecordError(item.reason, item.detail)
                found = subjects(item.value, config, source_file=path.name, offset=item.offset)
            except RecordError as error:
                if quarantine is not None:
                    quarantine.add(str(path), Fault(item.line, item.offset, error.reason, error.detail, item.head))
                continue
            for subject, whole in found:
                met[subject.language] += 1
                if subject.language in reservoirs:
                    reservoirs[subject.language].offer(subject, _rank(config.seed, whole))
        if reader.damage:
            raise InputError(f"{path}: {reader.damage}; repair it or leave it out")
    if missing := [language for language in reservoirs if not met[language]]:
        held = "messages" if config.task in DIALOGUE_TASKS else ", ".join(config.text_keys)
        raise InputError(
            f"no document is in {' or '.join(missing)}: see what the records hold under {held}, or take the language "
            "out of samples"
        )
    drawn = [pair for found in reservoirs.values() for pair in found.drawn()]
    return Sample([subject for _, subject in sorted(drawn, key=lambda pair: (pair[0], pair[1].language))], met)


def _rank(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=16).digest(), "big")
