"""Files of answers: what there is to judge, and what not and why; another judge over the same items."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from megatron_aquila.evaluation.judge.agreement import (
    Others,
    pair_agreement,
    read_others,
    rubric_agreement,
    weighted_kappa,
)
from megatron_aquila.evaluation.judge.canaries import KINDS, pair_canaries, rubric_canaries
from megatron_aquila.evaluation.judge.reading import pair_items, read_answers, rubric_items
from megatron_aquila.evaluation.judge.summary import JudgeError
from megatron_aquila.evaluation.judge.verdicts import OUTCOMES
from tests.megatron_aquila.evaluation.judge.judging import CRITERIA, row, write_rows


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"line 2: .*JSON"),
        ('{"id": "a", "round": 1}', r"line 2: messages: "),
        (json.dumps(row(1, round=0)), r"line 2: round: "),
        (json.dumps(row(1, answer=None)), r"line 2: answer: "),
        (json.dumps(row(1, messages=[{"role": "tool", "content": "x"}])), r"line 2: messages\.0\.role: "),
        (json.dumps(row(0)), r"line 2: round 1 of d0 was answered in line 1 already"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(row(0)) + "\n" + line + "\n")
    with pytest.raises(JudgeError, match=said):
        read_answers(path)


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"nothing\.jsonl cannot be read"):
        read_answers(tmp_path / "nothing.jsonl")
    with pytest.raises(JudgeError, match="holds no answers"):
        read_answers(write_rows(tmp_path / "empty.jsonl", []))


def test_the_table_calls_a_model_by_its_run(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "runs" / "dpo" / "evaluation" / "chat" / "answers" / "set.jsonl", [row(1)])
    assert read_answers(path).source.name == "dpo"
    assert read_answers(path, "ours").source.name == "ours"
    assert read_answers(write_rows(tmp_path / "mine.jsonl", [row(1)])).source.name == "mine"


def test_what_is_not_asked_about_is_counted(tmp_path: Path) -> None:
    doctor = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [
        row(1), row(2, reference=None), row(3, reference=" \n"), row(4, lang="de"), row(5, messages=doctor), row(6),
        row(7, lang=""), row(8, answer=""),
    ]  # fmt: skip
    answers = read_answers(write_rows(tmp_path / "x.jsonl", rows))
    drawn = pair_items(answers, None)
    assert drawn.skipped == {"no-reference": 2, "unsupported-language": 1, "no-question": 1}
    # An empty answer is an answer, a bad one; a language that is not said is told by the words.
    assert [item.id for item in drawn.items] == ["d1", "d6", "d7", "d8"]
    assert drawn.items[2].lang == "zh"
    ratings = rubric_items(answers)
    assert ratings.skipped == {"unsupported-language": 1, "no-question": 1}
    assert [item.reference for item in ratings.items[:3]] == [rows[0]["reference"], "", ""]
    for found in (drawn, ratings):
        assert found.rows == len(found.items) + found.skipped.total() == 8


def test_two_models_are_compared_where_they_saw_the_same(tmp_path: Path) -> None:
    other_history = [{"role": "user", "content": "x"}]
    ours = [row(1), row(1, 2), row(2), row(3)]
    theirs = [row(1, answer="theirs"), row(1, 2, messages=other_history), row(3, answer=""), row(9)]
    answers, against = (
        read_answers(write_rows(tmp_path / f"{n}.jsonl", rows)) for n, rows in enumerate((ours, theirs))
    )
    drawn = pair_items(answers, against)
    assert [(item.id, item.round, item.other) for item in drawn.items] == [("d1", 1, "theirs"), ("d3", 1, "")]
    assert drawn.skipped == {"different-messages": 1, "no-counterpart": 1}
    assert drawn.unmatched == 1


def test_a_draw_is_of_whole_dialogues_and_grows(tmp_path: Path) -> None:
    rows = [row(number, round) for number in range(30) for round in (1, 2, 3)]
    answers = read_answers(write_rows(tmp_path / "x.jsonl", rows))
    drawn = {limit: [item.name for item in rubric_items(answers, limit, 5).items] for limit in (4, 10, 30, None)}
    assert [len(found) for found in drawn.values()] == [12, 30, 90, 90]
    assert set(drawn[4]) < set(drawn[10])
    assert drawn[10] == [name for name in drawn[None] if name in set(drawn[10])], "in the order of the file"
    assert {name.split()[0] for name in drawn[4]} != {item.id for item in rubric_items(answers, 4, 6).items}


def test_canaries_are_references_against_rubbish(tmp_path: Path) -> None:
    answers = read_answers(write_rows(tmp_path / "x.jsonl", [row(number) for number in range(20)]))
    items = pair_items(answers, None).items
    known = pair_canaries(items, 9, 0)
    assert known == pair_canaries(items, 9, 0) != pair_canaries(items, 9, 1)
    references = {item.reference: item.lang for item in items}
    assert Counter(item.canary for item in known) == dict.fromkeys(KINDS, 3)
    for item in known:
        assert item.answer == item.reference
        if item.canary == "empty":
            assert item.other == ""
        elif item.canary == "scrambled":
            assert sorted(item.other) == sorted(item.reference)
            assert item.other != item.reference
        else:
            assert item.other != item.reference
            assert references[item.other] == item.lang
    twos = rubric_canaries(items, 9, 0)
    assert [item.answer for item in twos[::2]] == [item.answer for item in known]
    assert [item.answer for item in twos[1::2]] == [item.other for item in known]
    assert len(pair_canaries(items, 99, 0)) == 20


def test_a_known_pair_is_never_two_answers_of_one_worth(tmp_path: Path) -> None:
    short = [row(number, lang="en", reference="Yes, do so." if number % 2 else "Yes.") for number in range(0, 12)]
    same = [row(number, lang="en", reference="Drink much water.") for number in range(20, 24)]
    near, far = "Drink some water now.", "Leg splints help here."
    mixed = [row(30, lang="en", reference=near), row(31, lang="en", reference=far)]
    rows = [*short, *same, *mixed, row(40, lang="en", reference="啊啊啊啊啊啊啊啊啊")]
    known = pair_canaries(pair_items(read_answers(write_rows(tmp_path / "x.jsonl", rows)), None).items, 99, 0)
    assert len(known) == 6 + 4 + 2, "too short, or of one character"
    assert all(item.answer != item.other for item in known)
    for item in known:
        if item.canary == "unrelated" and item.answer in ("Drink much water.", near):
            assert item.other not in ("Drink much water.", near), "the least alike is the surest"
    assert any(item.canary == "unrelated" for item in known)


def test_the_order_of_the_other_file_says_nothing(tmp_path: Path) -> None:
    ours = [row(number, round) for number in range(6) for round in (1, 2)]
    theirs = [{**each, "answer": f"theirs {each['id']} {each['round']}"} for each in ours]
    answers = read_answers(write_rows(tmp_path / "a.jsonl", ours))
    one, other = (
        pair_items(answers, read_answers(write_rows(tmp_path / f"{n}.jsonl", rows)))
        for n, rows in enumerate((theirs, theirs[::-1]))
    )
    assert one == other
    assert all(item.other == f"theirs {item.id} {item.round}" for item in one.items)


def test_kappa_of_outcomes_and_of_scores() -> None:
    generator = np.random.default_rng(3)
    one = [str(each) for each in generator.choice(OUTCOMES, 80)]
    other = [mine if generator.random() < 0.6 else str(generator.choice(OUTCOMES)) for mine in one]
    ours = {(f"d{number}", 1): outcome for number, outcome in enumerate(one)}
    theirs = {(f"d{number}", 1): outcome for number, outcome in enumerate(other) if number < 70}
    found = pair_agreement(ours, Others("people.jsonl", theirs))
    counts = np.array([[found.matrix[a][b] for b in OUTCOMES] for a in OUTCOMES])
    assert counts.sum() == found.n == 70
    assert found.missing == 10
    assert found.kappa == pytest.approx(cohens_kappa(counts).kappa)
    assert found.same == pytest.approx(np.trace(counts) / 70)
    assert found.matrix["win"]["loss"] == sum((a, b) == ("win", "loss") for a, b in list(zip(one, other))[:70])
    scores = generator.integers(1, 6, (2, 60))
    a, b = scores[0].tolist(), np.clip(scores[0] + generator.integers(-1, 2, 60), 1, 5).tolist()
    table = np.zeros((5, 5))
    np.add.at(table, (np.array(a) - 1, np.array(b) - 1), 1)
    assert weighted_kappa(a, b) == pytest.approx(cohens_kappa(table, wt="quadratic").kappa)
    rated = [{(f"d{n}", 1): dict.fromkeys(CRITERIA, score) for n, score in enumerate(each)} for each in (a, b)]
    agreement = rubric_agreement(rated[0], Others("x", rated[1]))
    assert set(agreement.criteria.values()) == {weighted_kappa(a, b)}
    assert agreement.kappa == pytest.approx(cohens_kappa(table).kappa)
    assert weighted_kappa([4, 4], [4, 4]) is None
    assert pair_agreement({}, Others("x", {})).kappa is None


def test_verdicts_of_others_are_read_strictly(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "people.jsonl",
        [
            {"id": "a", "round": 1, "verdict": "win", "canary": None, "said": []},
            {"id": "a", "round": 1, "verdict": "loss", "canary": "empty"},
            {"id": "b", "round": 1, "verdict": None},
        ],
    )
    assert read_others(path, "pair").verdicts == {("a", 1): "win"}
    bad: list[tuple[Any, str]] = [
        ({"id": "a", "round": 1, "verdict": "answer"}, "line 1: the verdict must be win, tie or loss"),
        ({"id": "a", "verdict": "win"}, "line 1 is no verdict"),
        ({"id": "a", "round": True, "verdict": "win"}, "line 1 is no verdict"),
    ]
    for content, said in bad:
        with pytest.raises(JudgeError, match=said):
            read_others(write_rows(tmp_path / "bad.jsonl", [content]), "pair")
    with pytest.raises(JudgeError, match="line 2: round 1 of a has a verdict already"):
        read_others(write_rows(tmp_path / "bad.jsonl", [{"id": "a", "round": 1, "verdict": "win"}] * 2), "pair")
    with pytest.raises(JudgeError, match="fluency"):
        read_others(path, "rubric")
