"""The page: what it says, what hostile text does on it, and how it behaves in a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from megatron_aquila.cli_report import report
from megatron_aquila.evaluation import results
from megatron_aquila.evaluation.results import ResultsError
from megatron_aquila.evaluation.statistics import wilson
from megatron_aquila.evaluation.summary import task_result
from megatron_aquila.report.curves import ReportError
from megatron_aquila.report.page import Report, make_report
from megatron_aquila.report.runs import Run, read_roads, read_run, slots
from tests.html_page import Page
from tests.megatron_aquila.report import sample
from tests.megatron_aquila.report.browser import CHROMIUM, Browser

SECTIONS = [
    "The road",
    "Continued pre-training, stage 1",
    "Continued pre-training, stage 2",
    "Supervised fine-tuning",
    "Preference training",
    "Evaluation",
    "What changed",
    "Judge",
    "Contamination",
    "Data",
    "Time",
    "Configuration",
    "Versions",
]


class World:
    """The made-up road, and one with hostile text in every field, each with its page."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = sample.write_world(root / "plain")
        self.hostile_runs = sample.write_world(root / "hostile", sample.HOSTILE)
        self.made: Report = make_report([self.runs[-1]])
        self.hostile: Report = make_report([self.hostile_runs[-1]])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("report"))


def test_the_page_has_every_section_and_its_figures(world: World) -> None:
    page = world.made.html
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    said = Page(page).said
    # 1,200 steps in four runs; 16 samples of 20 a second for 300 steps are 240 s a run.
    assert "steps 1,200 in 4 runs" in said
    assert "stage1 continued pre-training, stage 1 · 300 steps · 4 min" in said
    # Goodput of the run that was killed, by hand: 300 s of 325 + 300 s, see sample.write_events.
    assert "48.0 % of 10 min 25 s" in said
    assert "stage1 5 min 0 s 10 s 10 s 5.0 s 0 s 0 0" in said
    assert "stage2 5 min 1 min 40 s 30 s 10 s 5.0 s 3 min 1 100" in said
    # An average over both tasks' items, its interval by Wilson.
    found = json.loads((world.runs[0] / "evaluation/paper-cpt/results.json").read_text())
    right = sum(found["tasks"][task]["right"] for task in ("aqm_mmlu_anatomy", "aqm_mmlu_virology"))
    low, high = (100 * end for end in (wilson(right, 301).low, wilson(right, 301).high))
    assert f"{100 * right / 301:.1f} % {low:.1f}–{high:.1f}" in said
    assert "3 invalid" in said and "aqm_pubmedqa, macro f1 500 50.0 %" in said
    assert "dpo, judge-pair, strict 97 53.6 % 43.6–63.6 30.9 % 20.9–40.9 15.5 % 5.5–25.5" in said
    assert "win 53.6 % tie 30.9 % loss 15.5 % of 97" in said
    assert "66.0 % 55.0–75.0 9 of 10" in said  # known pairs
    assert "pubmedqa 500 4 12 2.4 %" in said
    assert "7,400 1.33 M tokens" in said and "plain/corpus/funnel.html" in said
    assert "megatron-aquila 0.1.0, torch 2.13.0, processes 2" in said
    assert "1 not finite" in said


def test_the_comparison_is_that_of_the_command(world: World) -> None:
    from megatron_aquila.evaluation.comparison import compare

    said = Page(world.made.html).said
    first, last = (world.runs[i] / "evaluation/paper-cpt" for i in (0, -1))
    for row in compare(first, last).others[0].rows:
        interval = f"{100 * row.interval.low:+.1f} to {100 * row.interval.high:+.1f}"
        assert f"{100 * row.difference:+.1f} {interval} {row.gained}, {row.lost}" in said
    assert "dpo beside stage1 4 better, 1 not distinguishable" in said


