"""Two answers before a judge: a judge whose bias is known makes the figures say so, an oracle gives the truth."""

import io
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from rich.console import Console

from data_tools.llm import LanguageModel
from data_tools.prompts import VerdictError
from data_tools.publish import exclusive
from megatron_aquila.evaluation.judge import pair_figures
from megatron_aquila.evaluation.judge.pair_figures import PairVerdict
from megatron_aquila.evaluation.judge.run import run
from megatron_aquila.evaluation.judge.summary import JudgeError, PairSummary, Summary, read
from megatron_aquila.evaluation.judge.table import table
from megatron_aquila.evaluation.judge.verdicts import lax, read_pair, strict
from tests.data_tools.llm_server import LanguageModelServer, asked_to_compare
from tests.megatron_aquila.evaluation.judge.judging import (
    always_first,
    better,
    longest,
    oracle,
    pair_config,
    quality,
    row,
    verdict_rows,
    write_rows,
)

CODE = "0123456789ab"
ROWS = [row(number) for number in range(30)]


def judged(tmp_path: Path, rule: Any, rows: list[dict[str, Any]] = ROWS, **changes: Any) -> PairSummary:
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    with LanguageModelServer(rule) as server:
        summary = run(pair_config(tmp_path, server, answers, **changes))
    assert isinstance(summary, PairSummary)
    return summary


def printed(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(summary))
    return console.file.getvalue()  # type: ignore[attr-defined]


def truth(rows: list[dict[str, Any]]) -> Counter[str]:
    signs = Counter((quality(each["answer"]) > 2) - (quality(each["answer"]) < 2) for each in rows)
    return Counter({"win": signs[1], "tie": signs[0], "loss": signs[-1]})


def test_an_oracle_gives_the_truth(tmp_path: Path) -> None:
    found = judged(tmp_path, oracle)
    expected = truth(ROWS)
    w, t, ell, n = expected["win"], expected["tie"], expected["loss"], len(ROWS)
    assert min(w, t, ell) > 5
    for outcomes in (found.strict, found.lax):
        assert (outcomes.win, outcomes.tie, outcomes.loss, outcomes.n) == (w, t, ell, n)
    assert found.strict.shares == {"win": w / n, "tie": t / n, "loss": ell / n}
    assert found.strict.net_win == pytest.approx((w - ell) / n)
    d = (w - ell) / n
    assert found.strict.net_win_error == pytest.approx(math.sqrt(((w + ell) / n - d * d) / n))
    assert found.strict.sign_test == pytest.approx(scipy.stats.binomtest(w, w + ell).pvalue)
    assert found.strict.half_ties == pytest.approx((w + t / 2) / n)
    assert (found.position.consistency, found.position.first_preference) == (1, 0.5)
    assert (found.position.flips_to_first, found.position.flips_to_second) == (0, 0)
    assert found.matrix["answer"] == {"answer": w, "tie": 0, "against": 0, "invalid": 0}
    assert (found.matrix["tie"]["tie"], found.matrix["against"]["against"]) == (t, ell)
    assert (found.counted.items, found.counted.judged, found.counted.coverage) == (n, n, 1)
    # By language, independently counted.
    for lang in ("zh", "en"):
        part = truth([each for each in ROWS if each["lang"] == lang])
        outcomes = found.languages[lang]
        assert (outcomes.win, outcomes.tie, outcomes.loss) == (part["win"], part["tie"], part["loss"])
    lengths = [len(each["answer"]) - len(each["reference"]) for each in ROWS]
    signs = [(quality(each["answer"]) > 2) - (quality(each["answer"]) < 2) for each in ROWS]
    assert found.length.correlation == pytest.approx(scipy.stats.spearmanr(lengths, signs).statistic)
    assert abs(found.length.correlation or 1) < 0.3  # this judge does not look at length
    assert found.length.difference == pytest.approx(sum(lengths) / n)
    assert sum(part.n for part in found.length.quarters) == n
    assert found.warnings == ()


def test_a_judge_that_always_takes_the_first_wins_nothing_and_is_seen(tmp_path: Path) -> None:
    found = judged(tmp_path, always_first)
    n = len(ROWS)
    assert (found.strict.win, found.strict.tie, found.strict.loss) == (0, n, 0)
    assert (found.lax.win, found.lax.tie, found.lax.loss) == (0, n, 0)
    assert (found.position.consistency, found.position.first_preference) == (0, 1)
    assert (found.position.flips_to_first, found.position.flips_to_second) == (n, 0)
    assert found.position.flips_sign_test == pytest.approx(2 * 0.5**n)
    interval = found.position.first_preference_interval
    expected = scipy.stats.binomtest(2 * n, 2 * n).proportion_ci(method="wilson")
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert found.matrix["answer"]["against"] == n
    assert found.strict.verdict == "not distinguishable"
    assert any("leans to the first answer" in warning for warning in found.warnings)


