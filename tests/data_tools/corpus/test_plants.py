"""Recall and precision against plants, on cases counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.plants import Fate, score_plants

Json = dict[str, Any]
STEPS = ("normalise", "language", "rules", "privacy", "domain", "deduplicate", "decontaminate")


def scored(
    tmp_path: Path, cases: list[tuple[Json, str | None, Json]], steps: tuple[str, ...] = STEPS
) -> dict[str, Json]:
    """Rows by "step kind" of cases (truth without id, step that dropped it, meta); ids are d0, d1, …"""
    truth = tmp_path / "plants.jsonl"
    records = [{"id": f"d{n}", "plants": [], "medical": False, "lang": "en"} | c[0] for n, c in enumerate(cases)]
    truth.write_text("".join(json.dumps(record) + "\n" for record in records))
    fates: list[Fate] = [(f"d{n}", step, step and "why", meta) for n, (_, step, meta) in enumerate(cases)]
    rows = score_plants(truth, reversed(fates), steps)
    assert [row["step"] for row in rows] == sorted((row["step"] for row in rows), key=steps.index)
    return {f"{row['step']} {row['kind']}": row for row in rows}


def plants(*kinds: str, **more: Any) -> Json:
    return {"plants": [{"kind": kind} | more for kind in kinds]}


def copy_of(original: str, kind: str = "duplicate", jaccard: float = 1.0) -> Json:
    return {"plants": [{"kind": kind, "of": original, "jaccard": jaccard}]}


def numbers(row: Json) -> tuple[Any, ...]:
    """(planted, earlier, caught, missed, recall, false alarms, precision)"""
    keys = ("planted", "earlier", "caught", "missed", "recall", "false_alarms", "precision")
    return tuple(row[key] for key in keys)


def test_a_step_that_drops(tmp_path: Path) -> None:
    ad, short = plants("advertisement"), plants("too-short")
    rows = scored(
        tmp_path,
        [
            (ad, "rules", {}),
            (ad, "rules", {}),
            (ad, "domain", {}),  # later: missed by the rules
            (ad, None, {}),
            (ad, "normalise", {}),  # gone before
            (short, "language", {}),  # right there too
            (short, "rules", {}),
            ({}, "rules", {}),  # false alarm
            (plants("mobile", values=1), "rules", {}),  # private data is no reason either
            (plants("wrong-language"), "rules", {}),  # spoilt otherwise: neither
            ({}, None, {}),
        ],
    )
    assert numbers(rows["rules advertisement"]) == (5, 1, 2, 2, 0.5, None, None)
    assert numbers(rows["rules too-short"]) == (2, 0, 2, 0, 1.0, None, None)
    # Right drops of the rules: two advertisements and a scrap.
    assert numbers(rows["rules all"]) == (7, 1, 4, 2, pytest.approx(4 / 6), 2, 3 / 5)
    # The scrap that language took is right, and there was nothing else that it should have let pass.
    assert numbers(rows["language wrong-language"]) == (1, 0, 0, 1, 0.0, 0, 1.0)
    assert not any(key.startswith("decontaminate") for key in rows), "nothing was planted for it, and it took nothing"


def test_duplicates_are_asked_for_one_drop_a_copy(tmp_path: Path) -> None:
    rows = scored(
        tmp_path,
        [
            ({}, None, {}),  # d0
            (copy_of("d0"), "deduplicate", {}),  # caught
            ({}, "deduplicate", {}),  # d2: dropped in place of its copy
            (copy_of("d2"), None, {}),  # caught
            ({}, "deduplicate", {}),  # d4: dropped, with one of two copies
            (copy_of("d4"), "deduplicate", {}),
            (copy_of("d4", "near-duplicate", 0.9), None, {}),
            ({}, "deduplicate", {}),  # d7: dropped with its only copy, so nothing is left: false alarm
            (copy_of("d7"), "deduplicate", {}),
            ({}, "rules", {}),  # d9: gone before
            (copy_of("d9"), None, {}),
            ({}, None, {}),  # d11
            (copy_of("d11", "near-duplicate", 0.85), None, {}),  # missed
            (copy_of("d11", "near-duplicate", 0.7), "deduplicate", {}),  # below: not asked for, and no false alarm
            (copy_of("d11", "look-alike", 0.4), "deduplicate", {}),  # false alarm
            ({}, "deduplicate", {}),  # false alarm
            (plants("advertisement"), "deduplicate", {}),  # neither
        ],
    )
    assert numbers(rows["deduplicate duplicate"]) == (5, 1, 4, 0, 1.0, None, None)
    assert numbers(rows["deduplicate near-duplicate"]) == (2, 0, 1, 1, 0.5, None, None)
    # Right drops: d1, d2, d4, d5, d8.
    assert numbers(rows["deduplicate all"]) == (7, 1, 5, 1, pytest.approx(5 / 6), 3, 5 / 8)


def test_questions_are_caught_by_a_drop_or_a_flag(tmp_path: Path) -> None:
    asked = plants("question", of="q1")
    flag = {"contamination": [{"item": "q1"}]}
    rows = scored(
        tmp_path,
        [(asked, "decontaminate", {}), (asked, None, flag), (asked, None, {}), ({}, None, flag), ({}, None, {})],
    )
    assert numbers(rows["decontaminate question"]) == (3, 0, 2, 1, pytest.approx(2 / 3), 1, pytest.approx(2 / 3))


def test_private_values_are_counted_by_kind_on_published_documents(tmp_path: Path) -> None:
    def private(**values: int) -> Json:
        return {"plants": [{"kind": kind.replace("_", "-"), "values": number} for kind, number in values.items()]}

    rows = scored(
        tmp_path,
        [
            (private(mobile=2, name=1), None, {"privacy": {"mobile": 2, "name": 1}}),
            (private(mobile=3), None, {"privacy": {"mobile": 1, "e-mail": 1}}),
            (private(mobile=4), "rules", {}),
            ({}, None, {"privacy": {"name": 5}}),
            (private(resident_id=1), None, {}),
        ],
    )
    assert numbers(rows["privacy mobile"]) == (9, 4, 3, 2, 0.6, 0, 1.0)
    assert numbers(rows["privacy name"]) == (1, 0, 1, 0, 1.0, 5, pytest.approx(1 / 6))
    assert numbers(rows["privacy resident-id"]) == (1, 0, 0, 1, 0.0, 0, None)
    assert numbers(rows["privacy all"]) == (11, 4, 4, 3, pytest.approx(4 / 7), 6, 0.4)


def test_the_domain_dropped_or_labelled(tmp_path: Path) -> None:
    medical: Json = {"medical": True}
    cases = [
        (medical, None, {"domain": "medical"}),
        (medical, None, {"domain": "other"}),
        (medical, "domain", {}),
        (medical, "rules", {}),
        (medical, "deduplicate", {}),
        ({}, None, {"domain": "medical"}),
        ({}, None, {"domain": "other"}),
        ({}, "domain", {}),
    ]
    assert numbers(scored(tmp_path, cases)["domain medical"]) == (5, 2, 1, 2, pytest.approx(1 / 3), 1, 0.5)


def test_a_chain_without_the_best_step_asks_the_next_one(tmp_path: Path) -> None:
    spoilt = plants("low-quality")
    cases: list[tuple[Json, str | None, Json]] = [(spoilt, "rules", {}), (spoilt, None, {})]
    assert numbers(scored(tmp_path, cases, ("rules",))["rules low-quality"])[:4] == (2, 0, 1, 1)
    rows = scored(tmp_path, cases, ("rules", "quality"))
    assert numbers(rows["quality low-quality"])[:5] == (2, 0, 1, 1, 0.5)
    assert numbers(rows["rules all"]) == (0, 0, 0, 0, None, 0, 1.0)


def test_truth_and_fates_have_to_fit(tmp_path: Path) -> None:
    truth = tmp_path / "plants.jsonl"
    truth.write_text('{"id": "a", "plants": [], "medical": false, "lang": "en"}\n')
    with pytest.raises(ValueError, match=r"does not know the document b: it belongs to another corpus"):
        score_plants(truth, [("b", None, None, {})], ["rules"])
    with pytest.raises(ValueError, match=r"1 documents of .* have no fate, a first"):
        score_plants(truth, [], ["rules"])
