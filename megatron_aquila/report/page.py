"""The report of runs as one HTML page: no network, no script, light and dark, desk, phone and paper.

The same files give the same page, byte for byte: nothing on it depends on when it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.pages.html import Markup, count, page, percent, short, tag
from data_tools.publish import write_whole
from megatron_aquila.evaluation import contamination, results
from megatron_aquila.evaluation.judge import summary
from megatron_aquila.report.comparisons import comparison_section
from megatron_aquila.report.contamination import contamination_section, find_contamination
from megatron_aquila.report.curves import ReportError
from megatron_aquila.report.data import data_section, find_published
from megatron_aquila.report.judgements import find_judged, judge_section
from megatron_aquila.report.models import find_scored
from megatron_aquila.report.operations import configuration_section, goodput_of, time_section, versions_section
from megatron_aquila.report.questions import standings_line
from megatron_aquila.report.runs import Run, Slot, labels, read_roads, slots
from megatron_aquila.report.scores import scores_section
from megatron_aquila.report.training import stage_section, verdict
from megatron_aquila.report.words import duration, short_path

_EVALUATIONS = (results.FILE, summary.FILE, contamination.FILE)
_STYLE = Path(__file__).with_name("assets") / "report.css"


@dataclass(frozen=True)
class Report:
    """A page, and what the terminal says of it."""

    html: str
    summary: tuple[str, ...]


def make_report(paths: Sequence[Path], evaluations: Sequence[Path] = ()) -> Report:
    """The report of runs, of the runs that they were trained from, and of their evaluations and `evaluations`.

    Raises:
        ReportError: a path is no run, or what it holds cannot be read.
    """
    if not paths:
        raise ReportError("a report needs a run: give the `output` of a training recipe, or several")
    for path in evaluations:
        if not any((path / name).is_file() for name in _EVALUATIONS):
            raise ReportError(
                f"{path} holds none of {', '.join(_EVALUATIONS)}: give a directory of `aquila eval` or judge"
            )
    roads = read_roads(paths)
    places = slots(roads)
    runs = [run for place in places for run in place.runs]
    names = labels(runs)
    scored = find_scored(runs, names, evaluations)
    sections = [
        ("road", "The road", _road(places, names)),
        *((place.anchor, place.title, stage_section(place, names)) for place in places),
        ("scores", "Evaluation", scores_section(scored)),
        ("comparison", "What changed", comparison_section(scored, [[run.path for run in road] for road in roads])),
        ("judge", "Judge", judge_section(find_judged(runs, names, evaluations))),
        ("contamination", "Contamination", contamination_section(find_contamination(runs, evaluations), scored)),
        ("data", "Data", data_section(find_published(runs, names))),
        ("time", "Time", time_section(runs, names)),
        ("configuration", "Configuration", configuration_section(places, names)),
        ("versions", "Versions", versions_section(runs, names)),
    ]
    ends = [road[-1] for road in roads]
    title = " against ".join(names[run.path] for run in ends)
    lead = f"{_counted(len(runs), 'run')} on {_counted(len(roads), 'road')}." if len(roads) > 1 else _lead(roads[0])
    html = page(f"{title} · report", _headline(title, lead, runs), sections, _STYLE.read_text(encoding="utf-8"))
    return Report(html, (title, lead, *(f"{names[run.path]}: {verdict(run)}" for run in ends)))


def write_report(report: Report, output: Path) -> None:
    """Publish the page. Raises StorageError as `write_whole`."""
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, report.html.encode())


def _lead(road: Sequence[Run]) -> str:
    stages = ", then ".join(run.stage.upper() for run in road)
    return f"{_counted(len(road), 'run')}: {stages}, from {_start(road[0])}."


def _start(run: Run) -> str:
    return short_path(run.weights) if run.weights else "random weights"


def _headline(title: str, lead: str, runs: Sequence[Run]) -> Markup:
    tiles = [("steps", count(sum(run.steps for run in runs)), f"in {_counted(len(runs), 'run')}")]
    tokens = sum(
        curve.last or 0 for run in runs if run.stage != "dpo" and (curve := run.curves.get("train/supervised_tokens"))
    )
    if tokens:
        tiles.append(("tokens", short(tokens), "that the loss was taken over, repetitions included"))
    spent = [found for run in runs if (found := goodput_of(run)) is not None and found.total_seconds > 0]
    seconds = [took for run in runs if (took := run.training_seconds)]
    if len(spent) == len(runs):
        total = sum(one.total_seconds for one in spent)
        share = sum(one.productive_seconds for one in spent) / total
        tiles.append(("time", duration(total), f"{percent(share)} of it in training steps that count"))
    elif seconds:
        tiles.append(("time", duration(sum(seconds)), "in training steps; validation and saving left out"))
    return tag(
        "header",
        tag("p", "Training report", class_="kicker"),
        tag("h1", title),
        tag("p", lead, class_="lead"),
        tag(
            "dl",
            *(
                tag("div", tag("dt", name), tag("dd", value), tag("dd", note, class_="note"))
                for name, value, note in tiles
            ),
            class_="tiles",
        ),
    )


def _road(places: Sequence[Slot], names: Mapping[Path, str]) -> Markup:
    """Each run in order: what it is, how long, and what became of it, in a line each."""
    first = places[0].runs[0]
    start = tag("p", tag("b", "start"), " ", tag("span", _start(first), class_="note"))
    drawn = [tag("li", start, class_="start")]
    for place in places:
        for run in place.runs:
            facts = [f"{count(run.steps)} steps"]
            if run.training_seconds:
                facts.append(duration(run.training_seconds))
            drawn.append(
                tag(
                    "li",
                    tag(
                        "p",
                        tag("a", names[run.path], href=f"#{place.anchor}"),
                        " ",
                        tag("span", f"{place.title.lower()} · {' · '.join(facts)}", class_="note"),
                    ),
                    tag("p", verdict(run)),
                    tag("p", asked) if (asked := standings_line(run)) else "",
                )
            )
    return tag("ol", *drawn, class_="road")


def _counted(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
