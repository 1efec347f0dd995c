"""Every fault of the harness happens at least once; `make faults` makes all of them happen, many times."""

from __future__ import annotations

import pytest

from tests.faults import page
from tests.faults.everything import SCENARIOS
from tests.faults.harness import Result, Scenario, row
from tests.faults.workplace import Workplace

CASES = [
    pytest.param(scenario, number, case, id=f"{scenario.run.__name__}-{number}")
    for scenario in SCENARIOS
    for number, case in scenario.chosen(full=False)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(("scenario", "number", "case"), CASES)
def test_fault(scenario: Scenario, number: int, case: object, place: Workplace) -> None:
    assert scenario.run(place, case, scenario.seeded(number)).ranks


def test_the_page_has_every_fault() -> None:
    assert page.injected() == [scenario.injected for scenario in SCENARIOS]


def test_row_counts_and_compares() -> None:
    scenario = Scenario("a | b", lambda *_: Result((1,)), range(3), (1,), "goes on")
    found = row(scenario, [Result((2, 1), 3, 0.0, 2), Result((4,), 0, 2e-7), Result((1,), apart=None)])
    assert scenario.chosen(full=False) == [(1, 1)]
    assert found == [
        "a | b",
        "4",
        "1, 2, 4",
        "goes on",
        "nothing; at most 3 steps trained again in a run; weights equal bit by bit in 1 of 2; "
        "to 2e-07 in 1 laid out anew",
    ]
