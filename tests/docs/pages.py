"""The pages of the documentation as tests read them: code blocks with their markers, headings, links, tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"<!-- needs (a cluster|a GPU|the network) -->")
_FENCE = re.compile(r"^\s*(```+)(\w*)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FILE_NAME = re.compile(r"^#\s+(?:file:\s+)?([\w./-]+\.(?:yaml|toml|py|jsonl))\s*$")


def pages() -> list[Path]:
    """Everything that a reader is pointed to."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line of text. needs: what its marker says, if it has one."""

    page: Path
    line: int
    language: str
    text: str
    needs: str | None

    @property
    def file_name(self) -> str | None:
        """The file that the block shows: its first line names it in a comment, `# sft.yaml`."""
        found = _FILE_NAME.match(self.text.partition("\n")[0])
        return found.group(1) if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page; a marker holds for the block that follows it."""
    found: list[Block] = []
    fence, language, start, marker = "", "", 0, None
    held: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        opened = _FENCE.match(line)
        if fence:
            if opened and opened.group(1) == fence:
                found.append(Block(page, start, language, "\n".join(held) + "\n", marker))
                fence, marker = "", None
            else:
                held.append(line)
        elif opened:
            fence, language, start, held = opened.group(1), opened.group(2), number + 1, []
        elif seen := MARKER.fullmatch(line.strip()):
            marker = seen.group(1)
        elif line.strip():
            marker = None  # it stands right before its block, or nowhere
    assert not fence, f"{page}: the block that begins in line {start} has no end"
    return found


def prose(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are in no block, with their numbers."""
    inside, lines = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            lines.append((number, line))
    return lines


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them: a second one of the same text gets -1."""
    found: set[str] = set()
    for _, line in prose(page):
        if heading := re.match(r"#{1,6}\s+(.*)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1))
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            number = 0
            while (name := slug if not number else f"{slug}-{number}") in found:
                number += 1
            found.add(name)
    return found


def links(page: Path) -> list[tuple[int, str]]:
    """Targets of the links of a page, with their lines; code spans are no links."""
    return [(number, target) for number, line in prose(page) for target in _LINK.findall(re.sub(r"`[^`]*`", "", line))]


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, without the line under the head."""
    found: list[list[list[str]]] = []
    before = 0
    for number, line in prose(page):
        if line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            if number != before + 1:
                found.append([])
            before = number
            if not all(re.fullmatch(r":?-{3,}:?", cell) for cell in cells):
                found[-1].append(cells)
    return found
