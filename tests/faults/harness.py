"""A fault, made to happen so and so often, and the table of what came of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.workplace import Workplace


@dataclass(frozen=True)
class Result:
    """What one injection showed; a `Scenario.run` that saw anything it should not have seen has raised.

    repeated: steps trained again. apart: how far the last weights are from those of the run that nothing happened to,
    0.0 where every bit agrees; None where the run was not to reach its end. faults: injected by this one.
    """

    ranks: tuple[int, ...]
    repeated: int = 0
    apart: float | None = 0.0
    faults: int = 1


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    cases: what `run` is called with, each with a seed of its own. quick: the numbers of those that CI runs.
    reaction: what `run` asserts. lost: beside steps trained again. alone: no other case runs at the same time, as it is
    about time.
    """

    injected: str
    run: Callable[[Workplace, object, random.Random], Result]
    cases: Sequence[object]
    quick: Sequence[int]
    reaction: str
    lost: str = "nothing"
    alone: bool = False

    def chosen(self, full: bool) -> list[tuple[int, object]]:
        """The cases to run, with their numbers."""
        return [(number, case) for number, case in enumerate(self.cases) if full or number in self.quick]

    def seeded(self, number: int) -> random.Random:
        return random.Random(f"{self.injected} {number}")


def row(scenario: Scenario, results: Sequence[Result]) -> list[str]:
    """Its line: what, how often, on how many ranks, the reaction, what was lost."""
    ranks = sorted({size for result in results for size in result.ranks})
    compared = [result.apart for result in results if result.apart is not None]
    lost = [scenario.lost]
    most = max((result.repeated for result in results), default=0)
    if most:
        lost.append(f"at most {most} step{'s' if most > 1 else ''} trained again in a run")
    equal = sum(apart == 0.0 for apart in compared)
    if equal:
        lost.append(f"weights equal bit by bit in {equal} of {len(compared)}")
    if equal < len(compared):
        lost.append(f"to {max(compared):.0e} in {len(compared) - equal} laid out anew")
    return [
        scenario.injected,
        f"{sum(result.faults for result in results):,}",
        ", ".join(map(str, ranks)),
        scenario.reaction,
        "; ".join(lost),
    ]


HEAD = ["what was injected", "times", "ranks", "how the run reacted", "what was lost"]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [HEAD, ["---", "--:", "---", "---", "---"], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
