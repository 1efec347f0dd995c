from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.csrc import emulated


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emulated.build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def kernels(library: Path) -> Iterator[emulated.Kernels]:
    kernels = emulated.Kernels(library)
    yield kernels
    kernels.schedule(0)
