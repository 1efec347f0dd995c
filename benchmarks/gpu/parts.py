"""The parts of a run, each by itself: what one leaves behind is a file, and one that fails stops no other.

A part is a command in a process of its own, so that a crash, a hang or memory that is not given back stays there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.case import OUT_OF_MEMORY, RESULT, Case

ROOT = Path(__file__).parents[2]
_FALL = 8  # a case that does not fit has an eighth fewer layers the next time
_TRIES = 3


@dataclass(frozen=True)
class Part:
    """name: of its file. run: what it does, given the seconds it may take; returns what is kept of it, as JSON."""

    name: str
    run: Callable[[float], dict[str, Any]]
    seconds: float  # at most; less than this is not begun


class PartError(RuntimeError):
    """A part failed; the message is what it said last."""


def run_parts(
    parts: Sequence[Part], folder: Path, budget: float, after: Callable[[dict[str, dict[str, Any]]], None]
) -> dict[str, dict[str, Any]]:
    """Run what `folder` does not hold yet, within `budget` seconds; what each part gave, by name.

    A part has `status` ok, failed (with `error`) or not run (with `error`). One that is ok is not run again. `after` is
    called after each with what there is so far, so that an interrupted run leaves that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    for part in parts:
        path = folder / f"{part.name}.json"
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept["status"] == "ok":
                results[part.name] = kept
                after(results)
                continue
        left = budget - (time.monotonic() - began)
        if left < min(part.seconds, 60):
            results[part.name] = {"status": "not run", "error": "no time was left: run the same command again"}
            after(results)
            continue
        print(f"{part.name}: begun, {left:.0f} s left", flush=True)
        started = time.monotonic()
        try:
            found = {"status": "ok", **part.run(min(part.seconds, left))}
        except PartError as error:
            found = {"status": "failed", "error": str(error)}
        found["seconds_taken"] = time.monotonic() - started
        partial = path.with_suffix(".tmp")
        partial.write_text(json.dumps(found, indent=2))
        partial.replace(path)
        error = found.get("error", "")[-400:]
        print(f"{part.name}: {found['status']} after {found['seconds_taken']:.0f} s {error}", flush=True)
        results[part.name] = found
        after(results)
    return results


def command_part(name: str, arguments: Sequence[str], log: Path, seconds: float) -> Part:
    """A Python module or script, whose output goes to `log`; its last lines are kept."""

    def run(most: float) -> dict[str, Any]:
        output = _process([sys.executable, *arguments], most)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(output)
        return {"output": output.splitlines()[-20:], "log": log.name}

    return Part(name, run, seconds)


def case_part(case: Case, layers: dict[str, int], *, apart: bool) -> Part:
    """One measured case. `layers` holds how many fitted so far: all cases are measured with as many if they can be.

    apart: in a process of its own; else here, for tiny cases, which fail in no other way than by an exception.
    """

    def run(most: float) -> dict[str, Any]:
        until = time.monotonic() + most
        wanted = replace(case, num_layers=case.num_layers or layers.get("fit"))
        for _ in range(_TRIES):
            try:
                found = _apart(wanted, until - time.monotonic()) if apart else _here(wanted)
            except _OutOfMemory as error:
                if wanted.num_layers is None:
                    raise PartError(f"out of memory: {error}") from error
                wanted = replace(wanted, num_layers=wanted.num_layers - max(1, wanted.num_layers // _FALL))
                continue
            layers.setdefault("fit", found["num_layers"])
            return found
        raise PartError(f"out of memory with {wanted.num_layers} layers too")

    return Part(f"train-{_slug(case.name)}", run, 420.0)


class _OutOfMemory(RuntimeError):
    pass


def _here(case: Case) -> dict[str, Any]:
    from benchmarks.gpu.measure import measure  # Megatron's import takes seconds

    return measure(case)


def _apart(case: Case, most: float) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu.measure", json.dumps(asdict(case))]
    lines = [line for line in _process(command, most).splitlines() if line.startswith(RESULT)]
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(RESULT))
    return found


def _process(command: Sequence[str], most: float) -> str:
    environment = os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    try:
        finished = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=most,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        raise PartError(f"not done after {most:.0f} s; it said last: {said[-1500:]}") from None
    if finished.returncode == OUT_OF_MEMORY:
        raise _OutOfMemory(finished.stdout[-500:])
    if finished.returncode:
        raise PartError(f"exit code {finished.returncode}: {finished.stdout.strip()[-3000:]}")
    return finished.stdout


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")
