"""The funnel: what every step took in, let pass and dropped, added up over the shards; the form of funnel.json."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_tools.corpus.batch import Scale
from data_tools.corpus.mix import PartPlan, Stage
from data_tools.corpus.tally import best_examples, edges

FORMAT, VERSION = "corpus-funnel", 1
_AMOUNT = ("documents", "characters", "tokens")
_READ = ("units", "documents", "blank", "characters", "tokens")

Amounts = dict[tuple[str, str], list[int]]  # by source and language


class Funnel:
    """Adds up the counts of shards."""

    def __init__(self) -> None:
        self._read: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._files: dict[int, dict[str, Any]] = {}
        self._steps: dict[str, _Step] = {}

    def add_read(self, file: int, read: Mapping[str, Any]) -> None:
        """What a shard of the input number `file` held."""
        for name in _READ:
            self._read[name] += read[name]
        self._quarantined.update(read["quarantined"])
        known = self._files.setdefault(file, {"documents": 0, "quarantined": 0, "damage": None})
        known["documents"] += read["documents"]
        known["quarantined"] += sum(read["quarantined"].values())
        known["damage"] = known["damage"] or read["damage"]

    def add_steps(self, source: str, steps: Mapping[str, Mapping[str, Any]]) -> None:
        """The tallies of a shard, in the order of the steps."""
        for name, tally in steps.items():
            self._steps.setdefault(name, _Step()).add(source, tally)

    def read(self, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The account of the input; `files` with path, source and bytes, in their order."""
        return {
            **{name: self._read[name] for name in _READ},
            "quarantined": dict(sorted(self._quarantined.items())),
            "files": [{**file, **self._files[number]} for number, file in enumerate(files)],
        }

    def steps(self) -> list[dict[str, Any]]:
        """The account of each step."""
        return [step.to_json(name) for name, step in self._steps.items()]

    def imbalance(self) -> str | None:
        """Where a record was lost or counted twice, or None."""
        entering, read = self._read["documents"], self._read
        if read["units"] != entering + read["blank"] + self._quarantined.total():
            return (
                f"of {read['units']:,} records {entering:,} are documents, {read['blank']:,} blank, "
                f"{self._quarantined.total():,} quarantined"
            )
        for name, step in self._steps.items():
            came, went = (sum(amount[0] for amount in amounts.values()) for amounts in (step.entered, step.left))
            dropped = sum(amount[0] for amounts in step.dropped.values() for amount in amounts.values())
            if came != entering or came != went + dropped:
                return f"{entering:,} documents come to step {name}, {came:,} enter, {went:,} leave, {dropped:,} drop"
            entering = went
        return None


class _Step:
    def __init__(self) -> None:
        self.entered: Amounts = {}
        self.left: Amounts = {}
        self.dropped: dict[str, Amounts] = {}
        self.counts: Counter[str] = Counter()
        self.facts: dict[str, int] = {}  # the same in every shard
        self.examples: dict[tuple[str, str], list[list[Any]]] = {}  # by reason and language
        self.histograms: dict[tuple[str, str], list[int]] = {}  # by measure and language
        self.scales: dict[str, Scale] = {}

    def add(self, source: str, tally: Mapping[str, Any]) -> None:
        _add(self.entered, source, tally["in"])
        _add(self.left, source, tally["out"])
        for reason, amounts in tally["dropped"].items():
            _add(self.dropped.setdefault(reason, {}), source, amounts)
        self.counts.update(tally["counts"])
        self.facts |= tally["facts"]
        for reason, by_language in tally["examples"].items():
            for language, examples in by_language.items():
                known_examples = self.examples.get((reason, language), [])
                self.examples[reason, language] = best_examples([*known_examples, *examples])
        self.scales |= {measure: Scale(**scale) for measure, scale in tally["scales"].items()}
        for measure, by_language in tally["histograms"].items():
            for language, counts in by_language.items():
                known = self.histograms.get((measure, language), [0] * len(counts))
                self.histograms[measure, language] = [a + b for a, b in zip(known, counts)]

    def to_json(self, name: str) -> dict[str, Any]:
        scales = self.scales
        groups = sorted({*self.entered, *self.left})
        nothing = [0, 0, 0]
        return {
            "name": name,
            "in": _amount(_sum(self.entered.values())),
            "out": _amount(_sum(self.left.values())),
            "groups": [
                {
                    "source": source,
                    "lang": language,
                    "in": _amount(self.entered.get((source, language), nothing)),
                    "out": _amount(self.left.get((source, language), nothing)),
                }
                for source, language in groups
            ],
            "dropped": [
                {"reason": reason, "source": source, "lang": language, **_amount(amount)}
                for reason, amounts in sorted(self.dropped.items())
                for (source, language), amount in sorted(amounts.items())
            ],
            "counts": dict(sorted({**self.counts, **self.facts}.items())),
            "examples": [
                {key: example[key] for key in ("id", "reason", "source", "lang", "detail", "excerpt")}
                for _, examples in sorted(self.examples.items())
                for _, example in examples
            ],
            "histograms": [
                {
                    "measure": measure,
                    "lang": language,
                    "edges": edges(scales[measure]),
                    "counts": counts,
                    "limits": list(scales[measure].limits.get(language, scales[measure].limits.get("", ()))),
                    "log": scales[measure].log,
                }
                for (measure, language), counts in sorted(self.histograms.items())
            ],
        }


def mixture(stage: Stage, plans: Sequence[PartPlan]) -> dict[str, Any]:
    """The account of a stage."""
    taken = _sum(plan.chosen for plan in plans)
    weights = sum(part.weight or 0 for part in stage.parts)
    return {
        "name": stage.name,
        **_amount(taken),
        "tokens_asked": stage.tokens,
        "parts": [
            {
                "name": part.name,
                "share_asked": part.weight / weights if part.weight else None,
                "share": plan.chosen[2] / taken[2] if taken[2] else 0.0,
                "available_tokens": plan.available[2],
                "tokens": plan.chosen[2],
                "documents": plan.chosen[0],
                "epochs": plan.epochs,
                "capped": plan.capped,
            }
            for part, plan in zip(stage.parts, plans)
        ],
    }


def _amount(values: Sequence[int]) -> dict[str, int]:
    return dict(zip(_AMOUNT, values))


def _sum(amounts: Iterable[Sequence[int]]) -> list[int]:
    total = [0, 0, 0]
    for amount in amounts:
        total = [a + b for a, b in zip(total, amount)]
    return total


def _add(into: Amounts, source: str, amounts: Mapping[str, Sequence[int]]) -> None:
    for language, amount in amounts.items():
        known = into.setdefault((source, language), [0, 0, 0])
        for part, value in enumerate(amount):
            known[part] += value
