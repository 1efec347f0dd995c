"""HTML that is safe by construction: plain text is escaped wherever it enters an element.

Also how the pages write numbers. Documents of a corpus may hold anything (closing tags, control characters,
characters that turn the direction of writing, lone surrogates); what would act on the page is shown instead.
"""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Markup(str):
    """HTML, ready as it stands; every other `str` is text, and is escaped."""

    __slots__ = ()


_VOID = frozenset({"meta", "rect", "line", "path", "br"})


def visible(text: str) -> str:
    """The text without what would act on the page: controls as their pictures, other invisible ones as [U+202E]."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    # Spaces of all widths and the joiners of scripts and emoji are harmless.
    if unicodedata.category(character) == "Zs" or character in "\u200c\u200d":
        return character
    return f"[U+{code:04X}]"


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """An element. `class_` and the like lose their final underscore, other underscores become hyphens; an attribute
    of None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Markup(f"<{name}{given}>" if name in ("meta", "br") else f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """The parts one after the other, text escaped."""
    return Markup(between.join(part if isinstance(part, Markup) else html.escape(visible(part)) for part in parts))


def count(number: float) -> str:
    """12,345"""
    return f"{number:,.0f}"


def short(number: float) -> str:
    """A count of three figures: 987, 12.3 k, 4.56 M (with no-break spaces, as in all that follows)."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit * 0.9995:
            scaled = number / unit
            return f"{scaled:.{max(0, 3 - len(str(round(scaled))))}f}\u00a0{name}"
    return f"{number:.0f}"


def percent(part: float, whole: float = 1.0) -> str:
    """45.6 %; without a whole there is no share. What is not nothing is not written as 0, nor 100 if not all."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<\u00a00.1\u00a0%"
    if 99.9 < share < 100:
        return ">\u00a099.9\u00a0%"
    return f"{share:.{0 if share in (0, 100) else 1}f}\u00a0%"


def figure(value: float) -> str:
    """A measure or a threshold: four figures at most, no trailing noise."""
    if abs(value) >= 10_000:
        return short(value)
    return f"{value:.4g}"


def size(number: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g}\u00a0{unit}"
        number /= 1000
    return f"{number:,.0f}\u00a0TB"


class Column(NamedTuple):
    """A column of a table: its heading, and whether it holds numbers."""

    heading: str
    numeric: bool = True


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, caption: str = "") -> Markup:
    """A table that becomes a list of cards where the screen is narrow (`data-label` holds each cell's heading).

    The first cell of a row is its title.
    """
    heads = [tag("th", c.heading, scope="col", class_="number" if c.numeric else None) for c in columns]
    body = []
    for row in rows:
        cells = [tag("th", row[0], scope="row")]
        cells += [
            tag("td", cell, class_="number" if column.numeric else None, data_label=column.heading)
            for column, cell in zip(columns[1:], row[1:], strict=True)
        ]
        body.append(tag("tr", *cells))
    return tag(
        "table",
        *([tag("caption", caption)] if caption else []),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
    )


def details(summary: str, *children: str, is_open: bool = False) -> Markup:
    """A part that the reader opens."""
    return tag("details", tag("summary", summary), *children, open="" if is_open else None)


# A page of ours loads nothing: whatever slipped into it could not call home.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PAGE_STYLE = Path(__file__).with_name("assets") / "page.css"


def page(title: str, headline: Markup, sections: Iterable[tuple[str, str, Markup]], style: str = "") -> str:
    """A whole page: headline, links to the sections, and the sections (anchor, heading, content) that hold something.

    style: more rules, behind those that the reports share.
    """
    shown = [section for section in sections if section[2]]
    links = [tag("a", heading, href=f"#{anchor}") for anchor, heading, _ in shown]
    body = [tag("section", tag("h2", heading), content, id=anchor) for anchor, heading, content in shown]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        Markup(f"<style>\n{_PAGE_STYLE.read_text(encoding='utf-8')}{style}</style>"),
    )
    whole = tag("html", head, tag("body", headline, tag("nav", *links), tag("main", *body)), lang="en")
    return f"<!doctype html>\n{whole}\n"
