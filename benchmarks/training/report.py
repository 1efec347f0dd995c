"""What was measured, beside what the project promises of it: tables and JSON."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.training.task import OURS, Result

SAMPLES = {"dpo": "pairs", "sft": "samples"}
_LARGE = 50_000  # ids; the goals are for the real vocabulary and for a small one
_RATE_GOALS = {("dpo", True): 5.0, ("sft", True): 4.0, ("dpo", False): 2.0, ("sft", False): 1.5}
_MEMORY_GOAL = 0.5
_TOLERANCE = 0.01  # of the loss: the sides make their steps of the same samples in another order
_MET = {True: "[green]met[/]", False: "[red]not met[/]"}


@dataclass
class Case:
    """The rounds of each side at one stage and vocabulary."""

    stage: str
    vocabulary: int
    rounds: dict[str, list[Result]] = field(default_factory=dict)

    def rate(self, side: str) -> float:
        """Samples a second, the median of the rounds."""
        return statistics.median(result.rate for result in self.rounds[side])

    def cpu_rate(self, side: str) -> float:
        """Samples a second of processor time: what is left of a difference when the machine is busy."""
        return statistics.median(result.samples / result.cpu_seconds for result in self.rounds[side])

    def peak(self, side: str) -> int:
        return max(result.peak for result in self.rounds[side])

    @property
    def rival(self) -> str:
        """TRL's fastest variant, which ours is held against."""
        return max((side for side in self.rounds if side != OURS), key=self.rate)

    @property
    def speed(self) -> float:
        return self.rate(OURS) / self.rate(self.rival)

    @property
    def memory(self) -> float:
        """Of the process that is the fastest of TRL's."""
        return self.peak(OURS) / self.peak(self.rival)

    def goals(self) -> list[Goal]:
        large = self.vocabulary >= _LARGE
        where = f"{self.stage}, vocabulary {self.vocabulary:,}"
        least = _RATE_GOALS[self.stage, large]
        goals = [
            Goal(
                f"{where}: at least {least:g} x {SAMPLES[self.stage]}/s of {self.rival}",
                f"{self.speed:.2f} x",
                self.speed >= least,
            )
        ]
        if large:
            what = f"{where}: at most {_MEMORY_GOAL:g} x peak memory of {self.rival}"
            goals.append(Goal(what, f"{self.memory:.2f} x", self.memory <= _MEMORY_GOAL))
        return goals

    def wrong(self) -> list[str]:
        """Sides whose mean loss is not ours: they did other work."""
        ours = statistics.median(result.loss for result in self.rounds[OURS])
        return [
            f"{self.stage}, vocabulary {self.vocabulary:,}: mean loss {result.loss:.5f} of {side}, {ours:.5f} of ours"
            for side, results in self.rounds.items()
            for result in results
            if not abs(result.loss - ours) <= _TOLERANCE * abs(ours)
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "vocabulary": self.vocabulary,
            "rival": self.rival,
            "speed": self.speed,
            "memory": self.memory,
            "rounds": {side: [asdict(result) for result in results] for side, results in self.rounds.items()},
        }


@dataclass(frozen=True)
class Goal:
    what: str
    measured: str
    met: bool


def show_case(console: Console, case: Case) -> None:
    samples = SAMPLES[case.stage]
    console.print(f"[bold]{case.stage}, vocabulary {case.vocabulary:,}[/]")
    table = Table()
    table.add_column("")
    for heading in (f"{samples}/s", "ours ÷", f"{samples}/CPU s", "ours ÷", "peak MiB", "ours ÷", "before s", "loss"):
        table.add_column(heading, justify="right")
    for side, results in case.rounds.items():
        table.add_row(
            side,
            f"{case.rate(side):.2f}",
            f"{case.rate(OURS) / case.rate(side):.2f}",
            f"{case.cpu_rate(side):.2f}",
            f"{case.cpu_rate(OURS) / case.cpu_rate(side):.2f}",
            f"{case.peak(side) / 2**20:,.0f}",
            f"{case.peak(OURS) / case.peak(side):.2f}",
            f"{statistics.median(result.before for result in results):.1f}",
            f"{statistics.median(result.loss for result in results):.4f}",
            style="bold" if side == OURS else None,
        )
    console.print(table)


def show_goals(console: Console, cases: list[Case]) -> None:
    table = Table(title="Goals")
    for heading in ("", "measured", ""):
        table.add_column(heading)
    for case in cases:
        for goal in case.goals():
            table.add_row(goal.what, goal.measured, _MET[goal.met])
    console.print(table)
