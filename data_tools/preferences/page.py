"""The report of a run of pairs as one HTML page: no network, no script, light and dark, desk and phone.

`funnel` is the content of funnel.json (`publication.finish`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data_tools.pages.charts import bar
from data_tools.pages.html import Column, Markup, count, details, join, page, percent, size, table, tag
from data_tools.preferences.page_models import accounts_section, judge_section
from data_tools.preferences.report import FORMAT, VERSION

Funnel = Mapping[str, Any]

# What the corpus page has no need of: answers side by side, intervals.
_MORE_STYLE = """
.pair { margin-bottom: .6rem; display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .8rem; }
.pair blockquote { margin: 0; padding-left: .7rem; border-left: 3px solid var(--lost); max-height: 12em; }
.pair blockquote.chosen { border-color: var(--kept); }
.warnings { margin: 1rem 0 0; padding: .7rem 1rem .7rem 2rem; border-radius: 10px; color: var(--warn);
  background: var(--warn-ground); }
.shares { list-style: none; margin: 0 0 1rem; padding: 0; }
.shares li { display: grid; align-items: center; gap: .2rem .9rem; padding: .38rem 0;
  grid-template-columns: 10rem minmax(0, 1fr) 4.2rem 14rem; }
.examples.pairs { grid-template-columns: minmax(0, 1fr); }
@media (max-width: 700px) {
  .pair { grid-template-columns: minmax(0, 1fr); }
  .shares li { grid-template-columns: minmax(0, 1fr) auto; }
  .shares li > :nth-child(2) { grid-row: 2; grid-column: 1 / -1; }
  .shares li > :nth-child(4) { grid-column: 1 / -1; text-align: left; white-space: normal; }
}
"""
_STEPS = {
    "candidates": "usable",
    "draw": "drawn and used",
    "pairs": "became a pair",
    "length balance": "kept for balance",
}


def pairs_page(funnel: Funnel) -> str:
    """The page.

    Raises:
        ValueError: `funnel` is of another format or version.
    """
    found = (funnel.get("format"), funnel.get("version"))
    if found != (FORMAT, VERSION):
        raise ValueError(f"this is {found[0]} version {found[1]}, and the page shows {FORMAT} version {VERSION}")
    sections = [
        *((kind["kind"], f"{kind['kind'].capitalize()} pairs", _kind(kind, funnel)) for kind in funnel["kinds"]),
        ("judge", "Judge", judge_section(funnel["judge"])),
        ("accounts", "Accounts", accounts_section(funnel["accounts"])),
        ("length", "Length", _length(funnel["length_bias"])),
        ("split", "Split", _split(funnel)),
        ("examples", "Examples", _examples(funnel["examples"])),
        ("files", "Files", _files(funnel["read"])),
        ("recipe", "Recipe", _recipe(funnel)),
    ]
    return page(f"{funnel['name']} · preference pairs", _headline(funnel), sections, _MORE_STYLE)


def _headline(funnel: Funnel) -> Markup:
    split = funnel["split"]
    pairs = sum(side["pairs"] for side in split.values())
    kinds = sum((Counter(side["kinds"]) for side in split.values()), Counter[str]())
    tiles = [("pairs", count(pairs), ", ".join(f"{count(number)} {kind}" for kind, number in sorted(kinds.items())))]
    tiles += [
        (name.removeprefix("pairs_"), count(side["pairs"]), f"{count(side['prompts'])} prompts, none on both sides")
        for name, side in split.items()
    ]
    if funnel["judge"] and funnel["judge"]["agreement"] is not None:
        tiles.append(("agreement", percent(funnel["judge"]["agreement"]), "of the judge with itself, orders swapped"))
    overall = next((row for row in funnel["length_bias"]["groups"] if not row["kind"]), None)
    if overall and overall["share"] is not None:
        tiles.append(("longer is chosen", percent(overall["share"]), "where lengths differ; 50\u00a0% says nothing"))
    spent = sum(account["cost"] for account in funnel["accounts"].values())
    if spent:
        tiles.append(("paid", f"{spent:,.2f}", "for both models, in the currency of their prices"))
    warnings = [f"Length: {text}." for text in funnel["length_bias"]["warnings"]]
    for kind, rows in funnel["strata"].items():
        if missing := sum(row["short"] for row in rows):
            warnings.append(f"Missing: {count(missing)} of the {kind} pairs that were asked for; see its parts.")
    return tag(
        "header",
        tag("p", "Preference pairs", class_="kicker"),
        tag("h1", funnel["name"]),
        tag("p", f"{count(pairs)} pairs came out.", class_="lead"),
        tag(
            "dl",
            *(tag("div", tag("dt", n), tag("dd", value), tag("dd", note, class_="note")) for n, value, note in tiles),
            class_="tiles",
        ),
        tag("ul", *(tag("li", sentence) for sentence in warnings), class_="warnings") if warnings else "",
    )


def _kind(kind: Mapping[str, Any], funnel: Funnel) -> Markup:
    steps = kind["steps"]
    whole = steps[0]["in"]
    drawn = [_bar_row("read", whole, whole, 0)]
    drawn += [_bar_row(_STEPS[step["name"]], step["out"], whole, step["in"] - step["out"]) for step in steps]
    legend = tag(
        "p",
        *(tag("span", tag("i", class_=name), text) for name, text in (("kept", "go on"), ("lost", "do not"))),
        class_="legend",
    )
    parts: list[str] = [tag("ol", *drawn, class_="funnel"), legend, tag("h3", "Why not"), _reasons(steps)]
    rows = funnel["strata"][kind["kind"]]
    columns = [Column(heading) for heading in ("part", "asked", "made", "missing", "used", "candidates")]
    cells = [
        (row["name"], *(count(row[name]) for name in ("asked", "made", "short", "used", "available"))) for row in rows
    ]
    parts += [tag("h3", "Parts"), table(columns, cells)]
    parts.append(details("by source and language", _groups(steps)))
    return join(parts)


def _bar_row(name: str, now: int, whole: int, lost: int) -> Markup:
    drawn = [("kept", now, f"{count(now)} go on"), ("lost", lost, f"{count(lost)} do not")]
    return tag(
        "li",
        tag("span", name, class_="name"),
        tag("span", bar(drawn, whole, f"{name}: {count(now)} of {count(whole)}")),
        tag("span", tag("b", count(now)), class_="number"),
        tag("span", percent(now, whole), class_="number"),
        tag("span", "", class_="number note"),
        tag("span", f"−{count(lost)}" if lost else "", class_="number lost"),
    )


def _reasons(steps: Sequence[Mapping[str, Any]]) -> Markup:
    found: Counter[tuple[str, str]] = Counter()
    by_lang: dict[tuple[str, str], Counter[str]] = {}
    for step in steps:
        for row in step["dropped"]:
            key = (step["name"], row["reason"])
            found[key] += row["count"]
            by_lang.setdefault(key, Counter())[row["lang"] or "unknown"] += row["count"]
    if not found:
        return tag("p", "Nothing was dropped.", class_="note")
    came = {step["name"]: step["in"] for step in steps}
    rows = [
        (
            reason,
            step,
            count(number),
            percent(number, came[step]),
            ", ".join(f"{lang} {count(n)}" for lang, n in sorted(by_lang[step, reason].items())),
        )
        for (step, reason), number in sorted(
            found.items(), key=lambda item: (list(came).index(item[0][0]), -item[1], item[0])
        )
    ]
    columns = [
        Column("reason"),
        Column("at", numeric=False),
        Column("number"),
        Column("share"),
        Column("by language", numeric=False),
    ]
    return table(columns, rows)


def _groups(steps: Sequence[Mapping[str, Any]]) -> Markup:
    groups: dict[tuple[str, str], dict[str, int]] = {}
    for step in steps:
        for row in step["groups"]:
            groups.setdefault((row["source"], row["lang"]), {})[step["name"]] = row["out"]
    rows = [
        (
            source or "no source",
            lang or "unknown",
            count(next((g["in"] for g in steps[0]["groups"] if (g["source"], g["lang"]) == (source, lang)), 0)),
            *(count(found.get(step["name"], 0)) for step in steps),
        )
        for (source, lang), found in sorted(groups.items())
    ]
    columns = [Column("source"), Column("language", numeric=False), Column("read")]
    return table([*columns, *(Column(_STEPS[step["name"]]) for step in steps)], rows)


def _length(bias: Mapping[str, Any]) -> Markup:
    rows = [row for row in bias["groups"] if row["share"] is not None]
    note = tag(
        "p",
        "Of the pairs whose answers differ in length: how often the longer one is chosen, with its 95\u00a0% interval "
        "(Wilson), and the two-sided sign test.",
    )
    drawn = []
    for row in rows:
        name = " · ".join(part for part in (row["kind"], row["lang"]) if part) or "all pairs"
        share = [
            ("kept", row["longer_chosen"], f"the longer one: {count(row['longer_chosen'])}"),
            ("lost", row["shorter_chosen"], f"the shorter one: {count(row['shorter_chosen'])}"),
        ]
        differing = row["longer_chosen"] + row["shorter_chosen"]
        low, high = row["interval"]
        drawn.append(
            tag(
                "li",
                tag("span", name, class_="name"),
                tag("span", bar(share, differing, f"{name}: the longer one in {percent(row['share'])}")),
                tag("span", tag("b", percent(row["share"])), class_="number"),
                tag("span", f"{percent(low)} to {percent(high)}, p {row['p_value']:.2g}", class_="number note"),
            )
        )
    legend = tag(
        "p",
        tag("span", tag("i", class_="kept"), "the longer one is chosen"),
        tag("span", tag("i", class_="lost"), "the shorter one"),
        class_="legend",
    )
    parts: list[str] = [note, tag("ol", *drawn, class_="shares"), legend] if drawn else []
    headings = ("pairs", "pairs", "as long", "chosen: characters", "rejected", "chosen: tokens", "rejected")
    cells = [
        (
            " · ".join(part for part in (row["kind"], row["lang"]) if part) or "all",
            count(row["pairs"]),
            count(row["equal"]),
            *(
                f"{row[f'{side}_{unit}']['mean']:,.1f} / {row[f'{side}_{unit}']['median']:,.0f}"
                for unit in ("characters", "tokens")
                for side in ("chosen", "rejected")
            ),
        )
        for row in bias["groups"]
        if row["pairs"]
    ]
    parts += [tag("h3", "Lengths", tag("span", "mean / median", class_="note"))]
    parts.append(table([Column(heading) for heading in headings], cells))
    if bias["before"]:
        before = next(row for row in bias["before"]["groups"] if not row["kind"])
        parts.append(
            tag("p", f"Before the balance: {count(before['pairs'])} pairs, {percent(before['share'])}.", class_="note")
        )
    return join(parts)


def _split(funnel: Funnel) -> Markup:
    rows = []
    for name, side in funnel["split"].items():
        index = funnel["indexes"].get(name, {})
        dropped = sum(index.get("dropped", {}).values())
        rows.append(
            (
                tag("code", name),
                count(side["pairs"]),
                count(side["prompts"]),
                ", ".join(f"{kind} {count(number)}" for kind, number in side["kinds"].items()) or "–",
                count(index["tokens"]) if index else "–",
                count(dropped) if index else "–",
            )
        )
    columns = [Column("side"), Column("pairs"), Column("prompts"), Column("kinds", numeric=False)]
    columns += [Column("tokens in the index"), Column("too long for it")]
    return table(columns, rows)


def _examples(examples: Sequence[Mapping[str, Any]]) -> Markup:
    cards = []
    for one in examples:
        turns = f"{one['turns']} turns, the last question" if one["turns"] > 1 else "the question"
        sides = [tag("blockquote", one[side], class_=side) for side in ("chosen", "rejected")]
        cards.append(
            tag(
                "article",
                tag("p", tag("b", one["kind"]), tag("span", one["lang"] or "?", class_="tag"), class_="reason"),
                tag("p", turns, class_="evidence"),
                tag("blockquote", one["prompt"]),
                tag("p", "chosen, then rejected", class_="evidence"),
                tag("div", *sides, class_="pair"),
                tag("footer", tag("p", tag("code", one["id"]), f" · {one['source'] or 'no source'}")),
            )
        )
    return tag("div", *cards, class_="examples pairs") if cards else Markup()


def _files(read: Mapping[str, Sequence[Mapping[str, Any]]]) -> Markup:
    rows = [
        (
            tag("code", file["path"]),
            kind,
            size(file["bytes"]),
            count(file["units"]),
            count(file["records"]),
            ", ".join(f"{reason} {count(number)}" for reason, number in file["quarantined"].items()) or "–",
        )
        for kind, files in read.items()
        for file in files
    ]
    columns = [Column("read"), Column("as", numeric=False), Column("size"), Column("lines"), Column("records")]
    return table([*columns, Column("quarantined", numeric=False)], rows)


def _recipe(funnel: Funnel) -> Markup:
    tokenizer = funnel["tokenizer"]
    facts = [
        ("seed", tag("code", str(funnel["seed"]))),
        ("digest", tag("code", funnel["digest"])),
        ("tokenizer", join([f"{tokenizer['name']} ", tag("code", tokenizer["digest"])])),
        ("masked", ", ".join(f"{name} {count(n)}" for name, n in funnel["masked"].items()) or "nothing"),
        ("looked for", ", ".join(f"{name} {count(n)}" for name, n in funnel["looked_for"].items()) or "nothing"),
        ("packages", ", ".join(f"{name} {version}" for name, version in funnel["packages"].items()) or "–"),
    ]
    text = yaml.safe_dump(dict(funnel["recipe"]), allow_unicode=True, sort_keys=False, width=100)
    return join(
        [
            tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="facts"),
            details("the recipe as it ran, every default included", tag("pre", text)),
        ]
    )
