"""A recipe over another: whose keys count, and whose line an error names."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from data_tools.config_files import ConfigFileError, load_model


class Corpus(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str
    weight: float = 1.0


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lr: float
    steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    train: tuple[Corpus, ...] = ()


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    part: Section


def write(folder: Path, **files: str) -> Path:
    """The first of `files`; `__` in a name stands for a folder."""
    paths = []
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths[0]


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigFileError) as caught:
        load_model(Whole, path, overrides)
    return str(caught.value)


BASE = "name: base\npart:\n  lr: 1e-4\n  steps: 10\n  betas: [0.8, 0.9]\n  train: [{path: a, weight: 2}, {path: b}]\n"


def test_mappings_merge_and_the_rest_replaces(tmp_path: Path) -> None:
    own = "base: ../base.yaml\nname: own\npart: {steps: 20, betas: [0.1, 0.2], train: [{path: c}]}\n"
    whole = load_model(Whole, write(tmp_path, deep__own=own, base=BASE), ["part.lr=3"])
    assert whole.model_dump() == {
        "name": "own",
        "part": {"lr": 3.0, "steps": 20, "betas": (0.1, 0.2), "train": ({"path": "c", "weight": 1.0},)},
    }


def test_null_replaces_and_chains_are_laid_in_order(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        one="base: a/two.yaml\npart: {lr: 1}\n",
        a__two="base: ../b/three.yaml\nname: two\npart: {lr: 2, steps:}\n",
        b__three=BASE,
    )
    whole = load_model(Whole, first)
    assert (whole.name, whole.part.lr, whole.part.steps, whole.part.betas) == ("two", 1.0, None, (0.8, 0.9))


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ("part: {steps: x}\n", "own.yaml:2: part.steps"),
        ("part: {lr: 1}\n", "base.yaml:4: part.steps"),  # shows through
        ("part:\n  lr: 1\n  step: 2\n", "own.yaml:4: part.step is unknown"),
    ],
)
def test_an_error_names_the_file_that_the_key_comes_from(tmp_path: Path, own: str, place: str) -> None:
    path = write(tmp_path, own="base: base.yaml\n" + own, base=BASE.replace("steps: 10", "steps: much"))
    assert f"{tmp_path / place}" in refused(path)


def test_nothing_of_a_base_shows_through_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, own="base: base.yaml\npart:\n  train:\n    - {weight: 1}\n", base=BASE)
    assert refused(path) == f"{tmp_path / 'own.yaml'}:4: part.train.0.path is required"


def test_a_key_that_no_layer_has_is_asked_of_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, own="base: base.yaml\npart: {}\n", base="name: a\npart: {steps: 1}\n")
    assert refused(path) == f"{tmp_path / 'own.yaml'}:2: part.lr is required"


def secret() -> str:
    return "hf_" + "a1" * 10


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a": "base: b.yaml\n", "b": "x: 1\nbase: a.yaml\n"}, "b.yaml:2: base goes in a circle: "),
        ({"a": "base: a.yaml\n"}, "a.yaml:1: base goes in a circle: "),
        ({"a": "name: x\nbase: none.yaml\n"}, "a.yaml:2: base: "),
        ({"a": "base: [b.yaml]\n"}, "a.yaml:1: base is ['b.yaml']; it must be the path of another recipe"),
        ({"a": "base: b.yaml\n", "b": "- 1\n"}, "b.yaml does not hold a mapping"),
        ({"a": "base: b.yaml\n", "b": "x: 1\nx: 2\n"}, "b.yaml: line 2: key 'x' was already given in line 1"),
        ({"a": "base: b.yaml\n", "b": f"name: {secret()}\n"}, "b.yaml:1: name looks like a secret"),
    ],
)
def test_what_cannot_be_a_base(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    assert str(tmp_path / sentence) in refused(write(tmp_path, **files))