def test_questions_are_compared_with_the_start(world: World) -> None:
    files = (world.runs[0] / f"questions/general-step-{step}.jsonl" for step in (0, 300))
    start, end = ([json.loads(line)["right"] for line in file.read_text().splitlines()] for file in files)
    gained, lost = (sum(b and not a for a, b in zip(start, end)), sum(a and not b for a, b in zip(start, end)))
    # McNemar's exact p by hand: twice the binomial tail of the rarer of the two.
    p = 2 * sum(math.comb(gained + lost, k) for k in range(gained + 1)) / 2 ** (gained + lost)
    assert gained < lost and p < 0.001
    expected = f"general general 96 {100 * sum(start) / 96:.1f} % {100 * sum(end) / 96:.1f} % < 0.001 worse"
    said = Page(world.made.html).said
    assert expected in said
    assert f"general {100 * sum(start) / 96:.1f} % → {100 * sum(end) / 96:.1f} %, worse" in said


def test_hostile_text_is_shown_and_does_nothing(world: World) -> None:
    page, plain, hostile = world.hostile.html, Page(world.made.html), Page(world.hostile.html)
    assert {name for name, _ in hostile.tags} == {name for name, _ in plain.tags}
    # Every attribute is one that our own page has, too.
    assert {key for _, attributes in hostile.tags for key in attributes} == {
        key for _, attributes in plain.tags for key in attributes
    }
    assert sum(name == "style" for name, _ in hostile.tags) == 1
    assert hostile.said.count("alert('x')") > 40  # shown, in every section
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b]", page)
    assert "[U+202E]txet desrever" in hostile.said
    page.encode("utf-8")


