"""The files of the repository, as git lists them: tracked, and new ones that it does not ignore."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _listed() -> tuple[Path, ...]:
    if not (ROOT / ".git").exists():  # an unpacked archive
        hidden = {"build", "runs", "demo", "__pycache__"}
        return tuple(
            path
            for path in sorted(ROOT.rglob("*"))
            if path.is_file()
            and not any(part in hidden or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
        )
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return tuple(ROOT / name for name in sorted(set(found)) if name and (ROOT / name).is_file())


def tracked(*suffixes: str) -> list[Path]:
    """Those whose names end in one of `suffixes`; all without."""
    return [path for path in _listed() if not suffixes or path.suffix in suffixes]
