"""The funnel report as one HTML page: what came in, what each step let through, what it dropped and why.

The page needs no network and no script, and reads in light and dark, on a desk and on a phone. `funnel` is the
content of `funnel.json`: "read", "steps", "stages", "outputs", "recipe", "packages" and, where they apply,
"noun", "mixes", "clusters" and "plants" (`plants.score_plants`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data_tools.corpus.page_steps import step_section
from data_tools.pages.charts import bar
from data_tools.pages.html import Column, Markup, count, details, join, page, percent, short, size, table, tag

Funnel = Mapping[str, Any]

FORMAT, VERSION = "corpus-funnel", 1
_FILES_SHOWN = 50


def funnel_page(funnel: Funnel) -> str:
    """The page.

    Raises:
        ValueError: `funnel` is of another format or version.
    """
    found = (funnel.get("format"), funnel.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(f"this is {found[0]} version {found[1]}, and the page shows {FORMAT} version {VERSION}")
    sections = [
        ("funnel", "Funnel", _funnel(funnel)),
        *((f"step-{s['name']}", s["name"].capitalize(), step_section(s, noun(funnel))) for s in funnel["steps"]),
        ("clusters", "Duplicates", _clusters(funnel)),
        ("mixture", "Mixture", _mixture(funnel)),
        ("plants", "Planted", _plants(funnel.get("plants") or ())),
        ("files", "Files", _files(funnel)),
        ("recipe", "Recipe", _recipe(funnel)),
    ]
    return page(f"{funnel['name']} · funnel of {noun(funnel)}", _headline(funnel), sections)


def noun(funnel: Funnel) -> str:
    """What went through the steps, in the plural."""
    return str(funnel.get("noun", "documents"))


def mixed(funnel: Funnel) -> Sequence[Mapping[str, Any]]:
    """The stages that are mixtures; none where there is but one, of all that was left."""
    return funnel["stages"] if funnel.get("mixes", True) else ()


def totals(funnel: Funnel) -> list[tuple[str, Mapping[str, int]]]:
    """(name, {"documents", "characters", "tokens"}): what was read, and what was left after each step."""
    read = {key: funnel["read"][key] for key in ("documents", "characters", "tokens")}
    return [("read", read), *((step["name"], step["out"]) for step in funnel["steps"])]


def _headline(funnel: Funnel) -> Markup:
    everything = totals(funnel)
    read, kept = everything[0][1], everything[-1][1]
    quarantined = sum(funnel["read"]["quarantined"].values())
    written = sum(stage["tokens"] for stage in funnel["stages"])
    tiles = [
        ("read", count(read["documents"]), f"{short(read['tokens'])} tokens, {short(read['characters'])} characters"),
        ("kept", count(kept["documents"]), f"{percent(kept['documents'], read['documents'])} of the {noun(funnel)}"),
        ("tokens kept", short(kept["tokens"]), f"{percent(kept['tokens'], read['tokens'])} of the tokens"),
    ]
    if stages := mixed(funnel):
        tiles.append(("mixed", short(written), f"tokens in {_stages(len(stages))}, repetitions included"))
    if quarantined:
        tiles.append(("quarantined", count(quarantined), "records that could not be read, each with its reason"))
    steps = len(everything) - 1
    return tag(
        "header",
        tag("p", f"Funnel of {noun(funnel)}", class_="kicker"),
        tag("h1", funnel["name"]),
        tag(
            "p",
            f"{count(read['documents'])} {noun(funnel)} went through {steps} step{'s' * (steps != 1)}; "
            f"{count(kept['documents'])} came out.",
            class_="lead",
        ),
        tag(
            "dl",
            *(
                tag("div", tag("dt", name), tag("dd", value), tag("dd", note, class_="note"))
                for name, value, note in tiles
            ),
            class_="tiles",
        ),
    )


def _funnel(funnel: Funnel) -> Markup:
    rows = totals(funnel)
    whole = rows[0][1]
    drawn = []
    for (name, now), (_, before) in zip(rows, [rows[0], *rows]):
        lost = before["documents"] - now["documents"]
        parts = [
            ("kept", now["documents"], f"{count(now['documents'])} {noun(funnel)} go on"),
            ("lost", lost, f"{count(lost)} {noun(funnel)} dropped here"),
        ]
        label = f"{name}: {count(now['documents'])} of {count(whole['documents'])} {noun(funnel)}"
        title = tag("a", name, href=f"#step-{name}") if name != "read" else tag("span", name)
        tokens = [("tokens", now["tokens"], f"{count(now['tokens'])} tokens go on")]
        drawn.append(
            tag(
                "li",
                tag("span", title, class_="name"),
                tag("span", bar(parts, whole["documents"], label), bar(tokens, whole["tokens"], "tokens", 5)),
                tag("span", tag("b", count(now["documents"])), class_="number"),
                tag("span", percent(now["documents"], whole["documents"]), class_="number"),
                tag("span", f"{short(now['tokens'])} tok", class_="number note"),
                tag("span", f"−{count(lost)}" if lost else "", class_="number lost"),
            )
        )
    legend = tag(
        "p",
        *(tag("span", tag("i", class_=name), text.format(noun(funnel))) for name, text in _LEGEND),
        class_="legend",
    )
    return join([tag("ol", *drawn, class_="funnel"), legend])


_LEGEND = (("kept", "{} that go on"), ("lost", "dropped at this step"), ("tokens", "tokens that go on"))


def _clusters(funnel: Funnel) -> Markup:
    clusters = funnel.get("clusters")
    if not clusters:
        return Markup()
    facts = tag(
        "p",
        f"{count(clusters['documents'])} {noun(funnel)} lie in clusters: {count(clusters['exact'])} exact and "
        f"{count(clusters['near'])} near duplicates of another one; the largest cluster has "
        f"{count(clusters['largest'])}.",
    )
    rows = [
        (
            tag("code", one["kept"]),
            count(len(one["members"])),
            f"{one['similarity']:.2f}",
            tag("code", ", ".join(member for member in one["members"] if member != one["kept"])),
        )
        for one in clusters["examples"]
    ]
    columns = (Column("kept"), Column("members"), Column("similarity"), Column("its duplicates", numeric=False))
    return join([facts, table(columns, rows) if rows else ""])


def _stages(number: int) -> str:
    return "one stage" if number == 1 else f"{number} stages"


def _mixture(funnel: Funnel) -> Markup:
    return join(_stage(stage, noun(funnel)) for stage in mixed(funnel))


def _stage(stage: Mapping[str, Any], noun: str) -> Markup:
    asked = f" of {short(stage['tokens_asked'])} asked" if stage["tokens_asked"] is not None else ""
    summary = f"{short(stage['tokens'])} tokens{asked}, {count(stage['documents'])} {noun}"
    shares = [
        (f"part part-{place % 6}", part["tokens"], f"{part['name']}: {percent(part['share'])}")
        for place, part in enumerate(stage["parts"])
    ]
    rows = [
        (
            join(
                [
                    tag("span", tag("i", class_=f"part-{place % 6}"), part["name"], class_="key"),
                    tag("span", "capped", class_="tag warn") if part["capped"] else "",
                ],
                " ",
            ),
            percent(part["share"]),
            "–" if part["share_asked"] is None else percent(part["share_asked"]),
            count(part["tokens"]),
            count(part["available_tokens"]),
            f"{part['epochs']:.2f}",
            count(part["documents"]),
        )
        for place, part in enumerate(stage["parts"])
    ]
    columns = [Column(h) for h in ("part", "share", "asked", "tokens", "available", "epochs", noun)]
    return join(
        [
            tag("h3", stage["name"], tag("span", summary, class_="note")),
            bar(shares, sum(part["tokens"] for part in stage["parts"]), f"shares of {stage['name']}", 14),
            table(columns, rows),
        ]
    )


def _plants(rows: Sequence[Mapping[str, Any]]) -> Markup:
    if not rows:
        return Markup()
    note = tag(
        "p",
        "What was planted in the raw corpus, and what each step did with it. Recall is of the plants that reached the "
        "step; a false alarm is something that the step took though nothing was planted there.",
    )
    cells = [
        (
            f"{row['step']}: {row['kind']}",
            count(row["planted"]),
            count(row["earlier"]),
            count(row["caught"]),
            count(row["missed"]),
            "–" if row["recall"] is None else percent(row["recall"]),
            "–" if row["false_alarms"] is None else count(row["false_alarms"]),
            "–" if row["precision"] is None else percent(row["precision"]),
        )
        for row in rows
    ]
    headings = ("plant", "planted", "gone before", "caught", "missed", "recall", "false alarms", "precision")
    return join([note, table([Column(heading) for heading in headings], cells)])


def _files(funnel: Funnel) -> Markup:
    read = funnel["read"]
    parts = [
        tag(
            "p",
            f"{count(read['units'])} records: {count(read['documents'])} {noun(funnel)}, {count(read['blank'])} blank, "
            f"{count(sum(read['quarantined'].values()))} quarantined.",
        )
    ]
    if read["quarantined"]:
        chips = [tag("li", reason, tag("b", count(n))) for reason, n in _descending(read["quarantined"])]
        parts += [tag("h3", "Quarantined"), tag("ul", *chips, class_="chips")]
    rows = [
        (
            join(
                [tag("code", one["path"]), tag("span", one["damage"], class_="tag warn") if one["damage"] else ""], " "
            ),
            one["source"],
            size(one["bytes"]),
            count(one["documents"]),
            count(one["quarantined"]),
        )
        for one in read["files"]
    ]
    columns = [
        Column("read"),
        Column("source", numeric=False),
        Column("size"),
        Column(noun(funnel)),
        Column("quarantined"),
    ]
    parts.append(table(columns, rows[:_FILES_SHOWN]))
    if len(rows) > _FILES_SHOWN:
        parts.append(details(f"{len(rows) - _FILES_SHOWN:,} more files", table(columns, rows[_FILES_SHOWN:])))
    written = [
        (tag("code", one["path"]), count(one["documents"]), size(one["bytes"]), tag("code", one["sha256"]))
        for one in funnel["outputs"]
    ]
    columns = [Column("written"), Column(noun(funnel)), Column("size"), Column("SHA-256", numeric=False)]
    return join([*parts, table(columns, written) if written else ""])


def _recipe(funnel: Funnel) -> Markup:
    tokenizer = funnel["tokenizer"]
    facts = [
        ("seed", tag("code", str(funnel["seed"]))),
        ("digest", tag("code", funnel["digest"])),
        ("tokenizer", join([f"{tokenizer['name']} ", tag("code", tokenizer["digest"])])),
        ("packages", ", ".join(f"{name} {version}" for name, version in funnel["packages"].items()) or "–"),
    ]
    text = yaml.safe_dump(dict(funnel["recipe"]), allow_unicode=True, sort_keys=False, width=100)
    return join(
        [
            tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts"),
            details("the recipe as it ran, every default included", tag("pre", text)),
        ]
    )


def _descending(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
