"""Write a raw corpus of the clinic world to disk, and apart from it what is true of it."""

import itertools
import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import orjson

from data_tools.clinic.raw import SOURCES, raw_corpus, seed_documents
from data_tools.clinic.world import World

# Lines that hold no document, as crawls have them: a bad byte, a record cut in half, no text, nothing.
DAMAGED = (
    b'{"id": "damaged-1", "text": "caf\xe9 au lait", "source": "web"}',
    b'{"id": "damaged-2", "text": "The writing of this record was cut o',
    b'{"id": "damaged-3", "text": 42, "source": "web"}',
    b"",
)


def write_raw(
    directory: Path, world: World, *, count: int = 5000, seed: int = 0, seed_count: int = 1200
) -> dict[str, int]:
    """Write raw/SOURCE.jsonl for each of SOURCES, plants.jsonl (the truth) and seeds.jsonl (labelled seeds).

    The lines of DAMAGED stand in raw/web.jsonl, one after every tenth document. The same arguments write the
    same bytes, and the files appear when all are whole. Returns the number of records by file name, without DAMAGED.
    Raises OSError when a file cannot be written.
    """
    names = [*(f"raw/{source}.jsonl" for source in SOURCES), "plants.jsonl", "seeds.jsonl"]
    counts = dict.fromkeys(names, 0)
    (directory / "raw").mkdir(parents=True, exist_ok=True)
    temporary = {name: directory / f"{name}.tmp.{os.getpid()}" for name in names}
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context(path.open("wb")) for name, path in temporary.items()}

            def put(name: str, record: object) -> None:
                _put(files[name], record)
                counts[name] += 1

            web = f"raw/{SOURCES[0]}.jsonl"
            damaged = iter(DAMAGED)
            for document, truth in raw_corpus(world, count=count, seed=seed):
                name = f"raw/{document['source']}.jsonl"
                put(name, document)
                put("plants.jsonl", truth)
                if name == web and counts[web] % 10 == 0:
                    files[web].writelines(line + b"\n" for line in itertools.islice(damaged, 1))
            for record in seed_documents(world, count=seed_count, seed=seed):
                put("seeds.jsonl", record)
        for name, path in temporary.items():
            path.replace(directory / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return counts


def _put(file: BinaryIO, record: object) -> None:
    file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
