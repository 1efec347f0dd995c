"""Markdown and YAML that untrusted text cannot act on: names of runs, files, tasks and judges come from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from data_tools.pages.html import visible

# What CommonMark and GitHub's dialect could act on within a line; `:`, `.` and `@` make links of bare addresses.
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&:.@^])")


class Markdown(str):
    """Markdown, ready as it stands; every other `str` that enters a table is text."""

    __slots__ = ()


def one_line(text: object) -> str:
    """The text on one line, with controls shown as pictures."""
    return visible(" ".join(str(text).split()))


def text(value: object) -> Markdown:
    """Text that stays text: no link, no tag, no emphasis, no end of the table's cell."""
    return Markdown(_ACTIVE.sub(r"\\\1", one_line(value)))


def code(value: object) -> Markdown:
    """Text in a code span, for names and digests; safe in a table's cell."""
    content = one_line(value)
    if not content:
        return Markdown("")
    if "|" in content or "\\" in content:  # in a cell `|` wants a backslash, which outside would be seen
        return text(content)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    padding = " " if "`" in content else ""
    return Markdown(f"{fence}{padding}{content}{padding}{fence}")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> str:
    """A table; the columns `right` are aligned to the right. Cells that are not `Markdown` are text."""
    numbers = set(right)
    rules = ["--:" if column in numbers else "---" for column in range(len(headings))]
    lines = [_row(map(Markdown, headings)), _row(map(Markdown, rules)), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(cell if isinstance(cell, Markdown) else text(cell) for cell in cells)} |"


def front_matter(fields: Mapping[str, Any]) -> str:
    """The YAML block that a card of the Hub begins with; keys without a value are left out."""
    given = {key: _safe(value) for key, value in fields.items() if value not in (None, [], {}, "")}
    body = yaml.safe_dump(given, allow_unicode=True, sort_keys=False, width=10**6)
    return f"---\n{body}---\n"


def _safe(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _safe(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(inner) for inner in value]
    return one_line(value) if isinstance(value, str) else value
