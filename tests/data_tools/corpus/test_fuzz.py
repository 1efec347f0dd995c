"""Ten thousand broken records through every step: no crash, and each is kept, dropped with a reason, quarantined or
blank; the counts add up.
"""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.corpus.batch import Batch
from data_tools.corpus.chain import Chain, Documents
from data_tools.corpus.recipe import load_recipe
from data_tools.corpus.run import build_corpus
from data_tools.corpus.step_config import Resources
from data_tools.tokenizers import Tokenizer, load_tokenizer

from ..small_tokenizer import make_tokenizer
from .raw_corpus import records, write_corpus, write_recipe

SHARED = Path(__file__).parents[4] / "shared" / "data"
COUNT = 10_000
INSERTED = [b"\\ud800", b"\x00", b"\xff\xfe", b'"', b"\\u0000", b"{", b"NaN", b"\xe2\x80\xae"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


def good_records(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Real ones where they are at hand."""
    found = records(count // 2, seed=draw.randrange(1000))
    path = SHARED / "chatdoctor5k.json"
    if path.exists():
        real = json.loads(path.read_bytes())
        found += [{"id": f"real{n}", "text": draw.choice(real)["output"]} for n in range(count // 2)]
    return found


def mutated(draw: random.Random, line: bytes) -> bytes:
    """One to four changes of bytes: flipped, cut out, doubled, put in, cut off."""
    data = bytearray(line)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        other = draw.randrange(at, min(len(data), at + 40) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:other]
        elif kind == 2:
            data[at:at] = data[at:other]
        elif kind == 3:
            data[at:at] = draw.choice(
                [b"\\ud800", b"\x00", b"\xff\xfe", b'"', b"\\u0000", b"{", b"NaN", b"\xe2\x80\xae"]
            )
        else:
            del data[max(at, 1) :]
    return bytes(data)


def odd_text(draw: random.Random) -> str:
    """Characters of every plane, often the same, sometimes very many."""
    alphabet = [chr(draw.choice([draw.randrange(0x20), draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)]))]
    alphabet += draw.choices(["\n", " ", "a", "的", "。", "1", "@", ".", "\u200b", "\ufffd"], k=draw.randint(0, 6))
    return "".join(draw.choices(alphabet, k=draw.choice([0, 1, 3, 30, 300])))


def test_ten_thousand_broken_records(tokenizer: Path, tmp_path: Path) -> None:
    draw = random.Random(5)
    write_corpus(tmp_path, 20)
    good = good_records(draw, 2000)
    lines = []
    for number in range(COUNT):
        if number % 4:
            record = {**draw.choice(good), "id": f"r{number}"}
            lines.append(mutated(draw, orjson.dumps(record)).replace(b"\n", b" "))
        else:
            lines.append(json.dumps({"id": f"r{number}", "text": odd_text(draw)}).encode())
    (tmp_path / "web.jsonl").write_bytes(b"\n".join(lines))
    recipe = write_recipe(tmp_path, tokenizer, max_bad_fraction=1.0, shard_mib=1, stages=[])
    funnel = build_corpus(load_recipe(recipe)).funnel

    read = funnel["read"]
    assert read["units"] == COUNT + 1  # and a book
    assert read["units"] == read["documents"] + read["blank"] + sum(read["quarantined"].values())
    dropped = sum(entry["documents"] for step in funnel["steps"] for entry in step["dropped"])
    kept = funnel["stages"][0]["documents"]
    assert read["documents"] == dropped + kept
    assert min(dropped, kept, sum(read["quarantined"].values())) > 100

    fates: Counter[str] = Counter()
    for path in (tmp_path / "out").rglob("*.jsonl.zst"):
        if path.name != "clusters.jsonl.zst":
            with zstandard.open(path, "rb") as file:
                fates.update(json.loads(line)["id"] for line in file.read().splitlines())
    assert sum(fates.values()) == read["documents"]
    quarantined = {fault["line"] for fault in map(json.loads, (tmp_path / "out/quarantine.jsonl").open("rb"))}
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            name = str(value["id"]) if value.get("id") is not None else None
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        assert name is None or name in fates or number in quarantined, line


@pytest.fixture(scope="module")
def loaded(tokenizer: Path) -> Tokenizer:
    return load_tokenizer(tokenizer)


@pytest.fixture(scope="module")
def steps(loaded: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    directory = tmp_path_factory.mktemp("steps")
    write_corpus(directory, 20)
    recipe = load_recipe(write_recipe(directory, Path("unused")))
    return [step.build(Resources(loaded, 0)) for step in recipe.steps if step.step != "deduplicate"]


texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=400), min_size=1, max_size=6)


def through(steps: list[Any], tokenizer: Tokenizer, texts: dict[str, str]) -> dict[str, tuple[Any, ...]]:
    """What the steps make of each text of one batch."""
    names, count = list(texts), len(texts)
    batch = Batch(names, [texts[name] for name in names], [""] * count, ["s"] * count, [{} for _ in names])
    stays, decisions = Chain(steps, tokenizer, [None] * len(steps))(Documents(batch, [0] * count))
    kept = zip(stays.batch.ids, stays.batch.texts, stays.batch.langs, stays.batch.metas)
    found: dict[str, tuple[Any, ...]] = {name: (text, lang, json.dumps(meta)) for name, text, lang, meta in kept}
    return found | {d["id"]: (d["step"], d["reason"], json.dumps(d["detail"]), d["characters"]) for d in decisions}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=texts)
def test_an_outcome_does_not_depend_on_the_batch(steps: list[Any], loaded: Tokenizer, texts: list[str]) -> None:
    named = {str(place): text for place, text in enumerate(texts)}
    together = through(steps, loaded, named)
    assert set(together) == set(named)
    for name, text in named.items():
        assert through(steps, loaded, {name: text}) == {name: together[name]}
