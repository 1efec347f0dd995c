"""Reading, splitting and balancing labelled seeds."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from data_tools.inputs import InputError
from data_tools.scorers.protocol import Task
from data_tools.scorers.seeds import balanced, guess_language, read_seeds, split, text_key
from tests.data_tools.scorers.seed_samples import write_seeds

LABELS, SCORES = Task("classification"), Task("regression")


def seeds_of(tmp_path: Path, records: list[dict[str, Any]], task: Task = LABELS, **options: Any) -> Any:
    path = write_seeds(tmp_path / "seeds.jsonl", records)
    return read_seeds([path], task, tmp_path / "quarantine.jsonl", **options)


def test_two_labels_of_a_text_that_differ_leave_it_out(tmp_path: Path) -> None:
    records = [
        {"text": "Fever and  cough", "label": "medical"},
        {"text": "ｆever and cough\n", "label": "medical"},  # width and white space alone
        {"text": "Rain", "label": "other"},
        {"text": "RAIN", "label": "medical"},
        {"text": "Sun", "label": "other"},
    ]
    seeds, counts = seeds_of(tmp_path, records)
    assert [(seed.text, seed.target) for seed in seeds] == [("Fever and  cough", "medical"), ("Sun", "other")]
    assert (counts.records, counts.duplicates, counts.conflicting, counts.kept) == (5, 1, 2, 2)


def test_two_scores_are_averaged_unless_they_are_far_apart(tmp_path: Path) -> None:
    near = [{"text": "one text", "score": 3}, {"text": "one text", "score": 4}]
    far = [{"text": "another", "score": 1}, {"text": "another", "score": 3}]
    seeds, counts = seeds_of(tmp_path, near + far, SCORES)
    assert [(seed.text, seed.target) for seed in seeds] == [("one text", 3.5)]
    assert counts.conflicting == 2


def test_bad_lines_are_counted_and_kept_with_their_reason(tmp_path: Path) -> None:
    good = [orjson.dumps({"text": f"text {number}", "label": "a"}) for number in range(20)]
    bad = [
        b'{"text": "x"}',
        b'{"text": "x", "label": 3}',
        b'{"label": "a"}',
        b"{broken",
        b'{"text": "\xff", "label": "a"}',
    ]
    path = tmp_path / "seeds.jsonl"
    path.write_bytes(b"\n".join([*good[:10], *bad, b"", *good[10:]]))
    with pytest.raises(InputError, match=r"5 of 25 seeds .* the first: .*seeds\.jsonl line 11: bad-label"):
        read_seeds([path], LABELS, tmp_path / "quarantine.jsonl")
    seeds, counts = read_seeds([path], LABELS, tmp_path / "quarantine.jsonl", max_bad_fraction=0.2)
    assert len(seeds) == 20 and counts.records == 25
    assert counts.refused == {"bad-label": 2, "no-text": 1, "not-json": 1, "bad-encoding": 1}
    lines = [orjson.loads(line) for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines()]
    assert [line["line"] for line in lines] == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("score", [7, -0.1, "high", None, True, [3]])
def test_a_score_that_is_none_is_refused(tmp_path: Path, score: object) -> None:
    with pytest.raises(InputError, match="bad-score"):
        seeds_of(tmp_path, [{"text": "a", "score": score}], SCORES)


def test_a_csv_serves_too(tmp_path: Path) -> None:
    path = tmp_path / "seeds.csv"
    path.write_text("text,score\nsome text,4.5\n", encoding="utf-8")
    seeds, _ = read_seeds([path], SCORES, tmp_path / "quarantine.jsonl")
    assert seeds[0].target == 4.5


def test_a_label_that_was_not_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'label' must be one of medical, other, it is 'medcial'"):
        seeds_of(tmp_path, [{"text": "a", "label": "medcial"}], Task("classification", ("medical", "other")))


def test_the_split_holds_texts_together_and_does_not_move(tmp_path: Path) -> None:
    records = [{"text": f"text number {number}", "label": "a"} for number in range(3000)]
    seeds, _ = seeds_of(tmp_path, records)
    parts = split(seeds, seed=1, validation=0.1, test=0.2)
    assert abs(len(parts["test"]) - 600) < 90 and abs(len(parts["validation"]) - 300) < 70
    where = {seed.key: name for name, part in parts.items() for seed in part}
    again = split(seeds[::-2], seed=1, validation=0.1, test=0.2)  # fewer, in another order
    assert all(where[seed.key] == name for name, part in again.items() for seed in part)
    assert where[text_key(" TEXT number１7")] == where[text_key("text number 17")]
    other = split(seeds, seed=2, validation=0.1, test=0.2)
    assert {seed.key for seed in other["test"]} != {seed.key for seed in parts["test"]}


@pytest.mark.parametrize(("by", "size"), [((), 10), (("language",), 7), (("language", "label"), 4)])
def test_balance_brings_groups_to_one_size(tmp_path: Path, by: tuple[str, ...], size: int) -> None:
    records = [{"text": f"zh {number}", "label": "a", "lang": "zh"} for number in range(3)]
    records += [{"text": f"en {number}", "label": "ab"[number % 2], "lang": "en"} for number in range(7)]
    seeds, _ = seeds_of(tmp_path, records)
    times = balanced(seeds, by)
    groups: Counter[tuple[Any, ...]] = Counter()
    for seed, number in zip(seeds, times.tolist()):
        groups[tuple(seed.lang if one == "language" else seed.target for one in by)] += number
    assert times.min() >= 1 and set(groups.values()) == {size}
    assert times[:3].max() - times[:3].min() <= 1  # shared out evenly within a group


def test_a_language_is_guessed() -> None:
    assert guess_language("患者三天来咳嗽。") == "zh"
    assert guess_language("The patient has 发热.") == "en"
    assert guess_language("123 456 …") == "other"
    assert guess_language("") == "other"
