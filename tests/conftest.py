"""What holds for every test."""

from __future__ import annotations

import pytest

from megatron_aquila.launch import visible_gpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none; each may ask for more itself."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not visible_gpus():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
