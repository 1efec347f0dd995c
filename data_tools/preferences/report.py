"""The account of a run of pairs: what came, what became a pair, what did not and why; the form of funnel.json."""

from collections import Counter
from itertools import pairwise
from typing import Any

FORMAT, VERSION = "preferences-funnel", 1
STEPS = ("candidates", "draw", "pairs", "length balance")
KINDS = ("subjective", "objective")

Group = tuple[str, str]  # source and language


class Tally:
    """What came to each step of each kind, and what it dropped, by source and language.

    Candidates: all records that were read. Draw: those that can become a pair. Pairs: those that were drawn and used.
    Length balance: the pairs.
    """

    def __init__(self) -> None:
        self.entered: dict[tuple[str, str], Counter[Group]] = {}
        self.dropped: dict[tuple[str, str], dict[str, Counter[Group]]] = {}

    def enter(self, kind: str, step: str, source: str, lang: str) -> None:
        """One comes to a step."""
        self.entered.setdefault((kind, step), Counter())[source, lang] += 1

    def drop(self, kind: str, step: str, reason: str, source: str, lang: str) -> None:
        """One that came goes."""
        self.dropped.setdefault((kind, step), {}).setdefault(reason, Counter())[source, lang] += 1

    def left(self, kind: str, step: str) -> int:
        """How many a step let pass."""
        dropped = self.dropped.get((kind, step), {})
        return self.entered.get((kind, step), Counter()).total() - sum(found.total() for found in dropped.values())

    def imbalance(self) -> str | None:
        """Where one got lost or was counted twice, or None: what a step lets pass comes to the next."""
        for kind in KINDS:
            for step, following in pairwise(STEPS):
                left, came = self.left(kind, step), self.entered.get((kind, following), Counter()).total()
                if left != came:
                    return f"{left:,} {kind} leave {step}, {came:,} come to {following}"
        return None

    def to_json(self, kind: str) -> list[dict[str, Any]]:
        """The steps of a kind, in their order."""
        return [self._step(kind, step) for step in STEPS]

    def _step(self, kind: str, step: str) -> dict[str, Any]:
        entered, dropped = self.entered.get((kind, step), Counter()), self.dropped.get((kind, step), {})
        gone: Counter[Group] = Counter()
        for found in dropped.values():
            gone.update(found)
        return {
            "name": step,
            "in": entered.total(),
            "out": entered.total() - gone.total(),
            "dropped": [
                {"reason": reason, "source": source, "lang": lang, "count": number}
                for reason, found in sorted(dropped.items())
                for (source, lang), number in sorted(found.items())
            ],
            "groups": [
                {"source": source, "lang": lang, "in": number, "out": number - gone[source, lang]}
                for (source, lang), number in sorted(entered.items())
            ],
        }
