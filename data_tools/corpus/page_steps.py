"""A step's section of the funnel report: reasons by language and source, what was done, histograms, examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.pages.charts import histogram
from data_tools.pages.html import Column, Markup, count, details, join, percent, short, table, tag

_EXAMPLES_SHOWN = 6
_LANGUAGES = ("zh", "en", "other", "")

Rows = Sequence[Mapping[str, Any]]


def step_section(step: Mapping[str, Any], noun: str = "documents") -> Markup:
    """All that is known of one step; `noun`: what went through it."""
    came, went = step["in"], step["out"]
    lost = came["documents"] - went["documents"]
    facts = tag(
        "p",
        f"{count(came['documents'])} {noun} came, {count(went['documents'])} went on"
        f" ({percent(went['documents'], came['documents'])}); {short(came['tokens'])} tokens came, "
        f"{short(went['tokens'])} went on ({percent(went['tokens'], came['tokens'])}).",
        class_="note",
    )
    parts: list[str] = [facts]
    if step["dropped"]:
        parts.append(_reasons(step["dropped"], came["documents"], noun))
        parts.append(details("by reason, source and language", _all_reasons(step["dropped"], noun)))
    elif not lost:
        parts.append(tag("p", "Nothing was dropped here.", class_="note"))
    if step["counts"]:
        ordered = sorted(step["counts"].items(), key=lambda item: (-item[1], item[0]))
        chips = [tag("li", name, tag("b", count(number))) for name, number in ordered]
        parts += [tag("h3", "What was done"), tag("ul", *chips, class_="chips")]
    if step["groups"]:
        parts.append(details("what came and went, by source and language", _groups(step["groups"], noun)))
    if step["histograms"]:
        drawn = [histogram(data, noun) for data in step["histograms"]]
        parts += [
            tag("h3", "Measures", tag("span", f"{noun} that came, a line at each threshold", class_="note")),
            tag("div", *drawn, class_="histograms"),
        ]
    if step["examples"]:
        cards = [_example(example) for example in step["examples"]]
        parts += [tag("h3", "Examples of what was dropped"), tag("div", *cards[:_EXAMPLES_SHOWN], class_="examples")]
        if cards[_EXAMPLES_SHOWN:]:
            rest = tag("div", *cards[_EXAMPLES_SHOWN:], class_="examples")
            parts.append(details(f"{len(cards) - _EXAMPLES_SHOWN} more examples", rest))
    return join(parts)


def reasons_of(dropped: Rows) -> list[tuple[str, int]]:
    """(reason, documents) of a step, the most frequent first."""
    found: Counter[str] = Counter()
    for row in dropped:
        found[row["reason"]] += row["documents"]
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _reasons(dropped: Rows, came: int, noun: str) -> Markup:
    """A row a reason: documents in all and in each language, tokens, and where they came from."""
    languages = [lang for lang in _LANGUAGES if any(row["lang"] == lang for row in dropped)]
    rows = []
    for reason, documents in reasons_of(dropped):
        of = [row for row in dropped if row["reason"] == reason]
        by_lang, by_source = Counter[str](), Counter[str]()
        for row in of:
            by_lang[row["lang"]] += row["documents"]
            by_source[row["source"]] += row["documents"]
        sources = ", ".join(f"{source} {count(number)}" for source, number in by_source.most_common(4))
        more = len(by_source) - 4
        rows.append(
            (
                reason,
                tag("b", count(documents)),
                percent(documents, came),
                *(count(by_lang[lang]) if by_lang[lang] else "–" for lang in languages),
                short(sum(row["tokens"] for row in of)),
                sources + (f" and {more} more" if more > 0 else ""),
            )
        )
    columns = [
        Column("reason"),
        Column(noun),
        Column("share"),
        *(Column(lang or "no language yet") for lang in languages),
        Column("tokens"),
        Column("sources", numeric=False),
    ]
    return table(columns, rows)


def _all_reasons(dropped: Rows, noun: str) -> Markup:
    ordered = sorted(dropped, key=lambda row: (-row["documents"], row["reason"], row["source"], row["lang"]))
    rows = [
        (
            row["reason"],
            row["source"],
            row["lang"] or "–",
            count(row["documents"]),
            count(row["characters"]),
            count(row["tokens"]),
        )
        for row in ordered
    ]
    columns = (
        Column("reason"),
        Column("source", numeric=False),
        Column("language", numeric=False),
        *map(Column, (noun, "characters", "tokens")),
    )
    return table(columns, rows)


def _groups(groups: Rows, noun: str) -> Markup:
    rows = [
        (
            join([group["source"], tag("span", group["lang"] or "–", class_="tag")], " "),
            count(group["in"]["documents"]),
            count(group["out"]["documents"]),
            percent(group["out"]["documents"], group["in"]["documents"]),
            count(group["in"]["tokens"]),
            count(group["out"]["tokens"]),
        )
        for group in groups
    ]
    headings = ("source", f"{noun} in", "out", "kept", "tokens in", "tokens out")
    return table([Column(heading) for heading in headings], rows)


def _example(example: Mapping[str, Any]) -> Markup:
    evidence = [
        tag("span", f"{name} ", tag("b", _evidence(value)), class_="evidence")
        for name, value in example["detail"].items()
    ]
    head = tag(
        "p",
        tag("span", example["reason"], class_="tag warn"),
        *evidence,
        class_="reason",
    )
    lang = example["lang"] if example["lang"] in ("zh", "en") else None
    text = tag("blockquote", example["excerpt"], lang=lang, dir="auto")
    where = tag("p", tag("code", example["id"]), f" · {example['source']} · {example['lang'] or 'no language yet'}")
    return tag("article", head, text, tag("footer", where))


def _evidence(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_evidence(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_evidence, value))
    return str(value)
