"""What every stage must bring."""

from __future__ import annotations

from typing import Any

import pytest

from megatron_aquila.stages import Stage


def test_an_unfinished_stage_names_what_it_lacks() -> None:
    """When it is made, not in the middle of a run."""

    class Unfinished(Stage):
        def __init__(self, run: Any) -> None:
            self.run = run

        def datasets(self) -> Any:
            return self.run, None

    with pytest.raises(TypeError, match=r"Unfinished.*collate.*digest.*loss"):
        Unfinished(None)  # type: ignore[abstract]
