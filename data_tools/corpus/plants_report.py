"""Compare a published corpus with what was planted in its input, and show it in the corpus's report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from data_tools.corpus.page import funnel_page
from data_tools.corpus.plants import Fate, score_plants
from data_tools.corpus.publication import DECISIONS
from data_tools.files import FileReader, ReadOptions
from data_tools.inputs import InputError
from data_tools.manifest import read_manifest, write_manifest
from data_tools.publish import sha256_file, write_whole
from data_tools.quarantine import Fault


def corpus_fates(output: Path, noun: str = "documents") -> Iterator[Fate]:
    """What became of every document of the corpus that was published in `output` (of dialogues: what `noun` says);
    each once, of however many copies.
    """
    for path in sorted((output / DECISIONS).glob("*.jsonl.zst")):
        for record in _records(path):
            yield record["id"], record["step"], record["reason"], {}
    seen = set()
    for path in sorted((output / noun).glob("*/*.jsonl.zst")):
        for record in _records(path):
            name, _, copy = record["id"].rpartition("#")
            name = name if name and copy.isdecimal() else record["id"]
            if name not in seen:
                seen.add(name)
                yield name, None, None, record["meta"]


def report_plants(output: Path, truth: Path, *, label: str = "medical") -> dict[str, Any]:
    """Score the corpus in `output` against `truth` (`plants.score_plants`) and show the rows in its funnel.json and
    funnel.html. Returns the funnel. Of few documents: their ids are held in memory.

    Raises:
        InputError: there is no corpus. ValueError: the truth belongs to another one.
    """
    manifest = read_manifest(output / "manifest.json")
    if manifest is None or manifest.get("format") != "corpus":
        raise InputError(f"{output} holds no corpus: give the output directory of a recipe")
    funnel: dict[str, Any] = orjson.loads((output / "funnel.json").read_bytes())
    steps = [step["step"] for step in funnel["recipe"]["steps"]]
    funnel["plants"] = score_plants(truth, corpus_fates(output, manifest["noun"]), steps, label=label)
    for name, content in (
        ("funnel.json", orjson.dumps(funnel, option=orjson.OPT_INDENT_2)),
        ("funnel.html", funnel_page(funnel).encode()),
    ):
        path = output / name
        write_whole(path, content)
        manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_manifest(output / "manifest.json", manifest)
    return funnel


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for item in FileReader(path, ReadOptions()):
        assert not isinstance(item, Fault)
        yield item.value
