"""All that is made to happen, and the run through it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults import disks, hangs, nodes, numbers, preemption, saves, schedules, twins
from tests.faults.harness import Result, Scenario, row
from tests.faults.workplace import Workplace

SCENARIOS: list[Scenario] = [
    *schedules.SCENARIOS,
    *saves.SCENARIOS,
    *preemption.SCENARIOS,
    *hangs.SCENARIOS,
    *numbers.SCENARIOS,
    *disks.SCENARIOS,
    *nodes.SCENARIOS,
    *twins.SCENARIOS,
]


def run_all(directory: Path, *, jobs: int, only: str = "", full: bool = True) -> tuple[list[list[str]], int]:
    """The rows of the table, and how many cases failed; tells of each as it goes. `only`: what the scenarios to run
    have in their first column. `jobs`: cases at a time.
    """
    place, rows, failed = Workplace(directory), [], 0
    began = time.monotonic()
    for scenario in [scenario for scenario in SCENARIOS if only in scenario.injected]:
        print(f"\n{scenario.injected}", flush=True)
        results, wrong = _run(scenario, place, scenario.chosen(full), jobs)
        failed += wrong
        if results:
            rows.append(row(scenario, results))
        print(f"{len(results)} as it should be, {wrong} not; {time.monotonic() - began:.0f} s in all", flush=True)
    return rows, failed


def _run(
    scenario: Scenario, place: Workplace, cases: Sequence[tuple[int, object]], jobs: int
) -> tuple[list[Result], int]:
    def one(numbered: tuple[int, object]) -> Result | None:
        number, case = numbered
        try:
            result = scenario.run(place, case, scenario.seeded(number))
        except Exception:  # noqa: BLE001 - told of, counted, and the others go on
            print(f"\nFAILED: case {number} {case}\n{traceback.format_exc()}", flush=True)
            return None
        print(".", end="", flush=True)
        return result

    # together they would take the cores from each other's watchdogs
    with ThreadPoolExecutor(1 if scenario.alone else jobs) as pool:
        ended = list(pool.map(one, cases))
    print(flush=True)
    results = [result for result in ended if result is not None]
    return results, len(ended) - len(results)


def main(write: bool, jobs: int, only: str, full: bool, directory: Path) -> int:
    from tests.faults import page
    from tests.faults.harness import table

    rows, failed = run_all(directory, jobs=jobs, only=only, full=full)
    print(f"\n{table(rows)}")
    if failed:
        print(f"{failed} cases did not end as they should", file=sys.stderr)
        return 1
    if write and full and not only:
        page.write(rows)
    return 0
