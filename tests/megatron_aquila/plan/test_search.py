"""Remedies and layouts: each is a recipe that loads, is laid out, and fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_aquila.config import RunConfig
from megatron_aquila.config_loader import load_config
from megatron_aquila.gpus import GPUS
from megatron_aquila.layout import check_layout
from megatron_aquila.plan.planning import Plan, make_plan
from megatron_aquila.plan.search import Candidate
from megatron_aquila.plan.timing import Machine
from megatron_aquila.plan.workload import Samples

RECIPES = Path(__file__).parents[3] / "recipes" / "aquila_med"


def plan_of(run: RunConfig, gpus: int, memory: float, top: int = 5) -> Plan:
    machine = Machine(GPUS["a100-40g"], 8, 0.45)
    return make_plan(
        run, gpus=gpus, machine=machine, memory=int(memory * 2**30), samples=Samples(12727, 1000.0), top=top
    )


def sound(recipe: str, overrides: list[str], candidate: Candidate, gpus: int, memory: float) -> None:
    """The overrides, as a user gives them, make a recipe that is laid out and fits as it was said."""
    run = load_config(RECIPES / recipe, overrides)
    assert check_layout(run, gpus) == []
    again = plan_of(run, gpus, memory, top=0).assessment
    assert again is not None
    assert again.fits
    assert again.worst == candidate.assessment.worst
    assert again.time.total == pytest.approx(candidate.assessment.time.total)


@pytest.mark.parametrize("recipe, gpus", [("cpt_stage1.yaml", 24), ("sft.yaml", 8), ("dpo.yaml", 8)])
def test_layouts_are_recipes_that_fit(recipe: str, gpus: int) -> None:
    made = plan_of(load_config(RECIPES / recipe), gpus, 39.4, top=8)
    assert len(made.layouts) > 3
    times = [candidate.assessment.time.total for candidate in made.layouts]
    assert times == sorted(times)
    for candidate in made.layouts:
        sound(recipe, candidate.overrides(), candidate, gpus, 39.4)


def test_nothing_that_fits_is_faster_than_the_first() -> None:
    """Some layouts by hand, and the recipe's own."""
    made = plan_of(load_config(RECIPES / "cpt_stage1.yaml"), 24, 39.4, top=1)
    best = made.layouts[0].assessment.time.total
    by_hand = (
        [],
        ["parallel.tensor_parallel=8"],
        ["parallel.tensor_parallel=2", "parallel.pipeline_parallel=4"],
        ["parallel.tensor_parallel=2", "parallel.pipeline_parallel=2", "parallel.virtual_pipeline=2"],
        ["training.recompute=full"],
        ["parallel.sharding=full"],
    )
    for overrides in by_hand:
        other = plan_of(load_config(RECIPES / "cpt_stage1.yaml", overrides), 24, 39.4, top=0).assessment
        assert other is not None
        assert other.time.total >= best * 0.994 or not other.fits, overrides


@pytest.mark.parametrize(
    "recipe, overrides",
    [
        ("sft.yaml", ["parallel.tensor_parallel=1", "parallel.sequence_parallel=false", "training.recompute=none"]),
        ("dpo.yaml", ["parallel.tensor_parallel=2", "training.recompute=none", "training.micro_batch_size=2"]),
        ("dpo.yaml", ["parallel.tensor_parallel=1", "parallel.sequence_parallel=false", "training.recompute=none"]),
    ],
)
def test_remedies_make_it_fit_and_each_part_is_needed(recipe: str, overrides: list[str]) -> None:
    made = plan_of(load_config(RECIPES / recipe, overrides), 8, 39.4)
    assert made.assessment is not None
    assert not made.fits
    assert made.remedies
    for remedy in made.remedies:
        sound(recipe, [*overrides, *remedy.overrides()], remedy, 8, 39.4)
        recomputes = {"training.recompute": remedy.changes.get("training.recompute")}
        if len(remedy.changes) > 1 and recomputes["training.recompute"]:  # two kinds: neither is enough alone
            alone = [*overrides, *Candidate(recomputes, remedy.assessment).overrides()]
            assert not plan_of(load_config(RECIPES / recipe, alone), 8, 39.4, top=0).fits


def test_what_cannot_be_laid_out_is_said_and_another_way_shown() -> None:
    made = plan_of(load_config(RECIPES / "dpo.yaml", ["parallel.tensor_parallel=4"]), 6, 79.2)
    assert not made.fits
    sizes = "parallel.tensor_parallel 4 x pipeline_parallel 1"
    assert made.problems == (f"6 processes cannot be divided into replicas of {sizes}",)
    assert {candidate.assessment.sizes.world for candidate in made.layouts} == {6}


def test_nothing_fits() -> None:
    made = plan_of(load_config(RECIPES / "cpt_stage1.yaml"), 8, 12.0)
    assert not made.fits
    assert made.remedies == made.layouts == ()
