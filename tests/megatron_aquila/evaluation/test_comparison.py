"""Equal models are never told apart, real differences are, and what was not asked alike is refused."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from statsmodels.stats import multitest
from typer.testing import CliRunner

from megatron_aquila.evaluation import results, statistics
from megatron_aquila.evaluation.comparison import ComparisonError, Row, compare, probability, tables
from megatron_aquila.evaluation.results import Evaluation, Item, ModelFacts, TaskResult
from megatron_aquila.evaluation.summary import groups_of, task_result

SIZES = {"aqm_ceval_basic": 19, "aqm_ceval_physician": 49, "aqm_medqa": 400}


def _evaluation(
    directory: Path,
    right: dict[str, np.ndarray],
    *,
    name: str = "model",
    template: str | None = None,
    seed: int = 0,
    cluster_size: int = 1,
    change: Callable[[str, TaskResult], TaskResult] = lambda _, task: task,
    prefix: str = "",
) -> Path:
    """An evaluation in which items are right as given, and which tasks of C-Eval are averaged."""
    items = {
        task: [
            Item(id=f"{prefix}{k}", cluster=str(k // cluster_size), right=bool(r), answer=("A",), said=("A",))
            for k, r in enumerate(answers)
        ]
        for task, answers in right.items()
    }
    tasks = {
        task: change(
            task,
            task_result(
                rows,
                group="aqm_ceval" if "ceval" in task else None,
                shots=3,
                kind="log-likelihood",
                data=f"sha of {task}",
                prompt="sha of the prompt",
                metrics={},
            ),
        )
        for task, rows in items.items()
    }
    facts = {"path": "runs/a", "kind": "checkpoint", "digest": name, "step": 10, "backend": "aquila", "layout": "tp1"}
    model = ModelFacts(name=name, precision="fp32", chat_template=template, **facts)  # type: ignore[arg-type]
    made = Evaluation(
        model=model, suite=None, seed=seed, tasks=tasks, groups=groups_of(tasks), versions={}, began="", seconds=0
    )
    results.write(directory, made, items)
    return directory


def _right(seed: int, share: float = 0.6) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {task: generator.random(n) < share for task, n in SIZES.items()}


def _rows(first: Path, *others: Path) -> dict[str, Row]:
    return {f"{row.name} {row.kind}": row for against in compare(first, *others).others for row in against.rows}


def test_a_model_is_not_told_apart_from_itself(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", _right(0))
    b = _evaluation(tmp_path / "b", _right(0))
    rows = _rows(a, b)
    assert list(rows) == [
        "aqm_ceval macro",
        "aqm_ceval micro",
        "aqm_ceval_basic task",
        "aqm_ceval_physician task",
        "aqm_medqa task",
    ]
    for row in rows.values():
        assert (row.difference, row.p, row.adjusted, row.gained, row.lost) == (0, 1, 1, 0, 0)
        assert row.verdict == "not distinguishable"
        assert row.detectable > 0


def test_every_figure_of_a_row(tmp_path: Path) -> None:
    before, after = _right(1), _right(1)
    flip = np.random.default_rng(2).random(400)
    after["aqm_medqa"] = np.where(flip < 0.25, True, np.where(flip > 0.98, False, before["aqm_medqa"]))
    rows = _rows(_evaluation(tmp_path / "a", before), _evaluation(tmp_path / "b", after))
    row = rows["aqm_medqa task"]
    a, b = before["aqm_medqa"], after["aqm_medqa"]
    gained, lost = int((b & ~a).sum()), int((a & ~b).sum())
    assert (row.gained, row.lost, row.n, row.clusters) == (gained, lost, 400, 400)
    assert (row.first, row.other) == (a.mean(), b.mean())
    assert row.difference == pytest.approx(b.mean() - a.mean())
    assert row.p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert row.correlation == pytest.approx(stats.pearsonr(a, b).statistic)
    error = stats.sem(b.astype(int) - a)
    assert row.standard_error == pytest.approx(error)
    assert row.detectable == pytest.approx(2.8016 * error, rel=0.03)
    half = (row.interval.high - row.interval.low) / 2
    assert half == pytest.approx(1.96 * error, rel=0.08)
    adjusted = multitest.multipletests([row.p for row in rows.values()], method="holm")[1]
    assert [row.adjusted for row in rows.values()] == pytest.approx(list(adjusted))
    assert row.verdict == "better"
    assert _rows(tmp_path / "b", tmp_path / "a")["aqm_medqa task"].verdict == "worse"


def test_averages_over_tasks_and_over_items(tmp_path: Path) -> None:
    before, after = _right(3), _right(4)
    rows = _rows(_evaluation(tmp_path / "a", before), _evaluation(tmp_path / "b", after))
    parts = [rows[f"aqm_ceval_{part} task"] for part in ("basic", "physician")]
    macro, micro = rows["aqm_ceval macro"], rows["aqm_ceval micro"]
    assert macro.difference == pytest.approx((parts[0].difference + parts[1].difference) / 2)
    assert micro.difference == pytest.approx((19 * parts[0].difference + 49 * parts[1].difference) / 68)
    assert (macro.n, micro.n, macro.gained) == (68, 68, parts[0].gained + parts[1].gained)


def test_three_items_gained_prove_nothing(tmp_path: Path) -> None:
    tasks = {"aqm_ceval_basic": np.zeros(3, bool), "aqm_ceval_physician": np.zeros(3, bool)}
    a = _evaluation(tmp_path / "a", tasks)
    b = _evaluation(tmp_path / "b", {task: ~right for task, right in tasks.items()})
    rows = _rows(a, b)
    assert rows["aqm_ceval_basic task"].p == 0.25
    assert rows["aqm_ceval_basic task"].verdict == "not distinguishable"
    assert 0 < rows["aqm_ceval macro"].p < 1


def test_items_of_a_cluster_are_not_counted_as_evidence_each(tmp_path: Path) -> None:
    """Twenty texts with five questions each: a model that gains eight texts gains forty questions."""
    before, after = {"t": np.zeros(100, bool)}, {"t": np.repeat(np.arange(20) < 8, 5)}
    alone = _rows(_evaluation(tmp_path / "a", before), _evaluation(tmp_path / "b", after))["t task"]
    whole = _rows(
        _evaluation(tmp_path / "c", before, cluster_size=5), _evaluation(tmp_path / "d", after, cluster_size=5)
    )["t task"]
    assert (whole.clusters, whole.gained) == (20, 40)
    assert whole.p == pytest.approx(2 / 2**8)
    assert alone.p < 1e-11
    assert whole.detectable > 2 * alone.detectable


def test_holm_runs_over_all_models_compared(tmp_path: Path) -> None:
    a = _evaluation(tmp_path / "a", _right(0))
    others = [_evaluation(tmp_path / f"b{k}", _right(k, 0.68), name=f"b{k}") for k in (5, 6)]
    both = compare(a, *others)
    rows = [row for against in both.others for row in against.rows]
    expected = multitest.multipletests([row.p for row in rows], method="holm")[1]
    assert [row.adjusted for row in rows] == pytest.approx(list(expected))
    assert [against.model.name for against in both.others] == ["b5", "b6"]


def test_power_is_what_the_smallest_visible_difference_says(tmp_path: Path) -> None:
    """Models drawn that differ by just as much are told apart about four times in five, and equal ones hardly ever."""
    n, generator = 400, np.random.default_rng(9)
    ease = generator.random(n)
    effect = 0.08
    first = _evaluation(tmp_path / "a", {"t": ease < 0.5})
    found = {"better": 0, "worse": 0, "not distinguishable": 0}
    powers = []
    for k in range(25):
        other = np.where(generator.random(n) < 0.6, generator.random(n) < 0.5 + effect / 0.6, ease < 0.5)
        row = _rows(first, _evaluation(tmp_path / f"b{k}", {"t": other}))["t task"]
        found[row.verdict] += 1
        powers.append(stats.norm.cdf(effect * 2.8016 / row.detectable - 1.96))
    assert found["worse"] == 0
    assert found["better"] / 25 == pytest.approx(np.mean(powers), abs=0.17)
    assert 0.7 < np.mean(powers) < 0.9


def _changed(**update: Any) -> Callable[[str, TaskResult], TaskResult]:
    return lambda task, result: result.model_copy(update=update) if task == "aqm_medqa" else result


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"change": _changed(data="other")}, "aqm_medqa was scored with different questions: data is sha of aqm_m"),
        ({"change": _changed(prompt="x")}, "aqm_medqa was scored with different prompts"),
        ({"change": _changed(kind="generation")}, "different ways of asking: kind is log-likeliho"),
        ({"change": _changed(shots=0)}, "different numbers of examples: shots is 3 in"),
        ({"seed": 1}, "after different examples: the seed is 0 in"),
        ({"prefix": "x"}, r"different items in .*: 0, 1, 10 and 35 more in one only"),
    ],
)
def test_unequal_items_are_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    a, b = _evaluation(tmp_path / "a", _right(0)), _evaluation(tmp_path / "b", _right(0), **options)
    with pytest.raises(ComparisonError, match=sentence):
        compare(a, b)


def test_what_only_one_has_is_left_out_and_said(tmp_path: Path) -> None:
    right = _right(0)
    a = _evaluation(tmp_path / "a", right)
    b = _evaluation(tmp_path / "b", {"aqm_medqa": right["aqm_medqa"]}, template="{{ messages }}")
    against = compare(a, b).others[0]
    assert [row.name for row in against.rows] == ["aqm_medqa"]
    assert against.notes[0].endswith("alone has aqm_ceval_basic, aqm_ceval_physician")
    assert "chat templates" in against.notes[1]
    with pytest.raises(ComparisonError, match="no task in common"):
        compare(a, _evaluation(tmp_path / "c", {"other": right["aqm_medqa"]}))
    with pytest.raises(results.ResultsError, match="holds no results"):
        compare(a, tmp_path)


def test_the_command(tmp_path: Path) -> None:
    import typer

    from megatron_aquila import cli_compare

    app = typer.Typer()
    app.command()(cli_compare.compare)
    a = _evaluation(tmp_path / "a", _right(0), name="base")
    b = _evaluation(tmp_path / "b", {task: right | True for task, right in _right(0).items()}, name="tuned")
    found = CliRunner().invoke(app, [str(a), str(b), "--json", str(tmp_path / "c.json")])
    assert found.exit_code == 0, found.output
    assert "tuned beside base" in found.output and "better" in found.output
    written = json.loads((tmp_path / "c.json").read_bytes())
    assert written["others"][0]["rows"][0]["verdict"] == "better"
    assert written["alpha"] == statistics.ALPHA


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits(tmp_path: Path, width: int) -> None:
    before = _right(0)
    a = _evaluation(tmp_path / "a", before)
    b = _evaluation(tmp_path / "b", before | {"aqm_medqa": before["aqm_medqa"] | _right(9)["aqm_medqa"]})
    console = Console(width=width, record=True, file=StringIO())
    console.print(*tables(compare(a, b), width))
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert not any("…" in line for line in lines)
    row = next(line for line in lines if "aqm_medqa" in line)
    assert row.rstrip().endswith("better") and "+28.7" in row and "< 0.001" in row


@pytest.mark.parametrize("p, said", [(0.0001, "< 0.001"), (0.00269, "0.003"), (0.134, "0.13"), (1.0, "1.00")])
def test_p_values_have_two_digits(p: float, said: str) -> None:
    assert probability(p) == said
