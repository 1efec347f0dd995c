"""docs/faults.md: the table of a whole run of the harness."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.faults.harness import HEAD, table

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"

_HEAD = """# What was broken, and what was lost

`make faults` makes each of these faults happen to runs of a tiny model on gloo ranks, compares what comes of them with
runs that nothing happened to, and writes this page when all is as it should be. `make test` makes each happen at least
once. The faults are put into the ranks from outside ([tests/faults](../tests/faults)): the product has no hooks for
them.

"Bit by bit" is said of weights and optimizer state, and of losses and gradient norms of every step. Which samples a run
was trained on is read from `ledger.jsonl`: of each of the runs below, every sample once, unless the table says
otherwise. What a run does when something goes wrong, and the keys that decide it: [training.md](training.md).

"""


def write(rows: Sequence[Sequence[str]]) -> None:
    PAGE.write_text(_HEAD + table(rows), encoding="utf-8")


def injected() -> list[str]:
    """The first column of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"| {HEAD[0]} ")))
    return [re.split(r"(?<!\\)\|", line)[1].strip() for line in lines[start + 2 :] if line.startswith("|")]