def test_a_judge_that_takes_the_longest_is_seen(tmp_path: Path) -> None:
    found = judged(tmp_path, longest)
    lengths = [len(each["answer"]) - len(each["reference"]) for each in ROWS]
    signs = [(length > 0) - (length < 0) for length in lengths]
    assert found.length.correlation == pytest.approx(scipy.stats.spearmanr(lengths, signs).statistic)
    assert (found.length.correlation or 0) > 0.85
    assert found.length.longer_wins == 1
    assert found.length.longer_wins_n == sum(map(abs, signs)) == found.strict.win + found.strict.loss
    assert found.position.consistency == 1
    quarters = found.length.quarters
    assert quarters[0].loss == quarters[0].n
    assert quarters[-1].win == quarters[-1].n
    assert [part.least for part in quarters] == sorted(part.least for part in quarters)


def test_a_recorded_cache_takes_no_call_and_gives_the_same_table(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", ROWS)

    def seldom(body: dict[str, Any], repetition: int) -> str:
        return "hm" if len(body["messages"][-1]["content"]) % 7 == 0 else oracle(body, repetition)

    with LanguageModelServer(seldom) as server:
        config = pair_config(tmp_path, server, answers, canaries=6)
        first = run(config)
        files = {name: (tmp_path / "judged" / name).read_bytes() for name in ("judge.json", "verdicts.jsonl")}
        calls = len(server.calls)
        assert calls > 2 * (30 + 6)
        for name in files:
            (tmp_path / "judged" / name).unlink()
        model = LanguageModel(config.model)
        second = run(config, model=model)
        assert len(server.calls) == calls
        assert model.account.calls == 0
    assert {name: (tmp_path / "judged" / name).read_bytes() for name in files} == files
    assert printed(first) == printed(second) == printed(read(tmp_path / "judged"))
    # Without the server, too.
    replay = pair_config(tmp_path, "http://127.0.0.1:9/v1", answers, canaries=6, model={"mode": "replay"})
    assert printed(run(replay)) == printed(first)


def test_what_a_stopped_run_has_asked_is_not_asked_again(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", ROWS)
    with LanguageModelServer(oracle) as server:
        with pytest.raises(JudgeError, match=r"30 items got no answer from the judge, the first .* budget .*recorded"):
            run(pair_config(tmp_path, server, answers, model={"limits": {"calls": 17}}))
        assert len(server.calls) == 17
        assert not (tmp_path / "judged" / "judge.json").exists()
        assert not (tmp_path / "judged" / "verdicts.jsonl").exists()
        run(pair_config(tmp_path, server, answers))
        assert len(server.calls) == 60
        assert set(server.seen.values()) == {1}


def test_an_answer_without_a_verdict_is_asked_for_again_then_counted_and_never_guessed(tmp_path: Path) -> None:
    """HuatuoGPT-II's evaluation ends in an IndexError after one such answer, FastChat's drops it without a word."""

    def lame(body: dict[str, Any], repetition: int) -> str:
        code, texts, _ = asked_to_compare(body)
        number = int("".join(filter(str.isdigit, texts["conversation"].split("\n")[1]))[:-1])
        if number % 10 == 3:
            return "Assistant 1 is better than Assistant 2"  # of no order
        if number % 10 == 4 and texts["first"].endswith("(q2)"):
            return better(code, "both")  # of one order: the reference first
        if number % 10 == 5 and body.get("seed") == 7:
            return ""  # mended by the first repetition
        return oracle(body, repetition)

    found = judged(tmp_path, lame, retries=1, model={"seed": 7})
    bad = {f"d{n}" for n in range(30) if n % 10 in (3, 4) and not (n % 10 == 4 and quality(ROWS[n]["answer"]) == 2)}
    # Item 4, 14, …: an answer of quality 2 ends in (q2) too, then both orders are invalid.
    bad |= {f"d{n}" for n in range(30) if n % 10 == 4}
    expected = truth([each for each in ROWS if each["id"] not in bad])
    assert found.counted.invalid == len(bad) == 6
    assert (found.strict.win, found.strict.tie, found.strict.loss) == tuple(expected[k] for k in ("win", "tie", "loss"))
    assert found.strict.n == found.counted.judged == 24
    assert found.counted.coverage == 0.8
    assert set(found.counted.invalid_answers) == {"no-verdict", "unknown-verdict", "empty"}
    assert found.counted.invalid_answers["no-verdict"] == 3 * 2 * 2
    assert found.counted.invalid_answers["empty"] == 3 * 2
    assert found.matrix["invalid"]["invalid"] >= 3
    assert sum(map(sum, (line.values() for line in found.matrix.values()))) == 30
    assert any("80.0%" in warning for warning in found.warnings)
    rows = {each["id"]: each for each in verdict_rows(tmp_path)}
    assert {name for name, each in rows.items() if each["verdict"] is None} == bad
    for order in rows["d3"]["orders"]:  # the words of both orders are kept
        assert [said["answer"] for said in order["said"]] == ["Assistant 1 is better than Assistant 2"] * 2
        assert (order["place"], order["said"][0]["invalid"]) == (None, "no-verdict")
    assert "6 invalid" in printed(found)


@pytest.mark.parametrize(
    ("places", "paper", "huatuo"),
    [
        ("first second", "win", "win"), ("second first", "loss", "loss"), ("tie tie", "tie", "tie"),
        ("first first", "tie", "tie"), ("second second", "tie", "tie"), ("first tie", "tie", "win"),
        ("tie second", "tie", "win"), ("second tie", "tie", "loss"), ("tie first", "tie", "loss"),
    ],
)  # fmt: skip
def test_the_papers_rule_and_the_lax_one(places: str, paper: str, huatuo: str) -> None:
    one, other = places.split()
    found = PairVerdict("d", "zh", (one, other), (1, 1))  # type: ignore[arg-type]
    assert (strict(found.sides), lax(found.sides)) == (paper, huatuo)  # type: ignore[arg-type]
    assert found.outcome == paper


def test_half_agreement_is_a_tie_here_and_a_win_there() -> None:
    cells = {
        ("answer", "answer"): 5, ("answer", "tie"): 3, ("tie", "answer"): 2, ("tie", "tie"): 4,
        ("against", "against"): 1, ("against", "tie"): 6, ("answer", "against"): 7, ("against", "answer"): 8,
    }  # fmt: skip
    place = {"answer": ("first", "second"), "against": ("second", "first"), "tie": ("tie", "tie")}
    verdicts: list[PairVerdict] = []
    for (one, other), count in cells.items():
        places: Any = (place[one][0], place[other][1])
        verdicts += [PairVerdict(f"d{len(verdicts) + k}", "en", places, (10, 10)) for k in range(count)]
    hard, soft = pair_figures.strict_outcomes(verdicts), pair_figures.lax_outcomes(verdicts)
    assert (hard.win, hard.tie, hard.loss) == (5, 30, 1)
    assert (soft.win, soft.tie, soft.loss) == (10, 19, 7)
    matrix = pair_figures.matrix(verdicts)
    assert {(one, other): matrix[one][other] for one, other in cells} == cells
    position = pair_figures.position(verdicts)
    assert position.consistency == 10 / 36
    # "answer, against" preferred whatever stood first; the other way round, what stood second.
    assert (position.flips_to_first, position.flips_to_second) == (7, 8)
    assert pair_figures.length(verdicts).correlation is None  # all lengths are equal


def test_rounds_of_a_dialogue_do_not_count_as_so_many_dialogues() -> None:
    def verdicts(rounds: int) -> list[PairVerdict]:
        places: list[Any] = [("first", "second")] * 15 + [("second", "first")] * 5
        return [PairVerdict(f"d{n}", "en", each, (1, 1)) for n, each in enumerate(places) for _ in range(rounds)]

    one, many = (pair_figures.strict_outcomes(verdicts(rounds)) for rounds in (1, 8))
    assert (many.win, many.loss) == (8 * one.win, 8 * one.loss)
    # Miller's equation 4, of 20 clusters: sd over n - 1.
    assert many.net_win_error == pytest.approx(scipy.stats.sem([1.0] * 15 + [-1.0] * 5))
    assert many.sign_test == pytest.approx(scipy.stats.binomtest(15, 20).pvalue, rel=1e-9)
    assert one.sign_test == pytest.approx(many.sign_test)


def test_nothing_judged_gives_no_figures_and_no_fault(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda body, repetition: "no", retries=0)
    assert (found.strict.n, found.strict.shares, found.counted.coverage) == (0, None, 0)
    assert found.position.consistency is None
    assert found.length.longer_wins is None
    assert "30 invalid" in printed(found)
    assert read(tmp_path / "judged") == found


def test_canaries_tell_a_judge_that_judges_from_one_that_does_not(tmp_path: Path) -> None:
    good = judged(tmp_path / "a", oracle, canaries=9)
    assert good.canaries is not None
    # An empty answer and a shuffled one have no mark; the oracle knows no difference between two references.
    assert good.canaries.kinds == {"empty": (3, 3), "scrambled": (3, 3), "unrelated": (0, 3)}
    assert any("only 6 of 9 known pairs" in warning for warning in good.warnings)
    assert (good.canaries.n, good.counted.items) == (9, 30)
    assert good.strict == judged(tmp_path / "b", oracle).strict, "known pairs count in nothing else"
    blind = judged(tmp_path / "c", always_first, canaries=9)
    assert blind.canaries is not None
    assert blind.canaries.passed == 0
    assert any("only 0 of 9 known pairs: do not trust it" in warning for warning in blind.warnings)
    assert sum(each["canary"] is not None for each in verdict_rows(tmp_path / "c")) == 9


def test_what_cannot_be_written_is_said_in_a_sentence_and_leaves_what_was_there(tmp_path: Path) -> None:
    answers = write_rows(tmp_path / "answers.jsonl", ROWS[:4])
    nowhere = "http://127.0.0.1:9/v1"
    with LanguageModelServer(oracle) as server:
        run(pair_config(tmp_path, server, answers))
    written = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    replay = {"mode": "replay"}
    with exclusive(tmp_path / "judged", tmp_path / "judged"), pytest.raises(JudgeError, match="another run is writing"):
        run(pair_config(tmp_path, nowhere, answers, model=replay))
    with pytest.raises(JudgeError, match=r"answers\.jsonl.*: output and model\.cache must be"):
        run(pair_config(tmp_path, nowhere, answers, output=answers / "judged", model=replay))
    with pytest.raises(JudgeError, match=r"answers\.jsonl.*: output and model\.cache must be"):
        run(pair_config(answers, nowhere, answers, output=tmp_path / "judged"))
    run(pair_config(tmp_path, nowhere, answers, model=replay))
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == written
    # Two files of the same answers: what the judge finds there is its own.
    copy = write_rows(tmp_path / "copy.jsonl", ROWS[:4])
    with LanguageModelServer(always_first) as server:
        found = run(pair_config(tmp_path, server, answers, against=copy, output=tmp_path / "both"))
    assert any("same bytes" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (better(CODE, "first"), "first"),
        (f"比较如下：第一个更好。\n```json\n{better(CODE, 'first')}\n```", "first"),
        (f"Сравнил.\n\n{better(CODE, 'tie')}\n", "tie"),
        (f"The second names no drug.\n{better(CODE, 'tie')}", "tie"),
        (f"```json\n{better(CODE, 'second')}\n```", "second"),
        (f"<think>{better(CODE, 'first')}</think>\n{better(CODE, 'second')}", "second"),
        (better(CODE, "second", reason="safer"), "second"),
        (f"{better(CODE, 'first')}\n{better(CODE, 'second')}", "contradictory"),
        (f"{better(CODE, 'first')}\nI hope this helps.", "no-verdict"),
        (better("f" * 12, "first"), "wrong-code"),
        (better(CODE, "First"), "unknown-verdict"),
        (better(CODE, "Assistant 1 is better than Assistant 2"), "unknown-verdict"),
        (json.dumps({"comparison": CODE, "better": True}), "unknown-verdict"),
        (json.dumps({"comparison": CODE, "better": ["first"]}), "unknown-verdict"),
        (better(CODE, "first", winner="first"), "no-verdict"),
        (better(CODE, "first").replace("}", ', "better": "second"}'), "no-verdict"),
        ("Assistant 1 is better than Assistant 2", "no-verdict"),
        ("first", "no-verdict"),
        ("", "empty"),
    ],
)
def test_a_verdict_is_read_strictly(answer: str, found: str) -> None:
    try:
        assert read_pair(answer, CODE) == found
    except VerdictError as error:
        assert error.reason == found


def test_all_nine_places_are_sides() -> None:
    for places in itertools.product(("first", "second", "tie"), repeat=2):
        one, other = PairVerdict("d", "zh", places, (1, 1)).sides  # type: ignore[arg-type]
        assert one == {"first": "answer", "second": "against", "tie": "tie"}[places[0]]
        assert other == {"first": "against", "second": "answer", "tie": "tie"}[places[1]]
