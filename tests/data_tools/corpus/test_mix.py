"""Mixtures: shares, epochs and choices, against counts made by hand."""

import random

import numpy as np
import pytest
from pydantic import ValidationError

from data_tools.corpus.batch import Batch
from data_tools.corpus.mix import Census, Part, PartPlan, Stage, copies, plan_stages

SEED = 7


def corpus(count: int = 20_000, seed: int = 0) -> tuple[Batch, np.ndarray]:
    """Documents of two sources and languages, a third of them medical, with 10 to 1000 tokens each."""
    draw = random.Random(seed)
    batch = Batch([], [], [], [], [])
    tokens = []
    for number in range(count):
        batch.ids.append(f"d{number}")
        batch.texts.append("x")
        batch.langs.append(draw.choice(["zh", "en"]))
        batch.sources.append(draw.choice(["web", "books"]))
        domain = "medical" if draw.random() < 1 / 3 else "other"
        batch.metas.append({"domain": domain, "quality": draw.uniform(0, 6)})
        tokens.append(draw.randint(10, 1000))
    return batch, np.array(tokens)


def plan(
    stages: list[Stage], batch: Batch, tokens: np.ndarray, shards: int = 1, seed: int = SEED
) -> list[list[PartPlan]]:
    rows = []
    for shard in range(shards):
        places = list(range(shard, len(batch), shards))
        census = Census(stages, seed)
        census.add(batch.select(places), np.ones(len(places), np.int64), tokens[places])
        rows.append(census.rows())
    return plan_stages(stages, rows)


def test_a_budget_is_met_and_shared_by_weight_whatever_the_shards() -> None:
    batch, tokens = corpus()
    stage = Stage(
        name="one",
        tokens=2_000_000,
        parts=(
            Part(name="medical zh", domains=("medical",), langs=("zh",), weight=1),
            Part(name="medical en", domains=("medical",), langs=("en",), weight=2),
            Part(name="rest", weight=1),
        ),
    )
    plans = plan([stage], batch, tokens)
    assert plans == plan([stage], batch, tokens, shards=7)
    times = np.array(copies(stage, plans[0], batch, SEED))
    members = [
        [domain == "medical" and lang == "zh", domain == "medical" and lang == "en", domain == "other"]
        for domain, lang in zip((meta["domain"] for meta in batch.metas), batch.langs)
    ]
    for part, weight, found in zip(np.array(members).T, (1, 2, 1), plans[0]):
        taken = int((times * tokens)[part].sum())
        assert taken == found.chosen[2]
        assert abs(taken - 2_000_000 * weight / 4) <= 1000  # within one document
        assert int(tokens[part].sum()) == found.available[2]
        assert not found.capped


def test_repeated_parts_take_every_document_before_any_a_second_time_more() -> None:
    batch, tokens = corpus(3000)
    total = int(tokens.sum())
    stage = Stage(name="s", tokens=int(total * 2.4), parts=(Part(name="all", weight=1),))
    (found,) = plan([stage], batch, tokens)[0]
    times = copies(stage, [found], batch, SEED)
    assert set(times) == {2, 3}
    assert found.epochs == pytest.approx(2.4, abs=1000 / total)


def test_a_part_is_not_repeated_beyond_the_limit_and_says_so() -> None:
    batch, tokens = corpus(500)
    stage = Stage(
        name="s",
        tokens=int(tokens.sum()) * 20,
        max_epochs=3,
        parts=(
            Part(name="web", sources=("web",), weight=1),
            Part(name="none", sources=("books",), langs=("other",), weight=1),
        ),
    )
    web, none = plan([stage], batch, tokens)[0]
    assert web.capped and web.epochs == 3
    assert none.capped and none.chosen == [0, 0, 0]


def test_epochs_without_a_budget_take_whole_parts() -> None:
    batch, tokens = corpus(500)
    stage = Stage(name="s", parts=(Part(name="good", quality_at_least=3.0, epochs=2), Part(name="rest")))
    times = copies(stage, plan([stage], batch, tokens)[0], batch, SEED)
    assert times == [2 if meta["quality"] >= 3 else 1 for meta in batch.metas]


def test_the_choice_depends_on_seed_and_stage_and_not_on_order() -> None:
    batch, tokens = corpus(4000)

    def chosen(name: str, seed: int, order: list[int]) -> set[str]:
        stage = Stage(name=name, tokens=int(tokens.sum()) // 2, parts=(Part(name="all", weight=1),))
        plans = plan([stage], batch, tokens, seed=seed)
        shuffled = batch.select(order)
        return {n for n, times in zip(shuffled.ids, copies(stage, plans[0], shuffled, seed)) if times}

    straight, reverse = list(range(4000)), list(range(3999, -1, -1))
    first = chosen("a", 1, straight)
    assert first == chosen("a", 1, reverse)
    for other in (chosen("a", 2, straight), chosen("b", 1, straight)):  # about half of a half is in both
        assert 0.4 < len(first & other) / len(first) < 0.6


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"name": "s", "tokens": 5, "parts": [{"name": "a"}]}, "part a needs a weight"),
        ({"name": "s", "parts": [{"name": "a", "weight": 1}]}, "give stage s a budget"),
        ({"name": "s", "parts": [{"name": "a"}, {"name": "a"}]}, "two parts are called a"),
        ({"name": "s", "parts": [{"name": "a", "langs": ["zh-CN"]}]}, "zh-CN is none of zh, en, other"),
        ({"name": "../s", "parts": [{"name": "a"}]}, "String should match"),
    ],
)
def test_stages_that_cannot_be_meant_are_refused(stage: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Stage.model_validate(stage)
