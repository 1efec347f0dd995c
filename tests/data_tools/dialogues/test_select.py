"""The selection against plain Python over lists of dialogues."""

import random
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xxhash
from pydantic import ValidationError

from data_tools.corpus.batch import Batch, Drop, dialogue_text
from data_tools.corpus.step_config import Resources
from data_tools.dialogues.embedding import NgramEmbedding
from data_tools.dialogues.select import DiversityConfig, SelectConfig, exchange_count
from data_tools.dialogues.select_parts import SelectPart, budgets
from data_tools.inputs import InputError
from tests.data_tools.corpus.real_texts import dialogues, needs_shared

RESOURCES = Resources(None, 7)  # type: ignore[arg-type]  # selection needs no tokenizer


class Pool:
    """Dialogues that a selection is made of."""

    def __init__(self) -> None:
        self.batch = Batch([], [], [], [], [], [])

    def add(
        self, *exchanges: tuple[str, str], lang: str = "zh", source: str = "clinic", name: str = "", **meta: Any
    ) -> None:
        batch = self.batch
        messages = tuple(
            {"role": role, "content": text} for pair in exchanges for role, text in zip(("user", "assistant"), pair)
        )
        batch.ids.append(name or f"d{len(batch)}")
        batch.messages.append(messages)
        batch.texts.append(dialogue_text(messages))
        batch.langs.append(lang)
        batch.sources.append(source)
        batch.metas.append(meta)

    def __len__(self) -> int:
        return len(self.batch)


def select(
    place: Path, config: SelectConfig, pool: Pool, cuts: tuple[int, ...] = ()
) -> tuple[list[Drop | None], Mapping[str, int]]:
    """What becomes of each dialogue, of shards that end at `cuts`, and the counts."""
    place.mkdir(exist_ok=True)
    sign = config.signer(RESOURCES)
    edges = [0, *cuts, len(pool)]
    parts, outputs = ([place / f"{name}-{k}" for k in range(len(edges) - 1)] for name in ("rows", "verdicts"))
    for part, (start, stop) in zip(parts, pairwise(edges)):
        with part.open("wb") as file:
            for begin in range(start, stop, 37):
                sign(pool.batch.select(range(begin, min(begin + 37, stop)))).tofile(file)
    scratch = place / "scratch"
    scratch.mkdir(exist_ok=True)
    done: list[tuple[int, int]] = []
    counts = config.settle(parts, scratch, outputs, lambda *progress: done.append(progress))
    assert not list(scratch.iterdir())
    assert all(0 < some <= everything for some, everything in done) or not len(pool)
    drops: list[Drop | None] = [None] * len(pool)
    for output, (start, stop) in zip(outputs, pairwise(edges)):
        verdicts = np.load(output)
        assert (np.diff(verdicts["position"].astype(int)) > 0).all()
        for verdict in verdicts:
            assert verdict["position"] < stop - start
            drops[start + int(verdict["position"])] = config.drop(verdict)
    orjson.dumps([drop and (drop.reason, drop.detail) for drop in drops])
    return drops, counts


def reasons(drops: list[Drop | None]) -> list[str]:
    return ["" if drop is None else drop.reason for drop in drops]


def by_score(pool: Pool, name: str = "deita") -> list[int]:
    """Places, the best first; of equal scores that with the smaller hash of its id."""
    batch = pool.batch
    return sorted(
        range(len(pool)),
        key=lambda k: (-batch.metas[k]["scores"][name], xxhash.xxh3_64_intdigest(batch.ids[k].encode()), k),
    )


def scored(count: int, seed: int = 0, levels: int = 50) -> Pool:
    """Dialogues of two languages, some of several exchanges, some exam questions, with equal scores among them."""
    draw, pool = random.Random(seed), Pool()
    for number in range(count):
        turns = draw.choice([1, 1, 2, 3])
        kind = {"kind": draw.choice(["qa", "options"])} if draw.random() < 0.8 else {}
        pool.add(
            *[(f"问题{number}-{turn}", f"回答{draw.random()}") for turn in range(turns)],
            lang=draw.choice(["zh", "zh", "en"]),
            source=draw.choice(["huatuo", "cmb"]),
            scores={"deita": draw.randrange(levels) / 2, "complexity": [1.0, 2.0], "quality": [3.0]},
            **kind,
        )
    return pool


