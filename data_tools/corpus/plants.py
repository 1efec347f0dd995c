"""What a chain did with what was planted in its input: recall and precision of each step.

The truth is a file of records {"id", "plants": [{"kind", "of"?, "jaccard"?, "values"?}], "medical", "lang"}, one for
each document or dialogue (`data_tools.clinic.raw` and `raw_dialogues` write one). A document's fate is (id, step,
reason, meta): the step that dropped it (or "mix", which no stage took it into) and why, or None twice where it was
published; `meta` is what steps noted on it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

Meta = Mapping[str, Any]
Fate = tuple[str, str | None, str | None, Meta]

# The steps whose drop of such a document is right; the first of them that a chain has is asked for it.
CAUGHT_BY: dict[str, tuple[str, ...]] = {
    "broken-text": ("normalise", "language", "rules", "quality"),
    "wrong-language": ("language", "shape"),
    "advertisement": ("rules", "quality"),
    "boilerplate": ("rules", "quality"),
    "symbols": ("rules", "normalise", "language", "quality"),
    "repetition": ("rules", "quality"),
    "too-short": ("rules", "language", "quality"),
    "low-quality": ("quality", "rules", "language", "normalise"),
    "duplicate": ("deduplicate",),
    "near-duplicate": ("deduplicate",),
    "question": ("decontaminate",),
    # of dialogues
    "bad-shape": ("shape",),
    "refusal": ("shape",),
    "unsafe": ("unsafe",),
    "repeats": ("select", "shape"),
    "unrelated": ("select",),
    "poor-answer": ("select",),
    "too-similar": ("select",),
}
# Copies that must stay: they are too far from their originals.
LOOK_ALIKE = "look-alike"
_COPIES = ("duplicate", "near-duplicate")
# What leaves a document undrawn when the stages are mixed; nothing is caught there.
_MIX = "mix"
# Kinds that say nothing against a document itself.
_HARMLESS = {*_COPIES, LOOK_ALIKE, "question"}


@dataclass
class _Row:
    """Counts of one kind at one step."""

    planted: int = 0
    earlier: int = 0
    caught: int = 0
    missed: int = 0

    def add(self, outcome: str, number: int = 1) -> None:
        self.planted += number
        setattr(self, outcome, getattr(self, outcome) + number)


def masked_values(meta: Meta) -> Mapping[str, int]:
    """How many private values of each kind were masked, by the kinds of the truth."""
    return meta.get("privacy", {})


def score_plants(
    truth: Path,
    fates: Iterable[Fate],
    steps: Sequence[str],
    *,
    similarity: float = 0.8,
    label: str = "medical",
    masked: Callable[[Meta], Mapping[str, int]] = masked_values,
) -> list[dict[str, Any]]:
    """Rows {"step", "kind", "planted", "earlier", "caught", "missed", "recall", "false_alarms", "precision"}.

    `steps` are the chain's, in its order. Each has a row "all", and one a kind where it has several; none where nothing
    was planted for it, and it took nothing. `earlier` are the
    plants that an earlier step had taken away, so that recall = caught / (caught + missed); for private data and the
    domain, whose marks only published documents show, they are all that were dropped. A false alarm is a document
    that the step dropped though nothing was planted in it that speaks against it there; precision = right drops /
    (right drops + false alarms). A step's false alarms cannot be told by kind, except for masks. Shares are None where
    there is nothing to divide by.

    A duplicate counts as caught when it or its original was dropped, one drop for each copy; near-duplicates below
    `similarity` are not asked for.

    Raises:
        ValueError: a document without a fate, or a fate of a document that the truth does not know.
    """
    known = _read(truth)
    found: dict[str, tuple[str | None, Meta]] = {}
    for name, step, _, meta in fates:
        if name not in known:
            raise ValueError(f"{truth} does not know the document {name}: it belongs to another corpus")
        found[name] = (step, meta)
    if len(found) < len(known):
        lacking = next(name for name in known if name not in found)
        raise ValueError(f"{len(known) - len(found):,} documents of {truth} have no fate, {lacking} first")
    case = _Case(known, found, [*steps, _MIX], similarity, label)
    rows: list[dict[str, Any]] = []
    for step in steps:
        if step == "privacy":
            rows += case.privacy(masked)
        elif step == "domain":
            rows += case.domain()
        else:
            rows += case.drops(step)
    return rows


def _read(truth: Path) -> dict[str, Mapping[str, Any]]:
    records = map(orjson.loads, truth.read_bytes().splitlines())
    return {record["id"]: record for record in records}


@dataclass
class _Case:
    known: Mapping[str, Mapping[str, Any]]
    found: Mapping[str, tuple[str | None, Meta]]
    steps: list[str]
    similarity: float
    label: str

    def drops(self, step: str) -> list[dict[str, Any]]:
        """The rows of a step that drops (or, decontaminate, flags) documents."""
        kinds: dict[str, _Row] = {}
        right = alarms = 0
        credited = self._credited_copies() if step == "deduplicate" else set()
        for name, record in self.known.items():
            for plant in record["plants"]:
                if self._asked_of(plant["kind"]) == step and self._counts(plant):
                    kinds.setdefault(plant["kind"], _Row()).add(self._outcome(name, plant, step, credited))
            if self._taken(name, step):
                kinds_here = {plant["kind"] for plant in record["plants"]} - set(_COPIES)
                is_right = name in credited or any(step in CAUGHT_BY.get(kind, ()) for kind in kinds_here)
                right += is_right
                alarms += not is_right and not self._is_spoilt(record, step)
        return _rows(step, kinds, right, alarms) if kinds or right or alarms else []

    def privacy(self, masked: Callable[[Meta], Mapping[str, int]]) -> list[dict[str, Any]]:
        """Values, not documents, by kind."""
        kinds: dict[str, _Row] = defaultdict(_Row)
        alarms: Counter[str] = Counter()
        for name, record in self.known.items():
            step, meta = self.found[name]
            planted = Counter[str]()
            for plant in record["plants"]:
                if "values" in plant:
                    planted[plant["kind"]] += plant["values"]
            if step is not None:
                for kind, number in planted.items():
                    kinds[kind].add("earlier", number)
                continue
            done = masked(meta)
            for kind in planted.keys() | done.keys():
                caught = min(planted[kind], done.get(kind, 0))
                kinds[kind].add("caught", caught)
                kinds[kind].add("missed", planted[kind] - caught)
                alarms[kind] += done.get(kind, 0) - caught
        total = sum(row.caught for row in kinds.values())
        rows = _rows("privacy", dict(kinds), total, alarms.total())
        for row in rows[1:]:
            row |= _precision(row["caught"], alarms[row["kind"]])
        return rows

    def domain(self) -> list[dict[str, Any]]:
        """Documents of the domain as what is planted; taking another one for it is a false alarm."""
        row, alarms = _Row(), 0
        for name, record in self.known.items():
            step, meta = self.found[name]
            if step not in (None, "domain"):
                outcome = "earlier"
            elif step is None and meta.get("domain", self.label) == self.label:
                outcome = "caught"
            else:
                outcome = "missed"
            if record["medical"]:
                row.add(outcome)
            else:
                alarms += outcome == "caught"
        return _rows("domain", {self.label: row}, row.caught, alarms)

    def _asked_of(self, kind: str) -> str | None:
        return next((step for step in CAUGHT_BY.get(kind, ()) if step in self.steps), None)

    def _counts(self, plant: Mapping[str, Any]) -> bool:
        return plant["kind"] != "near-duplicate" or plant["jaccard"] >= self.similarity

    def _taken(self, name: str, step: str) -> bool:
        dropped_by, meta = self.found[name]
        return dropped_by == step or (step == "decontaminate" and bool(meta.get("contamination")))

    def _is_before(self, name: str, step: str) -> bool:
        """Whether the document was gone when the step came."""
        dropped_by, _ = self.found[name]
        return dropped_by is not None and self.steps.index(dropped_by) < self.steps.index(step)

    def _outcome(self, name: str, plant: Mapping[str, Any], step: str, credited: set[str]) -> str:
        if plant["kind"] in _COPIES:
            if self._is_before(name, step) or self._is_before(plant["of"], step):
                return "earlier"
            return "caught" if name in credited else "missed"
        if any(self._taken(name, other) for other in CAUGHT_BY[plant["kind"]] if other in self.steps):
            return "caught"
        return "earlier" if self._is_before(name, step) else "missed"

    def _is_spoilt(self, record: Mapping[str, Any], step: str) -> bool:
        """Whether something else that was planted speaks against the document: its drop is nobody's false alarm."""
        kinds = {plant["kind"] for plant in record["plants"] if "values" not in plant}
        below = any(plant["kind"] == "near-duplicate" and not self._counts(plant) for plant in record["plants"])
        return bool(kinds - _HARMLESS) or (step == "deduplicate" and below)

    def _credited_copies(self) -> set[str]:
        """The documents whose drop by deduplicate accounts for a copy, and the copies that such drops account for."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name, record in self.known.items():
            for plant in record["plants"]:
                if plant["kind"] in _COPIES and self._counts(plant):
                    groups[plant["of"]].append(name)
        credited: set[str] = set()
        for original, names in groups.items():
            credited |= {name for name in names if self._taken(name, "deduplicate")}
            left = [name for name in names if name not in credited and not self._is_before(name, "deduplicate")]
            if left and self._taken(original, "deduplicate"):
                credited |= {original, left[0]}
        return credited


def _rows(step: str, kinds: Mapping[str, _Row], right: int, alarms: int) -> list[dict[str, Any]]:
    total = _Row()
    for row in kinds.values():
        for outcome in ("earlier", "caught", "missed"):
            total.add(outcome, getattr(row, outcome))
    named = [("all", total), *sorted(kinds.items())] if len(kinds) != 1 else list(kinds.items())
    rows = []
    for number, (kind, row) in enumerate(named):
        asked = row.caught + row.missed
        rows.append(
            {"step": step, "kind": kind, **vars(row), "recall": row.caught / asked if asked else None}
            | (_precision(right, alarms) if number == 0 else {"false_alarms": None, "precision": None})
        )
    return rows


def _precision(right: int, alarms: int) -> dict[str, Any]:
    return {"false_alarms": alarms, "precision": right / (right + alarms) if right + alarms else None}
