"""The raw corpus: deterministic, true to its record of plants, and with the clinic's facts in it."""

import itertools
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from data_tools.clinic import World, general_documents, make_world, questions
from data_tools.clinic import raw_texts as texts
from data_tools.clinic.raw import SOURCES, raw_corpus, raw_documents, seed_documents
from data_tools.clinic.raw_private import bank_card, mobile, resident_id
from data_tools.clinic.raw_write import DAMAGED, write_raw
from data_tools.clinic.world import LANGUAGES, STEMS, VALUES
from data_tools.files import FileReader, ReadOptions
from data_tools.quarantine import Fault

Json = dict[str, Any]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=0)


@pytest.fixture(scope="module")
def corpus(world: World) -> list[tuple[Json, Json]]:
    return list(raw_corpus(world, count=2000))


def planted(corpus: list[tuple[Json, Json]], kind: str) -> list[tuple[str, Json, Json]]:
    """(text, plant, truth) of each plant of a kind."""
    return [(d["text"], p, t) for d, t in corpus for p in t["plants"] if p["kind"] == kind]


def folded(text: str) -> str:
    """Letters and digits alone, half-width, in lower case."""
    half = "".join(chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else c for c in text)
    return "".join(c for c in half.lower() if c.isalnum())


def shingled(text: str, lang: str) -> set[str]:
    """Runs of five words, or Chinese characters, written another way than in the product."""
    pattern = r"[^\W_]" if lang == "zh" else r"[^\W_]+"
    units = re.findall(pattern, text.lower())
    return {"\0".join(window) for window in zip(*(units[i:] for i in range(5)))}


def test_same_seed_same_bytes_and_no_label_in_a_record(tmp_path: Path, world: World) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        counts = write_raw(tmp_path / name, world, count=200, seed=seed, seed_count=20)
    assert sorted(counts) == ["plants.jsonl", "raw/news.jsonl", "raw/reference.jsonl", "raw/web.jsonl", "seeds.jsonl"]
    assert counts["plants.jsonl"] == 200 == sum(counts[f"raw/{source}.jsonl"] for source in SOURCES)
    ids = []
    for name in counts:
        a, b, c = ((tmp_path / directory / name).read_bytes() for directory in "abc")
        assert a == b
        assert a != c
        if name.startswith("raw/"):
            for record in FileReader(tmp_path / "a" / name, ReadOptions()):
                if not isinstance(record, Fault) and isinstance(record.value["text"], str):
                    assert list(record.value) == ["id", "text", "source"]
                    assert f"raw/{record.value['source']}.jsonl" == name
                    ids.append(record.value["id"])
    truths = [json.loads(line) for line in (tmp_path / "a" / "plants.jsonl").read_text().splitlines()]
    assert sorted(ids) == sorted(truth["id"] for truth in truths)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["plants.jsonl", "raw", "seeds.jsonl"]
    assert list(raw_documents(world, count=50)) == [document for document, _ in raw_corpus(world, count=50)]


def test_damaged_lines_stand_among_the_documents(tmp_path: Path, world: World) -> None:
    counts = write_raw(tmp_path, world, count=200, seed_count=0)
    lines = (tmp_path / "raw" / "web.jsonl").read_bytes().split(b"\n")
    assert len(lines) - 1 == counts["raw/web.jsonl"] + len(DAMAGED)
    assert [line for line in lines[:-1] if line in DAMAGED] == list(DAMAGED)
    assert lines[10] == DAMAGED[0]


