"""A recipe makes nothing but plain values, and a short one cannot stand for billions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from data_tools.config_files import ConfigFileError, load_model


class Anything(BaseModel):
    a: Any = None
    b: Any = None


def laughs(merge: bool) -> str:
    """Nine levels of ten aliases: ten lines that stand for a billion values."""
    if merge:
        lines = ["l0: &l0 {k: 1}"] + [
            f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 10)
        ]
    else:
        lines = ["l0: &l0 ha"] + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (laughs(merge=False), "its aliases (*name) stand for more than 100,000 values"),
        (laughs(merge=True), "its aliases (*name) stand for more than 100,000 values"),
        ("a: &a [*a]\n", "line 1: an alias (*name) lies within what it stands for"),
        ("b: 1\na: &a\n  c: *a\n", "lies within what it stands for"),
        ("a: " + "[" * 1_000 + "\n", "lie too deep within each other"),
        ("a: " + "x" * (4 << 20) + "\n", "characters; at most"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("a: !!python/name:os.getcwd\n", "could not determine a constructor"),
        ("a: \x1b[2J\n", "not valid YAML"),
    ],
    ids=["laughs", "merged laughs", "itself", "inside itself", "deep", "long", "apply", "name", "control"],
)
def test_a_hostile_recipe_is_refused_at_once(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    begun = time.process_time()
    with pytest.raises(ConfigFileError) as caught:
        load_model(Anything, path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\x1b" not in str(caught.value)
    assert time.process_time() - begun < 20  # a billion values would take hours


def test_a_hostile_override_is_refused() -> None:
    with pytest.raises(ConfigFileError, match="could not determine a constructor"):
        load_model(Anything, None, ["a=!!python/object/apply:os.getcwd []"])


def test_aliases_that_stand_for_little_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a {x: 1}\nb: [*a, {<<: *a, y: 2}]\n", encoding="utf-8")
    assert load_model(Anything, path) == Anything(a={"x": 1}, b=[{"x": 1}, {"x": 1, "y": 2}])
