"""The results as one page of Markdown, with the convention under the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONVENTION = (
    "Tokens are real ones, padding left out. MFU is NVIDIA's convention: 6·(P − embedding) + 12·L·a·s̄ FLOPs a token "
    "over the GPU's dense bf16 peak, where P are the parameters of the layers that were there, s̄ is the token-weighted "
    "mean length of the documents attended to, and attention counts as full, not causal. Recomputation does not count, "
    "nor does the reference pass of DPO. The sizes of a layer are the shape's own; there are as many layers as fit, so "
    "the output layer has a larger share than in the whole model. A step is that many packs of one sequence each, with "
    "clipping and AdamW."
)
_COLUMNS = ("what", "layers", "fill", "tokens/s", "samples/s", "step, s", "TFLOP/s", "MFU", "peak, GiB", "loss")


def render(machine: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> str:
    """`results` by the names of the parts, as `parts.run_parts` gives them."""
    lines = ["# One GPU", ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in machine.items()]
    measured = [found for found in results.values() if found["status"] == "ok" and "tokens_per_second" in found]
    if measured:
        lines += ["", "## Training", "", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
        lines += [_row(_cells(found)) for found in measured]
        first = measured[0]
        lines += [
            "",
            f"Shape {first['shape']}, {first['length']:,} tokens a sequence, {first['micro_batches']} a step, bf16. "
            + CONVENTION,
            "",
            *_speedups(measured),
            "The path of each:",
            "",
            *[f"- {found['name']}: {'; '.join(found['path']) or 'the CPU has one path'}" for found in measured],
        ]
    others = [(name, found) for name, found in results.items() if found["status"] == "ok" and "output" in found]
    for name, found in others:
        lines += ["", f"## {name}", "", "```", *found["output"], "```"]
    missing = [(name, found) for name, found in results.items() if found["status"] != "ok"]
    if missing:
        lines += ["", "## Not measured", ""]
        lines += [f"- {name} ({found['status']}): {_last_line(found['error'])}" for name, found in missing]
    return "\n".join(lines) + "\n"


def _cells(found: Mapping[str, Any]) -> list[str]:
    mfu = "peak unknown" if found["mfu"] is None else f"{found['mfu']:.1%}"
    return [
        found["name"],
        str(found["num_layers"]),
        f"{found['fill']:.1%}",
        f"{found['tokens_per_second']:,.0f}",
        f"{found['samples_per_second']:,.1f}",
        f"{found['step_seconds']:.3f}",
        f"{found['tflops']:,.1f}",
        mfu,
        f"{found['peak_bytes'] / 2**30:.1f}",
        f"{found['first_loss']:.4f} → {found['last_loss']:.4f}",
    ]


def _speedups(measured: list[Mapping[str, Any]]) -> list[str]:
    """Ratios of what differs in one thing only, with as many layers."""
    lines = []
    keys = ("stage", "layers", "fp8", "num_layers")
    by_key = {(*(found[key] for key in keys), found["logits"]): found for found in measured}
    for (*same, logits), found in by_key.items():
        stored = by_key.get((*same, "stored"))
        if logits == "recomputed" and stored is not None:
            speed = found["tokens_per_second"] / stored["tokens_per_second"]
            saved = (stored["peak_bytes"] - found["peak_bytes"]) / 2**30
            lines.append(f"- {found['name']}: {speed:.3f}× the speed of stored logits, {saved:+.2f} GiB of peak saved")
    keys = ("stage", "logits", "num_layers")
    theirs = {tuple(found[key] for key in keys): found for found in measured if found["layers"] != "own"}
    for found in measured:
        other = theirs.get(tuple(found[key] for key in keys))
        if found["layers"] == "own" and other is not None and not other["fp8"]:
            speed = other["tokens_per_second"] / found["tokens_per_second"]
            lines.append(f"- {found['name']}: Transformer Engine's layers have {speed:.3f}× its speed")
    return [*lines, ""] if lines else []


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "it said nothing"