@pytest.mark.parametrize("kind", ["made", "hostile"])
def test_the_page_stands_alone(world: World, kind: str) -> None:
    page: str = getattr(world, kind).html
    read = Page(page)
    for name, attributes in read.tags:
        assert name not in {"link", "img", "iframe", "object", "script", "base", "form", "image", "use"}
        assert not {"src", "srcset", "xlink:href", "action", "data"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not [key for key in attributes if key.startswith("on")]
        assert not re.search(r"url\(|@import|expression", attributes.get("style") or "")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    # No path of the machine either, but in the configuration.
    assert str(world.root) not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    policy = next(a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy and "script" not in policy
    anchors = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    assert {(a["href"] or "")[1:] for _, a in read.tags if a.get("href")} <= anchors


def test_the_same_files_give_the_same_bytes(world: World) -> None:
    # Runs on the road to another run are on it already.
    assert make_report(world.runs) == world.made


def test_a_run_with_nothing_is_a_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: fresh\nstage: sft\n")
    made = make_report([run])
    assert re.findall(r"<h2>(.*?)</h2>", made.html) == ["The road", "Supervised fine-tuning", "Configuration"]
    assert "fresh: nothing has been logged yet." in Page(made.html).said
    assert "<svg" not in made.html


def test_a_road_is_followed_where_it_was_moved(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where `plain/runs/sft` means nothing
    (road,) = read_roads([world.runs[-1]])
    assert [run.name for run in road] == ["stage1", "stage2", "sft", "dpo"]
    assert [slot.title for slot in slots([road])] == SECTIONS[1:5]
    shutil.copytree(world.runs[1], tmp_path / "loop")
    config = (tmp_path / "loop/config.yaml").read_text().replace("plain/runs/stage1", str(tmp_path / "loop"))
    (tmp_path / "loop/config.yaml").write_text(config)
    (looped,) = read_roads([tmp_path / "loop"])
    assert [run.path.name for run in looped] == ["loop"]


def test_places_of_roads_of_different_length() -> None:
    def run(name: str, stage: str) -> Run:
        return Run(Path(name), {"name": name, "stage": stage}, "", {})

    base, first, second = run("base", "cpt"), run("first", "cpt"), run("second", "cpt")
    long = [base, first, run("long", "sft"), run("dpo", "dpo")]
    short = [second, run("short", "sft"), run("other", "dpo")]
    found = slots([short, long])
    assert [(slot.title, [one.name for one in slot.runs]) for slot in found] == [
        ("Continued pre-training, stage 1", ["base"]),
        ("Continued pre-training, stage 2", ["second", "first"]),
        ("Supervised fine-tuning", ["short", "long"]),
        ("Preference training", ["other", "dpo"]),
    ]
    # A place that the longer road lacks stands behind the one before it.
    added = slots([[base, run("reward", "reward"), run("d", "dpo")], [base, first, run("s", "sft"), run("e", "dpo")]])
    assert [slot.title for slot in added].index("Reward") < [slot.title for slot in added].index("Preference training")


def test_two_runs_lie_over_each_other(tmp_path: Path) -> None:
    import random

    runs = sample.write_world(tmp_path)
    for run in runs:
        shutil.rmtree(run / "evaluation")
    other = tmp_path / "runs/other"
    sample.write_run(other, "other", "dpo", "work/runs/sft", random.Random(3), lr=5e-5, steps=200)
    made = make_report([runs[-1], other])
    assert made.summary[:2] == ("dpo against other", "5 runs on 2 roads.")
    section = made.html[made.html.index('<section id="stage-4">') : made.html.index('<section id="data">')]
    loss = section[section.index("<b>loss</b>") : section.index("</figure>")]
    # A raw curve and a trend of each run, and the dots' threads.
    assert len(re.findall(r'class="curve faint s[01]"', loss)) == 2
    assert {*re.findall(r'class="curve (?:thread )?(s\d)"', loss)} == {"s0", "s1"}
    said = Page(made.html).said
    assert "Preference training what differs" in said
    # What differs, and nothing that does not.
    table = re.search(r"what differs.*?</table>", made.html)
    assert table is not None
    assert re.findall(r'<th scope="row"><code>(.*?)</code>', table[0]) == ["name", "output", "optimizer.lr"]
    assert "optimizer.lr 0.0002 5e-05" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: shutil.rmtree(run), "is not a directory: give a run"),
        (lambda run: [(run / name).unlink() for name in ("config.yaml", "metrics.jsonl")], "holds neither config.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: [1"), "config.yaml is not YAML"),
        (lambda run: (run / "config.yaml").write_text("just text"), "it holds no keys"),
        (lambda run: (run / "events.jsonl").write_text("{]\n"), "events.jsonl"),
        (lambda run: (run / "events.jsonl").write_text('{"event": "start"}\n'), "events.jsonl"),
        (lambda run: (run / "evaluation/paper-cpt/results.json").write_text("{}"), "not an evaluation of format"),
        (lambda run: (run / "questions/clinic-step-300.jsonl").write_text("{}\n"), "items of clinic cannot be read"),
        (lambda run: (run.parents[1] / "corpus/funnel.json").write_text("[]"), "funnel.json holds no JSON object"),
        (
            lambda run: (run.parents[1] / "corpus/funnel.json").write_text('{"format": "corpus-funnel", "version": 1}'),
            "funnel.json is not a funnel that this version reads",
        ),
    ],
)
def test_what_cannot_be_read_is_named(world: World, tmp_path: Path, change: Any, said: str) -> None:
    root = tmp_path / "plain"
    shutil.copytree(world.runs[0].parents[1], root)
    change(root / "runs/stage1")
    with pytest.raises((ReportError, ResultsError), match=re.escape(said)):
        make_report([root / "runs/stage1"])


def test_evaluations_from_elsewhere(world: World, tmp_path: Path) -> None:
    sample.write_evaluation(tmp_path / "base", "base model", [0.2, 0.3, 0.4], 9)
    sample.write_evaluation(tmp_path / "other-data", "of other data", [0.2, 0.3, 0.4], 9, data="x")
    said = Page(make_report([world.runs[-1]], [tmp_path / "base", tmp_path / "other-data"]).html).said
    assert "base model beside dpo" in said
    # What cannot be compared is said, and the rest of the page is there.
    assert "Not compared: aqm_mmlu_anatomy was scored with different questions" in said
    with pytest.raises(ReportError, match="holds none of results"):
        make_report([world.runs[-1]], [tmp_path])


