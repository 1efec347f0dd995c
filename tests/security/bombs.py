"""A pickle that shows whether somebody has unpickled it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Bomb:
    """Whoever unpickles it makes an empty file `target`."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
