"""The rules of docs/architecture.md hold in the code, and what it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT, prose, tables

PAGE = ROOT / "docs/architecture.md"


@cache
def imports(path: Path, *, at_the_top: bool = False) -> frozenset[str]:
    """The top packages that a file imports, and modules of ours in full; those under TYPE_CHECKING are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_the_top else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_data_tools_know_nothing_of_training() -> None:
    assert not [path for path in files("data_tools") if "megatron_aquila" in imports(path)]
    assert not [path for path in files("data_tools") if "torch" in imports(path)], (
        "it is loaded by name, when it is used"
    )


def test_megatron_is_met_in_one_place() -> None:
    elsewhere = [
        str(path.relative_to(ROOT / "megatron_aquila"))
        for path in files("megatron_aquila")
        if "megatron" in imports(path) and "engine" not in path.parts
    ]
    assert [path for path in elsewhere if path != "doctor.py"] == ["datasets/corpus.py"]


def test_losses_are_pure_and_the_plan_needs_no_torch() -> None:
    assert {name for path in files("megatron_aquila/losses") for name in imports(path)} <= {"__future__", "torch"}
    heavy = {"torch", "megatron"}
    assert not [path for path in files("megatron_aquila/plan") if imports(path, at_the_top=True) & heavy]
    fronts = [ROOT / "megatron_aquila/cli.py", *sorted((ROOT / "megatron_aquila").glob("cli_*.py"))]
    assert not [path for path in fronts if imports(path, at_the_top=True) & heavy]


def test_every_package_is_in_the_table() -> None:
    rows = next(table for table in tables(PAGE) if table[0][0] == "package")
    named = {name for row in rows[1:] for name in re.findall(r"`([\w/]+)/`", row[0])}
    there = {f"megatron_aquila/{path.parent.name}" for path in (ROOT / "megatron_aquila").glob("*/__init__.py")}
    assert named == there | {"data_tools"}


def test_every_file_that_is_named_is_there() -> None:
    named = {name for _, line in prose(PAGE) for name in re.findall(r"`((?:[\w]+/)*\w+\.py)`", line)}
    missing = [
        name
        for name in sorted(named)
        if not any(
            (ROOT / folder / name).is_file()
            for folder in (".", "data_tools", "megatron_aquila", "megatron_aquila/datasets")
        )
    ]
    assert not missing and len(named) > 10