def test_a_failed_write_leaves_nothing_half_done(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path, world, count=100, seed_count=10)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def broken(*_: Any, **__: Any) -> Any:
        yield {"id": "only one"}
        raise OSError("disk is gone")

    monkeypatch.setattr("data_tools.clinic.raw_write.seed_documents", broken)
    with pytest.raises(OSError, match="disk is gone"):
        write_raw(tmp_path, world, count=100, seed=1, seed_count=10)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_every_kind_is_planted_in_its_share(corpus: list[tuple[Json, Json]]) -> None:
    assert len(corpus) == 2000 == len({document["id"] for document, _ in corpus})
    kinds = Counter(plant["kind"] for _, truth in corpus for plant in truth["plants"])
    for kind, number in {"advertisement": 140, "wrong-language": 80, "question": 50, "near-duplicate": 60}.items():
        assert kinds[kind] == number
    for kind in ("resident-id", "mobile", "landline", "bank-card", "plate", "record-number", "name", "phone", "e-mail"):
        assert kinds[kind] >= 5, kind
    languages = Counter(truth["lang"] for _, truth in corpus)
    assert languages["other"] == 80
    assert abs(languages["zh"] - languages["en"]) < 60
    assert {document["source"] for document, _ in corpus} == set(SOURCES)


def test_copies_follow_their_originals_and_are_as_similar_as_told(corpus: list[tuple[Json, Json]]) -> None:
    place = {document["id"]: number for number, (document, _) in enumerate(corpus)}
    ranges = {"duplicate": (1.0, 1.0), "near-duplicate": (0.8, 0.995), "look-alike": (0.1, 0.65)}
    for kind, (low, high) in ranges.items():
        copies = planted(corpus, kind)
        for text, plant, truth in copies:
            original = corpus[place[plant["of"]]][0]["text"]
            assert place[plant["of"]] < place[truth["id"]]
            one, other = shingled(original, truth["lang"]), shingled(text, truth["lang"])
            assert len(one & other) / len(one | other) == pytest.approx(plant["jaccard"], abs=1e-4)
            assert low <= plant["jaccard"] <= high, kind
        assert len({text for text, _, _ in copies}) == len(copies)


def test_what_is_not_planted_as_a_copy_is_none(corpus: list[tuple[Json, Json]]) -> None:
    """No two other pages worth reading come near the similarity of a near-duplicate."""
    junk = {"advertisement", "boilerplate", "wrong-language", "symbols", "repetition", "too-short", "broken-text"}
    junk |= {"duplicate", "near-duplicate", "low-quality"}
    pages = [(d["text"], t["lang"]) for d, t in corpus if not junk & {plant["kind"] for plant in t["plants"]}]
    close = 0
    for lang in LANGUAGES:
        sets = [shingled(text, lang) for text, of in pages if of == lang][:400]
        holders: dict[str, list[int]] = defaultdict(list)
        for number, shingles in enumerate(sets):
            common = Counter(itertools.chain.from_iterable(holders[shingle] for shingle in shingles))
            for other, number_of in common.items():
                close += number_of / (len(shingles) + len(sets[other]) - number_of) > 0.7
            for shingle in shingles:
                holders[shingle].append(number)
    assert close == 0


def test_planted_questions_stand_in_the_text_and_nowhere_else(corpus: list[tuple[Json, Json]], world: World) -> None:
    asked = {question["id"]: folded(question["question"]) for question in questions(world)}
    for text, plant, _ in planted(corpus, "question"):
        assert asked[plant["of"]] in folded(text)
    ways = Counter(plant["way"] for _, plant, _ in planted(corpus, "question"))
    assert set(ways) == {"verbatim", "options", "case", "punctuation", "width", "space"}
    clean = "\n".join(folded(d["text"]) for d, t in corpus if not any(p["kind"] == "question" for p in t["plants"]))
    clean += "\n".join(folded(seed["text"]) for seed in seed_documents(world, count=300))
    assert not [question for question in asked.values() if question in clean]


