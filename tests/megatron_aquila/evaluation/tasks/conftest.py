"""All sets, published small, fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron_aquila.evaluation.tasks.fetch import fetch
from tests.megatron_aquila.evaluation.tasks import published


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with every set of questions, four or five rows a subject."""
    source, target = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("evaluation")
    published.mmlu(source / "mmlu", lambda subject: 4)
    published.ceval(source / "ceval", lambda subject: 4)
    published.cmmlu(source / "cmmlu", lambda subject: 4)
    published.medqa(source / "medqa", 5, 9)
    published.medmcqa(source / "medmcqa", 6, 9)
    published.pubmedqa(source / "pubmedqa", 40, 12)
    published.cmb_exam(source / "cmb_exam", 8, 8)
    published.clinic(source / "clinic")
    for folder in sorted(source.iterdir()):
        base = 0 if folder.name == "medmcqa" else None  # its few numbers leave it open
        fetch(folder.name, str(folder), target, any_rows=folder.name != "clinic", cop_base=base)
    return target
