"""The index cache: a hostile file is refused before Megatron runs it, one of a killed process is built anew."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.tokenizers import load_tokenizer
from megatron_aquila.datasets.corpus import Corpora
from megatron_aquila.datasets.index_cache import IndexCacheError, check
from tests.megatron_aquila.corpora import recipe
from tests.security.bombs import Bomb
from tests.world import world

WHOLE = np.arange(300, dtype=np.int32)


def written(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version)
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as package:
        package.writestr("a.npy", written(WHOLE))
    return file.getvalue()


def lay_bomb(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb(target)))


def test_the_bomb_of_these_tests_goes_off_where_megatron_opens_it(tmp_path: Path) -> None:
    lay_bomb(tmp_path / "shuffle_index.npy", tmp_path / "ran")
    np.load(tmp_path / "shuffle_index.npy", allow_pickle=True, mmap_mode="r")  # as gpt_dataset.py does
    assert (tmp_path / "ran").exists()


def test_training_refuses_a_pickle_in_the_cache_and_does_not_run_it(corpus: Path, tmp_path: Path) -> None:
    run = recipe(corpus, tmp_path / "run")
    corpora = Corpora(run, load_tokenizer(corpus / "tokenizer"))
    lay_bomb(run.cache_directory / corpora.digest[:16] / "0-GPTDataset-train-shuffle_index.npy", tmp_path / "ran")
    with pytest.raises(IndexCacheError, match=r"shuffle_index\.npy does not begin as an array of numpy does"):
        corpora.build()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: written(np.array([{"a": 1}], dtype=object)), "holds Python objects"),
        (lambda: written(np.zeros(3, dtype=[("a", "O")])), "holds Python objects"),
        (lambda: written(np.zeros(3)), "holds float64, not whole numbers"),
        (zipped, "does not begin as an array"),
        (lambda: b"#!/bin/sh\n", "does not begin as an array"),
        (lambda: written(WHOLE) + pickle.dumps([1]), "bytes behind its array"),
        (lambda: written(WHOLE, (3, 0)), r"format version \(3, 0\)"),
        (lambda: written(WHOLE).replace(b"'descr'", b"__imp__"), "header that cannot be read"),
    ],
    ids=["objects", "objects in fields", "floats", "zip", "script", "tail", "version", "header"],
)
def test_what_is_no_plain_array_of_integers_is_refused(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    path = tmp_path / "document_index.npy"
    path.write_bytes(content())
    with pytest.raises(IndexCacheError, match=reason):
        check(tmp_path, repair=True)
    assert path.exists()  # for whoever looks into it


@pytest.mark.parametrize("length", [0, 3, 6, 9, 40, 128, len(written(WHOLE)) - 1])
def test_a_cut_off_file_is_removed_by_one_rank_alone(tmp_path: Path, length: int) -> None:
    (tmp_path / "whole.npy").write_bytes(written(WHOLE))
    cut = tmp_path / "cut.npy"
    cut.write_bytes(written(WHOLE)[:length])
    assert check(tmp_path, repair=False) == [cut]
    assert cut.exists()
    assert check(tmp_path, repair=True) == [cut]
    assert not cut.exists()
    assert check(tmp_path, repair=True) == []


def test_no_folder_is_no_fault(tmp_path: Path) -> None:
    assert check(tmp_path / "cache", repair=True) == []


def rows(*, corpus: str, output: str) -> list[list[int]]:
    """The tokens of the first rows, as this rank has them."""
    from megatron_aquila.engine.device import choose_device
    from megatron_aquila.engine.parallel import parallel_world

    run = recipe(Path(corpus), Path(output))
    with parallel_world(run, choose_device("cpu")):
        train, _ = Corpora(run, load_tokenizer(run.data.tokenizer)).build()
        return [train[row]["tokens"].tolist() for row in range(12)]


def test_a_cache_that_a_killed_process_left_is_built_anew_for_every_rank(corpus: Path, tmp_path: Path) -> None:
    first = world(2, rows, corpus=str(corpus), output=str(tmp_path))
    found = sorted((tmp_path / "cache").rglob("*.npy"))
    before = [path.read_bytes() for path in found]
    assert any("Blended" in path.name for path in found)
    for path, content in zip(found, before):
        path.write_bytes(content[: len(content) // 2])
    assert world(2, rows, corpus=str(corpus), output=str(tmp_path)) == first
    assert [path.read_bytes() for path in found] == before
