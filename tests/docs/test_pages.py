"""Links lead somewhere, the reference is the code's, and the Chinese README says what the English one says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from megatron_aquila.config_reference import _sections, meanings, reference_page, roots
from tests.docs.pages import ROOT, Block, anchors, blocks, links, pages, prose, tables

REFERENCE = ROOT / "docs/recipe_reference.md"
PAIR = (ROOT / "README.md", ROOT / "README.zh.md")


def test_every_link_leads_to_a_page_and_a_heading() -> None:
    broken = []
    for page in pages():
        for line, target in links(page):
            if re.match(r"https?://|mailto:", target):
                continue
            path, _, fragment = target.partition("#")
            other = (page.parent / path).resolve() if path else page
            if not other.exists() or (fragment and other.suffix == ".md" and fragment not in anchors(other)):
                broken.append(f"{page.relative_to(ROOT)}:{line}: {target}")
    assert not broken, "\n".join(broken)


def test_every_page_is_linked_to() -> None:
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in pages() for _, target in links(page)}
    assert [page.name for page in pages() if page not in linked and page.name != "README.md"] == []


def test_recipes_that_are_named_are_there() -> None:
    named = {
        name for page in pages() for _, line in prose(page) for name in re.findall(r"`(recipes/[\w/.-]+\.\w+)`", line)
    }
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_anchors_are_githubs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b_c`, d: e.f\n## Same\n## Same\n```sh\n# no heading\n```\n### [Link](x.md) 中文\n", "utf-8")
    assert anchors(page) == {"a-b_c-d-ef", "same", "same-1", "link-中文"}


def test_the_reference_is_that_of_the_code() -> None:
    """After a change of a recipe's key: `aquila config reference > docs/recipe_reference.md`."""
    assert REFERENCE.read_text(encoding="utf-8") == reference_page()


def test_every_key_has_a_meaning_and_stands_in_the_reference() -> None:
    rows = [line.split(" | ")[0] for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    seen: set[type] = set()
    for root in roots():
        for model in _sections(root.model, seen):
            for name, meaning in meanings(model).items():
                assert meaning.strip(), f"{model.__name__}.{name}: say in the source what it means"
                assert f"| `{name}`" in rows
    assert len(seen) > 40


def test_figures_of_the_reference_by_hand() -> None:
    """Each kind of source of a meaning, each kind of type, a bound, a default."""
    page = reference_page()
    for row in (
        "| `steps` | integer above 0 or null | `null` | optimizer steps; give this, tokens or epochs |",  # description
        "| `temperature` | number from 0 or null | `null` | None: not sent, the server's own. The same for `top_p` and "
        "`seed`. |",  # the string below
        "| `eod` | text or null | `null` | the token that ends a document, where not the tokenizer's own |",  # above
        '| `sharding` | `none`, `optimizer`, `full` | `"optimizer"` |',
        "| `betas` | [number from 0 below 1, number from 0 below 1] | `[0.9, 0.95]` |",
        "| `train` | list of [Training: data.train](#training-datatrain) | **required** |",
    ):
        assert row in page


# -- two languages -----------------------------------------------------------------------------------------------


def _comparable(block: Block) -> str:
    """A block without its comments: these are in the page's language."""
    lines = (re.sub(r"\s*(?:#|<!--).*", "", line) for line in block.text.splitlines())
    return "\n".join(line for line in lines if line.strip())


def test_the_chinese_readme_has_the_same_commands() -> None:
    english, chinese = ([(block.language, block.needs, _comparable(block)) for block in blocks(page)] for page in PAIR)
    assert chinese == english


def test_the_chinese_readme_has_the_same_figures_and_links() -> None:
    english, chinese = ([_figures(cell) for table in tables(page) for row in table for cell in row] for page in PAIR)
    assert chinese == english
    targets = [[target for _, target in links(page) if not target.startswith("README")] for page in PAIR]
    assert targets[0] == targets[1]
    prose_figures = [sorted(_figures(" ".join(line for _, line in prose(page)))) for page in PAIR]
    assert prose_figures[0] == prose_figures[1]


def _figures(text: str) -> list[str]:
    """Numbers, as the reader sees them; not those of names such as `cpt_stage1`."""
    return re.findall(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d(?![\w.])", re.sub(r"`[^`]*`|\]\([^)]*\)", "", text))


def test_a_figure_that_differs_is_seen() -> None:
    assert _figures("12 to 20 minutes, 2,120 s, TP=2, 96.9 %") == ["12", "20", "2,120", "2", "96.9"]
    assert _figures("`x=3` and stage1") == []


@pytest.mark.parametrize("page", PAIR, ids=["English", "Chinese"])
def test_the_readmes_name_each_other(page: Path) -> None:
    other = PAIR[1] if page == PAIR[0] else PAIR[0]
    assert other.name in [target for _, target in links(page)]
