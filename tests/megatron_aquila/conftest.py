"""Data that several files train on; nobody writes there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.megatron_aquila.conversations import build_conversations
from tests.megatron_aquila.corpora import build_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents: see `corpora.py`."""
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dialogues and pairs: see `conversations.py`."""
    return build_conversations(tmp_path_factory.mktemp("conversations"))
