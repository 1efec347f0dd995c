"""The clinic's dialogues as one finds them: in the layouts of seven published sets, with a record of what was planted.

Good dialogues stand among copies of each other in other files, leaked test questions, private data, unsafe and
misshapen ones, poor answers, and turns that do not belong together. A record tells nothing of this. What is true of it
is kept apart, {"id", "plants", "medical", "lang"}, so that what a chain did can be compared with it.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from data_tools.clinic.asking import Ask, asks_in_training
from data_tools.clinic.raw_dialogues_formats import LAYOUTS, RawTalk, laid_out
from data_tools.clinic.raw_dialogues_make import held_out_questions, raw_talks, seed_dialogues
from data_tools.clinic.raw_dialogues_plants import Talk, Turn
from data_tools.clinic.raw_dialogues_texts import DEPARTMENTS, TITLES
from data_tools.clinic.world import World
from data_tools.records import stable_id

DIRECTORY = "raw_dialogues"
PLANTS, HELD_OUT, SEEDS = "dialogue_plants.jsonl", "held_out_questions.jsonl", "dialogue_seeds.jsonl"


def write_raw_dialogues(
    directory: Path, world: World, *, count: int = 4600, seed: int = 0, seed_count: int = 1500
) -> dict[str, int]:
    """Write raw_dialogues/FILE for each of LAYOUTS, PLANTS (the truth), HELD_OUT (questions in our JSONL, those of
    `exact_match_questions` with all values as options) and SEEDS (`seed_dialogues`, to be labelled for scorers).

    `count` dialogues in all; of 4,600 some 2,900 are good, and 460 more are exam questions. The broken records of a
    layout stand among them, one after every tenth. A dialogue's id in the truth is the one that the importers give it
    where the recipe calls the source by its key in LAYOUTS.

    The same arguments write the same bytes, and the files appear when all are whole. Returns the number of records by
    file name, without broken ones.
    Raises OSError when a file cannot be written, ValueError when the world is too small for so many that differ.
    """
    talks = raw_talks(world, count=count, seed=seed)
    rng = random.Random(f"synthetic clinic raw files {world.seed} {seed}")
    copied = {talk.original for talk in talks}
    contents: dict[str, bytes] = {}
    names: dict[int, str] = {}
    counts: dict[str, int] = {}
    for source, layout in LAYOUTS.items():
        places = [place for place, talk in enumerate(talks) if talk.source == source]
        records = [
            _raw_talk(talks[place], number, world, rng, is_copied=place in copied)
            for number, place in enumerate(places)
        ]
        data, offsets = laid_out(layout, records)
        for number, (place, offset) in enumerate(zip(places, offsets)):
            is_named = source == "sharegpt"
            names[place] = (
                f"{source}:clinic-chat-{number:06d}" if is_named else stable_id(f"{source}/{layout.file}", offset)
            )
        contents[f"{DIRECTORY}/{layout.file}"] = data
        counts[f"{DIRECTORY}/{layout.file}"] = len(records)
    for name, rows in (
        (PLANTS, _truth(talks, names)),
        (HELD_OUT, held_out_questions(world)),
        (SEEDS, seed_dialogues(world, count=seed_count, seed=seed)),
    ):
        lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
        contents[name], counts[name] = b"".join(lines), len(lines)
    _write(directory, contents)
    return counts


def _raw_talk(talk: Talk, number: int, world: World, rng: random.Random, *, is_copied: bool) -> RawTalk:
    """With what the sets say beside the words: titles that repeat the question or (of one that has no copy, which would
    not have it) name the illness, other wordings.
    """
    (question, _), *_ = talk.turns
    title, other = question, ""
    if talk.ask is not None and not talk.plants:
        name = talk.ask.condition.name.in_language(talk.lang)
        if talk.source == "toyhom" and not is_copied and rng.random() < 0.2:
            title = rng.choice(TITLES).format(name=name)
        if talk.source == "huatuo" and rng.random() < 0.3:
            other = _other_wording(world, talk.ask, rng)
    turns: tuple[Turn, ...] = talk.turns
    return RawTalk(number, turns, rng.choice(DEPARTMENTS), title, other, talk.exam)


def _other_wording(world: World, ask: Ask, rng: random.Random) -> str:
    same = [
        other.question
        for other in asks_in_training(world, ask.lang)
        if (other.condition, other.attribute) == (ask.condition, ask.attribute) and other.wording != ask.wording
    ]
    return rng.choice(same)


def _truth(talks: list[Talk], names: dict[int, str]) -> Iterator[dict[str, Any]]:
    for place, talk in enumerate(talks):
        of = {} if talk.original is None else {"of": names[talk.original]}
        told = [plant | of if "jaccard" in plant or plant["kind"] == "too-similar" else plant for plant in talk.plants]
        lang = "other" if any(plant["kind"] == "wrong-language" for plant in talk.plants) else talk.lang
        yield {"id": names[place], "source": talk.source, "plants": told, "medical": True, "lang": lang}


def _write(directory: Path, contents: dict[str, bytes]) -> None:
    (directory / DIRECTORY).mkdir(parents=True, exist_ok=True)
    temporary = {name: directory / f"{name}.tmp.{os.getpid()}" for name in contents}
    try:
        for name, path in temporary.items():
            path.write_bytes(contents[name])
        for name, path in temporary.items():
            path.replace(directory / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
