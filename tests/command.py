"""`aquila` as a user starts it, or in the warm ranks of a world.

A rank there is what torchrun makes of `python -m megatron_aquila`, but for the seconds of its imports. What is about
launchers and processes belongs to `aquila`; what is about what a verb does, to `aquila_in_ranks`.
"""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

from tests.world import world


class Said(NamedTuple):
    """What a command that ended well has printed."""

    stdout: str
    stderr: str


def aquila(*arguments: object) -> Said:
    """Run the command in processes of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "megatron_aquila", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return Said(done.stdout, done.stderr)


def aquila_in_ranks(size: int, *arguments: object) -> Said:
    """Run the command as `size` ranks; what they print, in rank order."""
    ended = world(size, _run, arguments=[str(argument) for argument in arguments])
    for code, stdout, stderr in ended:
        assert code == 0, stderr + stdout
    return Said("".join(stdout for _, stdout, _ in ended), "".join(stderr for _, _, stderr in ended))


def _run(arguments: list[str]) -> tuple[Any, str, str]:
    from megatron_aquila.cli import main

    stdout, stderr = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["aquila", *arguments]), redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            main()
        except SystemExit as end:
            return end.code, stdout.getvalue(), stderr.getvalue()
