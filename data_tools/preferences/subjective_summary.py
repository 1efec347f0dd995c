"""Counts over the outcomes of subjective candidates: what author and judge did, and how steady the judge is."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_tools.preferences.outcome import Made, Outcome
from data_tools.preferences.verdicts import ASPECTS, ORDERS, OVERALL


@dataclass
class SubjectiveSummary:
    """Out of the outcomes alone, so that a run that goes on counts as one that was never stopped.

    candidates = made + the sum of no_pair. failures: of `no-answer`, "author budget" and the like. invalid: verdicts
    that could not be used, by reason, those that a repetition mended included; mended: orders where one did.
    verdicts: valid overall ones by place (first, second, tie); orders: candidates with two valid verdicts, as
    agreed, both-tie, half-tie, both-first, both-second (the judge preferred the place, not the answer). winners and
    aspects count answers (original, new, tie). longer: pairs whose chosen answer is the longer, the shorter, or as
    long.
    """

    candidates: int = 0
    made: int = 0
    no_pair: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    invalid: Counter[str] = field(default_factory=Counter)
    mended: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)
    winners: Counter[str] = field(default_factory=Counter)
    aspects: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in ASPECTS})
    longer: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)  # of the pairs' answers, by whose they are
    models: dict[str, set[str]] = field(default_factory=lambda: {"author": set(), "judge": set()})

    def add(self, outcome: Outcome) -> None:
        """Take one outcome of `subjective_pairs`."""
        self.candidates += 1
        evidence = outcome.meta if isinstance(outcome, Made) else outcome.detail
        if isinstance(outcome, Made):
            self._add_pair(outcome)
        else:
            self.no_pair[outcome.reason] += 1
            if outcome.reason == "no-answer":
                self.failures[f"{evidence['of']} {evidence['failure']}"] += 1
        if "author" in evidence:
            self.models["author"].add(evidence["author"]["model"])
        judgements = evidence.get("judge", [])
        for judgement in judgements:
            self._add_judgement(judgement)
        places = [judgement["verdict"][OVERALL] for judgement in judgements if judgement["verdict"]]
        if len(places) == len(ORDERS):
            self.orders[_order(places)] += 1

    def _add_pair(self, outcome: Made) -> None:
        self.made += 1
        self.winners[outcome.meta["winner"]] += 1
        sizes = outcome.meta["characters"]
        self.characters.update(sizes)
        other = "new" if outcome.meta["winner"] == "original" else "original"
        difference = sizes[outcome.meta["winner"]] - sizes[other]
        self.longer["longer" if difference > 0 else "shorter" if difference < 0 else "as long"] += 1

    def _add_judgement(self, judgement: dict[str, Any]) -> None:
        for said in judgement["said"]:
            if "model" in said:
                self.models["judge"].add(said["model"])
            if said.get("invalid"):
                self.invalid[said["invalid"]] += 1
        if judgement["verdict"] is not None:
            self.mended += len(judgement["said"]) > 1
            self.verdicts[judgement["verdict"][OVERALL]] += 1
            for name, counts in self.aspects.items():
                counts[judgement["sides"][name]] += 1

    def first_share(self) -> float | None:
        """Of the valid verdicts that name a winner, the share for the answer that stood first: 0.5 where the judge does
        not care for the order.
        """
        return _share(self.verdicts["first"], self.verdicts["second"])

    def agreement(self) -> float | None:
        """Of the candidates with two valid verdicts, the share on which both orders say the same, ties included."""
        same = self.orders["agreed"] + self.orders["both-tie"]
        return _share(same, self.orders.total() - same)

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values; shares to six digits, null where there is nothing to divide by."""
        counts = ("no_pair", "failures", "invalid", "verdicts", "orders", "winners", "longer")
        return {
            "candidates": self.candidates,
            "made": self.made,
            **{name: dict(sorted(getattr(self, name).items())) for name in counts},
            "mended": self.mended,
            "aspects": {name: dict(sorted(found.items())) for name, found in self.aspects.items()},
            "first_share": self.first_share(),
            "agreement": self.agreement(),
            "mean_characters": {
                name: round(self.characters[name] / self.made, 3) if self.made else None for name in ("original", "new")
            },
            "models": {whose: sorted(names) for whose, names in self.models.items()},
        }


def _order(places: list[str]) -> str:
    """What two overall verdicts, one for each order, amount to."""
    one, other = places
    if one == other:
        return f"both-{one}"
    return "half-tie" if "tie" in places else "agreed"


def _share(part: int, rest: int) -> float | None:
    return round(part / (part + rest), 6) if part + rest else None