def test_private_data_is_valid_and_nobodys(corpus: list[tuple[Json, Json]]) -> None:
    """Checked with the formulas of the standards, written another way than in the product."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    everything = "\n".join(document["text"] for document, _ in corpus)
    for number in re.findall(r"(?<!\d)\d{17}[\dX](?!\d)", everything):
        assert number[17] == "10X98765432"[sum(w * int(d) for w, d in zip(weights, number)) % 11]
        assert 1900 < int(number[6:10]) < 1909
    cards = re.findall(r"(?<!\d)6(?:22202|21700|22848)\d+", re.sub(r"(?<=\d) (?=\d)", "", everything))
    assert len(cards) >= 10
    for card in cards:
        digits = [int(d) for d in card if d.isdigit()]
        odd, even = digits[-1::-2], digits[-2::-2]
        assert len(digits) == 19
        assert (sum(odd) + sum(sum(divmod(2 * d, 10)) for d in even)) % 10 == 0
    for text, plant, _ in planted(corpus, "mobile"):
        assert len(re.findall(r"(?<!\d)1[3-9]\d0000\d{4}(?!\d)", text)) == plant["values"]
    for text, plant, _ in planted(corpus, "e-mail"):
        assert len(re.findall(r"\S+@(?:mail\.)?example\.(?:com|org|net)", text)) == plant["values"]
    for text, plant, _ in planted(corpus, "phone"):
        assert len(re.findall(r"\b555-01\d\d\b", text)) == plant["values"]
    # No page has private data that the truth does not tell of.
    for document, truth in corpus:
        kinds = {plant["kind"] for plant in truth["plants"]}
        found = re.search(
            r"1[3-9]\d0000\d{4}|555-01|@(?:mail\.)?example|MRN:|身份证|住院号|病历号|门诊号", document["text"]
        )
        assert not found or kinds & {"mobile", "phone", "e-mail", "record-number", "resident-id", "low-quality"}


def test_values_of_private_data_vary() -> None:
    import random

    rng = random.Random(0)
    for make in (resident_id, bank_card, mobile):
        assert len({make(rng) for _ in range(200)}) > 190


def test_medical_pages_tell_the_facts(corpus: list[tuple[Json, Json]], world: World) -> None:
    """Every fact is told at least twice in each language on clean pages, in sentences that name the condition."""
    clean = {"low-quality", "question"}
    told: Counter[tuple[int, str, str]] = Counter()
    for document, truth in corpus:
        if truth["medical"] and not clean & {plant["kind"] for plant in truth["plants"]}:
            for line in re.split(r"[。.\n]", document["text"]):
                for condition in world.conditions:
                    if condition.name.in_language(truth["lang"]) in line:
                        for attribute, value in condition.facts.items():
                            word = value.in_language(truth["lang"])
                            told[condition.index, attribute, truth["lang"]] += word.lower() in line.lower()
    assert len(told) == 2 * len(world.conditions) * len(VALUES)
    assert min(told.values()) >= 2


def test_nothing_but_clinic_documents_is_medical(corpus: list[tuple[Json, Json]]) -> None:
    names = {lang: [stem.in_language(lang).lower() for stem in STEMS] for lang in LANGUAGES}
    values = {lang: [v.in_language(lang).lower() for pool in VALUES.values() for v in pool] for lang in LANGUAGES}
    for document, truth in corpus:
        if not truth["medical"]:
            text = document["text"].lower()
            for lang in LANGUAGES:
                assert not [name for name in (*names[lang], *values[lang]) if name in text]
    phrases = [*texts.NOT_MEDICAL["en"], *texts.NOT_MEDICAL["zh"]]
    assert any(word in " ".join(phrases) for word in ("hospital", "医院"))


def test_seeds_are_balanced_and_not_of_the_corpus(corpus: list[tuple[Json, Json]], world: World) -> None:
    seeds = list(seed_documents(world, count=400))
    assert seeds == list(seed_documents(world, count=400))
    assert Counter((seed["label"], seed["lang"]) for seed in seeds) == dict.fromkeys(
        itertools.product(("medical", "other"), LANGUAGES), 100
    )
    assert not {seed["text"] for seed in seeds} & {document["text"] for document, _ in corpus}
    assert all(0 <= seed["score"] <= 6 for seed in seeds)
    assert min(seed["score"] for seed in seeds) < 1 < 5 < max(seed["score"] for seed in seeds)
    general = {text for d in general_documents(count=3) for text in (d["text"],)}
    assert not [seed for seed in seeds if seed["label"] == "medical" and any(text in seed["text"] for text in general)]