def _evaluated(run: Path, label: str, tasks: dict[str, float], *, step: int = 300, **asked: Any) -> None:
    """An evaluation of a run with tasks of 40 items, those shares of them right."""
    name = run.name
    template = asked.pop("chat_template", None)
    how = {"group": None, "shots": 0, "kind": "generation", "data": "d" * 64, "prompt": "p" * 64} | asked
    rows = {task: sample.items(share, 40, 1, task) for task, share in tasks.items()}
    facts = results.ModelFacts(
        name=name,
        path=str(run),
        kind="checkpoint",
        digest=f"{name}-{step}" + "0" * 50,
        step=step,
        backend="aquila",
        layout="one",
        precision="fp32",
        chat_template=template,
    )
    found = results.Evaluation(
        model=facts,
        suite=None,
        seed=0,
        tasks={task: task_result(items, metrics={}, warnings=["made up"], **how) for task, items in rows.items()},
        groups={},
        dialogues={} if tasks else {"clinic": 3},
        versions={},
        began="2026-11-21T00:00:00Z",
        seconds=1.0,
    )
    results.write(run / "evaluation" / label, found, rows)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs, the second trained from the first, at absolute paths and of one name."""
    runs = [tmp_path / "a/run", tmp_path / "b/run"]
    for run, before in zip(runs, (tmp_path / "base", runs[0])):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"name: tiny\nstage: sft\nmodel: {{weights: {before}}}\noutput: {run}\n")
        (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
    runs[0].parent.rename(tmp_path / "first")
    runs[0] = tmp_path / "first/run"
    config = runs[1] / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "a/run"), str(runs[0])))
    return runs


def _section(page: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}">(.*?)</section>', page)
    return Page(found[1]).said if found else ""


def _columns(page: str) -> list[str]:
    table = page[page.index('<section id="scores">') :]
    heads = re.findall(r"<thead><tr>(.*?)</tr></thead>", table)[1]  # behind how the models were asked
    return re.findall(r"<th[^>]*>(.*?)</th>", heads)


def test_a_model_has_one_column_for_all_its_evaluations(pair: list[Path]) -> None:
    first, second = pair
    for run in pair:
        _evaluated(run, "dialogues", {})
        _evaluated(run, "questions", {"cloze": 0.5, "general": 0.25})
        _evaluated(run, "words", {"words": 0.75})
    page = make_report([second]).html
    assert _columns(page) == ["", "n", "tiny (first/run)", "tiny (b/run)"]
    scores, changed = _section(page, "scores"), _section(page, "comparison")
    # 20 ± 3 of 40 and so on: each task's row has both models' shares.
    share = {t: f"{100 * sum(i.right for i in results.read_items(first / f'evaluation/{e}', t)) / 40:.1f}" for t, e in
             (("cloze", "questions"), ("general", "questions"), ("words", "words"))}  # fmt: skip
    for task, said in share.items():
        assert re.search(rf"{task} 40 {said} % \S+ {said} % \S+", scores), task
    assert "–" not in re.sub(r"\d–\d", "", scores.partition("words 40")[0].rpartition("cloze 40")[2])
    assert scores.count("made up") == 1
    assert "made up (tiny (first/run), tiny (b/run): cloze, general, words)" in scores
    # Only what holds the same tasks is compared, once, and nothing is said of the rest.
    assert re.findall(r"tiny \(b/run\) beside tiny \(first/run\), (\w+)", changed) == ["questions", "words"]
    assert changed.count("beside") == 2 and "Not compared" not in changed


def test_a_task_that_a_model_was_asked_twice_has_rows_of_its_own(pair: list[Path]) -> None:
    first, second = pair
    _evaluated(first, "plain", {"cloze": 0.5})
    _evaluated(second, "plain", {"cloze": 0.5, "other": 0.5})
    _evaluated(second, "talk", {"cloze": 0.9}, chat_template="chatml")
    page = make_report([second]).html
    scores, changed = _section(page, "scores"), _section(page, "comparison")
    cloze = [results.read_items(second / f"evaluation/{name}", "cloze") for name in ("plain", "talk")]
    plain, talk = (f"{100 * sum(item.right for item in items) / 40:.1f} %" for items in cloze)
    assert plain != talk
    assert re.search(rf"cloze \(plain text\) 40 {plain} \S+ {plain} \S+ ", scores)
    assert re.search(rf"cloze \(template chatml\) 40 – {talk} ", scores)
    assert re.search(r"other 40 – ", scores)
    assert "different chat templates" in changed
    # Two checkpoints of a run are two models, in the order of their steps.
    _evaluated(second, "early", {"other": 0.1}, step=9)
    page = make_report([second]).html
    assert _columns(page)[2:] == ["tiny (first/run)", "tiny (b/run), step 9", "tiny (b/run), step 300"]
    assert "tiny (b/run), step 300, plain beside tiny (b/run), step 9" in _section(page, "comparison")


def test_no_path_of_the_machine_is_on_the_page(pair: list[Path], tmp_path: Path) -> None:
    first, second = pair
    _evaluated(first, "asked", {"cloze": 0.5, "alone": 0.5})
    _evaluated(second, "asked", {"cloze": 0.5}, prompt="q" * 64)
    event = {"time": 1.0, "event": "warning", "step": 3, "seconds": 0.0, "training_seconds": 0.0}
    event["message"] = f"could not write {tmp_path}/b/run/x.json: the disk is full; either/or 1/2 https://a.example/b/c"
    events = [{"time": 0.0, "event": "start", "step": 0, "seconds": 0.5, "training_seconds": 0.0}, event]
    (second / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    page = make_report([second]).html
    said = _section(page, "comparison")
    assert (
        "Not compared: cloze was scored with different prompts: prompt is pppppppppppp in tiny (first/run) and" in said
    )
    assert "could not write …/run/x.json: the disk is full; either/or 1/2 https://a.example/b/c" in _section(
        page, "time"
    )
    configuration = page.index('<section id="configuration">')
    assert str(tmp_path) in page[configuration:]  # as it was resolved
    assert str(tmp_path) not in page[:configuration] and "in …/" not in said
    assert f"from …/{tmp_path.name}/base." in page


def test_the_command_writes_the_page_and_says_where(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "report.html"
    report([world.runs[-1]], output, None)
    assert output.read_text(encoding="utf-8") == world.made.html
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dpo" and lines[-1] == str(output) and len(lines) == 4
    assert lines[1] == "4 runs: CPT, then CPT, then SFT, then DPO, from random weights."


def test_a_page_stays_small(tmp_path: Path) -> None:
    """50,000 logged steps: a fifth of a megabyte."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("name: long\nstage: cpt\n")
    record = {"train/loss": 2.0, "train/lr": 1e-4, "train/grad_norm": 1.0, "throughput/tokens_per_second": 5e6}
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, 50_001):
            wave = 1 + (step * 7919 % 1000) / 5000
            values = ", ".join(f'"{name}": {value * wave:.5g}' for name, value in record.items())
            file.write(f'{{"step": {step}, {values}}}\n')
    assert len(make_report([run]).html) < 200_000
    assert read_run(run).steps == 50_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_real_browser(world: World, tmp_path: Path) -> None:
    """No request, no complaint, no scrolling sideways, and lines where they should be, on a desk and on a phone."""
    with Browser(tmp_path / "profile") as browser:
        for name, made in (("plain", world.made), ("hostile", world.hostile)):
            path = tmp_path / f"{name}.html"
            path.write_text(made.html, encoding="utf-8")
            browser.open(path)
            for width in (1280, 390):
                for dark in (False, True):
                    browser.view(width, dark=dark)
                    assert browser.run("document.documentElement.scrollWidth") <= width
                    assert browser.run("innerWidth") == width
                    ground = browser.run("getComputedStyle(document.body).backgroundColor")
                    assert ground == ("rgb(20, 24, 27)" if dark else "rgb(251, 250, 247)")
                # Every chart has a size, and its labels stay within the screen.
                boxes = browser.run(
                    "[...document.querySelectorAll('.plot svg, svg.strip')].filter(e => !e.closest('details'))"
                    ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right, r.width, r.height])"
                )
                assert len(boxes) > 40
                assert all(left >= 0 and right <= width and w > 100 and h > 15 for left, right, w, h in boxes)
            browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert browser.run("document.documentElement.scrollWidth") <= 390
            assert browser.requests == [path.resolve().as_uri()]
            assert browser.complaints == []
            assert browser.run("document.scripts.length") == 0
