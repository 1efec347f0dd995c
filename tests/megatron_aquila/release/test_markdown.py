"""Whatever a name holds, a card says it and does nothing else; read by another implementation of Markdown and YAML."""

from __future__ import annotations

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from megatron_aquila.release.markdown import code, front_matter, table, text

HOSTILE = [
    "plain-name_v2.1",
    "a | b",
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=y>",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "`` ` ``",
    "**bold** _it_ ~~s~~ $x$ #h",
    "two\nlines\n\n# heading",
    "---\nlicense: mit\n---",
    "https://evil.example www.evil.example me@evil.example",
    "&lt;b&gt; \\ \\| \\`",
    "esc \x1b[31m \u202eabc \x00",
    "键: 值 'x' \"y\"",
]


def _leaves(tokens: list[Token]) -> list[Token]:
    return [leaf for token in tokens for leaf in [token, *(token.children or [])]]


def _parsed(markdown: str) -> list[Token]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return _leaves(parser.parse(markdown))


def _shown(value: str) -> str:
    from data_tools.pages.html import visible

    return visible(" ".join(value.split()))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_name_is_only_shown(value: str) -> None:
    for render in (text, code):
        tokens = _parsed(f"# {render(value)}\n\n{table(('head',), [(render(value),)])}")
        kinds = {token.type for token in tokens}
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "strong_open", "em_open", "s_open", "hr"}
        assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1"]
        said = ["".join(leaf.content for leaf in token.children or []) for token in tokens if token.type == "inline"]
        assert said == [_shown(value), "head", _shown(value)]
        assert "\x1b" not in render(value) and "\n" not in render(value)


def test_bare_addresses_do_not_become_links() -> None:
    """GitHub's dialect links them where no backslash stands in between."""
    assert "https://" not in text("https://evil.example") and "www." not in text("www.evil.example")


@pytest.mark.parametrize("value", HOSTILE)
def test_front_matter_keeps_a_value_in_its_key(value: str) -> None:
    block = front_matter({"name": value, "inner": [{"deep": value}], "none": None, "empty": []})
    lines = block.splitlines()
    assert lines[0] == lines[-1] == "---" and "---" not in lines[1:-1]
    assert yaml.safe_load("\n".join(lines[1:-1])) == {"name": _shown(value), "inner": [{"deep": _shown(value)}]}
