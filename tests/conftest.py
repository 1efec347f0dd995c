"""The suite in several processes: `pytest -n auto --dist loadgroup --no-loadscope-reorder`, as `make test` says.

A file stays in one process, and with it what its tests share: data and models; all files that make worlds of ranks stay
in the same one. The files that take longest come first, so that no process is left alone with one of them at the end.
Without `-n` nothing of this applies.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent
# Each held by one process for half a minute or more; by time, the longest first.
LONGEST = (
    "megatron_aquila/test_resume.py",
    "megatron_aquila/engine/test_layouts.py",
    "megatron_aquila/test_conversations.py",
    "megatron_aquila/test_trl_agreement.py",
    "data_tools/corpus/test_run.py",
    "end_to_end/test_road.py",
    "megatron_aquila/test_demo.py",
    "megatron_aquila/test_questions_in_training.py",
    "megatron_aquila/test_reference_logps.py",
    "benchmarks/test_training_benchmark.py",
)
MEMORY = 2 << 30  # bytes for a process of the suite and its four ranks


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports torch: as many processes as cores leave one thread to each."""
    absent = [file for file in LONGEST if not (ROOT / file).is_file()]
    if absent:
        raise pytest.UsageError(f"tests/conftest.py: LONGEST names what is not there: {', '.join(absent)}")
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """`-n auto`: the cores that this process may use, as far as memory goes."""
    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file stays in one process; all files that make worlds of ranks stay in the same one, and begin: two worlds at
    a time on few cores wait for each other's ranks, and take many times as long as one after the other.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = {ROOT / file: position for position, file in enumerate(LONGEST)}
        ranks = {path: _makes_worlds(path) for path in {item.path for item in items}}
        for item in items:
            item.add_marker(pytest.mark.xdist_group("ranks" if ranks[item.path] else str(item.path)))
        items.sort(key=lambda item: (not ranks[item.path], place.get(item.path, len(place))))  # stable


def _makes_worlds(path: Path) -> bool:
    source = path.read_text(encoding="utf-8")
    return "tests.world import" in source or "aquila_in_ranks" in source
