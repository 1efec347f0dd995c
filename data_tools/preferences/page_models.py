"""The sections of the pairs' report about the models: how steady the judge is, and what both cost."""

from collections.abc import Mapping
from typing import Any

from data_tools.pages.charts import bar
from data_tools.pages.html import Column, Markup, count, join, percent, table, tag

_ORDERS = {
    "agreed": "both orders name the same answer",
    "both-tie": "both orders say tie",
    "half-tie": "one order says tie",
    "both-first": "whichever stood first",
    "both-second": "whichever stood second",
}


def judge_section(judge: Mapping[str, Any] | None) -> Markup:
    """What the judge did, order by order; nothing where none was asked."""
    if not judge or not judge["candidates"]:
        return Markup()
    first = judge["first_share"]
    facts = [
        f"{count(judge['candidates'])} candidates went to author and judge, {count(judge['made'])} became pairs.",
        ""
        if judge["agreement"] is None
        else f"Where both orders got a verdict, they say the same in {percent(judge['agreement'])}.",
        "" if first is None else f"Where a verdict names a winner, it is the answer that stands first in "
        f"{percent(first)}; 50\u00a0% is a judge that does not care for the order.",
    ]  # fmt: skip
    total = sum(judge["orders"].values())
    rows = [
        (text, count(judge["orders"].get(name, 0)), percent(judge["orders"].get(name, 0), total))
        for name, text in _ORDERS.items()
    ]
    parts: list[str] = [tag("p", " ".join(fact for fact in facts if fact))]
    parts.append(table([Column("the two orders"), Column("candidates"), Column("share")], rows))
    parts += [tag("h3", "Which answer is better"), _aspects(judge), _legend()]
    invalid = sum(judge["invalid"].values())
    chips = [tag("li", f"invalid: {reason}", tag("b", count(number))) for reason, number in judge["invalid"].items()]
    chips += [tag("li", f"failed: {name}", tag("b", count(number))) for name, number in judge["failures"].items()]
    if chips:
        mended = f"{count(invalid)} verdicts were invalid; {count(judge['mended'])} orders were mended by asking again."
        parts += [tag("h3", "What could not be used"), tag("p", mended, class_="note")]
        parts.append(tag("ul", *chips, class_="chips"))
    models = [tag("li", f"{whose}: ", tag("b", name)) for whose, names in judge["models"].items() for name in names]
    if models:
        parts += [tag("h3", "Models, as the servers name them"), tag("ul", *models, class_="chips")]
    return join(parts)


def _aspects(judge: Mapping[str, Any]) -> Markup:
    drawn = []
    for name, found in (("pairs", judge["winners"]), *judge["aspects"].items()):
        whole = sum(found.values())
        new, tie, original = (found.get(side, 0) for side in ("new", "tie", "original"))
        parts = [
            ("kept", new, f"the new answer: {count(new)}"),
            ("tokens", tie, f"tie: {count(tie)}"),
            ("lost", original, f"the original answer: {count(original)}"),
        ]
        drawn.append(
            tag(
                "li",
                tag("span", name, class_="name"),
                tag(
                    "span", bar(parts, whole, f"{name}: new {count(new)}, tie {count(tie)}, original {count(original)}")
                ),
                tag("span", tag("b", percent(new, whole)), class_="number"),
                tag("span", f"{count(new)} : {count(tie)} : {count(original)}", class_="number note"),
            )
        )
    return tag("ol", *drawn, class_="shares")


def _legend() -> Markup:
    names = (("kept", "the new answer"), ("tokens", "tie"), ("lost", "the original answer"))
    return tag("p", *(tag("span", tag("i", class_=name), text) for name, text in names), class_="legend")


def accounts_section(accounts: Mapping[str, Mapping[str, Any]]) -> Markup:
    """What was asked of both models and what it cost, all runs of these pairs together."""
    if not accounts:
        return Markup()
    rows = []
    for name, account in accounts.items():
        failed = ", ".join(f"{reason} {count(number)}" for reason, number in account["failed"].items())
        retried = ", ".join(f"{reason} {count(number)}" for reason, number in account["retried"].items())
        rows.append(
            (
                name,
                *(count(account[key]) for key in ("requests", "recorded", "answered", "calls")),
                count(account["prompt_tokens"]),
                count(account["completion_tokens"]),
                f"{account['cost']:,.4f}",
                f"{account['uncertain_cost']:,.4f}",
                retried or "–",
                failed or "–",
            )
        )
    headings = ("model", "requests", "out of the record", "answered", "calls", "prompt tokens", "answer tokens")
    columns = [Column(heading) for heading in (*headings, "cost", "uncertain cost")]
    columns += [Column("asked again", numeric=False), Column("failed", numeric=False)]
    note = (
        "All runs of these pairs together; of one that was killed the last seconds are missing. Uncertain: attempts "
        "whose fate is unknown, at their highest."
    )
    return join([tag("p", note, class_="note"), table(columns, rows)])
