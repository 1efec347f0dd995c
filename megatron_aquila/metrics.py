"""What a run logs, and where: a JSONL file and TensorBoard always, a line on the terminal.

Names: `train/loss` and `validation/loss` are means per supervised token in nats, or per pair in dpo, whose other
metrics bear TRL's names (`train/rewards/margins`). `questions/NAME/accuracy` and `questions/NAME/probability` (what the
right option has of the options' probability) are means over a question set. `throughput/tokens_per_second` counts the
real tokens of the world, padding left out, `throughput/pairs_per_second` (dialogues, sequences) the samples,
`throughput/step_seconds` is the mean over the steps since the last report, `throughput/fill` the share of the computed
tokens that are real. `throughput/mfu` is the share of `peak_tflops` of all devices that real tokens used, in NVIDIA's
convention: 6·(P − embedding) + 12·L·a·s̄ FLOPs a token, s̄ the token-weighted mean length of the documents attended to.
Attention counts as full, not causal; recomputation does not count, nor does the reference pass of dpo.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from megatron_aquila.config import RunConfig

from megatron_aquila.gpus import peak_of

FILE = "metrics.jsonl"


class Sink(Protocol):
    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object a step, flushed at once: what a report or a test reads."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Append to `path`, dropping what an interrupted run logged beyond `last_step`; all of it at step 0."""
        kept = [line for line in complete_lines(path) if last_step and json.loads(line)["step"] <= last_step]
        partial = path.with_suffix(".tmp")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, float]) -> None:
        # JSON has no NaN: what is not finite is logged as null
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Scalars under the same names, and steps."""

    def __init__(self, directory: Path, last_step: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=last_step + 1 if last_step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class ProgressLine:
    """One line on the terminal a report."""

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._width = len(str(total_steps))

    def write(self, step: int, values: dict[str, float]) -> None:
        head = f"step {step:>{self._width}}/{self._total}"
        if "train/loss" not in values:
            if "validation/loss" not in values:  # questions: they say more than a number, and for themselves
                return
            loss = values["validation/loss"]
            extra = _preference(values, "validation") or [f"perplexity {math.exp(min(loss, 700)):.2f}"]
            print("  ".join([head, f"validation loss {loss:.4f}", *extra]), flush=True)
            return
        parts = [
            head,
            f"loss {values['train/loss']:.4f}",
            *_preference(values, "train"),
            f"lr {values['train/lr']:.3g}",
            f"grad norm {values['train/grad_norm']:.3f}",
            f"{values['throughput/tokens_per_second']:,.0f} tokens/s",
        ]
        if "throughput/mfu" in values:
            parts.append(f"MFU {values['throughput/mfu']:.1%}")
        parts.append(f"{values['memory/peak_gib']:.2f} GiB")
        print("  ".join(parts), flush=True)

    def close(self) -> None: ...


def _preference(values: dict[str, float], part: str) -> list[str]:
    """Margin and accuracy, where the stage has pairs."""
    if f"{part}/rewards/margins" not in values:
        return []
    margin, accuracy = values[f"{part}/rewards/margins"], values[f"{part}/rewards/accuracies"]
    return [f"margin {margin:.4f}", f"accuracy {accuracy:.1%}"]


def open_sinks(run: RunConfig, last_step: int, total_steps: int) -> list[Sink]:
    """Where a run's metrics go, from after `last_step` on."""
    sinks: list[Sink] = [JsonLines(run.output / FILE, last_step), ProgressLine(total_steps)]
    if run.logging.tensorboard:
        sinks.append(TensorBoard(run.output / "tensorboard", last_step))
    return sinks


class Throughput:
    """Samples, tokens and FLOPs since the last report, as rates over wall time."""

    def __init__(self, peak_tflops: float | None, devices: int, sample_name: str) -> None:
        self._peak = peak_tflops * 1e12 * devices if peak_tflops else None
        self._sample_name = sample_name
        self._samples = self._tokens = self._computed = self._flops = 0.0
        self._steps = 0
        self._started = self._last = time.perf_counter()

    def add(self, samples: float, tokens: float, computed: float, flops: float) -> None:
        """Count a step; `computed` are its tokens with the padding."""
        self._steps += 1
        self._samples += samples
        self._tokens += tokens
        self._computed += computed
        self._flops += flops
        self._last = time.perf_counter()

    def report(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = now - self._started
        rates = {
            "throughput/tokens_per_second": self._tokens / seconds,
            f"throughput/{self._sample_name}_per_second": self._samples / seconds,
            "throughput/fill": self._tokens / self._computed,
            "throughput/step_seconds": seconds / self._steps,
        }
        if self._peak:
            rates["throughput/mfu"] = self._flops / seconds / self._peak
        self._samples = self._tokens = self._computed = self._flops = 0.0
        self._steps = 0
        self._started = self._last = now
        return rates

    def restart(self) -> None:
        """Leave the time since the last step out: it was spent on evaluation or saving."""
        now = time.perf_counter()
        self._started += now - self._last
        self._last = now


def peak_tflops(configured: float | None, device: Any) -> float | None:
    """Peak of one device in TFLOP/s: as configured, or looked up by the GPU's name; None where unknown."""
    if configured is not None or device.type != "cuda":
        return configured
    import torch

    return peak_of(torch.cuda.get_device_name(device))


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file, without a half-written last line."""
    return [json.loads(line) for line in complete_lines(path)]


def complete_lines(path: Path) -> list[str]:
    """The lines of a file that a process may have been killed in the middle of writing; none where there is no file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