PAPER = (
    SelectPart(name="qa zh", langs=("zh",), kinds=("qa",), turns="single", share=0.272),
    SelectPart(name="en", langs=("en",), share=0.14),
    SelectPart(name="options zh", langs=("zh",), kinds=("options",), turns="single", share=0.248),
    SelectPart(name="multi zh", langs=("zh",), turns="multi", share=0.34),
)


def test_thresholds_keep_what_reaches_them(tmp_path: Path) -> None:
    pool = scored(300)
    drops, counts = select(tmp_path, SelectConfig(threshold=12.5), pool)
    scores = [meta["scores"]["deita"] for meta in pool.batch.metas]
    assert reasons(drops) == ["" if score >= 12.5 else "below-threshold" for score in scores]
    assert {drop.detail["limit"] for drop in drops if drop} == {12.5}
    assert [drop.detail["value"] for drop in drops if drop] == [score for score in scores if score < 12.5]
    assert counts["kept"] == sum(score >= 12.5 for score in scores)


def test_a_quantile_is_of_each_part_and_a_threshold_of_a_part_goes_before_it(tmp_path: Path) -> None:
    pool = scored(400, levels=10_000)
    parts = (SelectPart(name="zh", langs=("zh",)), SelectPart(name="en", langs=("en",), threshold=2000.0))
    drops, _ = select(tmp_path, SelectConfig(quantile=0.3, parts=parts), pool)
    for lang in ("zh", "en"):
        places = [place for place, found in enumerate(pool.batch.langs) if found == lang]
        scores = sorted(pool.batch.metas[place]["scores"]["deita"] for place in places)
        limit = 2000.0 if lang == "en" else scores[-(-3 * (len(scores) - 1) // 10)]
        assert [drops[place] is None for place in places] == [
            pool.batch.metas[place]["scores"]["deita"] >= limit for place in places
        ]
        if lang == "zh":
            assert sum(drops[place] is not None for place in places) == pytest.approx(0.3 * len(places), abs=1)


def test_means_of_lists_and_missing_scores(tmp_path: Path) -> None:
    pool = Pool()
    for scores in ({"quality": [4.0, 2.0]}, {"quality": [3.0, None]}, {}, {"quality": []}, {"quality": 5}, None):
        pool.add(("问", "答"), scores=scores)
    pool.add(("问", "答"))
    pool.add(("问", "答"), scores={"quality": float("nan")})
    drops, _ = select(tmp_path, SelectConfig(score="quality", threshold=2.5), pool)
    assert reasons(drops) == ["", *["no-score"] * 3, "", *["no-score"] * 3]
    assert drops[1] == Drop("no-score", {"score": "quality"})
    higher, _ = select(tmp_path, SelectConfig(score="quality", threshold=3.5), pool)
    assert higher[0] == Drop("below-threshold", {"value": 3.0, "limit": 3.5})


def test_the_band_of_relevance_cuts_both_sides_of_dialogues_with_a_history(tmp_path: Path) -> None:
    pool = Pool()
    several = ("问一", "答一"), ("问二", "答二"), ("问三", "答三")
    for dialogue, turns in ((0.2, [0.1, 0.3]), (0.3, [0.2, 0.4]), (0.9, [0.6, 1.2]), (1.1, [1.1, 1.1]), (None, [])):
        pool.add(*several, scores={"deita": 1.0, "context_relevance": turns, "context_relevance_dialogue": dialogue})
    pool.add(("问", "答"), scores={"deita": 1.0, "context_relevance": [], "context_relevance_dialogue": None})
    config = SelectConfig.model_validate({"relevance": {"low": 0.3, "high": 1.0}})
    drops, _ = select(tmp_path, config, pool)
    assert reasons(drops) == ["out-of-band", "", "", "out-of-band", "no-relevance", ""]
    assert drops[0] == Drop("out-of-band", {"value": 0.2, "limit": 0.3, "side": "low"})
    assert drops[3] == Drop("out-of-band", {"value": 1.1, "limit": 1.0, "side": "high"})
    assert drops[4] == Drop("no-relevance", {"score": "context_relevance_dialogue"})
    each = SelectConfig.model_validate({"relevance": {"low": 0.3, "high": 1.0, "on": "every turn"}})
    drops, _ = select(tmp_path, each, pool)
    assert reasons(drops) == ["out-of-band"] * 4 + ["no-relevance", ""]
    assert drops[2] == Drop("out-of-band", {"value": 1.2, "limit": 1.0, "side": "high"})
    free, _ = select(tmp_path, SelectConfig(), pool)
    assert reasons(free) == [""] * 6


def test_the_composition_of_the_paper_is_met_the_best_first_and_what_is_short_is_told(tmp_path: Path) -> None:
    pool = scored(1500)
    drops, counts = select(tmp_path, SelectConfig(count=500, parts=PAPER), pool)
    batch = pool.batch

    def part(place: int) -> str:
        if batch.langs[place] == "en":
            return "en"
        if len(batch.messages[place]) > 2:
            return "multi zh"
        return "options zh" if batch.metas[place].get("kind") == "options" else "qa zh"

    expected = dict(zip([each.name for each in PAPER], [136, 70, 124, 170]))
    for name, budget in expected.items():
        places = [place for place in by_score(pool) if part(place) == name]
        assert {place for place in places if drops[place] is None} == set(places[:budget])
        assert counts[f"{name}: dialogues"] == counts[f"{name}: within limits"] == len(places)
        assert counts[f"{name}: wanted"] == budget
        assert counts[f"{name}: short"] == 0
        assert drops[places[-1]] == Drop(
            "over-budget", {"value": batch.metas[places[-1]]["scores"]["deita"], "limit": budget}
        )
    few, counts = select(tmp_path, SelectConfig(count=2000, parts=PAPER), pool)
    for name, share in zip(expected, (544, 280, 496, 680)):
        there = sum(part(place) == name for place in range(len(pool)))
        assert counts[f"{name}: kept"] == min(share, there)
        assert counts[f"{name}: short"] == max(0, share - there)
    assert counts["kept"] == sum(drop is None for drop in few) < 1500


def test_a_dialogue_belongs_to_the_first_part_it_fits_or_goes(tmp_path: Path) -> None:
    pool = Pool()
    for lang, source in (("zh", "cmb"), ("zh", "huatuo"), ("en", "cmb"), ("other", "x")):
        pool.add(("q", "a"), lang=lang, source=source, scores={"deita": 1.0})
    parts = (SelectPart(name="exam", sources=("cmb",), count=1), SelectPart(name="rest", langs=("zh", "en")))
    drops, counts = select(tmp_path, SelectConfig(parts=parts), pool)
    assert sorted(reasons(drops)) == ["", "", "no-part", "over-budget"]
    assert drops[3] == Drop("no-part")
    assert counts["exam: kept"] == counts["rest: kept"] == 1


def test_a_total_and_budgets_hold_together_and_fill_makes_up_for_short_parts(tmp_path: Path) -> None:
    pool = scored(600)
    parts = (SelectPart(name="en", langs=("en",), count=500), SelectPart(name="zh", langs=("zh",), count=100))
    english = [place for place in by_score(pool) if pool.batch.langs[place] == "en"]
    chinese = [place for place in by_score(pool) if pool.batch.langs[place] == "zh"]
    assert len(english) < 500
    drops, counts = select(tmp_path, SelectConfig(count=600, parts=parts), pool)
    assert {place for place, drop in enumerate(drops) if drop is None} == {*english, *chinese[:100]}
    assert counts["en: short"] == 500 - len(english)
    filled, counts = select(tmp_path, SelectConfig(count=600, parts=parts, fill=True), pool)
    assert counts["en: short"] == 500 - len(english)
    assert {place for place, drop in enumerate(filled) if drop is None} == {*english, *chinese}
    free = (SelectPart(name="en", langs=("en",)), SelectPart(name="zh", langs=("zh",)))
    best, counts = select(tmp_path, SelectConfig(count=50, parts=free), pool)
    assert {place for place, drop in enumerate(best) if drop is None} == set(by_score(pool)[:50])
    assert counts["wanted"] == counts["kept"] == 50


def real_pool(count: int) -> Pool:
    draw, pool = random.Random(0), Pool()
    for text in dialogues()[:count]:
        question, answer = text.split("\n", 1)
        pool.add((question, answer), source=draw.choice(["a", "b"]), scores={"deita": draw.randrange(40) / 4})
    return pool


@needs_shared
def test_real_dialogues_are_selected_as_by_deita_whatever_the_shards_memory_and_blocks(tmp_path: Path) -> None:
    pool = real_pool(1500)
    diversity = DiversityConfig(threshold=0.6, stored="float32")
    config = SelectConfig(diversity=diversity, count=900)
    drops, counts = select(tmp_path, config, pool)
    vectors = NgramEmbedding().vectors(pool.batch.texts, pool.batch.langs).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stays: list[int] = []
    order = by_score(pool)
    expected = ["over-budget"] * len(pool)
    for place in order:
        if len(stays) == 900:
            break
        near = vectors[stays] @ vectors[place] > 0.6
        expected[place] = "too-similar" if near.any() else ""
        if near.any():
            like = stays[int(near.argmax())]
            assert drops[place] == Drop(
                "too-similar",
                {"value": round(float(vectors[like] @ vectors[place]), 6), "limit": 0.6, "kept": like},
            )
        else:
            stays.append(place)
    assert reasons(drops) == expected
    assert expected.count("too-similar") > 30
    again, same = select(tmp_path / "again", config.model_copy(update={"memory": 1 << 20}), pool, (1, 700, 700, 1300))
    assert (again, same) == (drops, counts)


@needs_shared
def test_diversity_within_parts_and_filling_go_through_the_same_walk(tmp_path: Path) -> None:
    pool = real_pool(1200)
    parts = (SelectPart(name="a", sources=("a",), count=100), SelectPart(name="b", sources=("b",), count=700))
    config = SelectConfig.model_validate(
        {"count": 800, "parts": parts, "fill": True, "diversity": {"threshold": 0.55, "within": "part"}}
    )
    drops, counts = select(tmp_path, config, pool)
    vectors = NgramEmbedding().vectors(pool.batch.texts, pool.batch.langs).astype(np.float16).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stays: dict[str, list[int]] = {"a": [], "b": []}
    over = []

    def differs(place: int) -> bool:
        others = stays[pool.batch.sources[place]]
        return not others or float((vectors[others] @ vectors[place]).max()) <= 0.55

    for place in by_score(pool):
        source = pool.batch.sources[place]
        if len(stays[source]) == {"a": 100, "b": 700}[source]:
            over.append(place)
        elif differs(place):
            stays[source].append(place)
    assert len(stays["b"]) < 700
    for place in over:
        if len(stays["a"]) + len(stays["b"]) < 800 and differs(place):
            stays[pool.batch.sources[place]].append(place)
    assert {place for place, drop in enumerate(drops) if drop is None} == {*stays["a"], *stays["b"]}
    assert counts["kept"] == 800
    assert counts["b: short"] == 700 - len(stays["b"])


def test_the_order_of_the_input_and_of_equal_scores_does_not_matter(tmp_path: Path) -> None:
    pool, other = scored(300, levels=3), Pool()
    order = random.Random(5).sample(range(300), 300)
    other.batch = pool.batch.select(order)
    config = SelectConfig(count=77)
    kept = [
        {some.batch.ids[place] for place, drop in enumerate(select(tmp_path, config, some)[0]) if drop is None}
        for some in (pool, other)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 77
    draw = SelectConfig(score=None, count=77)
    drawn, _ = select(tmp_path, draw, pool)
    hashes = sorted((xxhash.xxh3_64_intdigest(name.encode()), place) for place, name in enumerate(pool.batch.ids))
    assert {place for place, drop in enumerate(drawn) if drop is None} == {place for _, place in hashes[:77]}


def test_empty_pools_and_shards_and_damaged_rows(tmp_path: Path) -> None:
    config = SelectConfig(count=3, quantile=0.5, diversity=DiversityConfig())
    drops, counts = select(tmp_path, config, Pool())
    assert drops == []
    assert counts["kept"] == 0
    pool = Pool()
    pool.add(("问", "答"))
    assert reasons(select(tmp_path, config, pool, (0, 1))[0]) == ["no-score"]
    (tmp_path / "rows-0").write_bytes(b"cut off")
    with pytest.raises(InputError, match="cut off"):
        config.settle([tmp_path / "rows-0"], tmp_path, [tmp_path / "out"], lambda *progress: None)


def test_histograms_show_score_and_relevance_with_their_limits() -> None:
    config = SelectConfig.model_validate({"threshold": 9.0, "relevance": {"low": 0.4, "high": 1.1}})
    assert config.scales["score"].limits == {"": (9.0,)}
    assert config.scales["relevance"].limits == {"": (0.4, 1.1)}
    pool = Pool()
    pool.add(("问", "答"), scores={"deita": 7.5})
    pool.add(("问", "答"), ("问", "答"), scores={"context_relevance_dialogue": 0.8})
    found = config.measures(pool.batch)
    assert set(found) == set(config.scales)
    np.testing.assert_array_equal(found["score"], [7.5, np.nan])
    np.testing.assert_array_equal(found["relevance"], [np.nan, 0.8])


def test_shares_make_up_the_count_and_configurations_that_contradict_themselves_are_refused() -> None:
    assert budgets(PAPER, 320_000) == [87_040, 44_800, 79_360, 108_800]
    thirds = [SelectPart(name=name, share=1 / 3) for name in "abc"]
    for count in (1, 2, 100, 1001):
        assert sum(budget or 0 for budget in budgets(thirds, count)) == count
    zh = {"name": "zh"}
    for wrong, word in (
        ({"threshold": 1.0, "quantile": 0.5}, "exclude"),
        ({"score": None, "threshold": 1.0}, "score is missing"),
        ({"fill": True}, "fill needs a count"),
        ({"parts": [{**zh, "share": 0.5}]}, "give the step a count"),
        ({"count": 10, "parts": [{**zh, "share": 0.6}, {"name": "en", "share": 0.6}]}, "must not exceed 1"),
        ({"count": 10, "parts": [{**zh, "count": 11}]}, "raise it"),
        ({"parts": [zh, zh]}, "two parts are called zh"),
        ({"parts": [{**zh, "langs": ["de"]}]}, "de is none of"),
        ({"parts": []}, "parts is empty"),
        ({"relevance": {"low": 1.0, "high": 0.5}}, "low must be the smaller"),
        ({"relevance": {}}, "both missing"),
        ({"diversity": {"threshold": 1.0}}, "less than 1"),
        ({"treshold": 1.0}, "Extra inputs"),
    ):
        with pytest.raises(ValidationError, match=word):
            SelectConfig.model_validate(wrong)


def test_exchanges_are_questions_with_an_answer() -> None:
    def messages(roles: str) -> tuple[dict[str, str], ...]:
        names = {"s": "system", "u": "user", "a": "assistant"}
        return tuple({"role": names[role], "content": "x"} for role in roles)

    assert [exchange_count(messages(roles)) for roles in ("sua", "uaua", "uaau", "a", "uua", "", "su")] == [
        1,
        2,
        1,
        0,
        1,
        0,
        0,
    ]
